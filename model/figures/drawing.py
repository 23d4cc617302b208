"""What all pictures of the report share: colours by method, the map below, the credit, pictures as data URIs."""

import base64
import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike
from PIL import Image

from wavecity.model.data.users import SceneTable
from wavecity.model.results.names import Method

ATTRIBUTION = "© OpenStreetMap contributors, ODbL"
# From light to dark grey: low buildings stay visible on white ground.
GREYS = ListedColormap(colormaps["Greys"](np.linspace(0.2, 0.85, 128)))
# Okabe and Ito's colours, which colour-blind readers tell apart; a method has the same in every figure.
STYLES: dict[Method, tuple[str, str]] = {
    Method.PHYSC_FINE_TUNED: ("#56B4E9", "D"),
    **dict.fromkeys((Method.PHYSC_MLP, Method.PHYSC_PROBE), ("#0072B2", "o")),
    Method.PHYSC_HEAD: ("#332288", "p"),  # of a path model next to the MLP and the probe
    **dict.fromkeys((Method.MODEL, Method.MODEL_LOCATION_HEAD, Method.MODEL_SPECTRUM_BEAM), ("#0072B2", "P")),
    **dict.fromkeys((Method.RAW_CNN, Method.RAW_PROBE, Method.RAW_HEAD), ("#D55E00", "s")),
    Method.TWIN: ("#CC79A7", "^"),
    **dict.fromkeys((Method.UNTRAINED_MLP, Method.UNTRAINED_PROBE), ("#888888", "v")),
    Method.KNN_LEVEL: ("#66C2A5", "d"),
    Method.KNN: ("#009E73", "X"),
    Method.DFT_PROBE: ("#009E73", "X"),
    Method.ZERO_FILLED_BEAM: ("#66C2A5", "<"),
    Method.OMP_4_BEAM: ("#E69F00", ">"),
    Method.OMP_BEAM: ("#8C5A00", ">"),
    **dict.fromkeys((Method.SBL, Method.SBL_BEAM, Method.PHYSICS), ("#9467BD", "8")),
    Method.EXHAUSTIVE_SEARCH: ("#000000", "*"),
    Method.MEAN_LABELLED: ("#B8A000", "h"),
    Method.MODEL_FINE_TUNED: ("#0072B2", "o"),
    Method.MODEL_ZERO_SHOT: ("#56B4E9", "P"),
    Method.DENSE_TWIN: ("#E69F00", "s"),
    Method.GRU: ("#009E73", "X"),
    Method.RIDGE: ("#D55E00", "D"),
    Method.PERSISTENCE: ("#555555", "v"),
    Method.FIRST_GUESS: ("#8C5A00", "<"),
    **dict.fromkeys((Method.WRAPPED, Method.WRAPPED_PRETRAINED), ("#0072B2", "o")),
    **dict.fromkeys((Method.VANILLA, Method.VANILLA_PRETRAINED), ("#D55E00", "s")),
    Method.AUGMENTED: ("#E69F00", "^"),
    Method.PENALISED: ("#CC79A7", "D"),
}
PHYSC = (Method.PHYSC_MLP, Method.PHYSC_PROBE, Method.PHYSC_HEAD, Method.PHYSC_FINE_TUNED)
# What a figure is about.
THICK = (*PHYSC, Method.MODEL_FINE_TUNED, Method.WRAPPED, Method.WRAPPED_PRETRAINED)
OTHER = ("#555555", ".")
# An entry of a legend.
Handle = Artist | Container
# Fewer points show no course.
FEWEST_POINTS = 3


def style(method: Method) -> dict[str, Any]:
    """Arguments of a method's line: colour, marker, width; what a figure is about is thickest, and above the others."""
    colour, marker = STYLES.get(method, OTHER)
    thick = method in THICK
    return {"color": colour, "marker": marker, "linewidth": 3.0 if thick else 1.5, "zorder": 5 if thick else 3}


def panels(
    count: int, columns: int, size: Callable[[int], tuple[float, float]], sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Figure with `count` panels, at most `columns` in a line; `size` is its width and height for a number of lines."""
    columns = min(count, columns)
    lines = -(-count // columns)
    figure = Figure(figsize=size(lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def draw_line(
    axes: Axes, x: ArrayLike, mean: ArrayLike, spread: ArrayLike | None, method: Method, label: str, **more: Any
) -> ErrorbarContainer:
    """Means with one standard deviation, in the method's style; `more` are arguments of `Axes.errorbar`."""
    looks = {"markersize": 6, "capsize": 3, "elinewidth": 1.2, **style(method), **more}
    return axes.errorbar(x, mean, spread, label=label, **looks)


def picture(figure: Figure, dpi: int = 130) -> str:
    """PNG of a figure as a `data:` URI: for maps and whatever else is made of cells."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    # A palette takes a third of the bytes, and maps and colour scales look the same.
    colours = Image.open(drawn).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(small, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def drawing(figure: Figure, handles: Iterable[Handle] = (), columns: int = 3) -> str:
    """SVG of a figure as a `data:` URI: for curves, sharp on paper at any size; one legend for all panels below them."""
    if handles := list(handles):
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False)
    stream = io.BytesIO()
    # Without salt and date the same results would give another page every time.
    with rc_context({"svg.hashsalt": "wavecity"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def ground(axes: Axes, scenes: SceneTable, row: int) -> AxesImage:
    """Buildings by height and the base station; returns the image, for a colour bar."""
    half = scenes.size / 2
    height = scenes.height[row].numpy()
    buildings = np.ma.masked_less_equal(height, 0)
    extent, top = (-half, half, -half, half), max(float(height.max()), 1.0)
    image = axes.imshow(buildings, extent=extent, cmap=GREYS, vmin=0, vmax=top)
    station = scenes.bs[row].numpy()
    axes.plot(*station, marker="v", color="#d62728", markersize=12, markeredgecolor="white", zorder=4, clip_on=False)
    axes.set_xlim(-half, half)
    axes.set_ylim(-half, half)
    return image


def credit(figure: Figure) -> None:
    """Name whose map it is, in the figure's lower right corner."""
    figure.supxlabel(ATTRIBUTION, fontsize=7, x=0.99, ha="right")


def metres(distance: float) -> str:
    """A distance in words: to a decimetre below 10 m."""
    return f"{distance:.0f} m" if distance >= 10 else f"{distance:.1f} m"
