"""A scene as one PNG: seen obliquely from the south, and from straight above."""

from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import shapely
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wavecity.dataset.preview.paths import STATUSES, DrawnPath
from wavecity.dataset.preview.scene import HEIGHT_SOURCES, View
from wavecity.dataset.preview.solids import Array, crown_area
from wavecity.dataset.vegetation import Crown

# Keyword arguments of matplotlib's artists.
Looks: TypeAlias = dict[str, Any]

# Okabe and Ito's palette, which all kinds of colour vision tell apart, lightened so that users stand out on it.
SOURCE_COLOURS = {
    "tag": "#7cc0e8",
    "levels": "#59bd9d",
    "part": "#e3afca",
    "external": "#f1ea8b",
    "imputed": "#f2c46d",
    "guess": "#e8845c",
}
UNKNOWN, GROUND, EDGE, BASE_STATION, NO_PATH = "#bbbbbb", "#eceae4", "#3c3c3c", "#d4150c", "#202020"
# Base stations whose links are not shown, and crowns of trees and woods.
OTHER_STATION, CROWN = "#8a5a58", "#3f8f46"
CROWN_LOOKS: Looks = {"facecolor": CROWN, "edgecolor": "#2c6632", "linewidth": 0.5}
GAIN_COLOURS = mpl.colors.LinearSegmentedColormap.from_list(
    "gain", mpl.colormaps["magma"](np.linspace(0.12, 0.93, 256))
)
MARKERS = ("o", "D", "x")
# Camera of the 3D view: from the south, a little from the west, and well above the horizon.
YAW, ELEVATION = np.radians(-20.0), np.radians(44.0)
SUN = np.array([-0.35, -0.30, 0.85])
# Pixels per metre of the hidden-surface image; the picture shows it at about half that.
SHARPNESS = 6.0
DPI = 120


