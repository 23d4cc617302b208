"""What the path model says of users of unseen scenes without a label, against physics, neighbours and sparse recovery."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.data.users import SceneTable, WirelessData, evenly
from wavecity.model.learning.baselines import (
    average_precision,
    decibel,
    neighbour_mean,
    nmse,
    omp,
)
from wavecity.model.multimodal.inference import beams_of_spectrum, top_k_hits
from wavecity.model.path_model.followed import CORNERS, ways
from wavecity.model.path_model.front import SPARSE_ANTENNAS, Draw
from wavecity.model.path_model.inference import Links, PathPredictor, Predictions
from wavecity.model.path_model.network import channel_of
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Arrays, Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.zero_shot_location import KINDS, disturbed, kinds_of, links_of, location, seen_by
from wavecity.model.tasks.zero_shot_rates import calibration, sum_rates

TASK: TaskName = "zero-shot"
# Paths of the pursuit for beams.
FEW_PATHS = 4


def zero_shot(predictor: PathPredictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Location, its confidence, masked CSI, beams and occupancy of users of some splits, without a label.

    Every method sees the same noisy CSI patches. With `zero_shot.disturbed`, location is tested with something wrong, too.
    """
    config = settings.zero_shot
    test = Links.joined([links_of(data.splits[split], config.users) for split in config.splits])
    kinds = kinds_of(predictor.cache.store, test)
    draw = Draw(seed, config.patches, config.snr)
    found = predictor.predict(test, draw)
    scores, hidden = predictor.occupancy(test, draw, settings.scene_mask)
    records = location(predictor, data, test, kinds, found, draw, config)
    records += _csi(predictor, test, found, draw, settings)
    records += _beams(predictor, test, replace(draw, patches=config.beam_patches), data, settings)
    every = {"all": torch.ones(len(test), dtype=torch.bool)}
    groups = every | {kind: torch.from_numpy(kinds == number) for number, kind in enumerate(KINDS)}
    facts: Facts = {
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "test_cities": sorted({data.scenes.cities[int(row)] for row in test.scene.unique()}),
        "users_by_kind": {kind: int((kinds == number).sum()) for number, kind in enumerate(KINDS)},
        "snr_db": config.snr,
        "patches": config.patches,
        "beam_patches": config.beam_patches,
        "told_besides_csi": "footprints with heights, heights of both ends, material of the ground, power of the noise",
        **calibration(found.location, test.position, groups, seed),
    }
    if config.cases:
        wrong, about = disturbed(predictor, data, test, kinds, config, seed)
        records, facts = records + wrong, facts | about
    if not any(record.metric is Metric.MU_RATE for record in records):
        facts["not possible: sum-rate"] = (
            f"channels without their level, or no scene with {settings.mu_mimo.cluster} users; give "
            "training.evaluation.mu_mimo.cluster fewer"
        )
    occupancy = _occupancy(scores, hidden, data.scenes, test, draw, settings.scene_mask)
    if occupancy:
        records += occupancy
    else:
        facts["not possible: occupancy"] = "no masked patch of the test scenes is built; give maps with buildings"
    _, columns, rows = test.csi.shape
    shown = draw.shown(0, columns, rows, predictor.cache.patch)
    arrays = {
        "location_true": test.position.numpy(),
        "location_model": found.location.best().numpy(),
        "location_physics": found.physics.numpy(),
        "kind": kinds,
        "scene": test.scene.numpy(),
        **_followed(predictor, test, draw),
        **_shown(test, found, scores, hidden, settings.spectra_shown),
        "spectrum_masked": np.array(1 - float(shown.float().mean())),
    }
    return Findings(records, facts, arrays)


def _followed(predictor: PathPredictor, users: Links, draw: Draw) -> Arrays:
    """The ways of every user's waves (N, K, corners, 3) in m from the base station, their gains in dB, and which land."""
    fronts = predictor.cache.users(users.scene, users.user, draw)
    corners = torch.full((*fronts.found.shape, CORNERS, 3), torch.nan)
    lands = torch.zeros_like(fronts.found)
    for row in users.scene.unique().tolist():
        # Of users in this scene, the waves that there are.
        mine = fronts.found & (users.scene == row)[:, None]
        corners[mine], lands[mine] = ways(fronts.direction[mine], surroundings(predictor.cache.store, row))
    gain = torch.where(fronts.found, 20 * fronts.gain.abs().log10(), torch.nan)
    return {"ray_corners": corners.numpy(), "ray_gain": gain.numpy(), "ray_lands": lands.numpy()}


def _shown(test: Links, found: Predictions, scores: Tensor, hidden: Tensor, count: int) -> Arrays:
    """Spectra, as shares of their mean, and occupancy (nan where it was seen) of a few users, for pictures."""
    some = evenly(len(test), count)
    spectrum = found.spectrum[some].flatten(1).softmax(1).view_as(found.spectrum[some])
    return {
        "spectrum_scene": test.scene[some].numpy(),
        "spectrum_position": test.position[some].numpy(),
        "spectrum_model": (spectrum / spectrum.mean((1, 2), keepdim=True)).numpy(),
        "occupancy_model": torch.where(hidden[some], scores[some], torch.nan).numpy(),
    }


