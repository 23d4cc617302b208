"""What all pictures of the report share: colours by method, the map below, the credit, pictures as data URIs."""

import base64
import io
from typing import TypedDict

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image

from wavecity.model.data.users import SceneTable
from wavecity.model.results.names import Method

ATTRIBUTION = "© OpenStreetMap contributors, ODbL"
# From light to dark grey: low buildings stay visible on white ground.
GREYS = ListedColormap(colormaps["Greys"](np.linspace(0.2, 0.85, 128)))
# Okabe and Ito's colours, which colour-blind readers tell apart; a method has the same in every figure.
STYLES: dict[Method, tuple[str, str]] = {
    **dict.fromkeys((Method.PHYSC_FINE_TUNED,), ("#56B4E9", "D")),
    **dict.fromkeys((Method.PHYSC_MLP, Method.PHYSC_PROBE, Method.PHYSC_HEAD), ("#0072B2", "o")),
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
    Method.EXHAUSTIVE_SEARCH: ("#000000", "*"),
    Method.MEAN_LABELLED: ("#B8A000", "h"),
}
# Drawn thickest.
PHYSC = (Method.PHYSC_MLP, Method.PHYSC_PROBE, Method.PHYSC_HEAD, Method.PHYSC_FINE_TUNED)
OTHER = ("#555555", ".")
# Fewer points show no course.
FEWEST_POINTS = 3


class Look(TypedDict):
    """Arguments of a line."""

    color: str
    marker: str
    linewidth: float
    zorder: float


def style(method: Method) -> Look:
    """Colour, marker and line width of a method; [PHYSC] is the thickest."""
    colour, marker = STYLES.get(method, OTHER)
    return look(colour, marker, 3.0 if method in PHYSC else 1.5)


def look(colour: str, marker: str, width: float) -> Look:
    """Arguments of a line; thick ones lie above the others."""
    return {"color": colour, "marker": marker, "linewidth": width, "zorder": 5 if width > 2 else 3}


def picture(figure: Figure, dpi: int = 130) -> str:
    """PNG of a figure as a `data:` URI: for maps and whatever else is made of cells."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    # A palette takes a third of the bytes, and maps and colour scales look the same.
    colours = Image.open(drawn).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(small, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode("ascii")


def drawing(figure: Figure) -> str:
    """SVG of a figure as a `data:` URI: for curves, sharp on paper at any size."""
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


def mark_user(axes: Axes, place: NDArray[np.floating]) -> None:
    """Mark the user that a panel is about."""
    axes.plot(*place, "o", color="#1f77b4", markersize=8, markeredgecolor="white", zorder=5)


def credit(figure: Figure) -> None:
    """Name whose map it is, in the figure's lower right corner."""
    figure.supxlabel(ATTRIBUTION, fontsize=7, x=0.99, ha="right")