def draw_picture(view: View, out: Path) -> None:
    """Write the PNG, 1600 by 900 pixels."""
    figure = Figure(figsize=(1600 / DPI, 900 / DPI), facecolor="white")
    figure.text(0.02, 0.96, view.title, fontsize=13, fontweight="bold", va="center")
    figure.text(0.02, 0.92, view.subtitle, fontsize=9, va="center")
    low, high = view.gain_range
    norm = Normalize(low, high)
    draw_solid(figure.add_axes((0.005, 0.165, 0.52, 0.735)), view, norm)
    draw_plan(figure.add_axes((0.575, 0.225, 0.35, 0.64)), view, norm)
    heard = view.gain[view.status < 2]
    below, above = (heard < low).any(), (heard > high).any()
    beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    place = figure.add_axes((0.938, 0.225, 0.011, 0.64))
    bar = figure.colorbar(ScalarMappable(norm, GAIN_COLOURS), cax=place, extend=beyond[bool(below), bool(above)])
    bar.set_label("path gain in dB", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    _draw_legends(figure, view)
    figure.text(0.98, 0.018, view.attribution, fontsize=7, ha="right", va="center")
    figure.savefig(out, dpi=DPI, format="png")


def draw_solid(axes: Axes, view: View, norm: Normalize) -> None:
    """Draw the 3D view; what is behind a building is pale."""
    half = view.size / 2
    square = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    triangles = np.concatenate([view.triangles, square[[0, 1, 2]][None], square[[0, 2, 3]][None]])
    owner = np.concatenate([view.owner, [-1, -1]])
    colours = [SOURCE_COLOURS.get(source, UNKNOWN) for source in view.buildings["height_source"]] + [GROUND]
    image, depth, extent = render(triangles, owner, np.array([to_rgb(colour) for colour in colours]))
    axes.imshow(image, extent=extent, interpolation="antialiased", zorder=0)

    def seen(points: Array) -> NDArray[np.bool_]:
        column = ((points[..., 0] - extent[0]) * SHARPNESS).astype(int).clip(0, depth.shape[1] - 1)
        row = ((extent[3] - points[..., 1]) * SHARPNESS).astype(int).clip(0, depth.shape[0] - 1)
        visible: NDArray[np.bool_] = points[..., 2] > depth[row, column] - 0.7
        return visible

    def draw_line(line: Array, style: LineStyleType, alphas: tuple[float, float], **looks: Any) -> None:
        """Draw what is seen of a line with the first alpha, what is hidden with the second."""
        ends = look(_dense(line))
        clear = seen(ends)[:-1] & seen(ends)[1:]
        pieces = np.stack([ends[:-1, :2], ends[1:, :2]], axis=1)
        for mask, alpha in zip((clear, ~clear), alphas, strict=True):
            axes.add_collection(LineCollection(_join(pieces[mask]), linestyles=style, alpha=alpha, **looks))

    draw_line(square[[0, 1, 2, 3, 0]], "solid", (1.0, 0.0), colors=EDGE, linewidths=0.8, zorder=1)
    for crown in view.crowns:
        outline, top = _crown_outline(crown)
        looks: Looks = CROWN_LOOKS | {"alpha": 0.45 if seen(top).any() else 0.12}
        axes.add_patch(PathPatch(_outline(outline), **looks, zorder=1.5))
    for path in view.paths:
        for line in path.lines:
            colour = GAIN_COLOURS(norm(path.gain))
            draw_line(line, _style(path), (0.85, 0.16), colors=[colour], linewidths=1.2 * _width(path), zorder=2)
    users = look(view.users)
    visible = seen(users)
    for mask, alpha in ((~visible, 0.25), (visible, 1.0)):
        _scatter_users(axes, users[mask, :2], view.gain[mask], view.status[mask], norm, alpha)
    _draw_base_3d(axes, view)
    _draw_ground_marks(axes, half)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.autoscale_view()


def _crown_outline(crown: Crown) -> tuple[Polygon, Array]:
    """What a crown covers in the 3D view, and the rim of its top as the camera sees it."""
    rings = [np.asarray(ring.coords) for ring in (crown_area(crown).exterior, *crown_area(crown).interiors)]
    low, high = (
        [look(np.column_stack([ring, np.full(len(ring), z)])) for ring in rings] for z in (crown.base, crown.top)
    )
    walls = [
        shapely.MultiPoint(np.concatenate([bottom[i : i + 2, :2], top[i : i + 2, :2]])).convex_hull
        for bottom, top in zip(low, high, strict=True)
        for i in range(len(top) - 1)
    ]
    roof = Polygon(high[0][:, :2], [ring[:, :2] for ring in high[1:]])
    # Walls that are seen edge-on cover nothing.
    covered = shapely.union_all([shapely.buffer(roof, 0), *(wall for wall in walls if wall.area > 0)])
    return covered if isinstance(covered, Polygon) else covered.convex_hull, high[0]


def _draw_base_3d(axes: Axes, view: View) -> None:
    """Draw mast and boresight in the 3D view."""
    for number, base, boresight, colour in _stations(view):
        mast = look(np.stack([base * [1, 1, 0], base]))[:, :2]
        axes.plot(*mast.T, color=colour, linewidth=2, zorder=5)
        _draw_station(axes, mast[1], look(base + 25 * boresight)[:2], colour, number)


def _stations(view: View) -> list[tuple[int | None, Array, Array, str]]:
    """Number, position, boresight and colour of all base stations, the one whose links are shown last."""
    return [*((*other, OTHER_STATION) for other in view.others), (view.number, view.base, view.boresight, BASE_STATION)]


def _draw_station(axes: Axes, place: Array, tip: Array, colour: str, number: int | None) -> None:
    """Draw a base station as a star, and an arrow where it faces; of several with its number."""
    _draw_arrow(axes, place, tip, colour)
    looks: Looks = {"edgecolor": "white", "linewidth": 0.9, "zorder": 6, "clip_on": False}
    axes.scatter(place[0], place[1], s=190, marker="*", color=colour, **looks)
    if number is not None:
        label: Looks = {"fontsize": 8, "fontweight": "bold", "color": colour, "zorder": 7}
        axes.annotate(str(number), (place[0], place[1]), (5, 5), textcoords="offset points", **label)


def _draw_arrow(axes: Axes, tail: Array, head: Array, colour: str) -> None:
    """Draw an arrow between two points."""
    arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.7}
    axes.annotate("", (head[0], head[1]), (tail[0], tail[1]), arrowprops=arrow, zorder=5, annotation_clip=False)


def _write(axes: Axes, place: Array, text: str, **looks: Any) -> None:
    """Write a text at a point."""
    axes.text(place[0], place[1], text, **{"ha": "center", "va": "center", "color": EDGE, **looks})


