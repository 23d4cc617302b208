"""Distributions that merge: every unit leaves histograms over fixed bins by split, the finishing step adds them up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.schema import Arrays, Values


@dataclass(frozen=True)
class Bins:
    """`count` bins of equal width from `low` to `high`, each without its upper edge; the last one includes it.

    What lies below or above is counted apart, so that no value is lost.
    """

    low: float
    high: float
    count: int
    unit: str
    long_name: str

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges (count + 1,)."""
        return np.linspace(self.low, self.high, self.count + 1)


# Fixed for all stores: histograms of different stores can be laid over one another.
HISTOGRAMS = {
    "path_gain": Bins(-200.0, 0.0, 100, "dB", "path gain of users with a path"),
    "delay_spread": Bins(0.0, 500.0, 100, "ns", "RMS delay spread over a user's strongest paths, weighted by power"),
    "n_paths": Bins(-0.5, 63.5, 64, "1", "paths found for a user with a path"),
    "distance": Bins(0.0, 500.0, 100, "m", "distance from the base station to the user's antenna"),
    "building_height": Bins(0.0, 200.0, 100, "m", "height of built cells of the height map"),
    "coverage": Bins(0.0, 1.0, 50, "1", "share of a scene's height map that is built"),
}
OUTCOMES = ("los", "nlos", "outage")


class SplitCounts(TypedDict):
    """A histogram of one split; `below` and `above` count what the bins leave out; `min`, `max` are None if empty."""

    counts: list[int]
    below: int
    above: int
    n: int
    sum: float
    min: float | None
    max: float | None


class Histogram(TypedDict):
    """A histogram by split, with its bins."""

    unit: str
    long_name: str
    low: float
    high: float
    bins: int
    splits: dict[str, SplitCounts]


class Distributions(TypedDict):
    """`distributions.json`: histograms by name; numbers of users (`OUTCOMES`) and scenes, by split."""

    histograms: dict[str, Histogram]
    users: dict[str, dict[str, int]]
    scenes: dict[str, dict[str, int]]


def unit_distributions(scenes: Sequence[Arrays | None], splits: Sequence[str]) -> Distributions:
    """Histograms and counts of a unit by split.

    Parameters
    ----------
    scenes : sequence of dict
        Arrays of each scene (`features.scene_arrays`), or None where it is quarantined. Without `paths/*` the delay
        spread and the number of paths stay empty.
    splits : sequence of str
        Split of each scene.

    Returns
    -------
    dict
        `histograms`: name -> unit, long_name, low, high, bins, and by split `counts`, `below`, `above`, `n`, `sum`,
        `min`, `max` (null where n = 0). `users`: by split how many have line of sight (`los`), none (`nlos`), no path
        (`outage`). `scenes`: by split `done` and `quarantined`.

    Examples
    --------
    >>> found = unit_distributions([arrays, None], ["train", "test"])
    >>> found["scenes"]
    {'test': {'done': 0, 'quarantined': 1}, 'train': {'done': 1, 'quarantined': 0}}
    """
    parts = [_scene_distributions(arrays, split) for arrays, split in zip(scenes, splits, strict=True)]
    return merge_distributions(parts)


def merge_distributions(units: Sequence[Distributions]) -> Distributions:
    """Add up the distributions of several units, or scenes.

    The result is the same in any order of the units, up to the last digit of `sum`, which is rounded once.
    """
    histograms = {}
    for name in HISTOGRAMS:
        found = [unit["histograms"][name]["splits"] for unit in units]
        splits = {split: _add([parts[split] for parts in found if split in parts]) for split in _keys(found)}
        histograms[name] = _with_bins(name, splits)
    return {
        "histograms": histograms,
        "users": _add_counts([unit["users"] for unit in units]),
        "scenes": _add_counts([unit["scenes"] for unit in units]),
    }


