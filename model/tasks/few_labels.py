"""Does pretraining pay: the path model with few labelled users, against the same network from scratch and what needs no network.

Location, line of sight and best beam of users of unseen scenes; labelled are users of the training scenes. Every method sees the
same noisy CSI patches and the same labels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.feasible import FEWEST_LABELS, NotPossible
from wavecity.model.data.users import Samples, WirelessData, picked
from wavecity.model.learning.baselines import nearest_neighbours
from wavecity.model.learning.heads import Correction, Loss, Standardiser, apply, distance, tuned
from wavecity.model.multimodal.inference import beams_of_spectrum, top_k_hits
from wavecity.model.path_model.front import Draw, Fronts
from wavecity.model.path_model.inference import Links, PathPredictor, Predictions
from wavecity.model.path_model.network import Outputs
from wavecity.model.results.claims import OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.beams.link import best_beams
from wavecity.model.tasks.beams.probes import Pool
from wavecity.model.tasks.few_labels_networks import Says, Whole, beam_loss, beams_of, place_loss, place_of
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.zero_shot_location import links_of, seen_by

TASK: TaskName = "few-labels"
# Features of a wave (`front._wave_features`): that it comes down by mirrors alone, at which bounces, and its level over Friis
# in units of 20 dB.
LANDS, BOUNCES, OVER_FRIIS, FRIIS_SCALE = 7, 8, 10, 20.0
# Of a direct path the level is within these of Friis' formula, dB.
WEAKEST, STRONGEST = -4.0, 3.0


@dataclass(frozen=True)
class Target:
    """What is predicted of users, and how: of N labelled and of M tested ones."""

    metric: Metric
    label: Tensor  # (N, ...)
    score: Callable[[Tensor], float]  # From predictions (M, ...) to the metric's value
    outputs: int  # Of a head
    says: Callable[[Tensor], Tensor]  # From a head's outputs to predictions
    loss: Callable[[Tensor], Loss]  # From labels of training to the loss of a head
    start: tuple[Tensor, Tensor]  # What the model says already, as a head's outputs: (N, outputs), (M, outputs)
    scale: float  # Of a head's outputs
    whole_loss: Callable[[Outputs, Tensor, Tensor], Tensor]  # Of the whole network
    whole_says: Says
    physics: Tensor  # Predictions (M, ...) of the front end
    voted: Callable[[Tensor], Tensor]  # From labels to what neighbours' mean is taken of, (N, c)
    elected: Callable[[Tensor], Tensor]  # From that mean to predictions


class Probe(nn.Module):
    """A linear probe on [PHYSC]; what the model says is not read."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.layer = nn.Linear(width, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """As `Correction`."""
        return self.scale * self.layer(features[:, : self.width])


def few_labels(predictor: PathPredictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Error or accuracy against the number of labels, for each of three targets and every method.

    Of the settings `few_labels` and `heads` count; networks are not trained as a whole when `heads.finetune_steps` is 0. The seed
    is that of patches and noise; the heads' seeds choose labels, weights and batches.

    Raises
    ------
    NotPossible
        The store has fewer training users than the smallest number of labels.
    """
    config = settings.few_labels
    asked = sorted(set(config.labels))
    train, test = links_of(data.splits["train"], asked[-1]), links_of(data.splits["test"], config.test_users)
    counts = [count for count in asked if FEWEST_LABELS <= count <= len(train)]
    if not counts:
        raise NotPossible(
            f"{data.name}: training.evaluation.few_labels.labels asks for {asked[0]} labelled users at least, the train split "
            f"has {len(train)} with a path, and {FEWEST_LABELS} are needed; ask for other numbers or build more scenes"
        )
    draw = Draw(seed, config.patches, config.snr)
    known, found = predictor.predict(train, draw), predictor.predict(test, draw)
    fronts = predictor.cache.users(test.scene, test.user, draw)
    (noisy, _, shown), (queries, _, _) = seen_by(predictor, train, draw), seen_by(predictor, test, draw)
    prints = fingerprint(noisy, shown), fingerprint(queries, shown)
    sight = line_of_sight(data.splits["train"], asked[-1]), line_of_sight(data.splits["test"], config.test_users)
    targets = [
        location(predictor, train, test, known, found),
        of_sight(sight, fronts),
        beam(train, test, known, found, fronts),
    ]
    # The same users are labelled for all targets.
    pool = Pool.of(targets[2].label[:, None], test.csi[0].numel(), (1.0,), seed)
    where = Condition(csi_masked=1 - float(shown.float().mean()))
    whole = Whole(predictor, settings.heads)
    views = (
        whole.shown(predictor.cache.users(train.scene, train.user, draw), train.scene),
        whole.shown(fronts, test.scene),
    )
    records: list[Record] = []
    rates: dict[str, dict[str, float]] = {}

    def add(
        target: Target, method: Method, predicted: Tensor, head_seed: int, x: float, rate: float | None = None
    ) -> None:
        value = target.score(predicted)
        records.append(Record(target.metric, method, value, head_seed, len(test), x, where))
        if rate is not None and head_seed == 0:
            rates.setdefault(f"{target.metric.value}, {method.value}", {})[f"{x:g}"] = rate

    for target in targets:
        add(target, Method.PHYSICS, target.physics, 0, math.nan)
        for count in counts:

            def labelled(head_seed: int, count: int = count) -> Tensor:
                return pool.labelled(count, head_seed)

            for method, head_seed, predicted, rate in heads(target, (known.physc, found.physc), labelled, settings):
                add(target, method, predicted, head_seed, count, rate)
            for head_seed in range(settings.heads.seeds):
                index = labelled(head_seed)
                mean = nearest_neighbours(prints[0][index], target.voted(target.label[index]), prints[1])
                add(target, Method.KNN, target.elected(mean), head_seed, count)
            for method, pretrained in ((Method.PHYSC_FINE_TUNED, True), (Method.TWIN, False)):
                if not settings.heads.finetune_steps:
                    break
                for one in whole.trained(pretrained, views[0], target.label, labelled, target.whole_loss):
                    predicted = whole.says(one.network, views[1], target.whole_says)
                    add(target, method, predicted, one.seed, count, one.rate)
    facts: Facts = {
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "test_cities": sorted({data.scenes.cities[int(row)] for row in test.scene.unique()}),
        "train_users": len(train),
        "labels": counts,
        "labels_left_out": [count for count in asked if count not in counts],
        "held_back_share_of_labels": settings.heads.held_back,
        "head_seeds": settings.heads.seeds,
        "patches": config.patches,
        "snr_db": config.snr,
        "share_in_line_of_sight": float(sight[1].float().mean()),
        "learning_rates": rates,
        "split": "labelled are users of the training scenes, at random; more labels contain the fewer; tested on unseen scenes",
    }
    return Findings(records, facts)


