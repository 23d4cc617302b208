"""Claims of LWM-Temporal's abstract, and how the model stands against each rival, from the results of `prediction`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.model.report.claims import OURS, Claim, rule
from wavecity.model.results.measures import Measured, plus_minus
from wavecity.model.results.outcomes import Curve, Outcome, count, in_words
from wavecity.model.results.table import Row
from wavecity.model.tasks.prediction import (
    CLEAN,
    DENSE,
    FINE_TUNED,
    GRU,
    PERSISTENCE,
    QUANTITY,
    RIDGE,
    SPEEDS,
    START,
    TWIN,
    ZERO_SHOT,
)

# dB; a direction without a stated size must exceed it [ours].
MARGIN = 0.5
TEMPORAL_RULE = rule(f"{MARGIN:g} dB")
BASELINES = (RIDGE, GRU, DENSE, PERSISTENCE)
RIVALS = (RIDGE, PERSISTENCE, START, TWIN, GRU, DENSE)
# Reading of "an order of magnitude" [abstract], and what counts as the opposite [ours].
MAGNITUDE, SMALL = 10.0, 2.0

Labels = Literal["all", "fewest", "most"]


def regimes_of(outcome: Outcome, quantity: str = QUANTITY) -> list[str]:
    """Kinds of users that were tested, from slow to fast."""
    there = {condition.partition(",")[0] for condition in outcome.conditions(quantity)}
    return [regime for regime in SPEEDS if regime in there]


def horizons_of(outcome: Outcome, quantity: str = QUANTITY) -> list[int]:
    """Horizons that were tested, ascending."""
    return sorted({int(condition.rpartition(" ")[2]) for condition in outcome.conditions(quantity)})


def condition_of(regime: str, horizon: int) -> str:
    """Name of a condition in the table of records."""
    return f"{regime}, horizon {horizon}"


@dataclass(frozen=True)
class Pair:
    """Two methods under the same conditions, labels and seeds.

    Attributes
    ----------
    x : float (X,)
        Shares of the labels; empty where neither takes any.
    own, other : float (C, X, K)
        dB by condition, labels and seed.
    """

    x: NDArray[np.float64]
    own: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """How much lower the first one's error is, dB (C, X, K)."""
        return self.other - self.own


def pair(
    outcome: Outcome, quantity: str, own: str, other: str, conditions: Sequence[str], labels: Labels
) -> Pair | None:
    """Values of two methods where both were measured; what takes no labels stands at all, one seed for every seed."""
    found = [(outcome.curve(quantity, name, own), outcome.curve(quantity, name, other)) for name in conditions]
    curves = [(first, second) for first, second in found if first is not None and second is not None]
    if not curves:
        return None
    x, seeds = _common([curve for both in curves for curve in both])
    if x is None or not len(seeds):
        return None
    rows = {"all": slice(None), "fewest": slice(0, 1), "most": slice(-1, None)}[labels]
    first, second = (np.stack([curve.on(x, seeds)[rows] for curve in side]) for side in zip(*curves, strict=True))
    return Pair(x[rows], first, second)


def _common(curves: Sequence[Curve]) -> tuple[NDArray[np.float64] | None, NDArray[np.int64]]:
    """Labels and seeds that all curves have; None for the labels if they share none."""
    swept = [curve.x for curve in curves if curve.swept]
    x = np.array(sorted(set.intersection(*(set(one) for one in swept)))) if swept else np.array([])
    several = [curve.seeds for curve in curves if len(curve.seeds) > 1] or [curves[0].seeds]
    seeds = np.array(sorted(set.intersection(*(set(one) for one in several))), dtype=np.int64)
    return (None if swept and not len(x) else x), seeds


def ahead(
    own: str = FINE_TUNED,
    others: Sequence[str] = BASELINES,
    labels: Labels = "all",
    longest: bool = False,
    weakest: bool = False,
    quantity: str = QUANTITY,
) -> Callable[[Outcome], Measured | None]:
    """Measure by how many dB a method's error is lower than that of the best of others.

    Parameters
    ----------
    own : str
    others : sequence of str
        The one against which the gain is smallest counts, of those that were run.
    labels : {"all", "fewest", "most"}
        Mean over the shares of the labels, or one of them.
    longest : bool
        The longest horizon only, instead of the mean over all.
    weakest : bool
        The kind of user with the smallest gain, instead of the mean over all.
    quantity : str
    """

    def measure(outcome: Outcome) -> Measured | None:
        horizons = horizons_of(outcome, quantity)[-1:] if longest else horizons_of(outcome, quantity)
        kinds = regimes_of(outcome, quantity)
        groups = [[kind] for kind in kinds] if weakest else [kinds]
        found = [
            _measured(outcome, quantity, own, other, group, horizons, labels) for group in groups for other in others
        ]
        known = [measured for measured in found if measured is not None]
        return min(known, key=lambda measured: float(np.nanmean(measured.gains)), default=None)

    return measure


