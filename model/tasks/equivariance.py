"""Wave equivariance of both models: the error against the shift, and what it is worth where scenes, panels and speeds differ.

The multi-modal model is asked for masked CSI, the temporal one for snapshots to come. First the run's own model, as it is and
in the wrapper, which needs no training; then models trained from random weights in four ways.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import from_angle_delay
from wavecity.model.data.feasible import NotPossible, too_few_trained
from wavecity.model.data.trajectories import KINDS, TemporalData, TemporalUsers, gather_temporal, load_temporal
from wavecity.model.data.users import Samples, WirelessData, dataset_version, evenly, gather, geometry_of, load_data
from wavecity.model.data.windows import Cutter, check_windows
from wavecity.model.equivariance.measures import MODULATED, OWN, OWN_WRAPPED, SEEN, UNSEEN, VEHICLES, measure, shifted
from wavecity.model.equivariance.models import SPACE, TIME_FREQUENCY_SPACE, CsiEstimator, CsiForecaster, draw_visible
from wavecity.model.equivariance.training import ESTIMATION, FORECAST, Batch, Metrics, Problem, Size
from wavecity.model.figures.equivariance import draw_scale, draw_sets, draw_shifts
from wavecity.model.figures.parts import Part
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.claims import DB_MARGIN, OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric, TestSet
from wavecity.model.results.records import Facts, Findings
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings
from wavecity.model.settings.tasks import Backbone, TaskName
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.temporal.network import TemporalModel

# Users that are looked at for each one wanted, where only some kinds are.
SPARE = 4
# Where users are too few for both, so much of them is kept for the test in seen scenes.
KEPT = 0.25


class Estimation(Problem):
    """Masked CSI from the patches that stay, by the CSI branch alone; a share `mask` is masked at random."""

    metrics = ESTIMATION
    axes = ("horizontal", "vertical")
    dims = SPACE

    def __init__(self, predictor: Predictor, mask: float) -> None:
        self._model, self._settings, self._statistics = predictor.model, predictor.settings, predictor.statistics
        self._mask = mask
        geometry = self._model.geometry
        self.bins = (geometry.columns, geometry.rows)
        self.origin = (0, 0)
        self.rms = self.own.rms

    @property
    def own(self) -> CsiEstimator:
        """The run's own model as a map."""
        return CsiEstimator(self._model, self._settings, self._statistics).eval()

    def draw(self, csi: Tensor, rng: np.random.Generator) -> Batch:
        """Draw the patches that are seen of channels complex64 (N, x, y)."""
        visible = draw_visible(len(csi), self._model.geometry, self._settings.model.csi_patch, self._mask, rng)
        return Batch(csi.masked_fill(~visible, 0), visible, csi, ~visible)

    def build(self, size: Size) -> nn.Module:
        """Random weights: a map (seen, visible) to the whole channel."""
        shape = {"width": size[0], "encoder_layers": size[1]}
        settings = self._settings.model_copy(update={"model": self._settings.model.model_copy(update=shape)})
        return CsiEstimator(FoundationModel(settings.model, self._model.geometry), settings, self._statistics)


class Forecasting(Problem):
    """Snapshots to come from those seen, over all subcarriers and antennas.

    The cutter keeps all bins of delay: which of them a model keeps is its own affair. `extrapolation` is that of the
    models built here; None as the run's.
    """

    metrics = FORECAST
    axes = ("time", "frequency", "space")
    dims = TIME_FREQUENCY_SPACE

    def __init__(
        self,
        model: TemporalModel,
        trained_with: TrainingSettings,
        cutter: Cutter,
        antennas: int,
        extrapolation: bool | None,
    ) -> None:
        self._model, self._temporal, self._cutter = model, trained_with.temporal, cutter
        self.extrapolation = model.settings.extrapolation if extrapolation is None else extrapolation
        self.bins = (cutter.past, cutter.delays, antennas)
        self.origin = (cutter.past, 0, 0)

    @property
    def own(self) -> nn.Module:
        """The run's own model as a map."""
        return CsiForecaster(self._model, self._cutter.future, self._temporal.align).eval()

    def draw(self, csi: Tensor, rng: np.random.Generator) -> Batch:
        """Cut a window at a random place of each trajectory complex64 (N, T, F, X), with noise on what is seen."""
        windows = self._cutter.cut(csi, rng)
        seen, target = (from_angle_delay(part, self.bins[1]) for part in (windows.past, windows.future))
        return Batch(seen, None, target, None)

    def build(self, size: Size) -> nn.Module:
        """Random weights: a map from the snapshots seen to those to come."""
        # Without the wrapper nothing shall be known of shifts in time.
        shape = {"width": size[0], "layers": size[1], "extrapolation": self.extrapolation, "steady": False}
        model = TemporalModel(self._model.settings.model_copy(update=shape), self._model.grid)
        return CsiForecaster(model, self._cutter.future, self._temporal.align)


