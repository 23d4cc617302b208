"""What the path model says of users of unseen scenes without a label, against physics, neighbours and sparse recovery."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.model.data.tokens import squared
from wavecity.model.data.users import Samples, SceneTable, WirelessData, evenly, picked
from wavecity.model.learning.baselines import (
    average_precision,
    decibel,
    nearest_neighbours,
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
from wavecity.model.settings.rays import ZeroShotSettings
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.zero_shot_rates import calibration, sum_rates

TASK: TaskName = "zero-shot"
# Bit of a stored interaction that stands for an edge.
DIFFRACTION = 8
# Users by how their waves arrive: `reflected` have no line of sight, but a tenth of their power or more without an edge.
KINDS = ("line of sight", "reflected", "diffracted only")
SPECULAR = 0.1
# Paths of the pursuit for beams, and stream of random numbers of the regions.
FEW_PATHS, REGIONS = 4, 31


def zero_shot(predictor: PathPredictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Location, its confidence, masked CSI, beams and occupancy of users of some splits, without a label.

    Every method sees the same noisy CSI patches. Neighbours are looked up among users of the store's train split that stand
    in other cities; where all stand in one, in other scenes.
    """
    config = settings.zero_shot
    test = Links.joined([links_of(data.splits[split], config.users) for split in config.splits])
    kinds = kinds_of(predictor.cache.store, test)
    draw = Draw(seed, config.patches, config.snr)
    found = predictor.predict(test, draw)
    scores, hidden = predictor.occupancy(test, draw, settings.scene_mask)
    records = _location(predictor, data, test, kinds, found, draw, config)
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


def links_of(samples: Samples, limit: int) -> Links:
    """Users of a split, so many evenly spread over it."""
    items = picked(samples, limit)
    index = evenly(len(samples), min(limit, len(samples))).numpy()
    return Links(
        csi=torch.stack([item["csi"] for item in items]),
        position=torch.stack([torch.as_tensor(item["user_position"]) for item in items])[:, :2].float(),
        scene=torch.as_tensor(np.asarray(samples.scene_index)[index]),
        user=torch.as_tensor(np.asarray(samples.user_index)[index]),
    )


def kinds_of(store: str, users: Links) -> NDArray[np.int64]:
    """Index of each user's kind in `KINDS`, from the paths of the store; users out of sight are `reflected` without them."""
    data = open_store(store)
    kinds = np.zeros(len(users), np.int64)
    features = attributes_of(data.attrs).get("recipe", {}).get("features", {})
    paths = open_store(store, "paths") if features.get("paths", True) else None
    for scene in users.scene.unique().tolist():
        mine = (users.scene == scene).numpy()
        rows = users.user.numpy()[mine]
        kind = np.where(data["los"].isel(scene=scene).values[rows], 0, 1)
        if paths is not None:
            part = paths[["gain", "interactions"]].isel(scene=scene, user=rows).load()
            power = np.abs(part["gain"].values) ** 2
            specular = ~(part["interactions"].values & DIFFRACTION).any(-1)
            edges_only = (power * specular).max(1) <= SPECULAR * power.sum(1)
            kind = np.where((kind == 1) & edges_only, 2, kind)
        kinds[mine] = kind
    return kinds


def seen_by(predictor: PathPredictor, users: Links, draw: Draw) -> tuple[Tensor, Tensor]:
    """Noisy channels (N, x, y) of users, and the antennas (x, y) that are the same for all."""
    noisy = torch.zeros_like(users.csi)
    shown = torch.zeros(users.csi.shape[1:], dtype=torch.bool)
    for scene in users.scene.unique().tolist():
        mine = users.scene == scene
        channels, _, shown = predictor.cache.seen(scene, draw)
        noisy[mine] = channels[users.user[mine]]
    return noisy, shown


def _location(
    predictor: PathPredictor,
    data: WirelessData,
    test: Links,
    kinds: NDArray[np.int64],
    found: Predictions,
    draw: Draw,
    config: ZeroShotSettings,
) -> list[Record]:
    train = links_of(data.splits["train"], config.neighbours)
    (known, _), (noisy, shown) = seen_by(predictor, train, draw), seen_by(predictor, test, draw)
    features, queries = fingerprint(known, shown), fingerprint(noisy, shown)
    near, mean = torch.zeros_like(test.position), torch.zeros_like(test.position)
    for mine, others in _other_places(test, train, data.scenes):
        near[mine] = nearest_neighbours(features[others], train.position[others], queries[mine])
        mean[mine] = train.position[others].mean(0)
    places = {
        Method.MODEL: found.location.best(),
        Method.PHYSICS: found.physics,
        Method.KNN_TRAINING: near,
        Method.MEAN_TRAINING: mean,
    }
    errors = {method: (place - test.position).norm(dim=1) for method, place in places.items()}
    held = found.location.holds(test.position, config.confidence, np.random.default_rng([draw.seed, REGIONS]))
    hidden = 1 - float(shown.float().mean())
    records = []
    for number, kind in enumerate((None, *KINDS)):
        mine = torch.ones(len(test), dtype=torch.bool) if kind is None else torch.from_numpy(kinds == number - 1)
        if not mine.any():
            continue
        where, count = Condition(csi_masked=hidden, user_kind=kind), int(mine.sum())
        for method, error in errors.items():
            for metric, share in ((Metric.HIDDEN_LOCATION_ERROR, 0.5), (Metric.HIDDEN_LOCATION_P90, 0.9)):
                value = float(error[mine].quantile(share))
                records.append(Record(metric, method, value, draw.seed, count, condition=where))
        share_held = 100 * float(held[mine].float().mean())
        records.append(Record(Metric.REGION_HELD, Method.MODEL, share_held, draw.seed, count, condition=where))
    return records


def _other_places(test: Links, train: Links, scenes: SceneTable) -> Iterator[tuple[Tensor, Tensor]]:
    """Which test users, bool (N,), may know which training users, bool (M,): those of other cities, else of other scenes."""
    numbers = {city: number for number, city in enumerate(dict.fromkeys(scenes.cities))}
    city = torch.tensor([numbers[name] for name in scenes.cities])
    places = (city[test.scene], city[train.scene]) if len(city[train.scene].unique()) > 1 else (test.scene, train.scene)
    for place in places[0].unique():
        yield places[0] == place, places[1] != place


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
