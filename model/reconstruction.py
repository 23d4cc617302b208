"""How well masked CSI, location, occupancy and spectrum of unseen scenes are filled in, beside simple predictors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.baselines import (
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
from model.data import Users, WirelessData, gather
from model.inference import Predictor, top_k_hits
from model.losses import coarse_spectrum, spectrum
from model.results import Row, decibel, median_error
from model.settings import EvaluationSettings
from model.tokens import unpatchify


def reconstruction(
    predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int
) -> tuple[list[Row], dict[str, Any], dict[str, Any]]:
    """Evaluate all four reconstruction terms on the test split.

    Returns
    -------
    rows : list of Row
    facts : dict
        Sample sizes and checks.
    arrays : dict
        What the report draws.
    """
    test = gather(data.splits["test"], settings.max_users)
    train = gather(data.splits["train"], settings.max_users)
    validation = gather(data.splits["validation"], settings.max_users)
    rows: list[Row] = []
    arrays: dict[str, Any] = {}
    lmmse = Lmmse(train.csi, validation.csi)
    for ratio in settings.masks:
        visible = predictor.visible_patches(ratio, seed)
        found, drawn = _at_ratio(predictor, test, train, lmmse, visible, settings, f"{ratio:g} of the CSI masked")
        rows += found
        arrays = drawn
    occupancy_rows, threshold = _occupancy(predictor, test, validation, settings)
    rows += occupancy_rows
    facts = {
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "train_users": len(train),
        "occupancy_threshold": threshold,
        "mask_leak_check": _leak_check(predictor, test, settings, seed),
    }
    return rows, facts, arrays


def _at_ratio(
    predictor: Predictor,
    test: Users,
    train: Users,
    lmmse: Lmmse,
    visible: Tensor,
    settings: EvaluationSettings,
    condition: str,
) -> tuple[list[Row], dict[str, Any]]:
    """CSI, spectrum and location at one CSI mask; the scene is seen, the location is not."""
    geometry, patch = predictor.model.geometry, predictor.settings.model.csi_patch
    shown = visible_antennas(visible, geometry.columns, geometry.rows, patch)
    predictions = predictor.predict(test, visible)
    pursued, pursued_power = omp(test.csi, shown, settings.omp_atoms)
    rows: list[Row] = []
    if predictions.csi is not None:
        estimates = {
            "model": predictions.csi,
            f"OMP, {settings.omp_atoms} paths": pursued,
            "LMMSE": lmmse(test.csi, shown),
            "zeros": torch.zeros_like(test.csi),
        }
        errors = {name: decibel(float(nmse(value, test.csi, ~shown).mean())) for name, value in estimates.items()}
        rows.append(Row("Masked CSI, normalised squared error", condition, "dB", "lower", errors))

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

    picked = np.unique(np.linspace(0, len(test) - 1, settings.spectra_shown).round().astype(int))
    raw = predictions.spectrum[picked]
    kl = predictor.settings.losses.spectrum_form == "kl"
    shares = raw.flatten(1).softmax(-1).view_as(raw) if kl else torch.nn.functional.softplus(raw)
    drawn = {
        "spectrum_true": truth[picked].numpy(),
        "spectrum_model": coarse_spectrum(shares, size).numpy(),
        "spectrum_zero_filled": spectra["zero-filled DFT"][picked].numpy(),
        "spectrum_users": np.array([f"{predictor_name(test, index)}" for index in picked]),
        "spectrum_los": test.los[picked].numpy(),
        "spectrum_scene": test.scene[picked].numpy(),
        "spectrum_condition": np.array(condition),
        "location_true": test.position.numpy(),
        "location_model": np.zeros((0, 2)) if predictions.location is None else predictions.location.numpy(),
        "location_scene": test.scene.numpy(),
    }
    return rows, drawn


def predictor_name(users: Users, index: int) -> str:
    """Label of a user in a figure: distance and kind of link."""
    kind = "LoS" if bool(users.los[index]) else "NLoS"
    return f"{float(users.position[index].norm()):.0f} m, {kind}"


def _unit(csi: Tensor) -> Tensor:
    """Channels of RMS 1: spectra of weak users would underflow in float32."""
    return csi / csi.abs().square().double().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-30).float()


def _zero_filled(csi: Tensor, shown: Tensor) -> Tensor:
    return torch.where(shown, _unit(csi), torch.zeros((), dtype=csi.dtype))


def fingerprint(csi: Tensor, shown: Tensor) -> Tensor:
    """|DFT| of the zero-filled CSI, scaled to norm 1: (B, x, y) to (B, x * y)."""
    return torch.nn.functional.normalize(torch.fft.fft2(_zero_filled(csi, shown)).abs().flatten(1))


def _occupancy(
    predictor: Predictor, test: Users, validation: Users, settings: EvaluationSettings
) -> tuple[list[Row], float]:
    """Height patches masked along the link, all of the CSI and the location seen."""
    scores = {split: _occupancy_scores(predictor, users, settings) for split, users in
              (("validation", validation), ("test", test))}  # fmt: skip
    model, neighbours, truth = scores["test"]
    positive = truth.astype(bool)
    prevalence = float(positive.mean())
    condition = f"{settings.scene_mask:g} of the height patches masked, along the link"
    precision = {
        "model": average_precision(model, positive),
        "mean of visible neighbours": average_precision(neighbours, positive),
        "prevalence": prevalence,
    }
    thresholds = [best_f1(values, scores["validation"][2].astype(bool))[0] for values in scores["validation"][:2]]
    f1_scores = {
        "model": f1(model >= thresholds[0], positive),
        "mean of visible neighbours": f1(neighbours >= thresholds[1], positive),
        "all occupied": f1(np.ones_like(positive), positive),
    }
    return [
        Row("Masked occupancy, average precision", condition, "", "higher", precision),
        Row("Masked occupancy, F1 (threshold from validation scenes)", condition, "", "higher", f1_scores),
    ], thresholds[0]


def _occupancy_scores(
    predictor: Predictor, users: Users, settings: EvaluationSettings
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Scores of the model and of the neighbours, and the truth, over all masked cells."""
    everything = torch.arange(predictor.model.csi_patches)
    predicted = predictor.predict(users, everything, location=True, scene_ratio=settings.scene_mask).occupancy
    if predicted is None:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    masked = ~predicted.isnan()
    truth = predictor.scenes.occupancy(users.scene).float()
    cell, edge = predictor.model.occupancy_patch, predictor.model.geometry.occupancy_patches
    grid = unpatchify(truth, cell, edge, edge)
    visible = unpatchify((~masked).float(), cell, edge, edge).bool()
    neighbours = neighbour_mean(grid, visible)[~visible]
    # The same cells in the same (map) order for both.
    model = unpatchify(predicted, cell, edge, edge)[~visible]
    return model.double().numpy(), neighbours.double().numpy(), grid[~visible].numpy()


def _leak_check(predictor: Predictor, test: Users, settings: EvaluationSettings, seed: int) -> dict[str, float]:
    """Median location error with the scene masked along the true link and along a decoy's: must not differ much.

    A model that was trained with the true link's mask would read the location off the mask.
    """
    visible = predictor.visible_patches(0.7, seed)
    true = predictor.predict(test, visible, scene_ratio=settings.scene_mask).location
    decoy_rng = np.random.default_rng([seed, 12])
    decoy = predictor.predict(test, visible, scene_ratio=settings.scene_mask, decoy=decoy_rng).location
    errors = {}
    for name, places in (("true_link_m", true), ("decoy_link_m", decoy)):
        errors[name] = float("nan") if places is None else median_error(places, test.position)
    return errors
