"""What the path model says of users of unseen scenes without a label, against physics, neighbours and sparse recovery."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.data.users import SceneTable, WirelessData
from wavecity.model.figures import pictures
from wavecity.model.figures.parts import SEEN, Part
from wavecity.model.figures.ways import draw_users
from wavecity.model.learning.baselines import (
    average_precision,
    decibel,
    neighbour_mean,
    nmse,
    omp,
)
from wavecity.model.multimodal.inference import beams_of_spectrum, top_k_hits
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.path_model.front import SPARSE_ANTENNAS, Draw
from wavecity.model.path_model.inference import Links, PathPredictor, Predictions
from wavecity.model.path_model.network import channel_of
from wavecity.model.results.claims import ABOUT, DB_MARGIN, MARGIN, OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks import reconstruction
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.zero_shot_location import KINDS, disturbed, kinds_of, links_of, location, seen_by
from wavecity.model.tasks.zero_shot_rates import calibration, sum_rates
from wavecity.model.tasks.zero_shot_shown import followed, shown

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
    records = location(
        predictor, data, test, kinds, found, draw, config, links_of(data.splits["train"], config.neighbours)
    )
    few = replace(draw, patches=config.beam_patches)
    found_of_few = predictor.predict(test, few)
    for one, said in {draw: found, few: found_of_few}.items():
        records += _csi(predictor, test, said, one, settings)
    records += _beams(predictor, test, found_of_few, few, data, settings)
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
        "known_besides_csi": "footprints with heights, heights of both ends, material of the ground, power of the noise",
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
    visible = draw.shown(0, columns, rows, predictor.cache.patch)
    arrays = {
        "location_true": test.position.numpy(),
        "location_model": found.location.best().numpy(),
        "location_physics": found.physics.numpy(),
        "location_scene": test.scene.numpy(),
        "kind": kinds,
        "spectrum_masked": np.array(1 - float(visible.float().mean())),
        **followed(predictor, test, draw),
        **shown(predictor, data, test, kinds, found, draw, settings.spectra_shown, config.confidence),
    }
    some = torch.from_numpy(arrays["shown"])
    arrays["occupancy_model"] = torch.where(hidden[some], scores[some], torch.nan).numpy()
    if occupancy:
        arrays["occupancy_true"] = data.scenes.occupancy[test.scene[some]].float().numpy()
    return Findings(records, facts, arrays)


def _csi(
    predictor: PathPredictor, test: Links, found: Predictions, draw: Draw, settings: EvaluationSettings
) -> list[Record]:
    """NMSE at the antennas that are not seen; sparse Bayesian learning where few are seen, as its cost grows fast."""
    noisy, noise, shown = seen_by(predictor, test, draw)
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
    if int(shown.sum()) <= SPARSE_ANTENNAS:
        estimates[Method.SBL] = sparse_bayesian(noisy, shown, noise)
    where = Condition(csi_masked=1 - float(shown.float().mean()))
    return [
        Record(Metric.CSI_NMSE, method, decibel(float(nmse(value, test.csi, ~shown).mean())), draw.seed, len(test),
               condition=where, paths=settings.omp_atoms if method is Method.OMP else None)
        for method, value in estimates.items()
    ]  # fmt: skip


def _beams(
    predictor: PathPredictor,
    test: Links,
    found: Predictions,
    draw: Draw,
    data: WirelessData,
    settings: EvaluationSettings,
) -> list[Record]:
    """Accuracies of the best beams, and the sum-rates of clusters of users who are served with the first of them."""
    fronts = predictor.cache.users(test.scene, test.user, draw)
    noisy, _, shown = seen_by(predictor, test, draw)
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


# In % or points, and in dB: one draw of patches and noise has no spread, and smaller differences count as none [ours].
ONE_DRAW_MARGIN = 5.0
_ONE_DRAW = f"one draw of patches and noise, so {ONE_DRAW_MARGIN:g} % is the margin"
_EVERY = {"user_kind": None, "disturbed": None}
_OF_PAPER = {claim.key: replace(claim, task=TASK) for claim in reconstruction.CLAIMS}


def _located(key: str, text: str, rival: Method, kind: str | None = None) -> Claim:
    """A question about the median error of the location of all users, or of one kind."""
    where = _EVERY | {"user_kind": kind}
    return Claim(key, "9", OURS, text, f"gain in the median error; {_ONE_DRAW}", TASK, "gain",
                 Select(Metric.HIDDEN_LOCATION_ERROR, (Method.MODEL,), (rival,), where), ONE_DRAW_MARGIN, -ONE_DRAW_MARGIN,
                 1)  # fmt: skip


CLAIMS = (
    _OF_PAPER["attention"],
    _OF_PAPER["spectrum-in-scene"],
    replace(_OF_PAPER["locations"], select=Select(Metric.HIDDEN_LOCATION_ERROR, where=_EVERY)),
    _located("location-physics", "The model locates users better than the physics localiser alone.", Method.PHYSICS),
    _located("location-diffracted",
             "The model locates users who have diffracted paths only better than the physics localiser alone.",
             Method.PHYSICS, KINDS[2]),
    _located("location-knn", "The model locates users better than their nearest neighbours among labelled users elsewhere.",
             Method.KNN_TRAINING),
    Claim("location-region", "9", OURS, "The region that the model states holds the user about as often as it says.",
          f"share of users within their 90 % regions, at least {90 * ABOUT:g} %; one draw of patches and noise", TASK, "level",
          Select(Metric.REGION_HELD, (Method.MODEL,), where=_EVERY | {"region": 0.9}), 90 * ABOUT, 80 * ABOUT, 1),
    replace(_OF_PAPER["spectra"], select=Select(Metric.BEAM_TOP5)),
    Claim("beams-sbl", "10", OURS,
          "The strongest beam of the model's spectrum is the best one more often than that of sparse Bayesian learning.",
          f"points of top-1 accuracy; one draw of patches and noise, so {MARGIN:g} points are the margin", TASK, "gain",
          Select(Metric.BEAM_TOP1, (Method.MODEL_SPECTRUM_BEAM,), (Method.SBL_BEAM,), kind="absolute"), seeds=1),
    _OF_PAPER["occupancy"],
    Claim("occupancy-neighbours", "11", OURS,
          "The model tells masked occupancy better than the mean of the visible neighbours.",
          f"gain in average precision; {_ONE_DRAW}", TASK, "gain",
          Select(Metric.OCCUPANCY_PRECISION, (Method.MODEL,), (Method.NEIGHBOUR_MEAN,)), ONE_DRAW_MARGIN, -ONE_DRAW_MARGIN, 1),
    Claim("csi-waves", "", OURS, "The model fills masked CSI in better than the recovered waves do by themselves.",
          f"dB; one draw of patches and noise, so {DB_MARGIN:g} dB are the margin", TASK, "gain",
          Select(Metric.CSI_NMSE, (Method.MODEL,), (Method.WAVES,), kind="absolute"), DB_MARGIN, -DB_MARGIN, 1),
)  # fmt: skip
_TYPICAL = "Users are typical of their kind by the error of their location"
FIGURES = (
    Part("3", "Attention of [PHYSC] to the scene", TASK,
         "Mean over the heads of each layer, by cell of the map. Below, the shares of waves, places and map; the rest goes to "
         "[PHYSC] itself. Circles are around the places and where waves come down, their areas the weights; "
         f"{SEEN}. {_TYPICAL}.", draw_map=pictures.draw_attention, arrays=("attention", "attention_shares"), with_mask=True),
    Part("4", "Spatial spectra in their scenes", TASK,
         f"True spectra over the direction cosines of departure, dB below the strongest bin from black to white; {SEEN}.",
         draw_map=pictures.draw_spectrum_in_scene, arrays=("spectrum_true", "spacing")),
    Part("9", "Locations of held-out users", TASK,
         "Scene seen. A grey line joins a user's true and predicted position, a dotted one the true one and what physics alone "
         "says.", draw_map=pictures.draw_locations, arrays=("location_model", "location_physics"), with_mask=True),
    Part("9", "Waves of held-out users", TASK,
         "The waves that were recovered, followed by mirrors alone: the stronger the thicker. Dashed ones end at a building or "
         "leave the scene; what is diffracted at an edge comes down along a curve, points of which are among the small dots, the "
         "places that the network chooses among. Each scene, then the part of it that is framed; dark buildings are high. "
         f"{_TYPICAL}.", draw_map=draw_users, arrays=("shown", "attention_places", "mixture_centre"), with_mask=True),
    Part("10", "Spatial spectra of held-out users", TASK,
         "Scene seen, location hidden. Each spectrum is scaled to its own strongest bin; the ring marks the true strongest one.",
         pictures.draw_spectra, arrays=("spectrum_true", "spectrum_model"), with_mask=True),
    Part("11", "Masked occupancy of held-out scenes", TASK,
         f"The location seen, patches nearest to the link masked; grey was not masked; {SEEN}.",
         draw_map=pictures.draw_occupancy, arrays=("occupancy_true", "occupancy_model"), with_mask=True),
)  # fmt: skip
SPECS = (
    TaskSpec(
        TASK,
        "rays",
        "Without a label",
        zero_shot,
        frozenset({"batch_size", "zero_shot", "scene_mask", "omp_atoms", "spectra_shown", "mu_mimo"}),
        (
            Method.PHYSICS, Method.KNN_TRAINING, Method.MEAN_TRAINING, Method.WAVES, Method.SBL, Method.OMP,
            Method.ZEROS, Method.SBL_BEAM, Method.OMP_4_BEAM, Method.ZERO_FILLED_BEAM, Method.EXHAUSTIVE_SEARCH,
            Method.NEIGHBOUR_MEAN, Method.PREVALENCE,
        ),
        CLAIMS,
        FIGURES,
    ),
)  # fmt: skip
