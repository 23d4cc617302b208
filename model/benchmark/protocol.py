"""The benchmark's settings: what `benchmark.yaml` says, and the hash that results carry."""

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, field_validator

from wavecity.dataset import InputError
from wavecity.dataset.settings import Settings
from wavecity.model.data.json_types import Json
from wavecity.model.data.users import WirelessData
from wavecity.model.settings.bounds import Count, Natural
from wavecity.model.settings.training import EvaluationSettings

FILE = "benchmark.yaml"
# In the order in which they run.
TASKS = ("localization", "cross-localization", "mu-mimo", "su-mimo")
# Of the evaluation settings those that the tasks depend on.
DECISIVE = {"max_users", "heads", "localization", "cross_scene", "mu_mimo", "su_mimo"}


class Protocol(Settings):
    """Tasks, splits, seeds, masks, noise, labels and heads under which encoders are compared."""

    name: str = Field(min_length=1, description="What results call it.")
    version: Count = Field(description="Raised with every change.")
    cities: dict[str, tuple[str, ...]] | None = Field(
        description="Cities of each split that the dataset must have, no others; empty: any dataset."
    )
    tasks: tuple[str, ...] = Field(min_length=1, description=f"Of {', '.join(TASKS)}.")
    seed: Natural = Field(description="Of visible antennas, noise, tested users and clusters.")
    csi_patch: Count = Field(description="Edge of the squares of antennas that are visible or hidden as wholes.")
    evaluation: EvaluationSettings = Field(description="As `training.evaluation` of a recipe.")

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(tasks) - set(TASKS)):
            raise ValueError(f"there is no {', '.join(unknown)}; choose from {', '.join(TASKS)}")
        return tasks

    @field_validator("evaluation")
    @classmethod
    def _zero_shot(cls, evaluation: EvaluationSettings) -> EvaluationSettings:
        if evaluation.cross_scene.labels != (0,):
            raise ValueError("cross_scene.labels must be [0]: heads are not adapted to the scenes they are tested in")
        return evaluation

    def decisive(self) -> Json:
        """All that results depend on, JSON-ready."""
        content = self.model_dump(mode="json", exclude={"evaluation"})
        return {**content, "evaluation": self.evaluation.model_dump(mode="json", include=DECISIVE)}

    @property
    def sha256(self) -> str:
        """Hash of all that results depend on."""
        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()

    def check_cities(self, data: WirelessData) -> None:
        """Refuse a dataset of other cities, or of others in a split."""
        for split, cities in (self.cities or {}).items():
            rows = data.splits[split].scene_index
            there = sorted({data.scenes.cities[int(row)] for row in rows})
            if there != sorted(cities):
                raise InputError(
                    f"{data.name}: split {split} has {', '.join(there)}; benchmark {self.name} {self.version} is on "
                    f"{', '.join(sorted(cities))} (docs/six-cities.yaml). For another dataset give --any-cities"
                )


def shipped_protocol() -> Protocol:
    """The benchmark that comes with Wavecity.

    Examples
    --------
    >>> shipped_protocol().tasks
    ('localization', 'cross-localization', 'mu-mimo', 'su-mimo')
    """
    return _parsed(resources.files("wavecity.model.benchmark").joinpath(FILE).read_text(encoding="utf-8"), FILE)


def read_protocol(path: Path) -> Protocol:
    """A benchmark of one's own, a file of the same form as `benchmark.yaml`.

    Raises
    ------
    InputError
        It cannot be read, a key is missing or unknown, a value is out of bounds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return _parsed(text, str(path))


def _parsed(text: str, origin: str) -> Protocol:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{origin}: a benchmark is a mapping of keys to values, this is {type(content).__name__}")
    try:
        return Protocol.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{origin}: {key}: {first['msg']}") from error
