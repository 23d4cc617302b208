"""Pictures of the report, as PNG in data URIs: scenes with users, loss curves, Figures 3, 4, 9, 10 and 11 of the paper."""

import csv
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from wavecity.model.data.users import SceneTable, Users
from wavecity.model.figures.drawing import ATTRIBUTION, FEWEST_POINTS, credit, ground, metres, picture, style
from wavecity.model.results.names import Method
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Arrays

# `train` and `validation` -> term -> steps and values.
Curves = dict[str, dict[str, tuple[list[int], list[float]]]]
# Arrays of spectra that are drawn where there are such.
SPECTRA = {
    "spectrum_true": "true",
    "spectrum_model": "model",
    "spectrum_waves": "recovered waves",
    "spectrum_sbl": "sparse Bayesian learning",
    "spectrum_zero_filled": "zero-filled DFT",
}
# Area of a circle that has all of the attention, in square points.
LARGEST_CIRCLE = 900.0
# Scenes, and users of each, whose locations are drawn.
LOCATED_SCENES, LOCATED_USERS = 4, 25
TERMS = {
    "total": "total (eq. 7)",
    "csi": "masked CSI (eq. 2)",
    "location": "masked location (eq. 3)",
    "occupancy": "masked occupancy (eq. 4)",
    "spectrum": "spectrum (eq. 6)",
}


def draw_scene(scenes: SceneTable, row: int, users: Users, split: str, gains: tuple[float, float]) -> str:
    """Draw buildings by height, the base station, and users by line of sight and path gain (on a scale of dB)."""
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    image = ground(axes, scenes, row)
    bs = scenes.bs[row].numpy()
    place = users.position.numpy() + bs
    los, gain = users.los.numpy(), users.path_gain.numpy()
    points: PathCollection | None = None
    for chosen, marker, size in ((los, "o", 26), (~los, "X", 30)):
        if chosen.any():
            x, y = place[chosen].T
            points = axes.scatter(x, y, c=gain[chosen], marker=marker, s=size, cmap="plasma", zorder=3, vmin=gains[0],
                                  vmax=gains[1], edgecolors="white", linewidths=0.5)  # fmt: skip
    share = f"{100 * los.mean():.0f} % LoS" if len(los) else "no users"
    axes.set_title(f"{scenes.names[row]} · {split} · {len(users)} users, {share}", fontsize=10, pad=10)
    axes.set_xlabel("east in m")
    axes.set_ylabel("north in m")
    figure.colorbar(image, ax=axes, label="building height in m", aspect=40, pad=0.01)
    if points is not None:
        figure.colorbar(points, ax=axes, label="path gain in dB", aspect=40, pad=0.01)
    axes.text(0.99, 0.01, ATTRIBUTION, transform=axes.transAxes, ha="right", va="bottom", fontsize=6, zorder=5,
              bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})  # fmt: skip
    return picture(figure)


def _draw_user(axes: Axes, arrays: Arrays, scenes: SceneTable, user: int) -> NDArray[np.floating]:
    """Draw the scene of a user that a panel is about, and mark the user; returns where."""
    row = arrays["spectrum_scene"][user]
    place: NDArray[np.floating] = arrays["spectrum_position"][user] + scenes.bs[row].numpy()
    ground(axes, scenes, row)
    axes.plot(*place, "o", color="#1f77b4", markersize=8, markeredgecolor="white", zorder=5)
    return place


