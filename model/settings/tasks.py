"""The evaluation tasks that there are: all that the command line needs to know of them."""

from dataclasses import dataclass
from typing import Literal, get_args

Backbone = Literal["multimodal", "temporal", "rays"]
TaskName = Literal[
    "reconstruction",
    "localization",
    "cross-localization",
    "mu-mimo",
    "su-mimo",
    "latency",
    "prediction",
    "equivariance",
    "zero-shot",
    "few-labels",
    "radio-map",
]
TASKS: tuple[TaskName, ...] = get_args(TaskName)


@dataclass(frozen=True)
class Registered:
    """A task that can be run."""

    module: str  # Where its `SPECS` are, one for each model
    meaning: str  # What it is, in a line
    backbones: tuple[Backbone, ...] = ("multimodal",)  # Models that have it
    on_request: tuple[Backbone, ...] = ()  # Models for which it runs only where it is named


# In the order in which they run.
REGISTERED: dict[TaskName, Registered] = {
    "reconstruction": Registered(
        "wavecity.model.tasks.reconstruction",
        "masked CSI, heights and locations filled in, against OMP, LMMSE and neighbours",
    ),
    "localization": Registered(
        "wavecity.model.tasks.localization",
        "users found in a scene from some labels of it (of a path model only where it is named)",
        ("multimodal", "rays"),
        on_request=("rays",),
    ),
    "cross-localization": Registered(
        "wavecity.model.tasks.cross_scene",
        "users found in scenes that were not trained on, from few labels or none (of a path model only where it is named)",
        ("multimodal", "rays"),
        on_request=("rays",),
    ),
    "mu-mimo": Registered(
        "wavecity.model.tasks.beams.mu_mimo",
        "beams and sum-rate of several users (of a path model only where it is named)",
        ("multimodal", "rays"),
        on_request=("rays",),
    ),
    "su-mimo": Registered(
        "wavecity.model.tasks.beams.su_mimo",
        "beam pairs and rate of a user with several antennas (needs features.paths; of a path model only where it is named)",
        ("multimodal", "rays"),
        on_request=("rays",),
    ),
    "latency": Registered("wavecity.model.tasks.latency", "time of one inference, in PyTorch and exported"),
    "prediction": Registered(
        "wavecity.model.tasks.prediction", "future channels of moving users (only for a temporal model)", ("temporal",)
    ),
    "equivariance": Registered(
        "wavecity.model.tasks.equivariance",
        "networks that know the symmetries of waves against plain ones (runs only where it is named)",
        ("multimodal", "temporal"),
        on_request=("multimodal", "temporal"),
    ),
    "zero-shot": Registered(
        "wavecity.model.tasks.zero_shot",
        "location, beams, masked CSI and occupancy without a label, against physics and neighbours (only for a path model)",
        ("rays",),
    ),
    "few-labels": Registered(
        "wavecity.model.tasks.few_labels",
        "location, line of sight and beams from few labels, pretrained or from scratch (only for a path model where it is named)",
        ("rays",),
        on_request=("rays",),
    ),
    "radio-map": Registered(
        "wavecity.model.tasks.radio_map",
        "radio maps of unseen scenes by a U-Net, kriging and distance (needs features.radio_map; runs only where it is named)",
        ("multimodal", "temporal", "rays"),
        on_request=("multimodal", "temporal", "rays"),
    ),
}
# What each is, in a line.
MEANINGS: dict[TaskName, str] = {name: task.meaning for name, task in REGISTERED.items()}
TASKS_OF: dict[str, tuple[TaskName, ...]] = {
    backbone: tuple(name for name, task in REGISTERED.items() if backbone in task.backbones)
    for backbone in get_args(Backbone)
}
# Of each model those that run only where they are asked for: they train networks of their own, or take long.
ON_REQUEST: dict[str, tuple[TaskName, ...]] = {
    backbone: tuple(name for name, task in REGISTERED.items() if backbone in task.on_request)
    for backbone in get_args(Backbone)
}