def _measured(
    outcome: Outcome, quantity: str, own: str, other: str, kinds: list[str], horizons: list[int], labels: Labels
) -> Measured | None:
    conditions = [condition_of(kind, horizon) for kind in kinds for horizon in horizons]
    both = pair(outcome, quantity, own, other, conditions, labels)
    if both is None or (len(both.x) and not _at_the_end(outcome, quantity, own, conditions[0], labels, both.x)):
        return None
    gains, ours, theirs = (values.mean((0, 1)) for values in (both.gain, both.own, both.other))
    text = f"gain {plus_minus(gains)} dB ({own} {plus_minus(ours)}, {other} {plus_minus(theirs)} dB)"
    where = f"{', '.join(kinds)} · horizon{'s' if len(horizons) > 1 else ''} {', '.join(map(str, horizons))}"
    swept = f" · labels {', '.join(in_words(value) for value in both.x)}" if len(both.x) else ""
    users = _users(outcome, quantity, kinds)
    return Measured(gains, text, f"{users:,} users · {where}{swept} · {count(len(gains), 'seed')}", users)


def _at_the_end(
    outcome: Outcome, quantity: str, own: str, condition: str, labels: Labels, x: NDArray[np.float64]
) -> bool:
    """Whether these are the fewest or most labels of the method itself: a rival may not have been run there."""
    curve = outcome.curve(quantity, condition, own)
    if labels == "all" or curve is None or not curve.swept:
        return True
    return bool(x[0] == curve.x[0 if labels == "fewest" else -1])


def _users(outcome: Outcome, quantity: str, kinds: list[str]) -> int:
    frame = outcome.frame[outcome.frame["quantity"] == quantity]
    return sum(int(frame.loc[frame["condition"].str.startswith(f"{kind},"), "n"].max()) for kind in kinds)


def fewer_pairs(outcome: Outcome) -> Measured | None:
    """Measure how many tokens there are for each that a token attends to."""
    attention = outcome.facts.get("attention")
    if attention is None:
        return None
    factor = attention["tokens"] / attention["neighbours"]
    text = f"{attention['neighbours']:g} of {attention['tokens']:,} tokens in the mean: {factor:.1f} times fewer pairs"
    return Measured(np.array([factor]), text, "counted on the grid of the test windows; no seeds")


