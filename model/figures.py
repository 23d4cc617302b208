"""Pictures of the report, as PNG in data URIs: scenes with their users, spectra, loss curves."""

import base64
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model.data import SceneTable, Users

ATTRIBUTION = "© OpenStreetMap contributors, ODbL"
# From light to dark grey: low buildings stay visible on white ground.
GREYS = ListedColormap(colormaps["Greys"](np.linspace(0.2, 0.85, 128)))
TERMS = {
    "total": "total (eq. 7)",
    "csi": "masked CSI (eq. 2)",
    "location": "masked location (eq. 3)",
    "occupancy": "masked occupancy (eq. 4)",
    "spectrum": "spectrum (eq. 6)",
}


def data_uri(figure: Figure, dpi: int = 110) -> str:
    """PNG of a figure as a `data:` URI."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def draw_scene(scenes: SceneTable, row: int, users: Users, split: str, gains: tuple[float, float]) -> str:
    """Draw buildings by height, the base station, and users by path gain and line of sight.

    Parameters
    ----------
    scenes : SceneTable
    row : int
        Row of the scene.
    users : Users
        Those of this scene.
    split : str
    gains : (float, float)
        Ends of the colour scale, dB.
    """
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    half = scenes.size / 2
    height = scenes.height[row].numpy()
    extent = (-half, half, -half, half)
    buildings = np.ma.masked_less_equal(height, 0)
    image = axes.imshow(buildings, extent=extent, cmap=GREYS, vmin=0, vmax=max(float(height.max()), 1.0))
    bs = scenes.bs[row].numpy()
    place = users.position.numpy() + bs
    los, gain = users.los.numpy(), users.path_gain.numpy()
    points: Any = None
    style: dict[str, Any] = {"vmin": gains[0], "vmax": gains[1], "edgecolors": "white", "linewidths": 0.5}
    for shown, marker, size in ((los, "o", 26), (~los, "X", 30)):
        if shown.any():
            x, y = place[shown].T
            points = axes.scatter(x, y, c=gain[shown], marker=marker, s=size, cmap="plasma", zorder=3, **style)
    axes.plot(*bs, marker="v", color="#d62728", markersize=12, markeredgecolor="white", zorder=4, clip_on=False)
    share = f"{100 * los.mean():.0f} % LoS" if len(los) else "no users"
    axes.set_title(f"{scenes.names[row]} · {split} · {len(users)} users, {share}", fontsize=10, pad=10)
    axes.set_xlabel("east in m")
    axes.set_ylabel("north in m")
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    figure.colorbar(image, ax=axes, label="building height in m", aspect=40, pad=0.01)
    if points is not None:
        figure.colorbar(points, ax=axes, label="path gain in dB", aspect=40, pad=0.01)
    axes.text(0.99, 0.01, ATTRIBUTION, transform=axes.transAxes, ha="right", va="bottom", fontsize=6, zorder=5,
              bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})  # fmt: skip
    return data_uri(figure)


def draw_spectra(arrays: dict[str, NDArray[Any]]) -> str:
    """Draw true, predicted and zero-filled spectra of some held-out users, a column each."""
    kinds = (("spectrum_true", "true"), ("spectrum_model", "model"), ("spectrum_zero_filled", "zero-filled DFT"))
    users = len(arrays["spectrum_true"])
    figure = Figure(figsize=(2.5 * users + 0.9, 7.2), layout="constrained")
    grid = figure.subplots(3, users, squeeze=False)
    image = None
    for row, (name, label) in enumerate(kinds):
        for column in range(users):
            axes = grid[row][column]
            values = np.fft.fftshift(arrays[name][column])
            level = 10 * np.log10(np.maximum(values / values.max(), 1e-4))
            half = values.shape[0] / 2
            image = axes.imshow(
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
            if row == 2:
                axes.set_xlabel("kx", fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=grid.ravel().tolist(), label="dB below the strongest bin", shrink=0.7)
    return data_uri(figure)


def draw_losses(curves: dict[str, dict[str, tuple[list[int], list[float]]]]) -> str:
    """Draw a panel a loss term: training steps, smoothed, and validation epochs."""
    figure = Figure(figsize=(12.5, 2.9), layout="constrained")
    panels = figure.subplots(1, len(TERMS))
    for axes, (term, label) in zip(panels, TERMS.items(), strict=True):
        steps, values = curves["train"].get(term, ([], []))
        if values:
            window = max(1, len(values) // 20)
            smooth = np.convolve(np.pad(values, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
            axes.plot(steps, values, color="#9ecae1", linewidth=0.7)
            axes.plot(steps, smooth, color="#08519c", linewidth=1.6, label="train, running mean")
        steps, values = curves["validation"].get(term, ([], []))
        if values:
            axes.plot(steps, values, "o-", color="#e6550d", markersize=3, linewidth=1.4, label="validation")
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    return data_uri(figure)


def read_curves(logs: Path) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
    """Loss curves of a run from the CSV logs of all its resumed parts, the later part winning at a step.

    Returns
    -------
    dict
        `train` and `validation` -> term -> (steps, values).
    """
    points: dict[tuple[str, str], dict[int, float]] = {}
    parts = sorted(logs.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    for path in parts:
        with path.open(newline="", encoding="utf-8") as stream:
            for line in csv.DictReader(stream):
                for name, value in line.items():
                    split, _, term = name.partition("/")
                    if value and term:
                        points.setdefault((split, term), {})[int(line["step"])] = float(value)
    curves: dict[str, dict[str, tuple[list[int], list[float]]]] = {"train": {}, "validation": {}}
    for (split, term), values in points.items():
        steps = sorted(values)
        curves[split][term] = (steps, [values[step] for step in steps])
    return curves