def draw_attention(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 3: attention of [PHYSC] to the map, mean over heads, a column for each layer, a row for each user.

    Where the results have its shares by kind of token, they are written below; where they have places on the map that it
    goes to, these are circles whose area is their weight.
    """
    arrays, attention = outcome.arrays, outcome.arrays["attention"]
    users, layers = attention.shape[:2]
    figure = Figure(figsize=(2.2 * (layers + 1), 2.35 * users + 0.3), layout="constrained")
    grid = figure.subplots(users, layers + 1, squeeze=False)
    half = scenes.size / 2
    for user in range(users):
        for column, axes in enumerate(grid[user]):
            _draw_user(axes, arrays, scenes, user)
            if column:
                axes.imshow(attention[user, column - 1], extent=(-half, half, -half, half), cmap="inferno", vmin=0,
                            vmax=1, alpha=0.8)  # fmt: skip
                _mark_attention(axes, arrays, scenes, user, column - 1)
            axes.set_xticks([])
            axes.set_yticks([])
            if user == 0:
                axes.set_title(f"layer {column}" if column else "scene", fontsize=9)
        grid[user][0].set_ylabel(str(arrays["spectrum_users"][user]), fontsize=9)
    figure.colorbar(grid[-1][-1].images[-1], ax=grid.ravel().tolist(), label="attention over its largest", shrink=0.7)
    credit(figure)
    return picture(figure, 90)


def _mark_attention(axes: Axes, arrays: Arrays, scenes: SceneTable, user: int, layer: int) -> None:
    """Circles at the places that a layer attends to, and the shares of the kinds of tokens, where there are such."""
    if "attention_places" in arrays:
        east, north = (arrays["attention_places"][user] + scenes.bs[arrays["spectrum_scene"][user]].numpy()).T
        area = LARGEST_CIRCLE * arrays["attention_to_places"][user, layer]
        for colour, width in (("white", 1.6), ("black", 0.7)):
            axes.scatter(east, north, area, facecolors="none", edgecolors=colour, linewidths=width, zorder=4)
    if "attention_shares" in arrays:
        shares = zip(arrays["attention_kinds"], arrays["attention_shares"][user, layer], strict=True)
        text = " · ".join(f"{kind} {100 * share:.0f}" for kind, share in shares if kind != "itself")
        axes.set_xlabel(f"{text} %", fontsize=7.5)


def draw_spectrum_in_scene(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 4: users in their scenes, and below each the true spatial spectrum over the directions of departure."""
    arrays, users = outcome.arrays, len(outcome.arrays["spectrum_true"])
    figure = Figure(figsize=(3.1 * users, 6.2), layout="constrained")
    grid = figure.subplots(2, users, squeeze=False)
    # Direction cosine of the highest frequency, half a turn from element to element.
    edge = 0.5 / float(arrays["spacing"])
    for user, row in enumerate(arrays["spectrum_scene"]):
        place, station = _draw_user(grid[0][user], arrays, scenes, user), scenes.bs[row].numpy()
        grid[0][user].set_title(str(arrays["spectrum_users"][user]), fontsize=9, pad=10)
        grid[0][user].tick_params(labelsize=7)
        grid[0][user].plot(*np.stack((station, place)).T, ":", color="#1f77b4", zorder=4)
        values = np.fft.fftshift(arrays["spectrum_true"][user])
        level = 10 * np.log10(np.maximum(values / values.max(), 1e-4))
        # The panel faces south and y grows downwards.
        grid[1][user].imshow(level.T, origin="upper", extent=(-edge, edge, edge, -edge), cmap="magma", vmin=-30, vmax=0)
        grid[1][user].add_patch(Circle((0, 0), 1, fill=False, edgecolor="white", linewidth=0.6, linestyle=":"))
        grid[1][user].set_xlabel("towards east (kx)", fontsize=8)
        grid[1][user].tick_params(labelsize=7)
    grid[0][0].set_ylabel("north in m", fontsize=8)
    grid[1][0].set_ylabel("downwards (ky)", fontsize=8)
    credit(figure)
    return picture(figure)


def draw_locations(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 9: true positions and those read from partial CSI and the scene, joined, in a few scenes.

    Where the results have what physics alone says, it is drawn too.
    """
    arrays = outcome.arrays
    rows = np.unique(arrays["location_scene"])[:LOCATED_SCENES]
    figure = Figure(figsize=(3.6 * len(rows), 3.9), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        ground(axes, scenes, int(row))
        index = np.flatnonzero(arrays["location_scene"] == row)
        index = index[np.unique(np.linspace(0, len(index) - 1, LOCATED_USERS).round().astype(int))]
        station = scenes.bs[int(row)].numpy()
        true, found = arrays["location_true"][index] + station, arrays["location_model"][index] + station
        axes.plot(*np.stack((true, found)).transpose(2, 0, 1), color="#888888", linewidth=0.7, zorder=3)
        axes.plot(*true.T, "o", color="black", markerfacecolor="white", markersize=5, zorder=4, label="true")
        axes.plot(*found.T, "X", color=style(Method.MODEL)["color"], markersize=5, zorder=4, label="model")
        title = f"{scenes.names[int(row)]}: median {metres(_median(true, found))}"
        if "location_physics" in arrays:
            physics, colour = arrays["location_physics"][index] + station, style(Method.PHYSICS)["color"]
            axes.plot(*np.stack((true, physics)).transpose(2, 0, 1), ":", color=colour, linewidth=0.7, zorder=3)
            axes.plot(*physics.T, "s", color=colour, markersize=3, zorder=3, label="physics alone")
            title += f", physics alone {metres(_median(true, physics))}"
        axes.set_title(title, fontsize=9, pad=10)
        axes.tick_params(labelsize=7)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    credit(figure)
    return picture(figure)


def _median(true: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    """Of the distances between positions (N, 2)."""
    return float(np.median(np.linalg.norm(true - found, axis=1)))


def draw_occupancy(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 11: layout with the user, true and predicted occupancy of the masked patches; grey was not masked (-1)."""
    arrays, users = outcome.arrays, len(outcome.arrays["occupancy_true"])
    figure = Figure(figsize=(2.6 * users + 0.8, 7.6), layout="constrained")
    grid = figure.subplots(3, users, squeeze=False)
    half = scenes.size / 2
    colours = colormaps["viridis"].with_extremes(bad="#dddddd")
    for user in range(users):
        _draw_user(grid[0][user], arrays, scenes, user)
        grid[0][user].set_title(str(arrays["spectrum_users"][user]), fontsize=9, pad=10)
        masked = np.isnan(arrays["occupancy_model"][user])
        for axes, name in ((grid[1][user], "occupancy_true"), (grid[2][user], "occupancy_model")):
            values = np.ma.array(arrays[name][user], mask=masked)
            axes.imshow(values, extent=(-half, half, -half, half), cmap=colours, vmin=0, vmax=1)
        for axes in grid[:, user]:
            axes.tick_params(labelsize=7)
    for line, label in enumerate(("scene", "true", "model, probability")):
        grid[line][0].set_ylabel(label, fontsize=9)
    figure.colorbar(grid[-1][-1].images[-1], ax=grid[1:].ravel().tolist(), label="occupied", shrink=0.7)
    credit(figure)
    return picture(figure)


def draw_spectra(outcome: Outcome) -> str:
    """Figure 10: true, predicted and simple spectra of some held-out users, a column each."""
    arrays = outcome.arrays
    kinds = [(name, label) for name, label in SPECTRA.items() if name in arrays]
    users = len(arrays["spectrum_true"])
    figure = Figure(figsize=(2.5 * users + 0.9, 2.4 * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), users, squeeze=False)
    for row, (name, label) in enumerate(kinds):
        for column in range(users):
            axes = grid[row][column]
            values = np.fft.fftshift(arrays[name][column])
            level = 10 * np.log10(np.maximum(values / values.max(), 1e-4))
            half = values.shape[0] / 2
            axes.imshow(
                level.T, origin="lower", cmap="magma", vmin=-30, vmax=0,
                extent=(-half - 0.5, half - 0.5, -half - 0.5, half - 0.5),
            )  # fmt: skip
            k_x, k_y = np.unravel_index(np.fft.fftshift(arrays["spectrum_true"][column]).argmax(), values.shape)
            axes.plot(k_x - half, k_y - half, "o", markersize=13, markerfacecolor="none", markeredgecolor="#4fc3f7")
            axes.tick_params(labelsize=7)
            if row == 0:
                axes.set_title(str(arrays["spectrum_users"][column]), fontsize=9)
            if column == 0:
                axes.set_ylabel(f"{label}\nky", fontsize=9)
            if row == len(kinds) - 1:
                axes.set_xlabel("kx", fontsize=9)
    figure.colorbar(grid[-1][-1].images[-1], ax=grid.ravel().tolist(), label="dB below the strongest bin", shrink=0.7)
    return picture(figure)


def draw_losses(curves: Curves) -> str:
    """Draw a panel for each loss term: training steps, smoothed, and validation epochs."""
    figure = Figure(figsize=(12.5, 2.9), layout="constrained")
    panels = figure.subplots(1, len(TERMS))
    for axes, (term, label) in zip(panels, TERMS.items(), strict=True):
        steps, values = curves["train"].get(term, ([], []))
        if values:
            draw_smoothed(axes, steps, values)
        steps, values = curves["validation"].get(term, ([], []))
        if values:
            axes.plot(steps, values, "o-", color="#e6550d", markersize=3, linewidth=1.4, label="validation")
        label_losses(axes, label)
    panels[0].legend(fontsize=7)
    return picture(figure)


def label_losses(axes: Axes, title: str) -> None:
    """Title and axes of a panel of losses over steps."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def draw_smoothed(axes: Axes, steps: list[int], values: list[float]) -> None:
    """Draw a training loss, and its running mean over a twentieth of the steps."""
    window = max(1, len(values) // 20)
    smooth = np.convolve(np.pad(values, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    axes.plot(steps, values, color="#9ecae1", linewidth=0.7)
    axes.plot(steps, smooth, color="#08519c", linewidth=1.6, label="train, running mean")


def draw_total_loss(curves: Curves) -> str:
    """Draw the whole loss in training and validation, for the first screen; where points are few it says so."""
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    steps, values = curves["train"].get("total", ([], []))
    axes.plot(steps, values, ".-", color="#9ecae1", linewidth=1, markersize=3, label="train, each step its own masks")
    steps, values = curves["validation"].get("total", ([], []))
    axes.plot(steps, values, "o-", color="#e6550d", linewidth=1.8, label="validation, once an epoch")
    axes.set_title(few_points(curves) or "Loss in training and validation, lower is better", fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel("total loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return picture(figure)


def few_points(curves: Curves) -> str:
    """Say that the validation losses are too few for a curve, if so."""
    points = len(curves["validation"].get("total", ([], []))[0])
    if points >= FEWEST_POINTS:
        return ""
    return f"{points} validation {'point' if points == 1 else 'points'}: too few to tell where training leads"


def read_curves(logs: Path) -> Curves:
    """Loss curves of a run from the CSV logs of all its resumed parts, the later part winning at a step."""
    points: dict[tuple[str, str], dict[int, float]] = {}
    parts = sorted(logs.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for path in parts:
        with path.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                for name, value in line.items():
                    split, _, term = name.partition("/")
                    if value and term:
                        points.setdefault((split, term), {})[int(line["step"])] = float(value)
    curves: Curves = {"train": {}, "validation": {}}
    for (split, term), values in points.items():
        steps = sorted(values)
        curves[split][term] = (steps, [values[step] for step in steps])
    return curves
