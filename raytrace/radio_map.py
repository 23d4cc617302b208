"""Radio maps: what a receiver would have anywhere on the open ground of a scene, on a grid.

Chain-first like the channels of users, which makes it cheap: the sequences of walls and edges are found once, and every
cell's centre is tested against all of them. A cell has the exact field of the paths to its centre; Sionna's
`RadioMapSolver` gives the mean over the cell of the rays that happen to meet it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Mesh, Scene
from wavecity.raytrace.arrays import SPEED_OF_LIGHT, best_beam
from wavecity.raytrace.channels import Channels, csi
from wavecity.raytrace.radio_map_settings import Metric, RadioMapSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import ONE_AT_A_TIME, chain_solver, collect, panel_orientation, refuse_several
from wavecity.raytrace.solver import Paths, line_of_sight
from wavecity.raytrace.vegetation import weakened
from wavecity.raytrace.world import build_world

# Cells that are traced at a time; and cells that rays are sent from to find walls after edges, of all.
CELLS_AT_ONCE = 4096
ANCHORS = 1000
# m that the middle of a cell is moved to find out what it is in.
ASIDE = (3.1e-7, 1.7e-7)
# Bytes of the channels of cells, of which beams are sought; the working memory of a path is some 2 kB, of an antenna 48.
BEAM_BYTES, PATH_BYTES, ANTENNA_BYTES = 2**26, 2000, 48


@dataclass(frozen=True)
class RadioMap:
    """Values on a grid over a tile; row 0 is north, column 0 is west.

    Attributes
    ----------
    spacing, height : float
        Edge of a cell, and height of the receivers, in m.
    open : bool (rows, columns)
        Cells whose centre is not inside a building at the receivers' height.
    values : dict of float32 (rows, columns)
        By metric (`radio_map_settings.METRICS`); nan inside buildings. Where no path arrives `path_gain` is `floor`.
    floor : float
        The solver's `gain_floor` in dB.
    """

    spacing: float
    height: float
    open: NDArray[np.bool_]
    values: dict[str, NDArray[np.float32]]
    floor: float = -200.0

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Open cells that no path reaches, as far as the metrics say."""
        none = np.zeros_like(self.open)
        for name, least in (("path_gain", self.floor), ("n_paths", 0), ("best_beam", -1)):
            if name in self.values:
                none |= self.values[name] <= least
        return none


