"""Which figures of the paper the report rebuilds, from which task's results, and what is said below each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from wavecity.model.data.users import SceneTable
from wavecity.model.report.drawing import FEWEST_POINTS
from wavecity.model.report.figures import (
    draw_attention,
    draw_locations,
    draw_occupancy,
    draw_spectra,
    draw_spectrum_in_scene,
)
from wavecity.model.report.task_figures import (
    draw_clusters,
    draw_cross,
    draw_ecdf,
    draw_heads,
    draw_layouts,
    draw_local,
    draw_local_scenes,
    draw_mu,
    draw_su,
)
from wavecity.model.results.measures import CROSS, LOCAL, MU_RATE, SU_RATE, heads_at
from wavecity.model.results.outcomes import Missing, Outcome, count

SEEN = "the blue dot is the user, the red triangle the base station"
BARS = (
    "Points are means over the seeds, bars one standard deviation; methods that take no labels are dashed lines. The seeds "
    "draw labels, weights and batches of the heads; pretraining and test users are the same for all."
)

LAYOUT = (
    "A line joins a user's true and predicted position; first seed. The titles give the medians of the users drawn, in the "
    "order of the legend."
)
LAYOUTS = ("layout_scene", "layout_true", "layout_places")


@dataclass(frozen=True)
class Part:
    """One picture of a figure.

    Attributes
    ----------
    task : str
    caption : str
    there : callable
        Whether the results have what it is drawn from.
    draw : callable, optional
        From results alone ...
    draw_map : callable, optional
        ... or on the scenes of the task's dataset.
    curve : str
        Quantity that is drawn over labels, if it is one: where these are few, the caption says so.
    """

    task: str
    caption: str
    there: Callable[[Outcome], bool]
    draw: Callable[[Outcome], str] | None = None
    draw_map: Callable[[Outcome, SceneTable], str] | None = None
    curve: str = ""


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper and what it is rebuilt from."""

    number: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Rebuilt:
    """A figure as the page shows it: pictures with captions and sample sizes, and what is missing."""

    number: str
    title: str
    pictures: list[dict[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def _arrays(*names: str) -> Callable[[Outcome], bool]:
    """Whether all these arrays are there and not empty."""
    return lambda outcome: all(outcome.arrays[name].size if name in outcome.arrays else 0 for name in names)


def _quantity(quantity: str) -> Callable[[Outcome], bool]:
    return lambda outcome: bool(outcome.conditions(quantity))


def _mask(outcome: Outcome) -> str:
    return str(outcome.arrays["spectrum_condition"]) if "spectrum_condition" in outcome.arrays else ""


FIGURES = (
    PaperFigure("3", "Attention of [PHYSC] to the scene", (
        Part("reconstruction", f"Nothing masked, mean over the heads of each encoder layer; {SEEN}.",
             _arrays("attention", "spectrum_true"),
             draw_map=lambda outcome, scenes: draw_attention(outcome.arrays, scenes)),
    )),
    PaperFigure("4", "Spatial spectra in their scenes", (
        Part("reconstruction",
             "True spectra over the direction cosines of departure, dB below the strongest bin from black to white; "
             f"{SEEN}.",
             _arrays("spectrum_true", "spacing"),
             draw_map=lambda outcome, scenes: draw_spectrum_in_scene(outcome.arrays, scenes)),
    )),
    PaperFigure("5", "Localisation", (
        Part("localization", "(a) Colour: k-means clusters of the positions of one scene's users. Distances between "
             "clusters mean little in a t-SNE plane; the silhouettes are of the features themselves.",
             _arrays("tsne_raw", "tsne_physc", "tsne_cluster"),
             lambda outcome: draw_clusters(outcome, "clusters of positions")),
        Part("localization", f"(b) Median over the pooled errors of all scenes. {BARS}", _quantity(LOCAL), draw_local,
             curve=LOCAL),
        Part("localization", "(b) The same scene by scene.",
             lambda outcome: len(outcome.conditions(LOCAL)) > 1, draw_local_scenes, curve=LOCAL),
        Part("cross-localization", f"(c) Heads trained on training scenes, then adapted; 0 labels is zero-shot. {BARS}",
             _quantity(CROSS), draw_cross, curve=CROSS),
    )),
    PaperFigure("6", "Multi-user MIMO", (
        Part("mu-mimo", "(a), (b) Colour: k-means clusters of the beams in angle.",
             _arrays("tsne_raw", "tsne_physc", "tsne_cluster"),
             lambda outcome: draw_clusters(outcome, "clusters of beams in angle")),
        Part("mu-mimo", f"(c), (d) Accuracy over users, sum-rate as mean over clusters. {BARS}",
             _quantity(MU_RATE), draw_mu, curve=MU_RATE),
    )),
    PaperFigure("7", "Single-user MIMO", (
        Part("su-mimo", "Top-2 accuracy is the mean share of the two labelled beams that are among the two predicted. "
             f"{BARS}", _quantity(SU_RATE), draw_su, curve=SU_RATE),
    )),
    PaperFigure("9", "Locations of held-out users", (
        Part("reconstruction",
             "Scene seen, location hidden. A grey line joins a user's true and predicted position.",
             _arrays("location_model"),
             draw_map=lambda outcome, scenes: draw_locations(outcome.arrays, scenes)),
    )),
    PaperFigure("10", "Spatial spectra of held-out users", (
        Part("reconstruction", "Scene seen, location hidden. Each spectrum is scaled to its own strongest bin; the ring "
             "marks the true strongest one.",
             _arrays("spectrum_true", "spectrum_model"),
             lambda outcome: draw_spectra(outcome.arrays)),
    )),
    PaperFigure("11", "Masked occupancy of held-out scenes", (
        Part("reconstruction", "All of the CSI and the location seen, patches nearest to the link masked; grey was not "
             f"masked; {SEEN}.",
             _arrays("occupancy_true", "occupancy_model"),
             draw_map=lambda outcome, scenes: draw_occupancy(outcome.arrays, scenes)),
    )),
    PaperFigure("12", "Scenes of the localisation task with predicted locations", (
        Part("cross-localization", f"Heads that have not seen these scenes, as in the paper's figure. {LAYOUT}",
             _arrays(*LAYOUTS), draw_map=draw_layouts),
        Part("localization", f"Heads of the scene itself, with the largest number of labels. {LAYOUT}",
             _arrays(*LAYOUTS), draw_map=draw_layouts),
    )),
    PaperFigure("13", "Distribution of the multi-user sum-rate", (
        Part("mu-mimo", "Share of the test clusters whose sum-rate is not above a value; first seed.",
             _arrays("ecdf_ratios", "ecdf_rates"), draw_ecdf),
    )),
    PaperFigure("14", "Heads with a learning rate of 1e-3", (
        Part("mu-mimo", f"Hidden layers of the head; nothing tuned. {BARS}",
             lambda outcome: bool(heads_at(outcome, 1e-3)), lambda outcome: draw_heads(outcome, 1e-3), curve=MU_RATE),
    )),
    PaperFigure("15", "Heads with a learning rate of 1e-4", (
        Part("mu-mimo", f"Hidden layers of the head; nothing tuned. {BARS}",
             lambda outcome: bool(heads_at(outcome, 1e-4)), lambda outcome: draw_heads(outcome, 1e-4), curve=MU_RATE),
    )),
)  # fmt: skip


def rebuild(
    figure: PaperFigure,
    outcomes: Mapping[str, Outcome],
    scenes: Callable[[Outcome], SceneTable | None],
    missing: Mapping[str, Missing],
) -> Rebuilt:
    """Draw what there are results for, and name what there are none for.

    Parameters
    ----------
    figure : PaperFigure
    outcomes : mapping of str to Outcome
    scenes : callable
        Scene table of the dataset that a task was evaluated on, None if it is not at hand.
    missing : mapping of str to Missing
        Why the other tasks have no results.
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
        elif part.draw_map is not None:
            if (table := scenes(outcome)) is None:
                version = str(outcome.result["dataset_version"])[:12]
                rebuilt.missing.append(f"Not drawn: the scenes are those of dataset {version}, which is not at hand.")
            else:
                rebuilt.pictures.append(_shown(figure, part, outcome, part.draw_map(outcome, table)))
    return rebuilt


def _shown(figure: PaperFigure, part: Part, outcome: Outcome, image: str) -> dict[str, str]:
    condition = _mask(outcome)
    caption = f"{condition}. {part.caption}" if condition and figure.number in ("9", "10") else part.caption
    points = outcome.points(part.curve) if part.curve else 0
    if 0 < points < FEWEST_POINTS:
        caption += f" Only {count(points, 'point')}: too few to read a course from."
    return {"image": image, "caption": caption, "sizes": outcome.sizes(), "alt": f"{figure.title}: {caption}"}
