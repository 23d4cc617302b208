"""What the report says about either model: its tasks, the claims of its paper, the figures, and the words around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wavecity.model.report import equivariance_claims
from wavecity.model.report.claims import CLAIMS, RULE, Claim
from wavecity.model.report.equivariance_figures import pictures_of
from wavecity.model.report.figures import draw_losses
from wavecity.model.report.paper_figures import BARS, FIGURES, PaperFigure, Part
from wavecity.model.report.prediction_claims import TEMPORAL_CLAIMS, TEMPORAL_RULE, in_plain_words
from wavecity.model.report.prediction_figures import draw_horizons, draw_labels, draw_temporal_losses
from wavecity.model.results.outcomes import TEMPORAL_TITLES, TITLES, Outcome
from wavecity.model.tasks.prediction import CLEAN, QUANTITY

Curves = dict[str, dict[str, tuple[list[int], list[float]]]]


@dataclass(frozen=True)
class Edition:
    """One model's report.

    Attributes
    ----------
    titles : mapping of str to str
        Tasks and their headings.
    claims : tuple of Claim
    rule : str
        Of the verdicts.
    figures : tuple of PaperFigure
    words : dict
        `model`, `paper` (HTML), `figures`, `note`, `figure` (with {} for the number), `folded`,
        `numbers`, `losses`.
    paper : dict
        What the paper had: `scenes`, `users`, `model`, `pretraining`, `time`.
    paper_sizes : bool
        Whether the paper's numbers of scenes and users are known.
    model : callable
        From `pretrain.json`: the model in a few words.
    losses : callable
        Draws the curves.
    small : callable
        From `pretrain.json`: whether the model is smaller than the paper's.
    plain : callable
        From the outcomes: how the model stands against its rivals in plain words, None to say nothing.
    """

    titles: Mapping[str, str]
    claims: tuple[Claim, ...]
    rule: str
    figures: tuple[PaperFigure, ...]
    words: dict[str, str]
    paper: dict[str, str]
    paper_sizes: bool
    model: Callable[[dict[str, Any]], str]
    losses: Callable[[Curves], str]
    small: Callable[[dict[str, Any]], bool]
    plain: Callable[[Mapping[str, Outcome]], dict[str, Any] | None]


def _multimodal_model(summary: dict[str, Any]) -> str:
    model = summary["settings"]["model"]
    shape = (
        f"d {model['width']}, {model['encoder_layers']} + {model['decoder_layers']} layers, {summary['tokens']} tokens"
    )
    return f"{summary['parameters'] / 1e6:.2f} M parameters: {shape}"


def _temporal_model(summary: dict[str, Any]) -> str:
    model = summary["settings"]["temporal"]["model"]
    shape = f"d {model['width']}, {model['layers']} layers, {model['heads']} heads, {summary['tokens']:,} tokens"
    return f"{summary['parameters'] / 1e3:.0f} k parameters: {shape}, {model['attention']} attention"


def _there(quantity: str) -> Callable[[Outcome], bool]:
    return lambda outcome: bool(outcome.conditions(quantity))


def _stand(outcomes: Mapping[str, Outcome]) -> dict[str, Any] | None:
    return in_plain_words(outcomes["prediction"]) if "prediction" in outcomes else None


MULTIMODAL = Edition(
    titles=TITLES,
    claims=CLAIMS,
    rule=RULE,
    figures=FIGURES,
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
    paper={
        "scenes": "about 10,000",
        "users": "3.5 M",
        "model": "2.4 M: d 128, 8 + 2 layers, 468 tokens",
        "pretraining": "50 epochs, about 175 M samples seen",
        "time": "4 × A100, time not stated",
    },
    paper_sizes=True,
    model=_multimodal_model,
    losses=draw_losses,
    small=lambda summary: bool(summary["settings"]["model"]["width"] < 128),
    plain=lambda _: None,
)

# Of the paper itself only the abstract and the model card were at hand.
UNKNOWN = "not in abstract or model card"
TEMPORAL = Edition(
    titles=TEMPORAL_TITLES,
    claims=TEMPORAL_CLAIMS,
    rule=TEMPORAL_RULE,
    figures=(
        PaperFigure("1", "Prediction error over the horizon", (
            Part("prediction", "Each method with the most labels it was trained with; dashed: no training on this task. Points "
                 "are means over the seeds, bars one standard deviation. Below the dotted line a prediction is better "
                 "than none.", _there(QUANTITY), draw_horizons),
        )),
        PaperFigure("2", "Prediction error over the labels", (
            Part("prediction", BARS, _there(QUANTITY), draw_labels, curve=QUANTITY),
        )),
        PaperFigure("3", "Prediction error where what is seen has no noise", (
            Part("prediction", "The same methods, trained with noise, as in Figure 1.", _there(CLEAN),
                 lambda outcome: draw_horizons(outcome, CLEAN)),
        )),
    ),
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
    paper={
        "scenes": UNKNOWN,
        "users": UNKNOWN,
        "model": "about 150 k: d 32, 12 layers, 8 heads",
        "pretraining": UNKNOWN,
        "time": UNKNOWN,
    },
    paper_sizes=False,
    model=_temporal_model,
    losses=draw_temporal_losses,
    small=lambda summary: bool(summary["settings"]["temporal"]["model"]["layers"] < 12),
    plain=_stand,
)  # fmt: skip


def physics_of(outcomes: Mapping[str, Outcome]) -> dict[str, Any] | None:
    """What either model's report says about wave equivariance; None where the task was not run."""
    outcome = outcomes.get(equivariance_claims.TASK)
    if outcome is None:
        return None
    judged = equivariance_claims.judged(outcome)
    return {
        "source": equivariance_claims.SOURCE,
        "rule": equivariance_claims.RULE,
        "judged": judged,
        "small": any(item.verdict == "too small to tell" for item in judged),
        "pictures": pictures_of(outcome),
        **equivariance_claims.table_of(outcome),
    }


def edition_of(summary: dict[str, Any]) -> Edition:
    """The one of a run, from its `pretrain.json`; runs of before there were two models do not name theirs."""
    return TEMPORAL if summary["settings"].get("backbone") == "temporal" else MULTIMODAL
