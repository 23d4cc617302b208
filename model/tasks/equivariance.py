"""Wave equivariance as a task of either model: claims of the paper's abstract, questions of ours, and figures."""

from collections.abc import Callable

from wavecity.model.equivariance.measures import MODULATED, OWN, OWN_WRAPPED, SEEN, UNSEEN
from wavecity.model.equivariance.task import equivariance, equivariance_temporal, versions_of
from wavecity.model.equivariance.training import ESTIMATION, FORECAST, Metrics
from wavecity.model.figures.equivariance import draw_scale, draw_sets, draw_shifts
from wavecity.model.figures.parts import PaperFigure, Part
from wavecity.model.results.claims import DB_MARGIN, OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric, TestSet
from wavecity.model.results.records import Findings
from wavecity.model.settings.tasks import Backbone, TaskName
from wavecity.model.tasks.spec import TaskSpec

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


def figures_of(metrics: Metrics) -> tuple[PaperFigure, ...]:
    """Pictures of one model."""
    return (
        PaperFigure("1", "Equivariance error over the shift", (
            Part(TASK, "The lower, the more equivariant; the floors are the rounding of float32 and float64. Points of the "
                 "trained models are means over the seeds, bars one standard deviation.", draw_shifts,
                 metric=Metric.EQUIVARIANCE_ERROR),
        )),
        PaperFigure("2", "Error by test set and method", (
            Part(TASK, "Same training users, steps and choice of rate for all; means over the seeds, bars one standard "
                 "deviation.", lambda outcome: draw_sets(outcome, metrics), metric=metrics.trained),
        )),
        PaperFigure("3", "What scale buys", (
            Part(TASK, "Above over the number of training users, below over the size of the model; the error of equivariance is "
                 "that of random shifts along all axes at once.", lambda outcome: draw_scale(outcome, metrics),
                 metric=_SCALE),
        )),
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
