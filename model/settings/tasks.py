"""Names of the evaluation tasks and of what they compare: all that the command line needs to know of them."""

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
# What each is, in a line.
MEANINGS: dict[TaskName, str] = {
    "reconstruction": "masked CSI, heights and locations filled in, against OMP, LMMSE and neighbours",
    "localization": "users found in a scene from some labels of it",
    "cross-localization": "users found in scenes that were not trained on, from few labels or none",
    "mu-mimo": "beams and sum-rate of several users",
    "su-mimo": "beam pairs and rate of a user with several antennas (needs features.paths)",
    "latency": "time of one inference, in PyTorch and exported",
    "prediction": "future channels of moving users (only for a temporal model)",
    "equivariance": "networks that know the symmetries of waves against plain ones (runs only where it is named)",
}
# Those of each model, in the order in which they run.
TASKS_OF: dict[str, tuple[TaskName, ...]] = {
    "multimodal": tuple(name for name in TASKS if name != "prediction"),
    "temporal": ("prediction", "equivariance"),
}
# Run only where they are asked for: they train dozens of models.
ON_REQUEST: tuple[TaskName, ...] = ("equivariance",)
# What no method can be ahead of by more than luck: no rival.
BOUND = "exhaustive search"


def is_ours(name: str) -> bool:
    """Whether a predictor is the pretrained model or a head on it."""
    return name.startswith(("model", "[PHYSC]"))