def radio_map(
    scene: Scene,
    radio: RadioSettings,
    solver: SolverSettings,
    settings: RadioMapSettings,
    seed: int,
    progress: Callable[[range], Iterable[int]] = iter,
) -> RadioMap:
    """Radio map of a scene's base station.

    Parameters
    ----------
    scene : Scene
    radio : RadioSettings
    solver : SolverSettings
        Without diffuse scattering.
    settings : RadioMapSettings
    seed : int
        As of `simulate`.
    progress : callable, optional
        Wraps the loop over batches of cells.

    Raises
    ------
    InputError
        The spacing does not divide the tile, there are several carriers or ports, or the solver scatters.

    Examples
    --------
    >>> found = radio_map(scene, RadioSettings(), SolverSettings(), RadioMapSettings(spacing=2.0), seed=0)
    >>> found.values["path_gain"].shape
    (100, 100)
    """
    try:
        count = settings.cells(scene.size)
    except ValueError as error:
        raise InputError(str(error)) from error
    refuse_several(radio, "make a radio map of each, with radio.frequency and V or H")
    if solver.diffuse:
        msg = "solver.diffuse is true, but radio maps have no diffuse paths; set it to false"
        raise InputError(msg)
    places = (np.arange(count) + 0.5) * settings.spacing - scene.size / 2
    x, y = np.meshgrid(places, -places)
    points = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, settings.height)])
    values: dict[str, NDArray[np.float32]] = {
        name: np.full((count, count), np.nan, np.float32) for name in settings.metrics
    }
    ground = ~_in_buildings(scene.mesh, points).reshape(count, count)
    (rows, columns), points = np.nonzero(ground), points[ground.ravel()]
    trace, panel = chain_solver(solver, seed), (panel_orientation(radio), radio.pattern)
    with ONE_AT_A_TIME:
        world = build_world(scene.mesh, scene.size, radio)
        chains = trace.chains(world, scene.bs_position, points[:: max(1, len(points) // ANCHORS)])
        for low in progress(range(0, len(points), CELLS_AT_ONCE)):
            here = slice(low, low + CELLS_AT_ONCE)
            paths = trace(world, scene.bs_position, points[here], *panel, chains=chains)
            paths, _ = weakened(scene.vegetation, scene.bs_position, points[here], paths, radio.frequency)
            visible = line_of_sight(world, scene.bs_position, points[here])
            for name in settings.metrics:
                values[name][rows[here], columns[here]] = _metric(name, paths, visible, radio, solver)
        del world
    return RadioMap(settings.spacing, settings.height, ground, values, solver.gain_floor)


def _in_buildings(mesh: Mesh, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (N, 3) are in a building: above them are more roofs than floors.

    Counted in the mesh: where storeys are solids of their own, the roof of one is in the floor of the next, and a ray would meet
    either.
    """
    corners = mesh.vertices[mesh.faces]
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    # Counter-clockwise from outside: positive seen from above is a roof; walls have no area.
    area = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    flat = np.abs(area) > 1e-9
    corners, facing = corners[flat], np.sign(area[flat])
    # A little aside, so that none lies on the edge that two triangles of a roof share.
    places = shapely.STRtree(shapely.points(points[:, :2] + ASIDE))
    triangle, point = places.query(shapely.polygons(corners[..., :2]), predicate="contains")
    above = corners[triangle, :, 2].max(axis=1) > points[point, 2]
    inside: NDArray[np.bool_] = np.bincount(point[above], facing[triangle[above]], len(points)) > 0
    return inside


def _metric(
    name: Metric, paths: Paths, visible: NDArray[np.bool_], radio: RadioSettings, solver: SolverSettings
) -> NDArray[np.float64]:
    """A metric of every receiver."""
    count = len(visible)
    power = np.abs(paths.coefficient.astype(np.complex128)) ** 2
    total = np.bincount(paths.receiver, power, count)
    share = power / total[paths.receiver]
    if name == "path_gain":
        with np.errstate(divide="ignore"):
            gain: NDArray[np.float64] = np.maximum(10 * np.log10(total), solver.gain_floor)
        return gain
    if name == "los":
        return visible.astype(np.float64)
    if name == "n_paths":
        return np.bincount(paths.receiver, minlength=count).astype(np.float64)
    if name == "delay_spread":
        delay = paths.length / SPEED_OF_LIGHT
        mean = np.bincount(paths.receiver, share * delay, count)
        return 1e9 * np.sqrt(np.bincount(paths.receiver, share * (delay - mean[paths.receiver]) ** 2, count))
    if name == "angle_spread":
        azimuth = np.arctan2(paths.departure[:, 1], paths.departure[:, 0])
        east, north = (np.bincount(paths.receiver, share * part, count) for part in (np.cos(azimuth), np.sin(azimuth)))
        length = np.clip(np.hypot(east, north), 1e-12, 1)
        return np.where(total > 0, np.rad2deg(np.sqrt(-2 * np.log(length))), 0.0)
    channels = collect(paths, visible, radio.frequency, solver)
    return np.where(channels.outage, -1, _best_beams(channels, radio)).astype(np.float64)


def _best_beams(channels: Channels, radio: RadioSettings) -> NDArray[np.int64]:
    """Strongest beam of every receiver; their channels are made a few at a time."""
    count, most = channels.gain.shape
    step = max(1, BEAM_BYTES // (PATH_BYTES * most + ANTENNA_BYTES * radio.columns * radio.rows))
    beams = np.empty(count, np.int64)
    for low in range(0, count, step):
        part = slice(low, low + step)
        some = replace(channels, **{field.name: getattr(channels, field.name)[part] for field in fields(channels)})
        beams[part] = best_beam(csi(some, radio))
    return beams