def _csi(
    predictor: PathPredictor, test: Links, found: Predictions, draw: Draw, settings: EvaluationSettings
) -> list[Record]:
    noisy, shown = seen_by(predictor, test, draw)
    if shown.all():
        return []
    fronts = predictor.cache.users(test.scene, test.user, draw)
    parts = [
        channel_of(part, part.found.float(), predictor.model.radio)
        for part in map(fronts.at, torch.arange(len(test)).split(settings.batch_size))
    ]
    estimates = {
        Method.MODEL: found.csi,
        Method.WAVES: torch.cat(parts),
        Method.OMP: omp(noisy, shown, settings.omp_atoms)[0],
        Method.ZEROS: torch.zeros_like(test.csi),
    }
    where = Condition(csi_masked=1 - float(shown.float().mean()))
    return [
        Record(Metric.CSI_NMSE, method, decibel(float(nmse(value, test.csi, ~shown).mean())), draw.seed, len(test),
               condition=where, paths=settings.omp_atoms if method is Method.OMP else None)
        for method, value in estimates.items()
    ]  # fmt: skip


def _beams(
    predictor: PathPredictor, test: Links, draw: Draw, data: WirelessData, settings: EvaluationSettings
) -> list[Record]:
    """Accuracies of the best beams, and the sum-rates of clusters of users who are served with the first of them."""
    found = predictor.predict(test, draw)
    fronts = predictor.cache.users(test.scene, test.user, draw)
    noisy, shown = seen_by(predictor, test, draw)
    label = beams_of_spectrum(squared(torch.fft.fft2(_unit(test.csi)))).argmax(1)
    seen = torch.where(shown, _unit(noisy), 0)
    sparse = int(shown.sum()) <= SPARSE_ANTENNAS
    spectra = {
        Method.MODEL_SPECTRUM_BEAM: found.spectrum,
        Method.SBL_BEAM if sparse else Method.WAVES: fronts.log_spectrum,
        Method.ZERO_FILLED_BEAM: squared(torch.fft.fft2(seen)),
        Method.OMP_4_BEAM: omp(noisy, shown, FEW_PATHS)[1],
    }
    where = Condition(csi_masked=1 - float(shown.float().mean()))
    scores = {method: beams_of_spectrum(power) for method, power in spectra.items()}
    records = [
        Record(metric, method, 100 * top_k_hits(score, label, k), draw.seed, len(test), condition=where)
        for metric, k in ((Metric.BEAM_TOP1, 1), (Metric.BEAM_TOP5, 5))
        for method, score in scores.items()
    ]
    # Of normalised channels no rate follows from a power budget.
    if data.attributes.get("imported", {}).get("level") == "normalised":
        return records
    return records + sum_rates(test.csi, test.scene, scores, where, settings.mu_mimo, draw.seed)


def _occupancy(
    scores: Tensor, hidden: Tensor, scenes: SceneTable, test: Links, draw: Draw, share: float
) -> list[Record]:
    truth = scenes.occupancy[test.scene].float()
    positive = truth[hidden].bool().numpy()
    if not positive.any():
        return []
    values = {Method.MODEL: scores, Method.NEIGHBOUR_MEAN: neighbour_mean(truth, ~hidden)}
    precision = {
        method: average_precision(score[hidden].double().numpy(), positive) for method, score in values.items()
    }
    where = Condition(scene_masked=share)
    return [
        Record(Metric.OCCUPANCY_PRECISION, method, value, draw.seed, len(test), condition=where)
        for method, value in (precision | {Method.PREVALENCE: float(positive.mean())}).items()
    ]


def _unit(csi: Tensor) -> Tensor:
    """Channels of RMS 1: spectra of weak users would underflow in float32."""
    return (csi / squared(csi.to(torch.complex128)).mean((1, 2), keepdim=True).sqrt().clamp_min(1e-30)).to(csi.dtype)


SPECS = (
    TaskSpec(
        TASK,
        "rays",
        "Without a label",
        zero_shot,
        frozenset({"batch_size", "zero_shot", "scene_mask", "omp_atoms", "spectra_shown", "mu_mimo"}),
        (
            Method.PHYSICS, Method.KNN_TRAINING, Method.MEAN_TRAINING, Method.WAVES, Method.OMP, Method.ZEROS,
            Method.SBL_BEAM, Method.OMP_4_BEAM, Method.ZERO_FILLED_BEAM, Method.EXHAUSTIVE_SEARCH,
            Method.NEIGHBOUR_MEAN, Method.PREVALENCE,
        ),
    ),
)  # fmt: skip