def equivariance(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Equivariance of the multi-modal model's CSI branch, on masked CSI.

    x is the shift in bins, or the number of training users. Of the settings `equivariance` counts, and of `heads` the
    seeds and the share held back. The seed is that of test users, masks and shifts; the heads' seeds choose training
    users, weights and batches.

    Raises
    ------
    InputError
        A set out of distribution that is not there or has another shape, a width that the heads do not divide, or fewer
        than three training users.
    """
    config = settings.equivariance
    budget = config.estimation
    _check_sizes(budget, predictor.settings.model.heads, "estimation", "training.model.heads")
    problem = Estimation(predictor, config.mask)
    known = gather(data.splits["train"], budget.samples[-1] + budget.test_users)
    users, kept = _divided(known.csi, budget, data.name, seed)
    test = gather(data.splits["test"], budget.test_users)
    channels = {SEEN: kept, UNSEEN: test.csi}
    for name, store in config.shifted.items():
        with _naming(name):
            other = load_data(store, ("test",))
            geometry = geometry_of(other, predictor.settings.model)
            if geometry != predictor.model.geometry:
                raise InputError(f"{store}: {geometry}, but the model needs {predictor.model.geometry}")
        channels[shifted(name)] = gather(other.splits["test"], budget.test_users).csi
    found = measure(problem, users, channels, config, budget, settings.heads, seed)
    facts = _places(data.scenes.cities, known.scene, test.scene) | {"masked": config.mask}
    return Findings(found.records, facts | found.facts)


def equivariance_temporal(
    model: TemporalModel, trained_with: TrainingSettings, data: TemporalData, settings: EvaluationSettings, seed: int
) -> Findings:
    """Equivariance of the temporal model, on channel prediction; as `equivariance`.

    What is trained here sees walkers and cyclists only; vehicles are a set out of distribution. (The run's own model
    has seen vehicles in its pretraining.) Of the settings `prediction` also counts: the snapshots seen, the longest
    horizon and the noise. Refused besides are trajectories shorter than a window, and a dataset without walkers and
    cyclists.
    """
    config = settings.equivariance
    budget = config.prediction
    _check_sizes(budget, model.settings.heads, "prediction", "training.temporal.model.heads")
    check_windows(data, settings.prediction, model.grid[1])
    _, subcarriers, antennas = data.shape
    window = settings.prediction
    cutter = Cutter(window.past, window.horizons[-1], subcarriers, False, window.snr)
    problem = Forecasting(model, trained_with, cutter, antennas, config.extrapolation)
    known = _of_speed(data.splits["train"], budget.samples[-1] + budget.test_users, fast=False)
    users, kept = _divided(known.csi, budget, data.name, seed)
    test, fast = (_of_speed(data.splits["test"], budget.test_users, speed) for speed in (False, True))
    if not len(test):
        raise InputError(f"{data.name}: equivariance needs walkers or cyclists in the test split; build more scenes")
    channels = {SEEN: kept, UNSEEN: test.csi, VEHICLES: fast.csi}
    for name, store in config.shifted.items():
        with _naming(name):
            other = load_temporal(store, ("train", "test"))
            check_windows(other, window, model.grid[1])
            if other.shape[1] != subcarriers:
                raise InputError(f"{store}: {other.shape[1]} subcarriers, not {subcarriers}")
        channels[shifted(name)] = _of_speed(other.splits["test"], budget.test_users, fast=False).csi
    found = measure(problem, users, channels, config, budget, settings.heads, seed)
    facts = _places(data.cities, known.scene, test.scene) | {
        "snapshots_seen": window.past,
        "snapshots_to_come": window.horizons[-1],
        "snr_db": window.snr,
        "trained_on": "walkers and cyclists",
        "starts_from_a_first_guess": problem.extrapolation,
    }
    return Findings(found.records, facts | found.facts)


def versions_of(config: EquivarianceSettings) -> list[str]:
    """Versions of the sets out of distribution, which must be there: results depend on them."""
    versions = []
    for name, store in config.shifted.items():
        with _naming(name):
            versions.append(dataset_version(store))
    return versions


def _divided(csi: Tensor, budget: BudgetSettings, name: str, seed: int) -> tuple[Tensor, Tensor]:
    """Users of seen scenes that may be trained on, and those kept for the test, at random; refuses fewer than three."""
    if why := too_few_trained("equivariance", len(csi)):
        raise NotPossible(f"{name}: {why}")
    enough = len(csi) >= budget.samples[-1] + budget.test_users
    kept = budget.test_users if enough else min(budget.test_users, max(int(KEPT * len(csi)), 1))
    order = torch.from_numpy(np.random.default_rng([seed, 48]).permutation(len(csi)))
    return csi[order[kept:][: budget.samples[-1]]], csi[order[:kept]]


def _of_speed(samples: Samples, limit: int, fast: bool) -> TemporalUsers:
    """Vehicles, or walkers and cyclists: at most `limit` of them, evenly spread over the scenes."""
    users = gather_temporal(samples, SPARE * limit)
    rows = torch.nonzero((users.kind == KINDS.index("vehicle")) == fast)[:, 0]
    return users.at(rows[evenly(len(rows), limit)])


def _places(cities: Sequence[str], train: Tensor, test: Tensor) -> Facts:
    """Where users of the train and test splits are, and whether the test is in other cities or only in other scenes."""
    seen, unseen = ({cities[int(scene)] for scene in scenes.unique()} for scenes in (train, test))
    return {
        "test_scenes": len(test.unique()),
        "test_cities": sorted(unseen),
        "train_cities": len(seen),
        "unseen_are": "scenes of the training cities" if seen & unseen else "cities",
    }


def _check_sizes(budget: BudgetSettings, heads: int, part: str, field: str) -> None:
    """Refuse widths that the run's attention heads do not divide."""
    for width, _ in budget.sizes:
        if width % heads:
            msg = f"training.evaluation.equivariance.{part}.sizes: width {width} must be a multiple of {field} {heads}"
            raise InputError(msg)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which set out of distribution is wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(f"training.evaluation.equivariance.shifted.{name}: {error}") from error


TASK: TaskName = "equivariance"
# Bounds for exactness, and readings of "fails to acquire" and "even with a large number" [ours], dB.
EXACT = {"float32": 50.0, "float64": 100.0}
INEXACT = 20.0
FAILED, ACQUIRED = 20.0, 40.0
SCALE_BUYS = 10.0
# Per cent of a forward pass.
CHEAP, DEAR = 10.0, 50.0

_WRAPPED, _VANILLA = (Method.WRAPPED,), (Method.VANILLA,)
_RIVALS = (Method.VANILLA, Method.AUGMENTED, Method.PENALISED)
_TRAINED, _SCALE = Metric.TRAINED_EQUIVARIANCE_ERROR, Metric.SCALE_EQUIVARIANCE_ERROR
_SEEN, _UNSEEN, _MODULATED = ({"test_set": one.test_set} for one in (SEEN, UNSEEN, MODULATED))
_OTHER = {"test_set": (TestSet.VEHICLES, TestSet.SHIFTED)}

ERRORS: dict[Backbone, Metrics] = {"multimodal": ESTIMATION, "temporal": FORECAST}


def claims_of(metrics: Metrics) -> tuple[Claim, ...]:
    """Claims on one model, by the names of its error."""
    error = metrics.trained
    return (
        Claim("equivariance-vanilla", "", "abstract", "A vanilla model fails to acquire the equivariance.",
              "largest error over the shifts along all axes at once, largest size and most users; "
              f"above -{FAILED:g} dB counts as failed, below -{ACQUIRED:g} dB is the opposite", TASK, "level",
              Select(_TRAINED, _VANILLA, better=False), -FAILED, -ACQUIRED, users=0),
        Claim("equivariance-scale", "", "abstract", "More parameters and training users do not change that.",
              f"the error of random shifts falls by less than {SCALE_BUYS:g} dB from the smallest to the largest size, and "
              "from the fewest to the most users; the greater fall counts", TASK, "fall", Select(_SCALE, _VANILLA),
              -SCALE_BUYS, -2 * SCALE_BUYS, users=0),
        Claim("equivariance-wrapped", "", "abstract",
              "The model with the equivariance built in has it: trained in the wrapper, float32.",
              f"dB below 0 of the largest error over the shifts; at least {EXACT['float32']:g}, less than {INEXACT:g} is the "
              "opposite", TASK, "level", Select(_TRAINED, _WRAPPED, _VANILLA), EXACT["float32"], INEXACT, users=0),
        *(Claim(f"equivariance-{precision}", "", OURS,
                "The run's own model has it too once it is wrapped, on and off the grid, without training: channels and "
                f"wrapper in {precision}, the network as it was trained.",
                f"dB below 0 of the largest error over axes and shifts; at least {bound:g}, less than {INEXACT:g} is the "
                "opposite", TASK, "level",
                Select(Metric.EQUIVARIANCE_ERROR, (OWN_WRAPPED,), (OWN,), {"precision": precision}), bound, INEXACT, 1, 0)
          for precision, bound in EXACT.items()),
        Claim("equivariance-unseen", "", "abstract", "It generalises better to unseen scenes.",
              "dB over the best of vanilla, augmented and penalised", TASK, "gain",
              Select(error, _WRAPPED, _RIVALS, _UNSEEN, kind="absolute"), DB_MARGIN, -DB_MARGIN),
        Claim("equivariance-modulated", "", "abstract", "It is more robust where every channel is shifted.",
              "dB over the best of the same, unseen scenes, each user modulated at random", TASK, "gain",
              Select(error, _WRAPPED, _RIVALS, _MODULATED, kind="absolute"), DB_MARGIN, -DB_MARGIN),
        Claim("equivariance-other", "", "abstract", "It generalises better where panel, carrier or speeds are other too.",
              "dB over the best of the same, in the set where it is least", TASK, "gain",
              Select(error, _WRAPPED, _RIVALS, _OTHER, kind="absolute", over="worst"), DB_MARGIN, -DB_MARGIN),
        Claim("equivariance-gap", "", OURS, "It loses less from seen to unseen scenes than the vanilla model.",
              "dB by which the loss is smaller", TASK, "loss", Select(error, _WRAPPED, _VANILLA, _UNSEEN, base=_SEEN),
              DB_MARGIN, -DB_MARGIN),
        Claim("equivariance-seen", "", OURS, "Where nothing is shifted it is no worse than the vanilla model.",
              f"dB in seen scenes; more than {DB_MARGIN:g} dB worse is the opposite", TASK, "gain",
              Select(error, _WRAPPED, _VANILLA, _SEEN, kind="absolute"), -DB_MARGIN, -DB_MARGIN),
        Claim("equivariance-own", "", OURS,
              "The wrapper helps the run's own model where channels are shifted, without training.",
              "dB, unseen scenes, each user modulated at random; one draw", TASK, "gain",
              Select(metrics.own, (OWN_WRAPPED,), (OWN,), _MODULATED, kind="absolute"), DB_MARGIN, -DB_MARGIN, 1),
        Claim("equivariance-cost", "", OURS, "The wrapper costs little.",
              f"per cent of a forward pass; less than {CHEAP:g} % counts, more than {DEAR:g} % is the opposite", TASK, "level",
              Select(Metric.WRAPPER_COST, (OWN_WRAPPED,)), -CHEAP, -DEAR, 1, 0),
    )  # fmt: skip


def figures_of(metrics: Metrics) -> tuple[Part, ...]:
    """Pictures of one model."""
    return (
        Part("1", "Equivariance error over the shift", TASK,
             "The lower, the more equivariant; the floors are the rounding of float32 and float64. Points of the "
             "trained models are means over the seeds, bars one standard deviation.", draw_shifts,
             metric=Metric.EQUIVARIANCE_ERROR),
        Part("2", "Error by test set and method", TASK,
             "Same training users, steps and choice of rate for all; means over the seeds, bars one standard deviation.",
             lambda outcome: draw_sets(outcome, metrics), metric=metrics.trained),
        Part("3", "What scale buys", TASK,
             "Above over the number of training users, below over the size of the model; the error of equivariance is "
             "that of random shifts along all axes at once.", lambda outcome: draw_scale(outcome, metrics),
             metric=_SCALE),
    )  # fmt: skip


def _spec(backbone: Backbone, run: Callable[..., Findings], settings: frozenset[str]) -> TaskSpec:
    metrics = ERRORS[backbone]
    return TaskSpec(
        TASK, backbone, "Wave equivariance", run, settings, (*_RIVALS, OWN), claims_of(metrics), figures_of(metrics),
        ("train", "test"), lambda evaluation: versions_of(evaluation.equivariance), own_section=True,
    )  # fmt: skip


SPECS = (
    _spec("multimodal", equivariance, frozenset({"equivariance", "heads"})),
    _spec("temporal", equivariance_temporal, frozenset({"equivariance", "heads", "prediction"})),
)
