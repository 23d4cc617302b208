"""A row of a results table, and the few statistics the rows are made of."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One quantity under one condition, for the model and everything it stands beside.

    Attributes
    ----------
    quantity, condition : str
    unit : str
    better : {"lower", "higher"}
    values : dict
        Predictor -> value; those that are this model's begin with `model` or `[PHYSC]`.
    """

    quantity: str
    condition: str
    unit: str
    better: Literal["lower", "higher"]
    values: dict[str, float]

    def verdict(self) -> str:
        """Say in plain words how the model stands against the best other predictor."""
        own = {name: value for name, value in self.values.items() if is_ours(name)}
        others = {name: value for name, value in self.values.items() if not is_ours(name)}
        sign = 1 if self.better == "higher" else -1
        best = max(own.values(), key=lambda value: sign * value)
        rival = max(others, key=lambda name: sign * others[name])
        if math.isnan(best) or math.isnan(others[rival]):
            return "not measured"
        gap = sign * (best - others[rival])
        tie = 0.02 * max(abs(best), abs(others[rival]))
        if abs(gap) <= tie:
            return f"level with {rival}"
        return f"ahead of {rival}" if gap > 0 else f"behind {rival}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the verdict included."""
        return {**asdict(self), "verdict": self.verdict()}


def is_ours(name: str) -> bool:
    """Whether a predictor is the pretrained model or a probe of it."""
    return name.startswith(("model", "[PHYSC]"))


def decibel(ratio: float) -> float:
    """10 log10 of a power ratio."""
    return 10 * math.log10(max(ratio, 1e-300))


def median_error(predicted: Tensor, truth: Tensor) -> float:
    """Median distance of positions (N, 2), in their unit."""
    return float((predicted - truth).norm(dim=-1).median())
