"""Storeys of buildings of which the map says nothing but type and footprint, and how far neighbours speak for them.

The numbers are medians over the cities of `scripts/heights.py`, each city counted once and rounded to whole storeys.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Buildings of one storey, whatever stands around them, unless they are very large.
LOW = frozenset((
    "barn", "bungalow", "cabin", "container", "cowshed", "entrance", "farm_auxiliary", "garage", "garages", "greenhouse",
    "guardhouse", "hut", "kiosk", "pavilion", "service", "shed", "shelter", "stable", "static_caravan", "storage_tank",
    "sty", "tent", "toilets", "trailer", "transformer_tower", "utility",
))  # fmt: skip
LOW_AREA = 1000.0
# A kiosk or garage that is only tagged as a building: one storey up to this footprint in m2.
SMALL_FOOTPRINT = 25.0
# Roofs on open air: height in m of their top.
SLABS = {"roof": 4.5, "canopy": 4.5, "carport": 3.0}
SLAB_THICKNESS = 0.5
STOREYS = {
    "detached": 2, "semidetached_house": 2, "house": 2, "farm": 2, "terrace": 3,
    "residential": 4, "apartments": 5, "dormitory": 4, "hotel": 6,
    "office": 6, "commercial": 4, "retail": 2, "supermarket": 2, "industrial": 2, "warehouse": 2, "parking": 3,
    "kindergarten": 2, "school": 3, "college": 3, "university": 4, "hospital": 4,
    "church": 3, "chapel": 2, "mosque": 3, "temple": 2, "public": 3, "civic": 3, "train_station": 3,
}  # fmt: skip
# Types that need some room: on a footprint below this in m2 they have at most three storeys.
TALL_TYPES = frozenset(("residential", "apartments", "commercial", "office", "hotel"))
TALL_AREA = 100.0
# Of other buildings: storeys up to a footprint in m2.
BY_AREA = ((50.0, 1), (150.0, 2), (250.0, 3), (400.0, 4), (2500.0, 5), (np.inf, 4))
# A neighbour at this distance in m, and one of another type, count half as much as one next door of the same type.
HALF_DISTANCE = 50.0
OTHER_TYPE = 0.5


@dataclass(frozen=True)
class Neighbours:
    """The nearest buildings of known height, nearest first: arrays (K,) of height in m, footprint in m2, distance in m
    and whether they are of the same type.
    """

    tops: NDArray[np.float64]
    areas: NDArray[np.float64]
    distances: NDArray[np.float64]
    same_type: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tops)


def is_low(kind: str, area: float) -> bool:
    """Whether a building has one storey, whatever stands around it: garages, sheds, kiosks and the like.

    Examples
    --------
    >>> is_low("garage", 40.0), is_low("house", 40.0), is_low("yes", 12.0)
    (True, False, True)
    """
    return area <= SMALL_FOOTPRINT or (kind in LOW and area <= LOW_AREA)


def guessed_storeys(kind: str, area: float) -> int:
    """Plausible number of storeys of a type (value of the tag `building`) on a footprint in m2.

    Examples
    --------
    >>> guessed_storeys("apartments", 300.0), guessed_storeys("yes", 300.0), guessed_storeys("yes", 80.0)
    (5, 4, 2)
    """
    if is_low(kind, area):
        return 1
    if kind in LOW:
        return 2
    if kind in STOREYS:
        return min(STOREYS[kind], 3) if kind in TALL_TYPES and area < TALL_AREA else STOREYS[kind]
    return next(storeys for largest, storeys in BY_AREA if area <= largest)


def height_by_neighbours(area: float, neighbours: Neighbours) -> float:
    """Median of the neighbours' heights in m, weighted by nearness, like footprint and like type.

    Examples
    --------
    >>> three = Neighbours(np.array([9.0, 30.0, 9.5]), np.array([90.0, 900.0, 95.0]), np.zeros(3), np.ones(3, bool))
    >>> height_by_neighbours(100.0, three)
    9.5
    """
    likeness = np.minimum(neighbours.areas, area) / np.maximum(np.maximum(neighbours.areas, area), 1e-9)
    weights = likeness * np.where(neighbours.same_type, 1.0, OTHER_TYPE) / (1 + neighbours.distances / HALF_DISTANCE)
    order = np.argsort(neighbours.tops, kind="stable")
    sums = np.cumsum(weights[order])
    # The last bits of areas and distances differ from tile to tile; a tie must not depend on them.
    place = int(np.argmax(sums >= (0.5 - 1e-4) * sums[-1]))
    return float(neighbours.tops[order[place]])