def _draw_ground_marks(axes: Axes, half: float) -> None:
    """Scale along the south edge and a north arrow next to the tile, both lying on the ground."""
    step = _round_step(half)
    ticks = np.arange(-half, half + 1e-6, step)
    for x in ticks:
        start, end = look(np.array([[x, -half, 0], [x, -half - 0.03 * half, 0]]))[:, :2]
        axes.plot(*np.stack([start, end]).T, color=EDGE, linewidth=0.8)
        label = look(np.array([x, -half - 0.10 * half, 0]))[:2]
        _write(axes, label, f"{x:g}".replace("-", "−"), fontsize=7.5)
    middle = look(np.array([0, -half - 0.23 * half, 0]))[:2]
    slope = np.degrees(np.arctan2(*(look(np.array([1.0, 0, 0])) - look(np.zeros(3)))[[1, 0]]))
    _write(axes, middle, "east in m", fontsize=8, rotation=slope)
    tail, head, letter = look(np.array([[-1.12, -0.70, 0], [-1.12, -0.40, 0], [-1.12, -0.30, 0]]) * half)[:, :2]
    _draw_arrow(axes, tail, head, EDGE)
    _write(axes, letter, "N", fontsize=11, fontweight="bold")


def draw_plan(axes: Axes, view: View, norm: Normalize) -> None:
    """Draw the map view, with the heights in m on buildings that are large enough."""
    half = view.size / 2
    axes.add_patch(Rectangle((-half, -half), 2 * half, 2 * half, facecolor=GROUND, edgecolor=EDGE, zorder=0))
    _draw_footprints(axes, view)
    for crown in view.crowns:
        axes.add_patch(PathPatch(_outline(crown_area(crown)), **CROWN_LOOKS, alpha=0.45, zorder=2.5, clip_on=True))
    for path in view.paths:
        lines = LineCollection([line[:, :2] for line in path.lines], colors=[GAIN_COLOURS(norm(path.gain))])
        lines.set(linewidth=_width(path), linestyle=_style(path), alpha=0.7, zorder=3)
        axes.add_collection(lines)
    _scatter_users(axes, view.users[:, :2], view.gain, view.status, norm, 1.0)
    for number, base, boresight, colour in _stations(view):
        _draw_station(axes, base[:2], base[:2] + 0.12 * view.size * boresight[:2], colour, number)
    tail, head, letter = np.array([[-0.94, 1.04], [-0.94, 1.17], [-0.88, 1.10]]) * half
    _draw_arrow(axes, tail, head, EDGE)
    _write(axes, letter, "N", fontsize=11, fontweight="bold")
    ticks = np.arange(-half, half + 1e-6, _round_step(half))
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xticks=ticks, yticks=ticks)
    axes.set_xlabel("east in m", fontsize=9)
    axes.set_ylabel("north in m", fontsize=9, labelpad=0)
    axes.tick_params(labelsize=8)


def _draw_footprints(axes: Axes, view: View) -> None:
    """Footprints, the highest on top, each with its height where what is seen of it has the room."""
    rows = view.buildings.sort_values("height", ascending=False, kind="stable")
    above: BaseGeometry = Polygon()
    columns = zip(rows.geometry, rows["height"], rows["base"], rows["height_source"], strict=True)
    for layer, (geometry, height, base, source) in enumerate(columns):
        colour = SOURCE_COLOURS.get(source, UNKNOWN)
        digits = 0 if height - base >= 1 else 1
        text = f"{base:.{digits}f}–{height:.{digits}f}" if base else f"{height:.0f}"
        for polygon in geometry.geoms:
            outline = PathPatch(_outline(polygon), facecolor=colour, edgecolor="#5a5a5a", linewidth=0.6)
            outline.set_zorder(1 - layer / len(rows) / 2)
            axes.add_patch(outline)
            pieces = [part for part in shapely.get_parts(polygon.difference(above)) if part.area > 1]
            if not pieces:
                continue
            centre, rim = np.array(shapely.maximum_inscribed_circle(max(pieces, key=lambda part: part.area)).coords)
            if np.linalg.norm(rim - centre) > 0.006 * view.size * len(text):
                _write(axes, centre, text, fontsize=7, zorder=2)
        above = above.union(geometry)


def _scatter_users(
    axes: Axes, points: Array, gain: Array, status: NDArray[np.int64], norm: Normalize, alpha: float
) -> None:
    """Draw users, coloured by path gain; the marker shows their status."""
    for index, (marker, size) in enumerate(zip(MARKERS, (34, 30, 17), strict=True)):
        chosen = status == index
        looks: Looks = {"color": NO_PATH, "linewidth": 1.1}
        if index < 2:
            looks = {"c": GAIN_COLOURS(norm(gain[chosen])), "edgecolor": "white", "linewidth": 0.7, "clip_on": False}
        axes.scatter(points[chosen, 0], points[chosen, 1], marker=marker, s=size, alpha=alpha, zorder=4, **looks)


