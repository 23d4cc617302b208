"""Names of the evaluation tasks, apart from `model.tasks`: settings and command line need no more of them."""

from typing import Literal, get_args

TaskName = Literal[
    "reconstruction",
    "localization",
    "cross-localization",
    "mu-mimo",
    "su-mimo",
    "latency",
    "prediction",
    "equivariance",
]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
# Those of each model, in the order in which they run.
TASKS_OF: dict[str, tuple[TaskName, ...]] = {
    "multimodal": tuple(name for name in TASKS if name != "prediction"),
    "temporal": ("prediction", "equivariance"),
}
# Run only where they are asked for: they train dozens of models.
ON_REQUEST: tuple[TaskName, ...] = ("equivariance",)
