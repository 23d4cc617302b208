"""How well masked CSI, location, occupancy and spectrum of unseen scenes are filled in, beside simple predictors."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.data.directions import angle_between, direction_of_bin, strongest_direction
from wavecity.model.data.tokens import unpatchify
from wavecity.model.data.users import Users, WirelessData, gather
from wavecity.model.learning.baselines import (
    Lmmse,
    average_precision,
    best_f1,
    f1,
    nearest_neighbours,
    neighbour_mean,
    nmse,
    omp,
    visible_antennas,
)
from wavecity.model.multimodal.attention_maps import attention_on_scene
from wavecity.model.multimodal.inference import Predictions, Predictor, top_k_hits
from wavecity.model.multimodal.inputs import prepare
from wavecity.model.multimodal.losses import coarse_spectrum, spectrum
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.results.table import Findings, Row, decibel, median_error, records_of
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.held_out import TITLES, loss_rows


def reconstruction(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Evaluate all four reconstruction terms on the test split."""
    test = gather(data.splits["test"], settings.max_users)
    train = gather(data.splits["train"], settings.max_users)
    validation = gather(data.splits["validation"], settings.max_users)
    rows: list[Row] = []
    arrays: dict[str, Any] = {}
    lmmse = Lmmse(train.csi, validation.csi)
    spacing = float(data.attributes.get("array", {}).get("spacing_wavelengths", 0.5))
    for ratio in settings.masks:
        visible = predictor.visible_patches(ratio, seed)
        found, drawn = _at_ratio(
            predictor, test, train, lmmse, visible, settings, spacing, f"{ratio:g} of the CSI masked"
        )
        rows += found
        arrays = drawn
    facts: dict[str, Any] = {
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "train_users": len(train),
        "mask_leak_check": _leak_check(predictor, test, settings, seed),
    }
    prior = occupancy_prior(data)
    losses = loss_rows(predictor, test, train, prior, settings, seed)
    if data.scenes.occupancy[test.scene.unique()].any():
        occupancy_rows, facts["occupancy_threshold"] = _occupancy(predictor, test, validation, prior, settings)
        rows += occupancy_rows + losses
    else:
        facts["not possible: occupancy"] = "no patch of the test scenes is built; give maps with buildings"
        rows += [row for row in losses if row.quantity != TITLES["occupancy"]]
        # What is drawn of it shows nothing either.
        settings = settings.model_copy(update={"spectra_shown": 0})
    arrays |= {**_shown(predictor, test, settings), "spacing": np.array(spacing)}
    return Findings(records_of(rows, seed, len(test)), facts, arrays)


