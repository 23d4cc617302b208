"""A scene in 3D: an interactive page that needs no network, and a glTF model."""

import html
from pathlib import Path
from typing import TypeAlias

import numpy as np
import plotly.graph_objects as go
import trimesh
from matplotlib.colors import Normalize, to_hex, to_rgb
from numpy.typing import ArrayLike, NDArray
from plotly.basedatatypes import BaseTraceType
from shapely import MultiPolygon

from wavecity.dataset.preview.paths import STATUSES, DrawnPath
from wavecity.dataset.preview.picture import (
    BASE_STATION,
    CROWN,
    EDGE,
    GAIN_COLOURS,
    GROUND,
    NO_PATH,
    OTHER_STATION,
    SOURCE_COLOURS,
    SOURCE_LABELS,
    UNKNOWN,
    shade,
)
from wavecity.dataset.preview.scene import View
from wavecity.dataset.preview.solids import Array, crown_surface

Trace: TypeAlias = BaseTraceType

GAIN_SCALE = [[share, to_hex(GAIN_COLOURS(share))] for share in np.linspace(0, 1, 17).tolist()]
# plotly draws these with glyphs of the fonts at hand; every font has them (unlike its x).
SYMBOLS = ("circle", "diamond", "cross")
# Faces are shaded here, as in the picture: plotly's own light gives single triangles of a roof another tone.
FLAT = {"ambient": 1.0, "diffuse": 0.0, "specular": 0.0, "fresnel": 0.0}
BORESIGHT_LENGTH = 25.0
USER_RADIUS = 0.9
# Height of plotly's toolbar in pixels, with some room.
TOOLBAR = 36

