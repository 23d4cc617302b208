"""Vegetation in a store: what crowns take from every path."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wavecity.dataset.records import Outcome, VegetationAttributes
from wavecity.dataset.schema import ArraySpec, Values

LOSS = "paths/vegetation_loss"
CONVENTION = (
    "paths/vegetation_loss: loss of a path in crowns of trees and woods, A_m (1 - exp(-gamma d / A_m)) dB over d m of its "
    "straight segments inside them (ITU-R P.833). All gains and channels include it; los is of buildings alone."
)
# As the tracer has them; the names of the crowns in a receipt.
KINDS = {"tree": "trees", "row": "trees of rows", "wood": "woods"}


def vegetation_specs(on: bool) -> list[ArraySpec]:
    """Arrays of a store with vegetation and paths.

    Examples
    --------
    >>> [spec.name for spec in vegetation_specs(True)]
    ['paths/vegetation_loss']
    """
    dims = ("scene", "user", "path")
    return [ArraySpec(LOSS, dims, "float32", 0, "dB", "loss of the path in crowns of trees and woods")] * on


def vegetation_attributes(attenuation: float, largest_loss: float) -> VegetationAttributes:
    """What readers need to know of it, JSON-ready: dB/m, and dB."""
    return {"attenuation_db_per_m": attenuation, "largest_loss_db": largest_loss}


def crowns_text(attributes: VegetationAttributes, outcomes: Iterable[Outcome]) -> str:
    """Crowns of all scenes, by kind, and the constants, in a line.

    Examples
    --------
    >>> outcome = {"provenance": {"vegetation": {"crowns": {"tree": 12, "row": 0, "wood": 1}}}}
    >>> crowns_text(vegetation_attributes(5.7, 94.7), [outcome])
    '12 trees, 0 trees of rows, 1 woods in 1 scenes (13.0 a scene); 5.7 dB/m, at most 94.7 dB'
    """
    found = [outcome["provenance"]["vegetation"]["crowns"] for outcome in outcomes if _has_crowns(outcome)]
    counts = {kind: sum(of[kind] for of in found) for kind in KINDS}
    kinds = ", ".join(f"{counts[kind]:,} {name}" for kind, name in KINDS.items())
    each = sum(counts.values()) / max(len(found), 1)
    return f"{kinds} in {len(found):,} scenes ({each:.1f} a scene); {constants_text(attributes)}"


def constants_text(attributes: VegetationAttributes) -> str:
    """Constants of the loss.

    Examples
    --------
    >>> constants_text(vegetation_attributes(5.7, 94.7))
    '5.7 dB/m, at most 94.7 dB'
    """
    return f"{attributes['attenuation_db_per_m']:.3g} dB/m, at most {attributes['largest_loss_db']:.3g} dB"


@dataclass(frozen=True)
class Crown:
    """A crown as it is drawn.

    Attributes
    ----------
    base, top : float
        In m above the ground.
    radius : float
        Of a tree, in m; NaN for a wood.
    rings : list of float64 (N, 2)
        A tree's place in m in the scene's frame, (1, 2); or the rings of a wood's area, the outer one first.
    """

    base: float
    top: float
    radius: float
    rings: list[Values]


def crowns_of(outcome: Outcome) -> list[Crown]:
    """Crowns of a scene by its receipt; none without vegetation, and of versions that did not keep their shapes.

    Examples
    --------
    >>> shapes = {"trees": "[[12.5,-3.0,3.0,3.0,10.0]]", "woods": "[]"}
    >>> crowns_of({"provenance": {"vegetation": {"shapes": shapes}}})[0].top
    10.0
    """
    shapes = outcome.get("provenance", {}).get("vegetation", {}).get("shapes")
    if shapes is None:
        return []
    trees = [Crown(base, top, radius, [np.array([[x, y]])]) for x, y, radius, base, top in json.loads(shapes["trees"])]
    woods = [
        Crown(base, top, np.nan, [np.array(ring, np.float64) for ring in rings])
        for base, top, rings in json.loads(shapes["woods"])
    ]
    return [*trees, *woods]


def _has_crowns(outcome: Outcome) -> bool:
    return "vegetation" in outcome.get("provenance", {})


def behind_text(loss: Values, gain: Values) -> str:
    """Share of the users whose strongest path goes through crowns, and the spread of its loss there, in a line.

    Parameters
    ----------
    loss : float32 (..., path)
        dB, strongest path first.
    gain : complex64 (..., path)
        0 where there is no path.

    Examples
    --------
    >>> behind_text(np.array([[3.0], [0.0], [0.0]]), np.array([[1e-5], [1e-4], [0.0]]))
    '50% of the users with a path; loss there 3.0 dB in the median, 3.0 dB at the 90th percentile'
    """
    first = loss[..., 0][gain[..., 0] != 0]
    through = first[first > 0]
    if not len(through):
        return "no user"
    middle, most = np.quantile(through, (0.5, 0.9))
    return (
        f"{len(through) / len(first):.0%} of the users with a path; loss there {middle:.1f} dB in the median, {most:.1f} dB at "
        "the 90th percentile"
    )
