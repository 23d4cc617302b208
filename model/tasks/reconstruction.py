"""How well masked CSI, location, occupancy and spectrum of unseen scenes are filled in, compared with simple predictors."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.data.directions import angle_between, direction_of_bin, strongest_direction
from wavecity.model.data.tokens import unpatchify
from wavecity.model.data.users import Users, WirelessData, gather
from wavecity.model.figures import pictures
from wavecity.model.figures.parts import SEEN, Part
from wavecity.model.learning import baselines
from wavecity.model.multimodal.inference import Predictions, Predictor, attention_on_scene, top_k_hits
from wavecity.model.multimodal.losses import coarse_spectrum, spectrum
from wavecity.model.results.claims import Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Arrays, Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.held_out import loss_records
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.untrained import LEFT_OUT, physics_places, sparse_channels

Table = dict[Metric, dict[Method, float]]


def reconstruction(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Evaluate all four reconstruction terms on the test split."""
    test = gather(data.splits["test"], settings.max_users)
    train = gather(data.splits["train"], settings.max_users)
    validation = gather(data.splits["validation"], settings.max_users)
    records: list[Record] = []
    arrays: Facts = {}
    left_out: Facts = {}
    lmmse = baselines.Lmmse(train.csi, validation.csi)
    spacing = float(data.attributes.get("array", {}).get("spacing_wavelengths", 0.5))
    for ratio in settings.masks:
        visible = predictor.visible_patches(ratio, seed)
        table, arrays, why = _at_ratio(predictor, data, test, train, lmmse, visible, settings, spacing)
        left_out |= {LEFT_OUT: why} if why else {}
        arrays["spectrum_masked"] = np.array(ratio)
        records += _records(table, Condition(csi_masked=ratio), test, settings, seed)
    facts: Facts = {
        **left_out,
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "train_users": len(train),
        "mask_leak_check": _leak_check(predictor, test, settings, seed),
    }
    prior = occupancy_prior(data)
    losses = loss_records(predictor, test, train, prior, settings, seed)
    if data.scenes.occupancy[test.scene.unique()].any():
        table, facts["occupancy_threshold"] = _occupancy(predictor, test, validation, prior, settings)
        records += _records(table, Condition(scene_masked=settings.scene_mask), test, settings, seed) + losses
    else:
        facts["not possible: occupancy"] = "no patch of the test scenes is built; give maps with buildings"
        records += [record for record in losses if record.metric is not Metric.OCCUPANCY_LOSS]
        # What is drawn of it shows nothing either.
        settings = settings.model_copy(update={"spectra_shown": 0})
    arrays |= {**_shown(predictor, test, settings), "spacing": np.array(spacing)}
    return Findings(records, facts, arrays)


def _records(table: Table, condition: Condition, test: Users, settings: EvaluationSettings, seed: int) -> list[Record]:
    """Records of values over all test users."""
    return [
        Record(metric, method, value, seed, len(test), condition=condition,
               paths=settings.omp_atoms if method is Method.OMP else None)
        for metric, values in table.items()
        for method, value in values.items()
    ]  # fmt: skip


