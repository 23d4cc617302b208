"""A scene of a store as a picture: buildings by height, base station, users by line of sight and gain."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dataset.files import atomic_path, make_folder
from dataset.reader import open_store
from geo.errors import InputError

mpl.use("Agg")


def draw_scene(store: str | Path, scene_id: str, out: Path) -> Path:
    """Draw one scene, in the scene frame (m), north up.

    Parameters
    ----------
    store : path
    scene_id : str
        E.g. `helsinki-0007`.
    out : Path
        PNG to write.

    Raises
    ------
    InputError
        No such scene, or the scene is quarantined.
    """
    data = open_store(store)
    ids = data["scene_id"].values.astype(str)
    found = np.flatnonzero((ids == scene_id) & (data["status"].values == "done"))
    if not len(found):
        known = ", ".join(ids[data["status"].values == "done"][:6])
        msg = f"{store}: no finished scene {scene_id!r}; it has {known}, ..."
        raise InputError(msg)
    scene = data.isel(scene=int(found[0])).load()
    figure = Figure(figsize=(8.4, 7.2), layout="constrained")
    axes = figure.add_subplot()
    half = data.attrs["tile_size_m"] / 2
    image = axes.imshow(scene["height"], extent=(-half, half, -half, half), cmap="Greys", vmin=0)
    figure.colorbar(image, ax=axes, label="building height in m", shrink=0.8)
    n = int(scene["n_users"])
    base = np.asarray(data.attrs["bs_position_m"]) + np.array([float(scene["bs_shift"]), 0, 0])
    position = scene["user_position"].values[:n] + base
    los, outage = scene["los"].values[:n], scene["outage"].values[:n]
    gain = scene["path_gain"].values[:n]
    for mask, marker, label in ((los, "o", "line of sight"), (~los & ~outage, "s", "reflected or diffracted only")):
        points = axes.scatter(
            position[mask, 0],
            position[mask, 1],
            c=gain[mask],
            s=26,
            marker=marker,
            cmap="viridis",
            vmin=-150,
            vmax=-80,
            label=label,
        )
    figure.colorbar(points, ax=axes, label="path gain in dB", shrink=0.8)
    axes.scatter(position[outage, 0], position[outage, 1], c="tab:red", s=22, marker="x", label="outage")
    axes.scatter(
        base[0], base[1], c="tab:orange", s=160, marker="*", edgecolor="black", label="base station", clip_on=False
    )
    _decorate(axes, scene_id, data.attrs["attribution"])
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    return out


def _decorate(axes: Axes, title: str, attribution: str) -> None:
    axes.set(title=title, xlabel="east in m", ylabel="north in m")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, frameon=False)
    axes.text(1, -0.17, attribution, transform=axes.transAxes, fontsize=6, ha="right")
