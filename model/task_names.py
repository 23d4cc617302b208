"""Names of the evaluation tasks, apart from `model.tasks`: settings and command line need no more of them."""

from typing import Literal, get_args

TaskName = Literal[
    "reconstruction", "localization", "cross-localization", "mu-mimo", "su-mimo", "latency", "prediction"
]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
# Those of the temporal model; all others are of the multi-modal one.
TEMPORAL_TASKS: tuple[TaskName, ...] = ("prediction",)