def _at_ratio(
    predictor: Predictor,
    data: WirelessData,
    test: Users,
    train: Users,
    lmmse: baselines.Lmmse,
    visible: Tensor,
    settings: EvaluationSettings,
    spacing: float,
) -> tuple[Table, Facts, str]:
    """CSI, spectrum and location at one CSI mask, and why there is no physics localiser, if so.

    The scene is seen, the location is not.
    """
    shown = predictor.shown(visible)
    predictions = predictor.predict(test, visible)
    pursued, pursued_power = baselines.omp(test.csi, shown, settings.omp_atoms)
    simple = {Method.OMP: pursued, Method.LMMSE: lmmse(test.csi, shown)}
    if (sparse := sparse_channels(predictor, test.csi, shown)) is not None:
        simple[Method.SBL] = sparse
    table: Table = {}
    if predictions.csi is not None:
        estimates = {Method.MODEL: predictions.csi, **simple, Method.ZEROS: torch.zeros_like(test.csi)}
        table[Metric.CSI_NMSE] = {
            method: baselines.decibel(float(baselines.nmse(value, test.csi, ~shown).mean()))
            for method, value in estimates.items()
        }
    table[Metric.PATH_ANGLE_ERROR] = _angles(predictions, test, shown, simple, spacing)

    size = predictions.spectrum.shape[-1]
    zero_filled = spectrum(_zero_filled(test.csi, shown))
    truth = coarse_spectrum(spectrum(_unit(test.csi)), size)
    label = truth.flatten(1).argmax(1)
    spectra = {
        Method.MODEL: predictions.spectrum,
        Method.ZERO_FILLED: coarse_spectrum(zero_filled, size),
        Method.OMP: coarse_spectrum(pursued_power, size),
    }
    if sparse is not None:
        spectra[Method.SBL] = coarse_spectrum(spectrum(_unit(sparse)), size)
    for metric, k in ((Metric.DIRECTION_TOP1, 1), (Metric.DIRECTION_TOP5, 5)):
        table[metric] = {method: 100 * top_k_hits(value.flatten(1), label, k) for method, value in spectra.items()}

    why = ""
    if predictions.location is not None:
        physics, why = physics_places(data, test, shown, 0.0, settings.physics_users)
        places = {
            Method.MODEL: predictions.location,
            Method.KNN_TRAINING: baselines.nearest_neighbours(
                fingerprint(train.csi, shown), train.position, fingerprint(test.csi, shown)
            ),
            Method.MEAN_TRAINING: train.position.mean(0).expand(len(test), -1),
            **({} if physics is None else {Method.PHYSICS: physics}),
        }
        table[Metric.HIDDEN_LOCATION_ERROR] = {
            method: median_error(value, test.position) for method, value in places.items()
        }

    picked = _picked(test, settings)
    raw = predictions.spectrum[picked]
    kl = predictor.settings.losses.spectrum_form == "kl"
    shares = raw.flatten(1).softmax(-1).view_as(raw) if kl else torch.nn.functional.softplus(raw)
    drawn = {
        "spectrum_true": truth[picked].numpy(),
        "spectrum_model": coarse_spectrum(shares, size).numpy(),
        "spectrum_zero_filled": spectra[Method.ZERO_FILLED][picked].numpy(),
        "spectrum_users": np.array(
            [f"{float(test.position[i].norm()):.0f} m, {'LoS' if test.los[i] else 'NLoS'}" for i in picked]
        ),
        "spectrum_scene": test.scene[picked].numpy(),
        "spectrum_position": test.position[picked].numpy(),
        "location_true": test.position.numpy(),
        "location_model": np.zeros((0, 2)) if predictions.location is None else predictions.location.numpy(),
        "location_scene": test.scene.numpy(),
    }
    return table, drawn, why


def _picked(users: Users, settings: EvaluationSettings) -> NDArray[np.int64]:
    """Users that the report shows, spread over the scenes."""
    return np.unique(np.linspace(0, len(users) - 1, settings.spectra_shown).round().astype(np.int64))


def _angles(
    predictions: Predictions, test: Users, shown: Tensor, simple: dict[Method, Tensor], spacing: float
) -> dict[Method, float]:
    """Mean angle in degrees between the strongest direction of the whole CSI and that of what fills in the masked part."""
    zero = torch.zeros((), dtype=test.csi.dtype)
    channels = {**simple, Method.ZERO_FILLED: torch.where(shown, test.csi, zero)}
    if predictions.csi is not None:
        channels = {Method.MODEL_FILLED_CSI: torch.where(shown, test.csi, predictions.csi), **channels}
    directions = {name: strongest_direction(value, spacing) for name, value in channels.items()}
    if predictions.spectrum.shape[-2:] == test.csi.shape[-2:]:
        directions = {Method.MODEL_SPECTRUM: direction_of_bin(predictions.spectrum, spacing), **directions}
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
) -> tuple[Table, float]:
    """Height patches masked along the link, all of the CSI and the location seen."""
    known, known_positive = _occupancy_scores(predictor, validation, prior, settings)
    thresholds = {name: baselines.best_f1(values, known_positive)[0] for name, values in known.items()}
    scores, positive = _occupancy_scores(predictor, test, prior, settings)
    precision = {method: baselines.average_precision(values, positive) for method, values in scores.items()}
    found = {method: baselines.f1(values >= thresholds[method], positive) for method, values in scores.items()}
    return {
        Metric.OCCUPANCY_PRECISION: precision | {Method.PREVALENCE: float(positive.mean())},
        Metric.OCCUPANCY_F1: found | {Method.ALL_OCCUPIED: baselines.f1(np.ones_like(positive), positive)},
    }, thresholds[Method.MODEL]


