"""A plan as a picture: the cities on a map of the world, or the tiles of one city over its buildings."""

from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from matplotlib.collections import PatchCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from wavecity.dataset.files import atomic_path, make_folder
from wavecity.dataset.schema import ATTRIBUTION
from wavecity.geo.cities import all_positions
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.polygons import polygons
from wavecity.geo.projection import turned
from wavecity.geo.tiles import Tile

# Okabe and Ito's palette, which the colour-blind tell apart.
STATES = {
    "ready": "#009E73",
    "short": "#E69F00",
    "planned": "#0072B2",
    "missing": "#D55E00",
    "not needed": "#777777",
}
OUTCOMES = {"not needed": "#777777", "rejected": "#D55E00", "planned": "#0072B2", "accepted": "#009E73"}


class _Look(TypedDict, total=False):
    """How the square of a tile is drawn."""

    facecolor: str | tuple[float, float, float, float]
    edgecolor: str
    linestyle: Literal[":"]


def draw_plan(plan: Plan, out: Path) -> Path:
    """Draw a plan: several cities on a world map by state, one city with all of its tiles.

    Parameters
    ----------
    plan : Plan
    out : Path
        PNG to write.
    """
    figure = _draw_city(plan.cities[0]) if len(plan.cities) == 1 else _draw_world(plan)
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return out


def _draw_world(plan: Plan) -> Figure:
    """Draw the cities of a plan on a map of the world, in the colours of their states."""
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    axes = figure.add_subplot()
    # The world's towns, faintly: they draw the continents.
    towns = all_positions()
    axes.scatter(towns[:, 1], towns[:, 0], s=0.6, color="0.82", linewidths=0, rasterized=True)
    for state, colour in STATES.items():
        cities = [city for city in plan.cities if city.state == state]
        if not cities:
            continue
        places = np.array([_place(city) for city in cities])
        scenes = sum(city.found for city in cities)
        label = f"{state}: {len(cities)} cities, {scenes} scenes"
        axes.scatter(places[:, 1], places[:, 0], s=22, color=colour, edgecolor="white", linewidths=0.5, label=label)
    axes.set(xlim=(-180, 180), ylim=(-60, 80), xlabel="longitude", ylabel="latitude", aspect=1.2)
    wanted = sum(city.city.scenes for city in plan.cities)
    axes.set_title(f"{len(plan.cities)} cities, {wanted} scenes wanted")
    axes.legend(loc="lower left", frameon=True)
    figure.supxlabel(f"{ATTRIBUTION}. Towns: GeoNames, CC BY 4.0", fontsize=7, x=0.99, ha="right")
    return figure


def _place(plan: CityPlan) -> tuple[float, float]:
    """Latitude and longitude of a city, NaN if unknown."""
    if plan.city.latitude is not None and plan.city.longitude is not None:
        return plan.city.latitude, plan.city.longitude
    if plan.tiles:
        return plan.tiles[0].latitude, plan.tiles[0].longitude
    return np.nan, np.nan


def _draw_city(plan: CityPlan) -> Figure:
    """Draw a city's tiles over its buildings, in the colours of their outcomes."""
    figure = Figure(figsize=(9, 9.4), layout="constrained")
    axes = figure.add_subplot()
    if plan.source is not None:
        outlines = [
            _beside(np.asarray(polygon.exterior.coords), plan)
            for geometry in plan.source.buildings(_bounds(plan)).geometry
            for polygon in polygons(geometry)
        ]
        axes.add_collection(PolyCollection(outlines, facecolor="0.6", edgecolor="none", rasterized=True))
    # Later ones lie over the borders that they share with earlier ones.
    for outcome in OUTCOMES:
        squares = [_square(tile, plan) for tile in plan.tiles if _outcome(tile) == outcome]
        axes.add_collection(PatchCollection(squares, **_look(outcome), linewidth=0.8))
    west, south, east, north = _bounds(plan)
    middle = np.radians((south + north) / 2)
    axes.set(xlim=(west, east), ylim=(south, north), xlabel="longitude", ylabel="latitude", aspect=1 / np.cos(middle))
    counts = {outcome: sum(_outcome(tile) == outcome for tile in plan.tiles) for outcome in OUTCOMES}
    handles = [
        Patch(**_look(outcome), label=f"{outcome}: {counts[outcome]}")
        for outcome in reversed(OUTCOMES)
        if counts[outcome]
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, frameon=False)
    axes.set_title(f"{plan.city.name}: {len(plan.tiles)} tiles of {plan.tiles[0].size:g} m")
    figure.supxlabel(ATTRIBUTION, fontsize=7, x=0.99, ha="right")
    return figure


def _look(outcome: str) -> _Look:
    """Colours of an outcome; tiles that were not needed are only outlined."""
    colour = OUTCOMES[outcome]
    if outcome == "not needed":
        return {"facecolor": "none", "edgecolor": colour, "linestyle": ":"}
    return {"facecolor": to_rgba(colour, 0.25), "edgecolor": colour}


def _outcome(tile: Tile) -> str:
    """Key of `OUTCOMES`: a tile that was not needed does not count as rejected."""
    return "not needed" if tile.reason == "not needed" else tile.status


def _reach(tile: Tile) -> tuple[float, float]:
    """Half a tile's edge in degrees of longitude and latitude."""
    latitude = tile.size / 2 / 111_320
    return latitude / float(np.cos(np.radians(tile.latitude))), latitude


def _beside(outline: NDArray[np.float64], plan: CityPlan) -> NDArray[np.float64]:
    """An outline (N, 2) in degrees on the first tile's side of the antimeridian."""
    longitude = float(outline[0, 0])
    return outline + np.array([turned(longitude, plan.tiles[0].longitude) - longitude, 0.0])


def _square(tile: Tile, plan: CityPlan) -> Rectangle:
    """The square of a tile in degrees, on the first tile's side of the antimeridian."""
    wide, high = _reach(tile)
    longitude = turned(tile.longitude, plan.tiles[0].longitude)
    return Rectangle((longitude - wide, tile.latitude - high), 2 * wide, 2 * high)


def _bounds(plan: CityPlan) -> tuple[float, float, float, float]:
    """West, south, east, north of all tiles, with a margin of half a tile."""
    wide, high = _reach(plan.tiles[0])
    longitude = [turned(tile.longitude, plan.tiles[0].longitude) for tile in plan.tiles]
    latitude = [tile.latitude for tile in plan.tiles]
    return min(longitude) - 2 * wide, min(latitude) - 2 * high, max(longitude) + 2 * wide, max(latitude) + 2 * high