def _draw_legends(figure: Figure, view: View) -> None:
    """Draw the legends below both views, and the notes."""
    total = len(view.buildings)
    sources = [
        Rectangle((0, 0), 1, 1, facecolor=SOURCE_COLOURS[name], edgecolor="#5a5a5a", linewidth=0.6,
                  label=f"{SOURCE_LABELS[name]}: {n} ({100 * n / total:.0f} %)")
        for name, n in view.source_counts.items()
    ]  # fmt: skip
    middle = GAIN_COLOURS(0.5)
    users = [
        Line2D([], [], marker=marker, linestyle="", markersize=5.5, color=NO_PATH if index == 2 else middle,
               label=f"{STATUSES[index]}: {view.status_counts[STATUSES[index]]}")
        for index, marker in enumerate(MARKERS)
    ]  # fmt: skip
    others: list[Artist] = [
        Line2D([], [], marker="*", linestyle="", markersize=11, color=BASE_STATION,
               label=f"{view.base_name} at {view.base[2]:g} m, and where it faces"),
    ]  # fmt: skip
    if view.others:
        looks: Looks = {"marker": "*", "linestyle": "", "markersize": 11, "color": OTHER_STATION}
        others.append(Line2D([], [], **looks, label="other base stations"))
    if view.crowns:
        others.append(Rectangle((0, 0), 1, 1, **CROWN_LOOKS, alpha=0.45, label=view.crowns_text))
    for label, some in (
        ("path, rebuilt whole", [path for path in view.paths if path.whole]),
        ("path, only its two ends", [path for path in view.paths if not path.whole]),
    ):
        if some:
            others.append(Line2D([], [], color=middle, linestyle=_style(some[0]), linewidth=1.3, label=label))
    for x, title, handles in (
        (0.02, "height from", sources),
        (0.19, "users", users),
        (0.36, "base station, paths", others),
    ):
        legend = figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(x, 0.165), title=title, fontsize=8.5,
            title_fontproperties={"weight": "bold", "size": 9}, alignment="left", frameon=False, borderaxespad=0,
            handletextpad=0.6, labelspacing=0.35, borderpad=0,
        )  # fmt: skip
        legend.get_title().set_position((0, 0))
    notes = [view.path_note, "Left: what a building hides is pale. Right: numbers on buildings are heights in m."]
    figure.text(0.60, 0.165, "\n".join(fill(note, 82) for note in notes), fontsize=8.5, va="top", linespacing=1.35)


SOURCE_LABELS = dict(
    zip(HEIGHT_SOURCES, ("height tag", "building:levels", "building part", "another file", "imputed", "guess"), strict=True)
)  # fmt: skip


def look(points: Array) -> Array:
    """Orthographic camera: points (..., 3) to metres right, metres up, and nearness (larger is nearer)."""
    right = np.array([np.cos(YAW), np.sin(YAW), 0])
    towards = np.array([np.sin(YAW) * np.cos(ELEVATION), -np.cos(YAW) * np.cos(ELEVATION), np.sin(ELEVATION)])
    seen: Array = points @ np.stack([right, np.cross(towards, right), towards]).T
    return seen