def delay_spread(gain: Values, delay: Values) -> NDArray[np.float64]:
    """RMS delay spread: the standard deviation of the delay, weighted by the paths' power (3GPP TR 25.996).

    Parameters
    ----------
    gain : complex (..., P)
        0 where there is no path.
    delay : float (..., P)
        Seconds.

    Returns
    -------
    float64 (...)
        Seconds; 0 for users without a path.

    Examples
    --------
    >>> float(delay_spread(np.array([1 + 0j, 1j]), np.array([0.0, 2e-7])))
    1e-07
    """
    power = np.abs(gain.astype(np.complex128)) ** 2
    total = power.sum(-1, keepdims=True)
    weight = power / np.where(total > 0, total, 1)
    # Delays are microseconds, spreads nanoseconds: subtract the mean before squaring.
    centred = delay - (weight * delay).sum(-1, keepdims=True)
    return np.asarray(np.sqrt((weight * centred**2).sum(-1)), np.float64)


def _scene_distributions(arrays: Arrays | None, split: str) -> Distributions:
    """Distributions of one scene; without arrays it is quarantined."""
    if arrays is None:
        empty = {name: _with_bins(name, {}) for name in HISTOGRAMS}
        return {"histograms": empty, "users": {}, "scenes": {split: {"done": 0, "quarantined": 1}}}
    heard, built = ~arrays["outage"], arrays["height"] > 0
    values = {
        "path_gain": arrays["path_gain"][heard],
        "distance": np.linalg.norm(arrays["user_position"].astype(np.float64), axis=-1),
        "building_height": arrays["height"][built],
        "coverage": np.array([built.mean()]),
    }
    if "paths/gain" in arrays:
        spread = delay_spread(arrays["paths/gain"][heard], arrays["paths/delay"][heard].astype(np.float64))
        values |= {"delay_spread": 1e9 * spread, "n_paths": arrays["paths/n_paths"][heard]}
    los = arrays["los"] & heard
    counts = (los, heard & ~los, ~heard)
    return {
        "histograms": {
            name: _with_bins(name, {split: _count(values[name], bins)} if name in values else {})
            for name, bins in HISTOGRAMS.items()
        },
        "users": {split: {name: int(mask.sum()) for name, mask in zip(OUTCOMES, counts, strict=True)}},
        "scenes": {split: {"done": 1, "quarantined": 0}},
    }


def _with_bins(name: str, splits: dict[str, SplitCounts]) -> Histogram:
    """Histogram of that name with counts by split."""
    bins = HISTOGRAMS[name]
    return {
        "unit": bins.unit,
        "long_name": bins.long_name,
        "low": bins.low,
        "high": bins.high,
        "bins": bins.count,
        "splits": splits,
    }


def _count(values: Values, bins: Bins) -> SplitCounts:
    """Count the values of one scene in bins."""
    values = np.asarray(values, np.float64)
    return {
        "counts": np.histogram(values, bins.edges)[0].tolist(),
        "below": int((values < bins.low).sum()),
        "above": int((values > bins.high).sum()),
        "n": len(values),
        "sum": math.fsum(values),
        "min": float(values.min()) if len(values) else None,
        "max": float(values.max()) if len(values) else None,
    }


def _add(parts: Sequence[SplitCounts]) -> SplitCounts:
    """Add up the counts of one split."""
    lows = [part["min"] for part in parts if part["min"] is not None]
    highs = [part["max"] for part in parts if part["max"] is not None]
    return {
        "counts": np.sum([part["counts"] for part in parts], axis=0).tolist(),
        "below": sum(part["below"] for part in parts),
        "above": sum(part["above"] for part in parts),
        "n": sum(part["n"] for part in parts),
        "sum": math.fsum(part["sum"] for part in parts),
        "min": min(lows, default=None),
        "max": max(highs, default=None),
    }


def _add_counts(parts: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    """Add up numbers by split."""
    total: dict[str, dict[str, int]] = {}
    for split in _keys(parts):
        here = [part[split] for part in parts if split in part]
        total[split] = {name: sum(counts[name] for counts in here) for name in here[0]}
    return total


def _keys(parts: Sequence[Mapping[str, object]]) -> list[str]:
    """All keys of several mappings, sorted."""
    return sorted({key for part in parts for key in part})
