"""Building heights: from tags where the map has them, else imputed reproducibly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.guess import (
    SLAB_THICKNESS,
    SLABS,
    Neighbours,
    guessed_storeys,
    height_by_neighbours,
    is_low,
)
from wavecity.geo.height_texts import HEIGHT_KEYS, MAX_HEIGHT, TOP_KEYS, parse_length, parse_levels, storeys_in_words
from wavecity.geo.seeding import generator

HeightSource = Literal["tag", "levels", "part", "external", "imputed", "guess"]

# Tags that a file of heights adds to buildings without any (`wavecity.geo.height_file`): metres, and storeys.
EXTERNAL_HEIGHT, EXTERNAL_FLOORS = "wavecity:height", "wavecity:levels"
MIN_HEIGHT = 0.1
NEIGHBOUR_RADIUS = 150.0
NEIGHBOURS = 8
# With as many tagged buildings a map's own storey height counts half.
FEW = 5
# Confidence is a rank, not a probability: how directly the map states the height.
CONFIDENCE = {
    "tag": 1.0,
    "approximate": 0.8,
    "levels": 0.7,
    "inherited": 0.6,
    "external": 0.5,
    "neighbours": 0.4,
    "map": 0.2,
    "guess": 0.1,
}


@dataclass(frozen=True)
class Height:
    """Top and underside of a building above ground in m, their source, and the confidence in it (0 to 1)."""

    top: float
    base: float
    source: HeightSource
    confidence: float


@dataclass(frozen=True)
class HeightStatistics:
    """How high the buildings of a whole map are in comparison with a guess, independent of the storey height.

    Attributes
    ----------
    metres, levels : float
        Medians of tagged heights in m and of storeys (roof storeys included), for each storey that would be guessed.
    n_metres, n_levels : int
        Buildings behind each.
    """

    metres: float = 0.0
    levels: float = 0.0
    n_metres: int = 0
    n_levels: int = 0

    @property
    def n_tagged(self) -> int:
        """Buildings of which the map states the height."""
        return self.n_metres + self.n_levels

    def storey(self, storey_height: float) -> float:
        """Height in m of a guessed storey in this map: the recipe's where the map states little, else the map's own."""
        logs = [
            n * np.log(median / storey_height)
            for n, median in ((self.n_metres, self.metres), (self.n_levels, self.levels * storey_height))
            if n
        ]
        # Rounded, so that a few more tagged buildings in a newer map do not change every height.
        return round(storey_height * float(np.exp(sum(logs) / (self.n_tagged + FEW))), 1) if logs else storey_height


def tagged_height(tags: Mapping[str, str], storey_height: float) -> Height | None:
    """Height of a building from its tags, None where the map does not state it.

    OSM's `height` is the top above ground, not above `min_height`; `building:levels` counts from the ground too.

    Parameters
    ----------
    tags : mapping
        Raw tags of the building or building part.
    storey_height : float
        Metres per storey.

    Examples
    --------
    >>> tagged_height({"building": "yes", "building:levels": "4"}, 3.5).top
    14.0
    """
    stated = tuple((key, tags[key]) for key in (*HEIGHT_KEYS, EXTERNAL_HEIGHT, EXTERNAL_FLOORS) if key in tags)
    return _tagged_height(stated, storey_height, tags.get("building") in SLABS)


@lru_cache(maxsize=50_000)
def _tagged_height(stated: tuple[tuple[str, str], ...], storey_height: float, slab: bool) -> Height | None:
    """Cached: most buildings of a city have one of a few dozen combinations of tags."""
    tags = dict(stated)
    metres, storeys = _top(tags), _storeys(tags)
    if metres is not None:
        top, exact = metres
        base = _base(tags, storey_height, slab, top, storeys)
        return _above(top, base, "tag", CONFIDENCE["tag" if exact else "approximate"])
    if storeys is not None and MIN_HEIGHT <= storeys * storey_height <= MAX_HEIGHT:
        top = storeys * storey_height
        return _above(top, _base(tags, storey_height, slab, top), "levels", CONFIDENCE["levels"])
    metres_elsewhere, storeys_elsewhere = _external(tags)
    if metres_elsewhere or storeys_elsewhere:
        top = metres_elsewhere or min(storeys_elsewhere * storey_height, MAX_HEIGHT)
        return _above(top, _base(tags, storey_height, slab, top), "external", CONFIDENCE["external"])
    return None


def impute_height(
    tags: Mapping[str, str],
    osm: tuple[str, int],
    area: float,
    neighbours: Neighbours,
    statistics: HeightStatistics,
    storey_height: float,
    method: Literal["neighbours", "geo2sigmap"],
    seed: int,
) -> Height:
    """Plausible height of a building that has none, always the same for the same map (and seed, for `geo2sigmap`).

    Parameters
    ----------
    tags : mapping
        Raw tags; `min_height` and `building:min_level` still hold.
    osm : (str, int)
        OSM type and id.
    area : float
        Footprint in m2.
    neighbours : Neighbours
        The nearest tagged buildings.
    statistics : HeightStatistics
        Of the whole map, for buildings without neighbours.
    storey_height : float
        Metres per storey.
    method : str
        `neighbours`: the height of like neighbours, else a guess by type and footprint, scaled to the map's tagged
        heights; garages, sheds and kiosks have one storey, roofs on open air are low. `geo2sigmap`: storeys from N(5, 1),
        clipped to 1…15, whatever the building.
    seed : int

    Returns
    -------
    Height
        Of source `guess` where the map states no height at all, else `imputed`.
    """
    kind = tags.get("building") or tags.get("building:part", "")
    base = _base(tags, storey_height)
    confidence = CONFIDENCE["map" if statistics.n_tagged else "guess"]
    if method == "geo2sigmap":
        random = generator(seed, "height", *osm)
        top = storey_height * float(np.clip(random.normal(5.0, 1.0), 1.0, 15.0))
        confidence = CONFIDENCE["guess"]
    elif kind in SLABS:
        top = SLABS[kind]
        base = base or _base(tags, storey_height, True, top)
    elif is_low(kind, area):
        top = storey_height
    elif len(neighbours):
        top = height_by_neighbours(area, neighbours)
        confidence = CONFIDENCE["neighbours"]
    else:
        top = guessed_storeys(kind, area) * statistics.storey(storey_height)
    # A building known to start above that height has at least one storey there, a roof its thickness.
    least = base + (SLAB_THICKNESS if kind in SLABS else storey_height)
    top = float(np.clip(max(top, least), MIN_HEIGHT, MAX_HEIGHT))
    return _above(top, base, "imputed" if statistics.n_tagged else "guess", confidence)


def height_statistics(all_tags: Sequence[Mapping[str, str]], areas: Sequence[float]) -> HeightStatistics:
    """Statistics of the heights that the given tags state, of buildings with these footprints in m2."""
    metres: list[float] = []
    levels: list[float] = []
    for tags, area in zip(all_tags, areas, strict=True):
        length, storeys = _top(tags), _storeys(tags)
        top, floors = _external(tags) if length is None and storeys is None else (length[0] if length else 0.0, storeys)
        kind = tags.get("building", "")
        guessed = 1 if kind in SLABS else guessed_storeys(kind, area)
        if top:
            metres.append(top / guessed)
        elif floors:
            levels.append(floors / guessed)
    return HeightStatistics(
        metres=float(np.median(metres)) if metres else 0.0,
        levels=float(np.median(levels)) if levels else 0.0,
        n_metres=len(metres),
        n_levels=len(levels),
    )


def nearest_heights(
    centre: NDArray[np.float64],
    kind: str,
    others: NDArray[np.float64],
    tops: NDArray[np.float64],
    areas: NDArray[np.float64],
    kinds: NDArray[np.str_],
    radius: float = NEIGHBOUR_RADIUS,
) -> Neighbours:
    """The at most 8 nearest of `others` (N, 2) within a radius of `centre` (2,), nearest first.

    Parameters
    ----------
    centre, others : float64 (2,) and (N, 2)
        Centroids in m.
    kind, kinds : str and str (N,)
        Values of the tag `building`.
    tops, areas : float64 (N,)
        Heights in m and footprints in m2.
    radius : float
        In m.
    """
    # Rounded, so that a tie is not decided by the last bits of a projection, which differ from tile to tile.
    offset = others - centre
    distance = np.round(np.hypot(offset[:, 0], offset[:, 1]), 2).astype(np.float64)
    near = np.flatnonzero(distance <= radius)
    order = near[np.lexsort((tops[near], distance[near]))][:NEIGHBOURS]
    return Neighbours(tops[order], areas[order], distance[order], kinds[order] == kind)


def _top(tags: Mapping[str, str]) -> tuple[float, bool] | None:
    """Height in m, and whether it is exact."""
    for key in TOP_KEYS:
        length = parse_length(tags.get(key, ""))
        if length is not None and length[0] >= MIN_HEIGHT:
            return length[0], length[1] and key != "est_height"
    return None


def _storeys(tags: Mapping[str, str]) -> float | None:
    """Number of storeys, those of the roof included."""
    levels = parse_levels(tags.get("building:levels", ""))
    if levels is None:
        # Some write `height=3 floors`.
        levels = next((found for key in TOP_KEYS if (found := storeys_in_words(tags.get(key, "")))), None)
    if levels is None:
        return None
    storeys = levels + (parse_levels(tags.get("roof:levels", "")) or 0.0)
    return storeys if storeys > 0 else None


def _external(tags: Mapping[str, str]) -> tuple[float, float]:
    """Metres and storeys that another file states; 0 for what it does not."""
    return float(tags.get(EXTERNAL_HEIGHT, 0.0)), float(tags.get(EXTERNAL_FLOORS, 0.0))


def _base(
    tags: Mapping[str, str],
    storey_height: float,
    slab: bool = False,
    top: float | None = None,
    storeys: float | None = None,
) -> float:
    """Height in m at which a building starts; its own storey height counts where the tags give one.

    A roof on open air (`slab`) starts just below its top.
    """
    for key in ("min_height", "building:min_height"):
        length = parse_length(tags.get(key, ""))
        if length is not None:
            return length[0]
    lowest = parse_levels(tags.get("building:min_level", "")) or 0.0
    if slab and top is not None and not lowest:
        return top - min(SLAB_THICKNESS, top / 2)
    if top is not None and storeys is not None:
        if lowest < storeys:
            return top / storeys * lowest
        if lowest * storey_height >= top:
            # Who counts from 1 and means the uppermost storey alone says `levels=2, min_level=2`.
            return top - top / storeys
    return lowest * storey_height


def _above(top: float, base: float, source: HeightSource, confidence: float) -> Height:
    """Height with a top that is above its base."""
    if top - base < MIN_HEIGHT:
        # Contradicting tags: a building from the ground up is the lesser error than one that is lost.
        return Height(top, 0.0, source, confidence / 2)
    return Height(top, base, source, confidence)