TEMPORAL_CLAIMS: tuple[Claim, ...] = (
    Claim("prediction-long", "1", "abstract",
          "Channel prediction is better than with strong baselines, particularly at long horizons.",
          "dB over the best of ridge, GRU, dense attention and persistence at the longest horizon with all labels, mean "
          "over the kinds of users", "prediction", ahead(labels="most", longest=True), MARGIN, -MARGIN),
    Claim("prediction-regimes", "1", "abstract",
          "The improvement is consistent across the mobility regimes.",
          "dB over the best of the same, mean over the horizons with all labels, for the kind of user where it is smallest",
          "prediction", ahead(labels="most", weakest=True), MARGIN, -MARGIN),
    Claim("prediction-few", "2", "abstract",
          "Channel prediction is better than with strong baselines, particularly with limited fine-tuning data.",
          "dB over the best of the same with the fewest labels, mean over kinds of users and horizons",
          "prediction", ahead(labels="fewest"), MARGIN, -MARGIN),
    Claim("prediction-pretraining", "2", "abstract",
          "Pretraining matters: the same model from random weights, with the same budget, is behind.",
          "dB with the fewest labels, mean over kinds of users and horizons", "prediction",
          ahead(others=(TWIN,), labels="fewest"), MARGIN, -MARGIN),
    Claim("prediction-sparse", "1", "abstract",
          "Sparse attention keeps what matters: it is no worse than dense attention, both from random weights with the same "
          "budget.",
          f"dB, mean over kinds of users and horizons; more than {MARGIN:g} dB worse is the opposite", "prediction",
          ahead(own=TWIN, others=(DENSE,), labels="most"), -MARGIN, -MARGIN),
    Claim("prediction-pairs", "", "abstract",
          "Sparse attention reduces the complexity of attention by an order of magnitude.",
          f"pairs of tokens of dense attention over those of sparse attention; at least {MAGNITUDE:g}, less than {SMALL:g} is "
          "the opposite", "prediction", fewer_pairs, MAGNITUDE * (1 - 1e-9), SMALL, 1, 0),
    Claim("prediction-ridge", "1", OURS,
          "With all labels it also beats ridge (AR), fitted to each sample's own history without any training.",
          "dB, mean over kinds of users and horizons", "prediction",
          ahead(others=(RIDGE,), labels="most"), MARGIN, -MARGIN),
    Claim("prediction-ridge-few", "2", OURS, "With the fewest labels too.",
          "dB over ridge (AR), mean over kinds of users and horizons", "prediction",
          ahead(others=(RIDGE,), labels="fewest"), MARGIN, -MARGIN),
    Claim("prediction-ridge-clean", "3", OURS,
          "Where the snapshots seen have no noise, it beats ridge (AR) as well.",
          "dB with all labels, mean over kinds of users and horizons; trained with noise", "prediction",
          ahead(others=(RIDGE,), labels="most", quantity=CLEAN), MARGIN, -MARGIN),
    Claim("prediction-network", "2", OURS,
          "Training adds something: the fine-tuned model is ahead of the guess that its network starts from.",
          "dB with all labels, mean over kinds of users and horizons", "prediction",
          ahead(others=(START,), labels="most"), MARGIN, -MARGIN),
    Claim("prediction-zero", "2", OURS, "Without any label the pretrained model is ahead of persistence.",
          "dB, mean over kinds of users and horizons; one draw", "prediction",
          ahead(own=ZERO_SHOT, others=(PERSISTENCE,)), MARGIN, -MARGIN, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """How the fine-tuned model stands against one rival.

    Attributes
    ----------
    rival : str
    ahead, level, behind : int
        Comparisons of kind of user, horizon and labels, by the rule of the tables.
    fewest, most : str
        Gain in dB with the fewest and with the most labels that both have, mean and deviation over the seeds.
    """

    rival: str
    ahead: int
    level: int
    behind: int
    fewest: str
    most: str

    @property
    def total(self) -> int:
        """Number of comparisons."""
        return self.ahead + self.level + self.behind


def standings(outcome: Outcome) -> list[Standing]:
    """Against each rival that was run; ridge first."""
    conditions = [condition_of(kind, horizon) for kind in regimes_of(outcome) for horizon in horizons_of(outcome)]
    found = []
    for rival in RIVALS:
        verdicts = list(_verdicts(outcome, rival))
        few, many = (pair(outcome, QUANTITY, FINE_TUNED, rival, conditions, labels) for labels in ("fewest", "most"))
        if not verdicts or few is None or many is None:
            continue
        ahead_of, level, behind = (
            sum(verdict.startswith(word) for verdict in verdicts) for word in ("ahead", "level", "behind")
        )
        fewest, most = (
            f"{plus_minus(both.gain.mean((0, 1)))} dB with {in_words(both.x[0])}" if len(both.x) else "-"
            for both in (few, many)
        )
        found.append(Standing(rival, ahead_of, level, behind, fewest, most))
    return found


def _verdicts(outcome: Outcome, rival: str) -> Iterator[str]:
    for row in outcome.result["rows"]:
        if row["quantity"] != QUANTITY:
            continue
        values: dict[str, float] = {name: row["values"][name] for name in (FINE_TUNED, rival) if name in row["values"]}
        if len(values) == 2:
            yield Row(
                row["quantity"], row["condition"], row["unit"], row["better"], values, spread=row["spread"]
            ).verdict()


def in_plain_words(outcome: Outcome) -> dict[str, Any] | None:
    """Say whether the fine-tuned model beats ridge, in one sentence, and how it stands against every rival."""
    found = standings(outcome)
    ridge = next((one for one in found if one.rival == RIDGE), None)
    if ridge is None:
        return None
    share = f"{ridge.ahead} of {count(ridge.total, 'comparison')} of kind of user, horizon and labels"
    if ridge.ahead == ridge.total:
        sentence = f"The fine-tuned model beats {RIDGE} everywhere: in {share}."
    elif not ridge.ahead:
        sentence = (
            f"The fine-tuned model does not beat {RIDGE} anywhere: it is ahead in {share}, behind in {ridge.behind}."
        )
    elif ridge.ahead > ridge.behind:
        sentence = f"The fine-tuned model beats {RIDGE} in {share}, and is behind in {ridge.behind}."
    else:
        sentence = f"The fine-tuned model does not beat {RIDGE} on the whole: it is ahead in {share}, behind in {ridge.behind}."
    gains = f"In the mean its gain over ridge is {ridge.fewest} of the labels, {ridge.most}."
    return {"sentence": f"{sentence} {gains}", "standings": found}
