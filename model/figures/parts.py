"""A figure of a paper as rows: what each of its pictures is drawn from, how, and what is said below it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from wavecity.model.data.users import SceneTable
from wavecity.model.figures.drawing import FEWEST_POINTS
from wavecity.model.results.names import Metric
from wavecity.model.results.outcomes import Missing, Outcome
from wavecity.model.results.records import WHOLE, Condition
from wavecity.model.results.words import condition_of, count

SEEN = "the blue dot is the user, the red triangle the base station"
BARS = (
    "Points are means over the seeds, bars one standard deviation; methods that take no labels are dashed lines. The seeds "
    "draw labels, weights and batches of the heads; pretraining and test users are the same for all."
)

LAYOUT = (
    "A line joins a user's true and predicted position; first seed. The titles give the medians of the users drawn, in the "
    "order of the legend."
)
TSNE = ("tsne_raw", "tsne_physc", "tsne_cluster")
LAYOUTS = ("layout_scene", "layout_true", "layout_places")


@dataclass(frozen=True)
class Part:
    """One picture of a figure of the paper, and what it is rebuilt from; the first of a number names the figure."""

    number: str
    title: str
    task: str
    caption: str
    draw: Callable[[Outcome], str] | None = None  # From results alone
    draw_map: Callable[[Outcome, SceneTable], str] | None = None  # ... or on the scenes of the task's dataset
    metric: Metric | None = None  # What is drawn of the records
    where: Mapping[str, object] = field(default_factory=dict)  # ... under conditions with such fields
    varied: bool = False  # ... in which something is held fixed
    arrays: tuple[str, ...] = ()  # What is drawn besides
    over_labels: bool = False  # Whether it is a curve over labels: where these are few, the caption says so
    with_mask: bool = False  # Whether the caption names the share of the CSI that was masked

    def there(self, outcome: Outcome) -> bool:
        """Whether the results have what it is drawn from."""
        if self.metric is not None:
            found = outcome.conditions(self.metric, **self.where)
            if not [one for one in found if one != WHOLE or not self.varied]:
                return False
        return all(name in outcome.arrays and outcome.arrays[name].size for name in self.arrays)


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: its pictures."""

    number: str
    title: str
    parts: tuple[Part, ...]


def merged(parts: Sequence[Part]) -> list[PaperFigure]:
    """Figures in the order of their numbers."""
    found: dict[str, list[Part]] = {}
    for part in sorted(parts, key=lambda part: int(part.number)):
        found.setdefault(part.number, []).append(part)
    return [PaperFigure(number, of[0].title, tuple(of)) for number, of in found.items()]


@dataclass(frozen=True)
class Rebuilt:
    """A figure as the page shows it: pictures with captions and sample sizes, and what is missing."""

    number: str
    title: str
    pictures: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def rebuild(
    figure: PaperFigure,
    outcomes: Mapping[str, Outcome],
    scenes: Callable[[Outcome], SceneTable | None],
    missing: Mapping[str, Missing],
) -> Rebuilt:
    """Draw what there are results for, and name what there are none for, with the reason of `missing`.

    `scenes` gives the scene table of the dataset that a task was evaluated on, None if it is not at hand.
    """
    rebuilt = Rebuilt(figure.number, figure.title)
    for part in figure.parts:
        outcome = outcomes.get(part.task)
        if outcome is None:
            line = f"{part.task}: {missing[part.task]}"
            if line not in rebuilt.missing:
                rebuilt.missing.append(line)
        elif not part.there(outcome):
            rebuilt.missing.append(f"The results of {part.task} have nothing to draw here: {part.caption}")
        elif part.draw is not None:
            rebuilt.pictures.append(_shown(figure, part, outcome, part.draw(outcome)))
        elif part.draw_map is not None and (table := scenes(outcome)) is not None:
            rebuilt.pictures.append(_shown(figure, part, outcome, part.draw_map(outcome, table)))
        else:
            version = str(outcome.result["dataset_version"])[:12]
            rebuilt.missing.append(f"Not drawn: the scenes are those of dataset {version}, which is not at hand.")
    return rebuilt


def _shown(figure: PaperFigure, part: Part, outcome: Outcome, image: str) -> dict[str, str]:
    caption = part.caption
    if part.with_mask and "spectrum_masked" in outcome.arrays:
        masked = Condition(csi_masked=float(outcome.arrays["spectrum_masked"]))
        caption = f"{condition_of(Metric.DIRECTION_TOP5, masked)}. {caption}"
    points = len(outcome.places(part.metric)) if part.over_labels and part.metric else 0
    if 0 < points < FEWEST_POINTS:
        caption += f" Only {count(points, 'point')}: too few to read a course from."
    return {"image": image, "caption": caption, "sizes": outcome.sizes(), "alt": f"{figure.title}: {caption}"}
