"""Radio maps of a recipe's scenes as files: pictures, GeoTIFFs and NumPy archives."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from wavecity.dataset.files import atomic_path
from wavecity.dataset.progress import track
from wavecity.flows.recipe import Recipe
from wavecity.flows.scenes import scene_of
from wavecity.geo.errors import InputError
from wavecity.geo.extract import LICENCE
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.radio_map import RadioMap, radio_map
from wavecity.raytrace.radio_map_settings import METRICS, RadioMapSettings

ATTRIBUTION = f"Map data {LICENCE}"
# Colours that all kinds of colour vision order in the same way; the others have viridis. Beams have no order.
COLOURS = {"path_gain": "magma", "los": "cividis", "best_beam": "twilight"}
TITLES = {
    "path_gain": "path gain",
    "los": "line of sight",
    "delay_spread": "RMS delay spread",
    "angle_spread": "azimuth spread of departure",
    "n_paths": "paths",
    "best_beam": "best beam",
}
BUILDING, EDGE, BASE_STATION, CROWN = "#d9d7d0", "#55524a", "#d4150c", "#2ca25f"
# Hatched, so that no colour of a scale is taken for it.
SILENT, SILENT_EDGE = "white", "#c9c9c9"


def write_radio_map(
    recipe: Recipe, scene_id: str, settings: RadioMapSettings, files: tuple[Path, ...], cache: Path
) -> RadioMap:
    """Compute the radio map of an accepted tile's scene, and write it.

    Parameters
    ----------
    recipe : Recipe
    scene_id : str
        Id of a tile that the recipe's plan accepts.
    settings : RadioMapSettings
    files : tuple of Path
        By their endings: `.png`, `.tif` (GeoTIFF, a band for each metric) or `.npz`.
    cache : Path
        Folder for maps and plans.

    Raises
    ------
    InputError
        An unknown ending, no such tile, or a package is missing.
    """
    for file in files:
        if file.suffix not in WRITERS:
            msg = f"--out {file}: what kind of file? It ends in {', '.join(WRITERS)}"
            raise InputError(msg)
        if not file.parent.is_dir():
            msg = f"--out {file}: there is no folder {file.parent}; make it first"
            raise InputError(msg)
        if file.suffix == ".tif":
            _rasterio()
    scene = scene_of(recipe, scene_id, cache)
    backend.prepare()

    def batches(starts: range) -> Iterable[int]:
        return track(starts, f"radio map of {scene_id}", unit="batches")

    found = radio_map(scene, recipe.radio, recipe.solver, settings, recipe.seed, batches)
    for file in files:
        with atomic_path(file) as temporary:
            WRITERS[file.suffix](scene, found, temporary)
    return found


def write_geotiff(scene: Scene, found: RadioMap, path: Path) -> None:
    """A GeoTIFF in the scene's own metric projection, with a band for each metric; nan inside buildings."""
    rasterio = _rasterio()
    count = len(found.open)
    half = scene.size / 2
    transform = rasterio.Affine(found.spacing, 0, -half, 0, -found.spacing, half)
    tags = {"TIFFTAG_COPYRIGHT": ATTRIBUTION, "scene": scene.id, "receiver_height_m": f"{found.height:g}"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=count,
        height=count,
        count=len(found.values),
        dtype="float32",
        crs=scene.crs,
        transform=transform,
        nodata=np.nan,
        compress="deflate",
        predictor=3,
    ) as file:
        file.update_tags(**tags)
        for band, (name, values) in enumerate(found.values.items(), start=1):
            file.write(values, band)
            unit, text = METRICS[name]
            file.set_band_description(band, name)
            file.update_tags(band, units=unit, long_name=text)


def write_archive(scene: Scene, found: RadioMap, path: Path) -> None:
    """A NumPy archive: the metrics, the scene's height map, the base station and where it is."""
    about: dict[str, Any] = {
        "open": found.open,
        "height_map": scene.height,
        "bs_position": scene.bs_position,
        "spacing": found.spacing,
        "receiver_height": found.height,
        "latitude": scene.latitude,
        "longitude": scene.longitude,
        "attribution": ATTRIBUTION,
        **found.values,
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **about)


