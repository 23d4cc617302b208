"""Users with the waves that were recovered of them, followed through their scenes, and where they are said to be."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from wavecity.model.data.users import SceneTable
from wavecity.model.figures.drawing import credit, ground, metres, picture, style
from wavecity.model.path_model.mixture import Mixture
from wavecity.model.results.names import Method
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Arrays

Places = NDArray[np.floating]
# Arguments of `Line2D`.
Looks = dict[str, Any]
# A wave's colour, and the width of the strongest and the weakest, which is so many dB below it.
WAVE, THICK, THIN, RANGE = "#D55E00", 3.0, 0.8, 30.0
REGION = "#56B4E9"
# Half the edge of the part of a scene around a user, m.
NEAREST, FARTHEST = 2.0, 60.0
# Points along an edge where the mixture is looked up.
POINTS = 241
MODEL, PHYSICS = style(Method.MODEL)["color"], style(Method.PHYSICS)["color"]
# From the lowest to the uppermost.
MARKS: dict[str, Looks] = {
    "physics alone": {"marker": "s", "color": PHYSICS, "markersize": 8, "markeredgecolor": "white"},
    "model": {"marker": "X", "color": MODEL, "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.8},
    "true": {"marker": "o", "color": "black", "markerfacecolor": "none", "markersize": 11, "markeredgewidth": 1.8},
}
LANDING: Looks = {"marker": "D", "color": WAVE, "markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.6}
CANDIDATE: Looks = {"marker": ".", "color": "black", "markersize": 3, "markeredgewidth": 0}


def draw_users(outcome: Outcome, scenes: SceneTable) -> str:
    """Draw the scene of each user that is shown, and next to it the part around the user, two users in a line."""
    arrays = outcome.arrays
    count = len(arrays["shown"])
    lines = -(-count // 2)
    figure = Figure(figsize=(13.6, 3.7 * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, 4, squeeze=False).reshape(-1, 2)
    for user, (whole, near) in enumerate(grid):
        if user < count:
            draw_user(whole, near, arrays, scenes, user)
        else:
            whole.set_axis_off()
            near.set_axis_off()
    figure.legend(
        handles=legend(float(arrays["region"])), loc="outside upper center", ncols=4, fontsize=8, frameon=False
    )
    credit(figure)
    return picture(figure)


def draw_user(whole: Axes, near: Axes, arrays: Arrays, scenes: SceneTable, user: int) -> None:
    """Draw one of the users that are shown into two axes: all of the scene, and what is around the user."""
    row = int(arrays["shown"][user])
    scene = int(arrays["location_scene"][row])
    station = scenes.bs[scene].numpy()
    places = {
        "true": arrays["location_true"][row] + station,
        "model": arrays["location_model"][row] + station,
        "physics alone": arrays["location_physics"][row] + station,
    }
    model, physics = (float(np.linalg.norm(places[name] - places["true"])) for name in ("model", "physics alone"))
    # What physics says may be anywhere: then it is in the whole scene alone.
    half = float(np.clip(1.4 * max(model, min(physics, FARTHEST / 1.4)), NEAREST, FARTHEST))
    edge = scenes.size / 2
    for axes, middle, reach in ((whole, np.zeros(2), edge), (near, places["true"], half)):
        ground(axes, scenes, scene)
        # The base station is drawn even where it stands on the edge of the scene, but not outside of a part.
        axes.lines[0].set_clip_on(axes is near)
        draw_region(axes, arrays, user, station, middle, reach)
        draw_waves(axes, arrays, row, station)
        candidates = arrays["attention_places"][user, arrays["ray_gain"].shape[1] :] + station
        axes.plot(*candidates.T, linestyle="none", zorder=5, **CANDIDATE)
        for number, (name, looks) in enumerate(MARKS.items()):
            axes.plot(*places[name], linestyle="none", zorder=7 + number, **looks)
        axes.set_xlim(middle[0] - reach, middle[0] + reach)
        axes.set_ylim(middle[1] - reach, middle[1] + reach)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=7)
        axes.set_xlabel("east in m", fontsize=8)
    whole.set_ylabel("north in m", fontsize=8)
    frame = Rectangle(places["true"] - half, 2 * half, 2 * half, fill=False, edgecolor="black", linewidth=0.8, zorder=6)
    whole.add_patch(frame)
    whole.set_title(f"{arrays['spectrum_users'][user]} · {scenes.names[scene]}", fontsize=9, pad=10)
    near.set_title(f"model {metres(model)} off, physics alone {metres(physics)}", fontsize=9, pad=10)


def draw_waves(axes: Axes, arrays: Arrays, row: int, station: Places) -> None:
    """Draw the ways of a user's waves, weakest below, and where they come down."""
    gains = arrays["ray_gain"][row]
    for wave in np.argsort(np.nan_to_num(gains, nan=-np.inf)):
        if not np.isfinite(gains[wave]):
            continue
        corners = arrays["ray_corners"][row, wave, :, :2]
        corners = corners[np.isfinite(corners).all(1)] + station
        weak = min((np.nanmax(gains) - gains[wave]) / RANGE, 1.0)
        width = THICK + (THIN - THICK) * weak
        lands = bool(arrays["ray_lands"][row, wave])
        axes.plot(
            *corners.T, linestyle="-" if lands else (0, (2.5, 1.5)), color=WAVE, linewidth=width, zorder=3,
            path_effects=[Stroke(linewidth=width + 1.2, foreground="white"), Normal()],
        )  # fmt: skip
        if lands:
            axes.plot(*corners[-1], linestyle="none", zorder=6, **LANDING)


def draw_region(axes: Axes, arrays: Arrays, user: int, station: Places, middle: Places, reach: float) -> None:
    """Fill the smallest region that holds the stated share of the mixture, within a square window."""
    along = np.linspace(-reach, reach, POINTS)
    east, north = np.meshgrid(middle[0] + along, middle[1] + along)
    points = torch.from_numpy(np.stack((east, north), -1).reshape(1, -1, 2) - station).float()
    mixture = Mixture(
        *(
            torch.from_numpy(arrays[f"mixture_{name}"][user : user + 1])
            for name in ("log_weight", "centre", "log_scale")
        )
    )
    inside = (mixture.log_density(points)[0] - float(arrays["region_edge"][user])).numpy().reshape(east.shape)
    if inside.max() <= 0:
        return
    axes.contourf(east, north, inside, [0, np.inf], colors=[REGION], alpha=0.35, zorder=2)
    axes.contour(east, north, inside, [0], colors=[MODEL], linewidths=1.0, zorder=2)


def legend(share: float) -> list[Line2D | Patch]:
    """Handles of all that is drawn."""
    return [
        Line2D([], [], linestyle="none", marker="v", color="#d62728", markersize=9, label="base station"),
        *(Line2D([], [], linestyle="none", label=name, **looks) for name, looks in reversed(MARKS.items())),
        Patch(
            facecolor=REGION,
            alpha=0.6,
            edgecolor=MODEL,
            label=f"region that holds {100 * share:g} % of the model's mixture",
        ),
        Line2D([], [], color=WAVE, linewidth=2, label="recovered wave that comes down"),
        Line2D([], [], linestyle="none", label="where it comes down", **LANDING),
        Line2D(
            [], [], color=WAVE, linewidth=2, linestyle=(0, (2.5, 1.5)), label="recovered wave that does not come down"
        ),
        Line2D([], [], linestyle="none", label="places that the network chooses among", **CANDIDATE),
    ]