def heads(
    target: Target,
    physc: tuple[Tensor, Tensor],
    labelled: Callable[[int], Tensor],
    settings: EvaluationSettings,
) -> Iterator[tuple[Method, int, Tensor, float]]:
    """Method, head seed, predictions of the tested users and learning rate of heads on [PHYSC] (N, d) and (M, d)."""
    width = physc[0].shape[1]
    for method, kind in ((Method.PHYSC_PROBE, Probe), (Method.PHYSC_HEAD, Correction)):

        def build(kind: type[Probe] | type[Correction] = kind) -> nn.Module:
            return kind(width, target.outputs, target.scale)

        def draw(head_seed: int) -> tuple[Tensor, Tensor]:
            index = labelled(head_seed)
            standardise = Standardiser.of(physc[0][index])
            return torch.cat((standardise(physc[0][index]), target.start[0][index]), 1), target.label[index]

        for head_seed, head, rate in tuned(build, target.loss, draw, settings.heads):
            standardise = Standardiser.of(physc[0][labelled(head_seed)])
            features = torch.cat((standardise(physc[1]), target.start[1]), 1)
            yield method, head_seed, target.says(apply(head, features)), rate


def location(predictor: PathPredictor, train: Links, test: Links, known: Predictions, found: Predictions) -> Target:
    """Median distance between predicted and true place."""
    return Target(
        metric=Metric.FEW_LOCATION_ERROR,
        label=train.position,
        score=lambda place: float((place - test.position).norm(dim=1).median()),
        outputs=2,
        says=lambda outputs: outputs,
        loss=lambda _: distance,
        start=(known.location.best(), found.location.best()),
        scale=predictor.scenes.size / 2,
        whole_loss=place_loss,
        whole_says=place_of,
        physics=found.physics,
        voted=lambda position: position,
        elected=lambda mean: mean,
    )


