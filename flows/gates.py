"""Quality gates: what a recipe demands of a finished dataset before it becomes a version."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np

from wavecity.dataset.distributions import Distributions, Histogram
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.settings import GateSettings
from wavecity.geo.errors import CommandFailed

GateName = Literal["outage", "imputed", "quarantined", "drift"]
GATES: tuple[GateName, ...] = get_args(GateName)

# Sources of a height that the map, or a file of heights, does not state.
GUESSED = ("imputed", "guess")
# Distributions that are compared with those of the last version.
COMPARED = ("path_gain", "building_height")


@dataclass(frozen=True)
class Gate:
    """A gate with what was measured; `limit` is None where the recipe has none, `value` where there is nothing to measure."""

    name: GateName
    value: float | None
    limit: float | None
    what: str
    overridden: bool = False

    @property
    def exceeded(self) -> bool:
        """Whether it stops publication."""
        return self.value is not None and self.limit is not None and self.value > self.limit and not self.overridden

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.value is None:
            return "not measured"
        if self.limit is None:
            return "no limit"
        if self.value <= self.limit:
            return "passed"
        return "exceeded, overridden" if self.overridden else "exceeded"


class GateFailed(CommandFailed):
    """A gate of the recipe stops publication (exit code 1)."""

    def __init__(self, gates: Collection[Gate], draft: StorePath) -> None:
        stopped = [gate for gate in gates if gate.exceeded]
        found = "; ".join(f"{gate.what} {gate.value:.3g} is above gates.{gate.name} {gate.limit:g}" for gate in stopped)
        names = " ".join(f"--pass-gate {gate.name}" for gate in stopped)
        super().__init__(
            f"not published: {found}; the draft stays in {draft}, the published version is untouched; correct the recipe, or "
            f"publish it all the same with {names}"
        )
        self.gates = stopped


def measure(
    folder: StorePath, last: StorePath | None, settings: GateSettings, passed: Collection[str] = ()
) -> list[Gate]:
    """Measure a finished draft by all gates.

    Parameters
    ----------
    folder : StorePath
        Of the draft.
    last : StorePath or None
        Folder of the version that it is to replace.
    settings : GateSettings
        Limits.
    passed : collection of str
        Gates that are overridden.

    Returns
    -------
    list of Gate
        One per gate, in the order of `GATES`.

    Examples
    --------
    >>> [gate.name for gate in measure(draft.folder, None, recipe.gates) if gate.exceeded]
    ['outage']
    """
    found = cast(Distributions, read_json(folder / "distributions.json"))
    users, scenes = _all_splits(found["users"]), _all_splits(found["scenes"])
    heights: Counter[str] = Counter()
    for receipt in load_draft(folder).receipts():
        for scene in receipt["scenes"]:
            heights.update(scene.get("heights_from", {}))
    known: Distributions | None = read_json(last / "distributions.json") if last is not None else None
    drift, most = drift_of(found, known) if known else (None, "")
    measured: dict[GateName, tuple[float | None, str]] = {
        "outage": (_share(users["outage"], users), "share of users in outage"),
        "imputed": (
            _share(sum(heights[name] for name in GUESSED), heights),
            "share of buildings with a guessed height",
        ),
        "quarantined": (_share(scenes["quarantined"], scenes), "share of quarantined scenes"),
        "drift": (drift, f"change of {most or 'distributions'} since the last version"),
    }
    return [
        Gate(name, value, getattr(settings, name), what, name in passed) for name, (value, what) in measured.items()
    ]


def limits_of(folder: StorePath) -> GateSettings:
    """Limits of the recipe that a draft was finished with; none for imported channels, which have no recipe."""
    recipe = attributes_of(open_store(folder, carrier="all", port="all").attrs).get("recipe", {})
    return GateSettings.model_validate(recipe.get("gates", {}))


def drift_of(new: Distributions, old: Distributions) -> tuple[float, str]:
    """The largest change between two datasets, 0 to 1, and what has changed most.

    Of path gains and building heights it is the Kolmogorov-Smirnov distance (the largest difference of the cumulative
    distributions, at the edges of the histograms' bins), of line of sight the difference of the users' shares.
    """
    changes = {}
    for name in COMPARED:
        if name in new["histograms"] and name in old["histograms"]:
            changes[name] = _distance(new["histograms"][name], old["histograms"][name])
    shares = [_share(users["los"], users) for users in (_all_splits(new["users"]), _all_splits(old["users"]))]
    if shares[0] is not None and shares[1] is not None:
        changes["los"] = abs(shares[0] - shares[1])
    if not changes:
        return 0.0, ""
    name = max(changes, key=lambda one: changes[one])
    return changes[name], name


def _distance(new: Histogram, old: Histogram) -> float:
    """Largest difference of two cumulative distributions; 1 if only one of them has values or the bins are others."""
    if any(new[key] != old[key] for key in ("low", "high", "bins")):  # type: ignore[literal-required]
        return 1.0
    cumulative = []
    for histogram in (new, old):
        # What lies below the bins is a bin of its own.
        counts = [np.array([split["below"], *split["counts"]], float) for split in histogram["splits"].values()]
        total = sum(split["n"] for split in histogram["splits"].values())
        cumulative.append(np.cumsum(np.sum(counts, axis=0)) / total if total else None)
    if cumulative[0] is None or cumulative[1] is None:
        return float(cumulative[0] is not cumulative[1])
    return float(np.abs(cumulative[0] - cumulative[1]).max())


def _all_splits(counts: dict[str, dict[str, int]]) -> Counter[str]:
    """Counts of all splits together."""
    return sum((Counter(part) for part in counts.values()), Counter())


def _share(part: int, whole: Counter[str]) -> float | None:
    """A share, None of nothing."""
    return part / whole.total() if whole.total() else None
