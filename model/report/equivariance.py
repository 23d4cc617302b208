"""The report's section on wave equivariance: claims, table by set of test users, pictures."""

from collections import Counter
from dataclasses import dataclass

from wavecity.model.figures.parts import rebuild
from wavecity.model.results.claims import DB_MARGIN, Judged, judge, rule
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.rows import Row
from wavecity.model.results.words import count
from wavecity.model.tasks.equivariance import ERRORS
from wavecity.model.tasks.spec import TaskSpec

SOURCE = (
    "Physics Equivariance for Robust Generalization in Wireless Foundation Model, 2026, of which only the abstract was at "
    "hand: a channel that is modulated along time, frequency or space is a channel again, and what a model makes of it must "
    "be modulated in the same way. The equivariance error is the power by which it is not, over that of the output: 0 dB is as "
    "wrong as an output of its own, and shifts of whole bins are on the grid. The wrapped model takes the shift out before the "
    "network and puts it back behind it."
)
METHODS = (Method.VANILLA, Method.AUGMENTED, Method.PENALISED, Method.WRAPPED)
RULE = rule(f"{DB_MARGIN:g} dB")


@dataclass(frozen=True)
class Section:
    """What the report says about wave equivariance."""

    judged: list[Judged]
    pictures: list[dict[str, str]]  # Image, caption and description
    metric: Metric
    condition: str  # Of the table
    methods: list[Method]
    table: list[tuple[Row, int]]  # For each set of test users, with their number
    sentence: str  # What the table comes to
    source: str = SOURCE
    rule: str = RULE

    @property
    def small(self) -> bool:
        """Whether it is too small for any verdict that it would else have."""
        return any(item.verdict == "too small to tell" for item in self.judged)


def section_of(spec: TaskSpec, outcome: Outcome) -> Section:
    """Judge, tabulate and draw the results of a model's equivariance task."""
    metric = ERRORS[spec.backbone].trained
    rows = [row for row in outcome.rows if row.metric is metric]
    methods = [method for method in METHODS if any(method in row.values for row in rows)]
    table = []
    for row in rows:
        curves = [outcome.curve(metric, row.condition, method) for method in methods]
        table.append((row, max(curve.n for curve in curves if curve is not None)))
    facts = outcome.facts
    return Section(
        judged=[judge(claim, {spec.name: outcome}) for claim in spec.claims],
        pictures=[
            drawn | {"caption": f"{figure.title}. {drawn['caption']} {drawn['sizes']}.", "alt": figure.title}
            for figure in spec.figures
            for drawn in rebuild(figure, {spec.name: outcome}, lambda _: None, {}).pictures
        ],
        metric=metric,
        condition=f"{facts['reference']}; mean ± standard deviation over {count(facts['head_seeds'], 'seed')}; what is unseen "
        f"are {facts['unseen_are']}",
        methods=methods,
        table=table,
        sentence=_sentence(Counter(row.compare().place for row in rows)),
    )


def _sentence(places: Counter[str]) -> str:
    """Count the sets in which the wrapped model is ahead of the best other one; nothing where none is compared."""
    counts = {place: places[place] for place in ("ahead", "level", "behind") if places[place]}
    if not counts:
        return ""
    listed = ", ".join(f"{place} in {number}" for place, number in counts.items())
    return (
        f"Against the best of the others, the wrapped model is {listed} of {count(sum(counts.values()), 'test set')}."
    )
