"""What the report says about each model: its paper, the words around its tasks, and how it stands against rivals."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wavecity.model.figures.parts import PaperFigure, merged
from wavecity.model.figures.pictures import Curves, draw_losses
from wavecity.model.figures.prediction import draw_temporal_losses
from wavecity.model.results.claims import DB_MARGIN, MARGIN, Claim, rule
from wavecity.model.results.measures import pair_of, plus_minus
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome, Summary
from wavecity.model.results.rows import Row
from wavecity.model.results.words import count, place_of
from wavecity.model.settings.tasks import Backbone
from wavecity.model.tasks.spec import TaskSpec, specs_of

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


DB_RULE = rule(f"{DB_MARGIN:g} dB")


@dataclass(frozen=True)
class Paper:
    """The paper of a model, and what the report says about it; tasks, claims and figures are those of the model's tasks."""

    backbone: Backbone
    rule: str  # Of the verdicts
    # `model`, `paper` (HTML), `figures`, `note`, `figure` (with {} for the number), `folded`, `numbers`, `losses`
    words: dict[str, str]
    sizes: dict[str, str]  # What the paper had: `scenes`, `users`, `model`, `pretraining`, `time`
    sizes_known: bool  # Whether the paper's numbers of scenes and users are known
    model: Callable[[Summary], str]  # From `pretrain.json`: the model in a few words
    losses: Callable[[Curves], str]  # Draws the curves
    small: Callable[[Summary], bool]  # From `pretrain.json`: whether the model is smaller than the paper's
    # From the outcomes: how the model stands against its rivals in plain words, None to say nothing
    standings: Callable[[Mapping[str, Outcome]], Standings | None]

    @property
    def specs(self) -> dict[str, TaskSpec]:
        """Tasks of the model, by name."""
        return {spec.name: spec for spec in specs_of(self.backbone)}

    @property
    def claims(self) -> list[Claim]:
        """Claims of the paper, in the order of its figures; those without one last."""
        found = [claim for spec in self.specs.values() if not spec.own_section for claim in spec.claims]
        return sorted(found, key=lambda claim: int(claim.figure or 1000))

    @property
    def figures(self) -> list[PaperFigure]:
        """Figures of the paper, in order."""
        return merged([part for spec in self.specs.values() if not spec.own_section for part in spec.pictures])


def _multimodal_model(summary: Summary) -> str:
    model = summary["settings"]["model"]
    shape = (
        f"d {model['width']}, {model['encoder_layers']} + {model['decoder_layers']} layers, {summary['tokens']} tokens"
    )
    return f"{summary['parameters'] / 1e6:.2f} M parameters: {shape}"


def _temporal_model(summary: Summary) -> str:
    model = summary["settings"]["temporal"]["model"]
    shape = f"d {model['width']}, {model['layers']} layers, {model['heads']} heads, {summary['tokens']:,} tokens"
    return f"{summary['parameters'] / 1e3:.0f} k parameters: {shape}, {model['attention']} attention"


def _rays_model(summary: Summary) -> str:
    model = summary["settings"]["rays"]["model"]
    shape = f"d {model['width']}, {model['layers']} layers, {summary['tokens']} tokens"
    return f"{summary['parameters'] / 1e6:.2f} M parameters: {shape}"


MULTIMODAL = Paper(
    backbone="multimodal",
    rule=rule(f"{MARGIN:g} % or points"),
    words={
        "model": "A multi-modal wireless foundation model",
        "paper": "Yazdian and Ghasempour, <i>A Multi-Modal Foundational Model for Wireless Communication and\n"
        "  Sensing</i>, 2026",
        "figures": "The paper's figures, from this run",
        "note": "Figures 1, 2 and 8 of the paper are drawings of the system. Colours mean the same method in every figure.",
        "figure": "Figure {} of the paper",
        "folded": "by scene or by head",
        "numbers": "they are from hundreds of times more scenes, users and steps",
        "losses": "The training losses scatter because every step draws its own objective and mask ratios (Table 1), which get "
        "harder\nwith the epochs; the validation masks stay the same.",
    },
    sizes={
        "scenes": "about 10,000",
        "users": "3.5 M",
        "model": "2.4 M: d 128, 8 + 2 layers, 468 tokens",
        "pretraining": "50 epochs, about 175 M samples seen",
        "time": "4 × A100, time not stated",
    },
    sizes_known=True,
    model=_multimodal_model,
    losses=draw_losses,
    small=lambda summary: bool(summary["settings"]["model"]["width"] < 128),
    standings=lambda _: None,
)

# Of the paper itself only the abstract and the model card were at hand.
UNKNOWN = "not in abstract or model card"
TEMPORAL = Paper(
    backbone="temporal",
    rule=DB_RULE,
    words={
        "model": "A wireless foundation model of channels that move",
        "paper": "<i>LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel Representation\n  Learning</i>, "
        "arXiv 2603.10024, of which only the abstract and the model card were at hand",
        "figures": "Figures",
        "note": "Colours mean the same method in every figure.",
        "figure": "Figure {}",
        "folded": "of the median user, and without noise",
        "numbers": "its data, sizes and settings were not at hand",
        "losses": "The training loss rises where a new kind of mask enters and as more is hidden; the validation masks stay the "
        "same.",
    },
    sizes={
        "scenes": UNKNOWN,
        "users": UNKNOWN,
        "model": "about 150 k: d 32, 12 layers, 8 heads",
        "pretraining": UNKNOWN,
        "time": UNKNOWN,
    },
    sizes_known=False,
    model=_temporal_model,
    losses=draw_temporal_losses,
    small=lambda summary: bool(summary["settings"]["temporal"]["model"]["layers"] < 12),
    standings=standings_of,
)


RAYS = Paper(
    backbone="rays",
    rule=rule(f"{MARGIN:g} % or points")
    + " What the model says without a label is measured in one draw of patches and noise, without a spread: there one value is "
    "enough, and the margin is what the row says.",
    words={
        "model": "A wireless foundation model that is shown what the waves did",
        "paper": "the project's own, on the tasks of Yazdian and Ghasempour, <i>A Multi-Modal Foundational Model for Wireless\n"
        "  Communication and Sensing</i>, 2026",
        "figures": "Figures",
        "note": "Numbers are those of the paper's figures of the same kind. Colours mean the same method in every figure.",
        "figure": "As Figure {} of the paper",
        "folded": "by scene or by head",
        "numbers": "there is none of this model",
        "losses": "Every step draws its own pilots, noise and masks; those of the validation stay the same.",
    },
    sizes=dict.fromkeys(("scenes", "users", "model", "pretraining", "time"), "no paper"),
    sizes_known=False,
    model=_rays_model,
    losses=draw_losses,
    small=lambda summary: bool(summary["settings"]["rays"]["model"]["layers"] < 8),
    standings=lambda _: None,
)


def paper_of(summary: Summary) -> Paper:
    """The one of a run, from its `pretrain.json`; runs of before there were several models do not name theirs."""
    papers = {"multimodal": MULTIMODAL, "temporal": TEMPORAL, "rays": RAYS}
    return papers[summary["settings"].get("backbone", "multimodal")]