def _occupancy_scores(
    predictor: Predictor, users: Users, prior: Tensor, settings: EvaluationSettings
) -> tuple[dict[Method, NDArray[np.float64]], NDArray[np.bool_]]:
    """Scores of the model, the neighbours and the prior, and the truth, over all masked cells in the map's order."""
    predicted, visible, truth = _occupancy_maps(predictor, users, settings)
    maps = {
        Method.MODEL: predicted,
        Method.NEIGHBOUR_MEAN: baselines.neighbour_mean(truth, visible),
        Method.OCCUPANCY_PRIOR: prior.expand_as(truth),
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


def _shown(predictor: Predictor, test: Users, settings: EvaluationSettings) -> Arrays:
    """What the figures of occupancy and attention show, for the users whose spectra are shown as well."""
    users = test.at(torch.from_numpy(_picked(test, settings)))
    if not len(users):
        return {}
    predicted, _, truth = _occupancy_maps(predictor, users, settings)
    everything = torch.arange(predictor.model.csi_patches)
    mask = predictor.mask(users, everything, location=True, scene_ratio=0.0, decoy=None)
    attention = attention_on_scene(predictor.model, predictor.prepared(users, mask).inputs, mask)
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


def median_error(predicted: Tensor, truth: Tensor) -> float:
    """Median distance of positions (N, 2), in their unit."""
    return float((predicted - truth).norm(dim=-1).median())


TASK: TaskName = "reconstruction"
CLAIMS = (
    Claim("attention", "3", "section 3.5, Figure 3",
          "[PHYSC] attends to what blocks, reflects or diffracts the link to a user.", "by eye only", TASK),
    Claim("spectrum-in-scene", "4", "section 3.3, Figure 4",
          "The spatial spectrum shows the directions in which the scene lets power through (an illustration).",
          "by eye only", TASK),
    Claim("locations", "9", "Appendix D, Figure 9",
          "The location can be read from partial CSI and the scene (pictures only).",
          "not at all, the paper has no number", TASK, "values", Select(Metric.HIDDEN_LOCATION_ERROR), by_eye=True),
    Claim("spectra", "10", "Appendix D, Figure 10",
          "The spatial spectrum can be rebuilt from partial CSI and the scene (pictures only).",
          "not at all, the paper has no number", TASK, "values", Select(Metric.DIRECTION_TOP5), by_eye=True),
    Claim("occupancy", "11", "Appendix D, Figure 11",
          "What stands along the link can be told from CSI and location (pictures only).",
          "not at all, the paper has no number", TASK, "values", Select(Metric.OCCUPANCY_PRECISION), by_eye=True),
)  # fmt: skip
FIGURES = (
    Part("3", "Attention of [PHYSC] to the scene", TASK,
         f"Nothing masked, mean over the heads of each encoder layer; {SEEN}.", draw_map=pictures.draw_attention,
         arrays=("attention", "spectrum_true")),
    Part("4", "Spatial spectra in their scenes", TASK,
         f"True spectra over the direction cosines of departure, dB below the strongest bin from black to white; "
         f"{SEEN}.", draw_map=pictures.draw_spectrum_in_scene, arrays=("spectrum_true", "spacing")),
    Part("9", "Locations of held-out users", TASK,
         "Scene seen, location hidden. A grey line joins a user's true and predicted position.",
         draw_map=pictures.draw_locations, arrays=("location_model",), with_mask=True),
    Part("10", "Spatial spectra of held-out users", TASK,
         "Scene seen, location hidden. Each spectrum is scaled to its own strongest bin; the ring marks the true "
         "strongest one.", pictures.draw_spectra, arrays=("spectrum_true", "spectrum_model"), with_mask=True),
    Part("11", "Masked occupancy of held-out scenes", TASK,
         f"All of the CSI and the location seen, patches nearest to the link masked; grey was not masked; {SEEN}.",
         draw_map=pictures.draw_occupancy, arrays=("occupancy_true", "occupancy_model")),
)  # fmt: skip
SPECS = (
    TaskSpec(TASK, "multimodal", "Reconstruction of what is masked", reconstruction,
             frozenset({"batch_size", "max_users", "masks", "omp_atoms", "physics_users", "scene_mask", "spectra_shown"}),
             (Method.OMP, Method.LMMSE, Method.SBL, Method.ZEROS, Method.ZERO_FILLED, Method.KNN_TRAINING, Method.PHYSICS,
              Method.MEAN_TRAINING, Method.NEIGHBOUR_MEAN, Method.OCCUPANCY_PRIOR, Method.PREVALENCE, Method.ALL_OCCUPIED),
             CLAIMS, FIGURES),
)  # fmt: skip