# The footer comes before the plot, which takes the room that is left when its script runs.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
html, body {{ height: 100%; margin: 0; font: 14px/1.4 system-ui, sans-serif; color: #222; }}
body {{ display: flex; flex-direction: column; height: 100vh; }}
h1 {{ font-size: 18px; margin: 10px 16px 2px; }}
p {{ margin: 2px 16px; }}
main {{ flex: 1; min-height: 0; position: relative; }}
main > div {{ position: absolute; inset: 0; }}
footer {{ font-size: 12px; padding: 2px 0 8px; color: #555; order: 1; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
<footer><p>{note} Click in the legend to hide or show; drag to turn, wheel to zoom.</p><p>{attribution}</p></footer>
<main>{plot}</main>
</body>
</html>
"""


def write_page(view: View, out: Path) -> None:
    """Write the scene as one HTML page with plotly inside (some 5 MB, nothing is fetched)."""
    traces = [*_ground(view), *_buildings(view), *_crowns(view), *_users(view), *_base_stations(view), *_paths(view)]
    figure = go.Figure(traces)
    figure.add_trace(_gain_bar(view))
    figure.update_layout(
        # plotly's toolbar stands in the margin at the top, over the legend if there were none.
        margin={"l": 0, "r": 0, "t": TOOLBAR, "b": 0},
        legend={"x": 1.0, "y": 1.0, "itemsizing": "constant", "tracegroupgap": 2},
        scene={
            "aspectmode": "data",
            "xaxis": {"title": {"text": "east in m"}, "backgroundcolor": "white", "gridcolor": "#ddd"},
            "yaxis": {"title": {"text": "north in m"}, "backgroundcolor": "white", "gridcolor": "#ddd"},
            "zaxis": {"title": {"text": "up in m"}, "backgroundcolor": "white", "gridcolor": "#ddd"},
            "camera": {
                "projection": {"type": "orthographic"},
                "eye": {"x": -0.47, "y": -1.31, "z": 1.34},
                "center": {"x": 0, "y": 0, "z": -0.03},
            },
        },
    )
    config = {"responsive": True, "displaylogo": False}
    plot = figure.to_html(config, full_html=False, include_plotlyjs=True, default_height="100%", div_id="scene")
    texts = {"title": view.title, "subtitle": view.subtitle, "note": view.path_note, "attribution": view.attribution}
    page = PAGE.format(plot=plot, **{name: html.escape(text) for name, text in texts.items()})
    out.write_text(page, encoding="utf-8")


def _ground(view: View) -> list[Trace]:
    """The tile, and an arrow to the north."""
    half = view.size / 2
    x, y = np.array([-half, half, half, -half]), np.array([-half, -half, half, half])
    shared = {"legendgroup": "ground", "hoverinfo": "skip"}
    arrow = _lines([np.array([[1.12, 0.3, 0], [1.12, 0.7, 0]]) * half, NORTH_TIP * half])
    return [
        # Slightly below zero, so that it does not flicker through what stands on it.
        go.Mesh3d(x=x, y=y, z=np.full(4, -0.05), i=[0, 0], j=[1, 2], k=[2, 3], color=GROUND, name="ground",
                  showlegend=True, lighting=FLAT, **shared),
        go.Scatter3d(x=[*x, x[0]], y=[*y, y[0]], z=np.zeros(5), mode="lines", line={"color": EDGE, "width": 3},
                     showlegend=False, **shared),
        go.Scatter3d(**arrow, mode="lines", line={"color": EDGE, "width": 5}, showlegend=False, **shared),
        go.Scatter3d(x=[1.12 * half], y=[0.8 * half], z=[0], mode="text", text=["<b>N</b>"],
                     textfont={"size": 18, "color": EDGE}, showlegend=False, **shared),
    ]  # fmt: skip


NORTH_TIP = np.array([[1.08, 0.62, 0], [1.12, 0.7, 0], [1.16, 0.62, 0]])


def _gain_bar(view: View) -> Trace:
    """Colour bar, on a trace without points: legends show colours of points and lines only where these are given."""
    low, high = view.gain_range
    bar = {"title": {"text": "path gain in dB"}, "len": 0.42, "y": 0.0, "yanchor": "bottom", "x": 1.0}
    marker = {"color": [low], "cmin": low, "cmax": high, "colorscale": GAIN_SCALE, "colorbar": bar}
    return go.Scatter3d(x=[None], y=[None], z=[None], mode="markers", marker=marker, showlegend=False)


def _gain_colours(view: View, gain: Array) -> list[str]:
    """Colours of path gains in dB."""
    norm = Normalize(*view.gain_range, clip=True)
    return [to_hex(colour) for colour in GAIN_COLOURS(norm(gain))]


def _buildings(view: View) -> list[Trace]:
    """Buildings by the source of their height, with their edges."""
    traces = []
    total = len(view.buildings)
    hover = [
        f"{row.osm_type} {row.osm_id}<br>{row.base:.1f} to {row.height:.1f} m<br>height from {row.height_source}"
        for row in view.buildings.itertuples()
    ]
    sources = view.buildings["height_source"].to_numpy(str)[view.owner]
    for source, count in view.source_counts.items():
        triangles, owner = view.triangles[sources == source], view.owner[sources == source]
        x, y, z = triangles.reshape(-1, 3).T
        i, j, k = np.arange(3 * len(triangles)).reshape(-1, 3).T
        name = f"{SOURCE_LABELS[source]}: {count} ({100 * count / total:.0f} %)"
        shared = {"name": name, "legendgroup": source}
        texts = [hover[row] for row in np.repeat(owner, 3)]
        _, brightness = shade(triangles)
        colours = (np.array(to_rgb(SOURCE_COLOURS[source])) * brightness[:, None]).clip(0, 1)
        traces.append(
            go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=SOURCE_COLOURS[source],
                      facecolor=[to_hex(colour) for colour in colours], lighting=FLAT, text=texts, hoverinfo="text",
                      showlegend=True, **shared)
        )  # fmt: skip
        rows = view.buildings[view.buildings["height_source"] == source]
        edges = _lines([line for row in rows.itertuples() for line in _outline(row.geometry, row.base, row.height)])
        traces.append(
            go.Scatter3d(**edges, mode="lines", line={"color": "#4a4a4a", "width": 1.5}, hoverinfo="skip",
                         showlegend=False, **shared)
        )  # fmt: skip
    return traces


def _outline(footprint: MultiPolygon, base: float, top: float) -> list[Array]:
    """Edges of one building's prisms: roof, floor, and an upright at every corner."""
    lines = []
    for polygon in footprint.geoms:
        for ring in (polygon.exterior, *polygon.interiors):
            corners = np.asarray(ring.coords)
            low, high = (np.column_stack([corners, np.full(len(corners), z)]) for z in (base, top))
            lines += [low, high, *np.stack([low, high], axis=1)[:-1]]
    return lines


def _users(view: View) -> list[Trace]:
    """Users by status."""
    traces = []
    for index, status in enumerate(STATUSES):
        chosen = np.flatnonzero(view.status == index)
        if not len(chosen):
            continue
        marker: dict[str, object] = {"symbol": SYMBOLS[index], "size": 5}
        marker["color"] = _gain_colours(view, view.gain[chosen]) if index < 2 else NO_PATH
        traces.append(
            go.Scatter3d(
                x=view.users[chosen, 0], y=view.users[chosen, 1], z=view.users[chosen, 2], mode="markers",
                marker=marker, name=f"{status}: {len(chosen)} user{'s' * (len(chosen) != 1)}", hoverinfo="text",
                text=[_user_text(view, user) for user in chosen.tolist()],
            )
        )  # fmt: skip
    return traces


def _user_text(view: View, user: int) -> str:
    """What is shown of a user under the pointer."""
    status = int(view.status[user])
    distance = np.linalg.norm(view.users[user] - view.base)
    lines = [f"user {user}: {STATUSES[status]}", f"{distance:.1f} m from the base station"]
    if status < 2:
        lines.append(f"path gain {view.gain[user]:.1f} dB")
    if view.n_paths is not None:
        lines.append(f"{view.n_paths[user]} paths found")
    if view.serving is not None:
        number = int(view.serving[user])
        lines.append(f"served by base station {number}" if number >= 0 else "served by none")
    return "<br>".join(lines)


def _base_stations(view: View) -> list[Trace]:
    """The base station whose links are shown, then the others."""
    traces = _station(view.base_name, view.base, view.boresight, BASE_STATION, f"{view.base_name}, and where it faces")
    for place, (number, base, boresight) in enumerate(view.others):
        label = "other base stations" if place == 0 else ""
        traces += _station(f"base station {number}", base, boresight, OTHER_STATION, label, "others")
    return traces


def _station(name: str, base: Array, boresight: Array, colour: str, label: str, group: str = "base") -> list[Trace]:
    """Mast, and an arrow where the panel faces; in the legend by its label, unless that is empty."""
    foot, tip = base * [1, 1, 0], base + BORESIGHT_LENGTH * boresight
    x, y, z = tip
    u, v, w = boresight
    text = f"{name}<br>{base[0]:.1f} m east, {base[1]:.1f} m north, {base[2]:.1f} m up"
    shared: dict[str, str] = {"legendgroup": group, "name": label or name}
    shaft = _lines([np.stack([foot, base, tip])])
    return [
        go.Scatter3d(**shaft, mode="lines", line={"color": colour, "width": 7}, text=[text] * 3,
                     hoverinfo="text", showlegend=bool(label), **shared),
        go.Cone(x=[x], y=[y], z=[z], u=[u], v=[v], w=[w], sizemode="absolute", sizeref=8, anchor="tail",
                colorscale=[[0, colour], [1, colour]], showscale=False, hoverinfo="skip", **shared),
    ]  # fmt: skip


def _crowns(view: View) -> list[Trace]:
    """Crowns of trees and woods, which what is behind them shines through."""
    if not view.crowns:
        return []
    triangles = np.concatenate([crown_surface(crown) for crown in view.crowns])
    x, y, z = triangles.reshape(-1, 3).T
    i, j, k = np.arange(3 * len(triangles)).reshape(-1, 3).T
    return [
        go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=CROWN, opacity=0.35, name=view.crowns_text, showlegend=True,
                  lighting=FLAT, hoverinfo="skip")
    ]  # fmt: skip


def _paths(view: View) -> list[Trace]:
    """Paths by what is known of them."""
    direct = [path for path in view.paths if path.whole and path.kind == STATUSES[0]]
    bent = [path for path in view.paths if path.whole and path.kind != STATUSES[0]]
    ends = [path for path in view.paths if not path.whole]
    kinds = (("direct paths", direct, "solid", 2), ("bent paths, rebuilt whole", bent, "solid", 5),
             ("bent paths, only their ends", ends, "dash", 5))  # fmt: skip
    traces = []
    for name, paths, dash, width in kinds:
        pairs = [(path, line) for path in paths for line in path.lines]
        if not pairs:
            continue
        points = _lines([line for _, line in pairs])
        # One more for the gap that ends each line.
        gain = np.concatenate([np.full(len(line) + 1, path.gain) for path, line in pairs])[:-1]
        text = [_path_text(path) for path, line in pairs for _ in range(len(line) + 1)][:-1]
        look = {"color": _gain_colours(view, gain), "width": width, "dash": dash}
        shared = {"mode": "lines", "legendgroup": name, "name": f"{name}: {len(paths)}"}
        traces.append(go.Scatter3d(**points, line=look, text=text, hoverinfo="text", showlegend=False, **shared))
        # The legend cannot show a line of many colours.
        key = {**look, "color": to_hex(GAIN_COLOURS(0.5))}
        traces.append(go.Scatter3d(x=[None], y=[None], z=[None], line=key, **shared))
    return traces


def _path_text(path: DrawnPath) -> str:
    """What is shown of a path under the pointer."""
    crowns = f"<br>crowns take {path.loss:.1f} dB" if path.loss > 0 else ""
    return f"strongest path of user {path.user}<br>{path.kind}<br>gain {path.gain:.1f} dB{crowns}"


def _lines(lines: list[Array]) -> dict[str, list[float | None]]:
    """Coordinates of several polylines as plotly wants them: one list per axis, None between two lines."""
    coordinates: dict[str, list[float | None]] = {"x": [], "y": [], "z": []}
    for number, line in enumerate(lines):
        for name, values in zip("xyz", np.asarray(line).T.tolist(), strict=True):
            coordinates[name] += [None, *values] if number else values
    return coordinates


def write_model(view: View, out: Path) -> None:
    """Write the scene as binary glTF: metres, y up and z south as glTF requires, one node per object.

    Nodes: `ground`; one per building, `way/123`, with `height_m`, `base_m` and `height_source` as extras; crowns as `tree/0`,
    `wood/1`, ...; `base station` and `boresight`, of several with their numbers; `user/0` ... with `path_gain_db`, `status`
    and `n_paths`; `path/0` ... of the user of that number (an open path has two lines in it).
    """
    scene = trimesh.Scene(metadata={"title": view.title, "contents": view.subtitle, "attribution": view.attribution})
    # glTF's y is our up, its z our south.
    upright = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

    def add(name: str, geometry: trimesh.Trimesh | trimesh.path.Path3D, colour: ArrayLike, **extras: object) -> None:
        rgba = (255 * np.array(colour)).round().astype(np.uint8)
        if isinstance(geometry, trimesh.Trimesh):
            mode = "BLEND" if rgba[3] < 255 else None
            material = trimesh.visual.material.PBRMaterial(
                baseColorFactor=rgba, metallicFactor=0, roughnessFactor=0.9, alphaMode=mode
            )
            geometry.visual = trimesh.visual.TextureVisuals(material=material)
        else:
            geometry.colors = np.tile(rgba, (len(geometry.entities), 1))
        geometry.metadata.update(extras)
        scene.add_geometry(geometry, node_name=name, geom_name=name, transform=upright)

    half = view.size / 2
    ground = trimesh.Trimesh(
        [[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]], [[0, 1, 2], [0, 2, 3]]
    )
    add("ground", ground, _rgba(GROUND))
    names: dict[str, int] = {}
    for row, building in enumerate(view.buildings.itertuples()):
        solid = trimesh.Trimesh(**trimesh.triangles.to_kwargs(view.triangles[view.owner == row]))
        name = f"{building.osm_type}/{building.osm_id}"
        # A building that a taller neighbour cuts in two has two rows in the table.
        names[name] = names.get(name, 0) + 1
        label = name if names[name] == 1 else f"{name}#{names[name]}"
        heights = {"height_m": float(building.height), "base_m": float(building.base)}
        colour = _rgba(SOURCE_COLOURS.get(building.height_source, UNKNOWN))
        add(label, solid, colour, height_source=str(building.height_source), **heights)
    for number, crown in enumerate(view.crowns):
        solid = trimesh.Trimesh(**trimesh.triangles.to_kwargs(crown_surface(crown)))
        kind = "wood" if np.isnan(crown.radius) else "tree"
        add(f"{kind}/{number}", solid, _rgba(CROWN) * [1, 1, 1, 0.45], base_m=crown.base, top_m=crown.top)

    def add_station(end: str, base: Array, boresight: Array, colour: str) -> None:
        box = trimesh.creation.box((1.5, 1.5, 3.0), trimesh.transformations.translation_matrix(base))
        add(f"base station{end}", box, _rgba(colour), position_m=base.tolist())
        add(f"boresight{end}", _polylines([np.stack([base, base + BORESIGHT_LENGTH * boresight])]), _rgba(colour))

    add_station("" if view.number is None else f" {view.number}", view.base, view.boresight, BASE_STATION)
    for number, base, facing in view.others:
        add_station(f" {number}", base, facing, OTHER_STATION)
    norm = Normalize(*view.gain_range, clip=True)
    ball = trimesh.creation.icosphere(1, USER_RADIUS)
    for user, (position, gain, status) in enumerate(zip(view.users, view.gain, view.status, strict=True)):
        sphere = trimesh.Trimesh(ball.vertices + position, ball.faces, process=False)
        extras: dict[str, object] = {"status": STATUSES[status]}
        extras |= {"path_gain_db": round(float(gain), 3)} if status < 2 else {}
        extras |= {} if view.n_paths is None else {"n_paths": int(view.n_paths[user])}
        add(f"user/{user}", sphere, GAIN_COLOURS(norm(gain)) if status < 2 else _rgba(NO_PATH), **extras)
    for path in view.paths:
        extras = {"gain_db": round(path.gain, 3), "kind": path.kind, "whole": path.whole}
        extras |= {"crowns_db": round(path.loss, 3)} if path.loss > 0 else {}
        add(f"path/{path.user}", _polylines(path.lines), GAIN_COLOURS(norm(path.gain)), **extras)

    def sign(tree: dict[str, dict[str, object]]) -> None:
        tree["asset"]["copyright"] = view.attribution

    out.write_bytes(trimesh.exchange.gltf.export_glb(scene, tree_postprocessor=sign))


def _polylines(lines: list[Array]) -> trimesh.path.Path3D:
    """Lines as one geometry of a glTF node."""
    stops = np.cumsum([len(line) for line in lines])
    entities = [
        trimesh.path.entities.Line(np.arange(stop - len(line), stop)) for line, stop in zip(lines, stops, strict=True)
    ]
    return trimesh.path.Path3D(entities, np.concatenate(lines), process=False)


def _rgba(colour: str) -> NDArray[np.float64]:
    """A named colour as red, green, blue and alpha."""
    return np.array([*(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)), 1.0])