def draw(scene: Scene, found: RadioMap, path: Path) -> None:
    """A picture: a map for each metric, buildings, base station, colour scale; cells that no path reaches are hatched."""
    count = len(found.values)
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.6 * columns, 4.6 * rows + 0.7), layout="constrained")
    for axes, (name, values) in zip(
        figure.subplots(rows, columns, squeeze=False).flat, found.values.items(), strict=False
    ):
        _draw_one(axes, scene, name, values, found.silent)
    for axes in figure.axes[: rows * columns][count:]:
        axes.set_axis_off()
    title = f"{scene.id}, {scene.city}: receivers {found.height:g} m above ground, cells of {found.spacing:g} m"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    station = Line2D([], [], marker="^", color=BASE_STATION, markersize=9, markeredgecolor="white", linestyle="")
    building = Patch(facecolor=BUILDING, edgecolor=EDGE, linewidth=0.5)
    silent = Patch(facecolor=SILENT, edgecolor=SILENT_EDGE, hatch="////", linewidth=0)
    handles, names = [station, building, silent], ["base station", "building", "no path"]
    if scene.vegetation is not None:
        handles.append(Patch(facecolor="none", edgecolor=CROWN, linewidth=0.9))
        names.append("crown")
    figure.legend(handles, names, loc="lower left", ncols=len(names), fontsize=8, frameon=False, borderaxespad=0.1)
    figure.text(0.995, 0.004, ATTRIBUTION, fontsize=7, ha="right", va="bottom", color="0.3")
    # Room for the line at the bottom.
    low = 0.25 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, low, 1, 1 - low))
    figure.savefig(path, dpi=120, format="png")


def _draw_one(axes: Axes, scene: Scene, name: str, values: NDArray[np.float32], silent: NDArray[np.bool_]) -> None:
    """One metric over its map."""
    half = scene.size / 2
    unit, called = METRICS[name][0], TITLES[name]
    shown = values if name == "los" else np.where(silent, np.nan, values)
    known = shown[np.isfinite(shown)]
    low, high = np.quantile(known, [0.01, 0.99]) if len(known) else (0.0, 1.0)
    colours = mpl.colormaps[COLOURS.get(name, "viridis")]
    if name in ("los", "n_paths"):
        low = 0.0
    if name == "los":
        high, colours = 1.0, ListedColormap(colours([0.15, 0.95]))
    extent = (-half, half, -half, half)
    # Cells whose middle is in a building reach a little out of it.
    axes.imshow(np.where(np.isnan(values), 0.0, np.nan), extent=extent, cmap=ListedColormap([BUILDING]))
    image = axes.imshow(
        shown,
        extent=extent,
        cmap=colours,
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="nearest",
    )
    axes.set_facecolor(SILENT)
    around = PathPatch(
        Outline([(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]),
        facecolor=SILENT, edgecolor=SILENT_EDGE, hatch="////", linewidth=0, zorder=-1,
    )  # fmt: skip
    axes.add_patch(around)
    for outline in _outlines(scene.buildings.geometry):
        axes.add_patch(PathPatch(outline, facecolor=BUILDING, edgecolor=EDGE, linewidth=0.5))
    if scene.vegetation is not None:
        crowns = scene.vegetation.crowns
        for outline in _outlines(crowns.geometry.buffer(crowns["radius"].fillna(0))):
            axes.add_patch(PathPatch(outline, facecolor="none", edgecolor=CROWN, linewidth=0.9))
    x, y = scene.bs_position[:2]
    axes.plot(x, y, marker="^", color=BASE_STATION, markersize=10, markeredgecolor="white", clip_on=False, zorder=5)
    axes.set(xlim=(-half, half), ylim=(-half, half), xlabel="east, m", ylabel="north, m", title=called)
    axes.title.set_fontsize(10)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9, extend="both" if name == "path_gain" else "neither")
    bar.set_label(called + (f", {unit}" if unit != "1" else ""))
    if name == "los":
        bar.set_ticks([0.25, 0.75], labels=["no", "yes"])


def _outlines(shapes: Iterable[Any]) -> Iterable[Outline]:
    """Polygons as matplotlib draws them."""
    for shape in shapes:
        for polygon in getattr(shape, "geoms", [shape]):
            rings = [polygon.exterior, *polygon.interiors]
            yield Outline.make_compound_path(*(Outline(np.asarray(ring.coords)[:, :2], closed=True) for ring in rings))


def _rasterio() -> Any:
    """The package that writes GeoTIFFs."""
    try:
        import rasterio
    except ImportError as error:
        msg = "--out: a GeoTIFF needs the package rasterio; run `pip install 'wavecity[geotiff]'`"
        raise InputError(msg) from error
    return rasterio


WRITERS: dict[str, Callable[[Scene, RadioMap, Path], None]] = {
    ".png": draw,
    ".tif": write_geotiff,
    ".npz": write_archive,
}
