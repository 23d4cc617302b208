"""What a task is: how it is run, what its results depend on, and what the report makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from wavecity.model.data.users import SPLITS
from wavecity.model.figures.parts import PaperFigure, Part, merged
from wavecity.model.results.claims import Claim
from wavecity.model.results.names import Method
from wavecity.model.results.records import Findings
from wavecity.model.settings.tasks import REGISTERED, Backbone, TaskName
from wavecity.model.settings.training import EvaluationSettings


@dataclass(frozen=True)
class TaskSpec:
    """A task of one model. A module in `wavecity.model.settings.tasks.REGISTERED` has its own as `SPECS`."""

    name: TaskName
    backbone: Backbone
    title: str  # In the report
    # From (predictor, data, settings, seed) of the multi-modal model, or (model, settings it was trained with, data,
    # settings, seed) of the temporal one, to `Findings`; `settings` are the evaluation's
    run: Callable[..., Findings]
    settings: frozenset[str]  # Fields of the evaluation settings that results depend on
    baselines: tuple[Method, ...]  # What the model is compared with
    claims: tuple[Claim, ...] = ()
    pictures: tuple[Part, ...] = ()
    splits: tuple[str, ...] = SPLITS  # Those that its dataset must have
    # From the evaluation settings: versions of other datasets that results depend on
    other_data: Callable[[EvaluationSettings], list[str]] = lambda _: []
    # Whether claims and figures stand in a section of their own in the report, whatever the model's paper
    own_section: bool = False
    # Whether the run's own model has no part in it: then `run` takes (store, settings, seed), and any dataset will do
    without_model: bool = False

    @property
    def figures(self) -> list[PaperFigure]:
        """Its pictures by figure."""
        return merged(self.pictures)


def spec_of(name: TaskName, backbone: Backbone) -> TaskSpec | None:
    """The task of a name for one model; None if that model has no such task."""
    specs: tuple[TaskSpec, ...] = import_module(REGISTERED[name].module).SPECS
    return next((spec for spec in specs if spec.backbone == backbone), None)


def specs_of(backbone: Backbone) -> list[TaskSpec]:
    """All tasks of a model, in the order in which they run."""
    found = [spec_of(name, backbone) for name, task in REGISTERED.items() if backbone in task.backbones]
    return [spec for spec in found if spec is not None]
