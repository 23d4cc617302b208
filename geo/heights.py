"""Building heights: from tags where the map has them, else imputed reproducibly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.height_texts import HEIGHT_KEYS, MAX_HEIGHT, TOP_KEYS, parse_length, parse_levels, storeys_in_words
from wavecity.geo.seeding import generator

HeightSource = Literal["tag", "levels", "part", "imputed"]

MIN_HEIGHT = 0.1
NEIGHBOUR_RADIUS = 150.0
NEIGHBOURS = 8
# A kiosk or garage without a height is not as high as the houses around it: one storey up to this footprint in m2.
SMALL_FOOTPRINT = 25.0

# Confidence is a rank, not a probability: how directly the map states the height.
CONFIDENCE = {
    "tag": 1.0,
    "approximate": 0.8,
    "levels": 0.7,
    "inherited": 0.6,
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
    """Distribution of the tagged heights of a whole map, independent of the storey height.

    Attributes
    ----------
    metres, levels : tuple of float
        Quantiles (0 to 1, evenly spaced) of heights in m and of storeys (roof storeys included); empty without tags.
    n_metres, n_levels : int
        Buildings behind each.
    """

    metres: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    n_metres: int = 0
    n_levels: int = 0


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
    return _tagged_height(tuple((key, tags[key]) for key in HEIGHT_KEYS if key in tags), storey_height)


@lru_cache(maxsize=50_000)
def _tagged_height(stated: tuple[tuple[str, str], ...], storey_height: float) -> Height | None:
    """Cached: most buildings of a city have one of a few dozen combinations of tags."""
    tags = dict(stated)
    metres, storeys = _top(tags), _storeys(tags)
    if metres is not None:
        top, exact = metres
        base = _base(tags, storey_height, top, storeys)
        return _above(top, base, "tag", CONFIDENCE["tag" if exact else "approximate"])
    if storeys is not None and MIN_HEIGHT <= storeys * storey_height <= MAX_HEIGHT:
        return _above(storeys * storey_height, _base(tags, storey_height), "levels", CONFIDENCE["levels"])
    return None


def impute_height(
    tags: Mapping[str, str],
    osm: tuple[str, int],
    area: float,
    neighbours: Sequence[float] | NDArray[np.float64],
    statistics: HeightStatistics,
    storey_height: float,
    method: Literal["neighbours", "geo2sigmap"],
    seed: int,
) -> Height:
    """Plausible height of a building that has none, always the same for the same (seed, OSM id).

    Parameters
    ----------
    tags : mapping
        Raw tags; `min_height` and `building:min_level` still hold.
    osm : (str, int)
        OSM type and id.
    area : float
        Footprint in m2.
    neighbours : sequence of float
        Heights in m of the nearest tagged buildings, nearest first; one of them is drawn.
    statistics : HeightStatistics
        The map's distribution, used where there are no neighbours.
    storey_height : float
        Metres per storey.
    method : str
        `geo2sigmap` ignores area, neighbours and map: storeys from N(5, 1), clipped to 1…15.
    seed : int
    """
    random = generator(seed, "height", *osm)
    n_tagged = statistics.n_metres + statistics.n_levels
    if method == "neighbours" and area <= SMALL_FOOTPRINT:
        top, confidence = storey_height, CONFIDENCE["neighbours"]
    elif method == "neighbours" and len(neighbours):
        top = float(random.choice(np.asarray(neighbours[:NEIGHBOURS], dtype=np.float64)))
        confidence = CONFIDENCE["neighbours"]
    elif method == "neighbours" and n_tagged:
        in_metres = random.random() * n_tagged < statistics.n_metres
        quantiles = statistics.metres if in_metres else statistics.levels
        drawn = float(np.interp(random.random(), np.linspace(0, 1, len(quantiles)), quantiles))
        top = drawn if in_metres else drawn * storey_height
        confidence = CONFIDENCE["map"]
    else:
        top = storey_height * float(np.clip(random.normal(5.0, 1.0), 1.0, 15.0))
        confidence = CONFIDENCE["guess"]
    base = _base(tags, storey_height)
    # A building known to start above the drawn height has at least one storey there.
    top = float(np.clip(max(top, base + storey_height), MIN_HEIGHT, MAX_HEIGHT))
    return _above(top, base, "imputed", confidence)


def height_statistics(all_tags: Sequence[Mapping[str, str]], points: int = 101) -> HeightStatistics:
    """Distribution of the heights that the given tags state."""
    metres: list[float] = []
    levels: list[float] = []
    for tags in all_tags:
        length, storeys = _top(tags), _storeys(tags)
        if length is not None:
            metres.append(length[0])
        elif storeys is not None:
            levels.append(storeys)
    grid = np.linspace(0, 1, points)
    return HeightStatistics(
        metres=tuple(np.quantile(metres, grid).tolist()) if metres else (),
        levels=tuple(np.quantile(levels, grid).tolist()) if levels else (),
        n_metres=len(metres),
        n_levels=len(levels),
    )


def nearest_heights(
    centre: NDArray[np.float64], others: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Heights (K,) of the at most 8 nearest of `others` (N, 2) within 150 m of `centre` (2,), nearest first."""
    # Rounded, so that a tie is not decided by the last bits of a projection, which differ from tile to tile.
    offset = others - centre
    distance = np.round(np.hypot(offset[:, 0], offset[:, 1]), 2)
    order = np.lexsort((heights, distance))
    return heights[order[distance[order] <= NEIGHBOUR_RADIUS][:NEIGHBOURS]]


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


def _base(
    tags: Mapping[str, str], storey_height: float, top: float | None = None, storeys: float | None = None
) -> float:
    """Height in m at which a building starts; its own storey height counts where the tags give one."""
    for key in ("min_height", "building:min_height"):
        length = parse_length(tags.get(key, ""))
        if length is not None:
            return length[0]
    lowest = parse_levels(tags.get("building:min_level", "")) or 0.0
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