def _at_ratio(
    predictor: Predictor,
    test: Users,
    train: Users,
    lmmse: Lmmse,
    visible: Tensor,
    settings: EvaluationSettings,
    spacing: float,
    condition: str,
) -> tuple[list[Row], dict[str, Any]]:
    """CSI, spectrum and location at one CSI mask; the scene is seen, the location is not."""
    geometry, patch = predictor.model.geometry, predictor.settings.model.csi_patch
    shown = visible_antennas(visible, geometry.columns, geometry.rows, patch)
    predictions = predictor.predict(test, visible)
    pursued, pursued_power = omp(test.csi, shown, settings.omp_atoms)
    simple = {f"OMP, {settings.omp_atoms} paths": pursued, "LMMSE": lmmse(test.csi, shown)}
    model = predictor.settings.model
    if model.profile == "wavecity" or shown.sum() <= model.recovery_antennas:
        # The strongest, and the estimator of profile `wavecity` without training: what is learned shows beside it only. Its
        # cost grows with the cube of the visible antennas.
        simple["sparse Bayesian learning"] = sparse_bayesian(test.csi, shown)
    rows: list[Row] = []
    if predictions.csi is not None:
        estimates = {"model": predictions.csi, **simple, "zeros": torch.zeros_like(test.csi)}
        errors = {name: decibel(float(nmse(value, test.csi, ~shown).mean())) for name, value in estimates.items()}
        rows.append(Row("Masked CSI, normalised squared error", condition, "dB", "lower", errors))
    angles = _angles(predictions, test, shown, simple, spacing)
    rows.append(Row("Angle of the strongest path, mean error", condition, "°", "lower", angles))

    size = predictions.spectrum.shape[-1]
    zero_filled = spectrum(_zero_filled(test.csi, shown))
    truth = coarse_spectrum(spectrum(_unit(test.csi)), size)
    label = truth.flatten(1).argmax(1)
    spectra = {
        "model": predictions.spectrum,
        "zero-filled DFT": coarse_spectrum(zero_filled, size),
        f"OMP, {settings.omp_atoms} paths": coarse_spectrum(pursued_power, size),
    }
    for k in (1, 5):
        hits = {name: 100 * top_k_hits(value.flatten(1), label, k) for name, value in spectra.items()}
        rows.append(Row(f"Strongest direction of the spectrum, top {k}", condition, "%", "higher", hits))

    if predictions.location is not None:
        places = {
            "model": predictions.location,
            "kNN on |DFT| of training scenes": nearest_neighbours(
                fingerprint(train.csi, shown), train.position, fingerprint(test.csi, shown)
            ),
            "mean of training users": train.position.mean(0).expand(len(test), -1),
        }
        errors = {name: median_error(value, test.position) for name, value in places.items()}
        rows.append(Row("Hidden location, median error", condition, "m", "lower", errors))

    picked = _picked(test, settings)
    raw = predictions.spectrum[picked]
    kl = predictor.settings.losses.spectrum_form == "kl"
    shares = raw.flatten(1).softmax(-1).view_as(raw) if kl else torch.nn.functional.softplus(raw)
    drawn = {
        "spectrum_true": truth[picked].numpy(),
        "spectrum_model": coarse_spectrum(shares, size).numpy(),
        "spectrum_zero_filled": spectra["zero-filled DFT"][picked].numpy(),
        "spectrum_users": np.array([f"{predictor_name(test, index)}" for index in picked]),
        "spectrum_scene": test.scene[picked].numpy(),
        "spectrum_position": test.position[picked].numpy(),
        "spectrum_condition": np.array(condition),
        "location_true": test.position.numpy(),
        "location_model": np.zeros((0, 2)) if predictions.location is None else predictions.location.numpy(),
        "location_scene": test.scene.numpy(),
    }
    return rows, drawn


def _picked(users: Users, settings: EvaluationSettings) -> NDArray[np.int64]:
    """Users that the report shows, spread over the scenes."""
    return np.unique(np.linspace(0, len(users) - 1, settings.spectra_shown).round().astype(np.int64))


def predictor_name(users: Users, index: int) -> str:
    """Label of a user in a figure: distance and kind of link."""
    kind = "LoS" if bool(users.los[index]) else "NLoS"
    return f"{float(users.position[index].norm()):.0f} m, {kind}"


def _angles(
    predictions: Predictions, test: Users, shown: Tensor, simple: dict[str, Tensor], spacing: float
) -> dict[str, float]:
    """Mean angle in degrees between the strongest direction of the whole CSI and that of what fills in the masked part."""
    zero = torch.zeros((), dtype=test.csi.dtype)
    channels = {**simple, "zero-filled DFT": torch.where(shown, test.csi, zero)}
    if predictions.csi is not None:
        channels = {"model, filled CSI": torch.where(shown, test.csi, predictions.csi), **channels}
    directions = {name: strongest_direction(value, spacing) for name, value in channels.items()}
    if predictions.spectrum.shape[-2:] == test.csi.shape[-2:]:
        directions = {"model, spectrum": direction_of_bin(predictions.spectrum, spacing), **directions}
    truth = strongest_direction(test.csi, spacing)
    return {name: float(angle_between(value, truth).mean()) for name, value in directions.items()}


def _unit(csi: Tensor) -> Tensor:
    """Channels of RMS 1: spectra of weak users would underflow in float32."""
    return csi / csi.abs().square().double().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-30).float()


def _zero_filled(csi: Tensor, shown: Tensor) -> Tensor:
    return torch.where(shown, _unit(csi), torch.zeros((), dtype=csi.dtype))


def fingerprint(csi: Tensor, shown: Tensor) -> Tensor:
    """|DFT| of the zero-filled CSI, scaled to norm 1: (B, x, y) to (B, x * y)."""
    return torch.nn.functional.normalize(torch.fft.fft2(_zero_filled(csi, shown)).abs().flatten(1))


