"""How the temporal model stands against each rival, from the records of `prediction`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from wavecity.model.results.measures import pair_of, plus_minus
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.rows import Row
from wavecity.model.results.words import count, place_of

ERROR, MODEL = Metric.PREDICTION_NMSE, Method.MODEL_FINE_TUNED
RIVALS = (Method.RIDGE, Method.PERSISTENCE, Method.FIRST_GUESS, Method.TWIN, Method.GRU, Method.DENSE_TWIN)


@dataclass(frozen=True)
class Standing:
    """How the fine-tuned model stands against one rival."""

    rival: str
    ahead: int  # Comparisons of kind of user, horizon and labels, by the rule of the tables
    level: int
    behind: int
    fewest: str  # Gain in dB with the fewest and with the most labels that both have, mean and deviation over the seeds
    most: str

    @property
    def total(self) -> int:
        """Number of comparisons."""
        return self.ahead + self.level + self.behind


@dataclass(frozen=True)
class Standings:
    """All of them, ridge first, and what they come to in one sentence."""

    sentence: str
    standings: list[Standing]


def standing(outcome: Outcome, rival: Method) -> Standing | None:
    """Stand the fine-tuned model against a rival; None if one of them was not run."""
    pair = pair_of(outcome, ERROR, outcome.conditions(ERROR), MODEL, rival)
    places = Counter(
        _compared(row, rival) for row in outcome.rows if row.metric is ERROR and {MODEL, rival} <= {*row.values}
    )
    if pair is None or not places:
        return None
    gains = (pair.other - pair.own).mean(0)
    fewest, most = (
        f"{plus_minus(gains[end])} dB with {place_of(ERROR, pair.x[end])}" if len(pair.x) else "-" for end in (0, -1)
    )
    return Standing(outcome.name(rival), places["ahead"], places["level"], places["behind"], fewest, most)


def _compared(row: Row, rival: Method) -> str:
    """Place of the model in a row in which the rival is the only one."""
    values = {method: row.values[method] for method in (MODEL, rival)}
    return Row(row.metric, row.condition, values, row.x, row.spread).compare().place


def standings_of(outcomes: Mapping[str, Outcome]) -> Standings | None:
    """Say whether the fine-tuned model beats ridge, in one sentence, and how it stands against every rival."""
    if "prediction" not in outcomes:
        return None
    outcome = outcomes["prediction"]
    known = {rival: found for rival in RIVALS if (found := standing(outcome, rival)) is not None}
    if Method.RIDGE not in known:
        return None
    ridge = known[Method.RIDGE]
    share = f"{ridge.ahead} of {count(ridge.total, 'comparison')} of kind of user, horizon and labels"
    if ridge.ahead == ridge.total:
        sentence = f"The fine-tuned model beats {ridge.rival} everywhere: in {share}."
    elif not ridge.ahead:
        sentence = f"The fine-tuned model does not beat {ridge.rival} anywhere: it is ahead in {share}, behind in {ridge.behind}."
    elif ridge.ahead > ridge.behind:
        sentence = f"The fine-tuned model beats {ridge.rival} in {share}, and is behind in {ridge.behind}."
    else:
        sentence = (
            f"The fine-tuned model does not beat {ridge.rival} on the whole: it is ahead in {share}, behind in "
            f"{ridge.behind}."
        )
    gains = f"In the mean its gain over ridge is {ridge.fewest} of the labels, {ridge.most}."
    return Standings(f"{sentence} {gains}", list(known.values()))