def of_sight(sight: tuple[Tensor, Tensor], fronts: Fronts) -> Target:
    """Balanced accuracy of whether users are out of sight."""
    hidden = [(~one).float()[:, None] for one in sight]

    def balanced(logits: Tensor) -> float:
        right = (logits[:, 0] > 0) == (hidden[1][:, 0] > 0)
        kinds = [right[hidden[1][:, 0] == kind] for kind in (0, 1)]
        return 100 * float(torch.stack([one.float().mean() for one in kinds if len(one)]).mean())

    nothing = torch.zeros_like(hidden[0]), torch.zeros_like(hidden[1])
    return Target(
        metric=Metric.FEW_NLOS_ACCURACY,
        label=hidden[0],
        score=balanced,
        outputs=1,
        says=lambda outputs: outputs,
        loss=lambda _: F.binary_cross_entropy_with_logits,
        start=nothing,
        scale=1.0,
        whole_loss=lambda _, logits, truth: F.binary_cross_entropy_with_logits(logits, truth),
        whole_says=lambda _, logits: logits,
        physics=torch.where(direct(fronts), -1.0, 1.0)[:, None],
        voted=lambda label: label,
        elected=lambda mean: mean - 0.5,
    )


def beam(train: Links, test: Links, known: Predictions, found: Predictions, fronts: Fronts) -> Target:
    """Share of users whose best beam is the predicted one."""
    label, truth = best_beams(train.csi), best_beams(test.csi)
    beams = test.csi[0].numel()
    return Target(
        metric=Metric.FEW_BEAM_TOP1,
        label=label,
        score=lambda scores: 100 * top_k_hits(scores, truth, 1),
        outputs=beams,
        says=lambda outputs: outputs,
        loss=lambda _: F.cross_entropy,
        start=(beams_of_spectrum(known.spectrum), beams_of_spectrum(found.spectrum)),
        scale=1.0,
        whole_loss=beam_loss,
        whole_says=beams_of,
        physics=beams_of_spectrum(fronts.log_spectrum),
        voted=lambda label: F.one_hot(label, beams).float(),
        elected=lambda mean: mean,
    )


def direct(fronts: Fronts) -> Tensor:
    """Whether the strongest wave comes down without a bounce, and as strong as a direct path, bool (B,)."""
    strongest = fronts.wave[:, 0]
    over = FRIIS_SCALE * strongest[:, OVER_FRIIS]
    clear = (strongest[:, LANDS] > 0) & (strongest[:, BOUNCES] == 0) & (over >= WEAKEST) & (over <= STRONGEST)
    return clear & fronts.found[:, 0]


def line_of_sight(samples: Samples, limit: int) -> Tensor:
    """Of the users that `links_of` takes, which are in line of sight, bool (N,)."""
    items = picked(samples, limit)
    return torch.stack([torch.as_tensor(item["los"]) for item in items]).bool()


_LABELS = (
    ("few-location", Metric.FEW_LOCATION_ERROR, "location"),
    ("few-nlos", Metric.FEW_NLOS_ACCURACY, "line of sight"),
    ("few-beam", Metric.FEW_BEAM_TOP1, "best beam"),
)
_OF_THE_MODEL = (Method.PHYSC_FINE_TUNED, Method.PHYSC_HEAD)
CLAIMS = tuple(
    Claim(name, "", OURS, f"Pretraining pays for {what}: the same network from scratch, with the same budget, is behind.",
          "relative gain, mean over the numbers of labels", TASK, "gain", Select(metric, _OF_THE_MODEL, (Method.TWIN,)))
    for name, metric, what in _LABELS
)  # fmt: skip
SPECS = (
    TaskSpec(
        TASK,
        "rays",
        "Few labels",
        few_labels,
        frozenset({"batch_size", "heads", "few_labels"}),
        (Method.TWIN, Method.PHYSICS, Method.KNN),
        CLAIMS,
        splits=("train", "test"),
    ),
)