def occupancy_prior(data: WirelessData) -> Tensor:
    """Share of the training scenes in which each patch is occupied, float32 (rows, columns)."""
    rows = np.unique(data.splits["train"].scene_index)
    return data.scenes.occupancy[torch.from_numpy(rows)].float().mean(0)


def _occupancy(
    predictor: Predictor, test: Users, validation: Users, prior: Tensor, settings: EvaluationSettings
) -> tuple[list[Row], float]:
    """Height patches masked along the link, all of the CSI and the location seen."""
    known, known_positive = _occupancy_scores(predictor, validation, prior, settings)
    thresholds = {name: best_f1(values, known_positive)[0] for name, values in known.items()}
    scores, positive = _occupancy_scores(predictor, test, prior, settings)
    condition = f"{settings.scene_mask:g} of the height patches masked, along the link"
    precision = {name: average_precision(values, positive) for name, values in scores.items()}
    found = {name: f1(values >= thresholds[name], positive) for name, values in scores.items()}
    return [
        Row(
            "Masked occupancy, average precision",
            condition,
            "",
            "higher",
            {**precision, "prevalence": float(positive.mean())},
        ),
        Row(
            "Masked occupancy, F1 (threshold from validation scenes)",
            condition,
            "",
            "higher",
            {**found, "all occupied": f1(np.ones_like(positive), positive)},
        ),
    ], thresholds["model"]


def _occupancy_scores(
    predictor: Predictor, users: Users, prior: Tensor, settings: EvaluationSettings
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Scores of the model, the neighbours and the prior, and the truth, over all masked cells in the map's order."""
    predicted, visible, truth = _occupancy_maps(predictor, users, settings)
    maps = {
        "model": predicted,
        "mean of visible neighbours": neighbour_mean(truth, visible),
        "prior of training scenes": prior.expand_as(truth),
    }
    return {name: values[~visible].double().numpy() for name, values in maps.items()}, truth[~visible].bool().numpy()


def _occupancy_maps(predictor: Predictor, users: Users, settings: EvaluationSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted probability (not-a-number where visible), what is visible, and the truth: (N, rows, columns) each."""
    everything = torch.arange(predictor.model.csi_patches)
    predicted = predictor.predict(users, everything, location=True, scene_ratio=settings.scene_mask).occupancy
    assert predicted is not None
    cell, edge = predictor.model.occupancy_patch, predictor.model.geometry.occupancy_patches
    grid = unpatchify(predicted, cell, edge, edge)
    truth = unpatchify(predictor.scenes.occupancy(users.scene).float(), cell, edge, edge)
    return grid, grid.isnan(), truth


def _shown(predictor: Predictor, test: Users, settings: EvaluationSettings) -> dict[str, NDArray[Any]]:
    """What the figures of occupancy and attention show, for the users whose spectra are shown as well."""
    users = test.at(torch.from_numpy(_picked(test, settings)))
    if not len(users):
        return {}
    predicted, _, truth = _occupancy_maps(predictor, users, settings)
    everything = torch.arange(predictor.model.csi_patches)
    mask = predictor.mask(users, everything, location=True, scene_ratio=0.0, decoy=None)
    args = (users.csi, users.position, users.scene, mask, predictor.scenes, predictor.settings, predictor.statistics)
    attention = attention_on_scene(predictor.model, prepare(*args).inputs, mask)
    return {
        "occupancy_true": truth.numpy(),
        "occupancy_model": predicted.numpy(),
        "attention": attention.transpose(0, 1).numpy(),
    }


def _leak_check(predictor: Predictor, test: Users, settings: EvaluationSettings, seed: int) -> dict[str, float]:
    """Median location error with the scene masked along the true link and along a decoy's: must not differ much.

    A model that was trained with the true link's mask would read the location off the mask.
    """
    visible = predictor.visible_patches(0.7, seed)
    true = predictor.predict(test, visible, scene_ratio=settings.scene_mask, fill_csi=False).location
    decoy_rng = np.random.default_rng([seed, 12])
    decoy = predictor.predict(test, visible, scene_ratio=settings.scene_mask, decoy=decoy_rng, fill_csi=False).location
    errors = {}
    for name, places in (("true_link_m", true), ("decoy_link_m", decoy)):
        errors[name] = float("nan") if places is None else median_error(places, test.position)
    return errors