def render(
    triangles: Array, owner: NDArray[np.int64], colours: Array
) -> tuple[Array, Array, tuple[float, float, float, float]]:
    """Draw opaque triangles with hidden surfaces removed exactly, shaded by the sun, with dark edges.

    Parameters
    ----------
    triangles : float64 (T, 3, 3)
        m, counter-clockwise from outside.
    owner : int (T,)
        Row of `colours`.
    colours : float64 (N, 3)

    Returns
    -------
    image : float64 (H, W, 4)
    depth : float64 (H, W)
        Nearness of what is seen; -inf where there is nothing.
    extent : 4 floats
        Left, right, bottom and top in the camera's metres.
    """
    screen = look(triangles)
    low, high = screen[..., :2].min((0, 1)) - 1, screen[..., :2].max((0, 1)) + 1
    width, height = np.ceil((high - low) * SHARPNESS).astype(int)
    extent = (low[0], low[0] + width / SHARPNESS, high[1] - height / SHARPNESS, high[1])
    pixels = screen.copy()
    pixels[..., 0] = (screen[..., 0] - extent[0]) * SHARPNESS - 0.5
    pixels[..., 1] = (extent[3] - screen[..., 1]) * SHARPNESS - 0.5
    depth, face = np.full((height, width), -np.inf), np.full((height, width), -1)
    for index, corners in enumerate(pixels):
        _fill_triangle(corners, index, depth, face)

    normals, light = shade(triangles)
    shaded = np.where(owner[:, None] >= 0, colours[owner] * light[:, None], colours[owner])
    image = np.concatenate([shaded[face], np.ones((height, width, 1))], axis=-1)
    image[face < 0] = (1, 1, 1, 0)
    edges = np.zeros((height, width), dtype=bool)
    for axis in (0, 1):
        face_a, face_b = (face[:-1], face[1:]) if axis == 0 else (face[:, :-1], face[:, 1:])
        corner = (owner[face_a] != owner[face_b]) | ((normals[face_a] * normals[face_b]).sum(-1) < 0.9)
        corner &= (face_a >= 0) & (face_b >= 0)
        (edges[:-1] if axis == 0 else edges[:, :-1])[corner] = True
        (edges[1:] if axis == 0 else edges[:, 1:])[corner] = True
    image[edges, :3] *= 0.55
    return image.clip(0, 1), depth, extent


def shade(triangles: Array) -> tuple[Array, Array]:
    """Unit normals (T, 3) of triangles, and their brightness (T,) in sunlight."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return normals, 0.66 + 0.42 * np.clip(normals @ (SUN / np.linalg.norm(SUN)), -0.5, 1)


def _fill_triangle(corners: Array, index: int, depth: Array, face: NDArray[np.int64]) -> None:
    """Enter one triangle (pixel column, row, nearness) into both buffers; rows run down, so a front is clockwise."""
    (x0, y0, z0), (x1, y1, z1), (x2, y2, z2) = corners
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    if area > -1e-9:
        return
    left, right = max(int(np.ceil(min(x0, x1, x2))), 0), min(int(max(x0, x1, x2)), depth.shape[1] - 1) + 1
    top, bottom = max(int(np.ceil(min(y0, y1, y2))), 0), min(int(max(y0, y1, y2)), depth.shape[0] - 1) + 1
    x, y = np.arange(left, right), np.arange(top, bottom)[:, None]
    second = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
    third = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
    nearness = z0 + second * (z1 - z0) + third * (z2 - z0)
    window = (slice(top, bottom), slice(left, right))
    # Slightly wider than exact, so that no pixel between two triangles is left out.
    win = (second >= -1e-6) & (third >= -1e-6) & (second + third <= 1 + 1e-6) & (nearness > depth[window])
    depth[window][win] = nearness[win]
    face[window][win] = index


def _style(path: DrawnPath) -> LineStyleType:
    """Dashes where a path is not known as a whole."""
    return "solid" if path.whole else (0, (3, 2))


def _width(path: DrawnPath) -> float:
    """Thin lines for direct paths, which are many."""
    return 0.6 if path.whole and len(path.lines[0]) == 2 else 1.1


def _dense(line: Array) -> Array:
    """The polyline with a point at every metre."""
    steps = [
        start + (end - start) * np.linspace(0, 1, max(int(np.linalg.norm(end - start)), 1), endpoint=False)[:, None]
        for start, end in pairwise(line)
    ]
    return np.concatenate([*steps, line[-1:]])


def _join(pieces: Array) -> list[Array]:
    """Consecutive pieces (N, 2, 2) as polylines, so that dashes continue."""
    lines: list[list[Array]] = []
    for start, end in pieces:
        if lines and np.array_equal(lines[-1][-1], start):
            lines[-1].append(end)
        else:
            lines.append([start, end])
    return [np.stack(line) for line in lines]


def _outline(polygon: Polygon) -> Outline:
    """Outline of a polygon with its holes."""
    rings = [np.asarray(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
    return Outline.make_compound_path(*(Outline(ring, closed=True) for ring in rings))


def _round_step(half: float) -> float:
    """Distance of ticks: about eight along the tile's edge."""
    power = 10 ** np.floor(np.log10(half / 4))
    return float(power * min(f for f in (1, 2, 2.5, 5, 10) if f * power >= half / 4 - 1e-9))
