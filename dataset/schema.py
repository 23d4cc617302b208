"""The dataset's schema: every array with dimensions, dtype, unit and meaning, in one table."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Values of an array whose dtype the schema says, and several such arrays by name.
Values: TypeAlias = NDArray[Any]
Arrays: TypeAlias = dict[str, Values]

SCHEMA_VERSION = "1"

LICENCE = "ODbL-1.0"
ATTRIBUTION = "Map data © OpenStreetMap contributors, available under the Open Database License (ODbL) 1.0"

CONVENTIONS = {
    "frame": "Scene frame: x east, y north, z up, metres, origin at the tile centre on the ground.",
    "csi": (
        "csi[x, y]: x along the panel's horizontal axis, y along its vertical one, C order j = x * rows + y. "
        "Amplitude is the square root of the power gain; the carrier phase exp(-j 2 pi f delay) is included. "
        "Downlink with a beam w: y = csi^H w."
    ),
    "spectrum": "|F h|^2, unnormalised 2-D DFT over (x, y), not shifted.",
    "best_beam": (
        "argmax_j |h^H a_j|^2, a_j[n, m] = exp(-j 2 pi (kx n / Nx + ky m / Ny)), j = kx * Ny + ky. "
        "The beam's index is the spectrum's argmax negated: (-kx mod Nx, -ky mod Ny)."
    ),
    "height": "Row 0 is north, column 0 is west; value = highest building at the cell centre, 0 on open ground.",
    "angles": "Radians: zenith from +z, azimuth from +x (east) towards +y (north).",
    "interactions": "Per bounce: 0 none, 1 specular, 2 diffuse, 4 refraction, 8 diffraction.",
    "padding": (
        "Users beyond n_users are padding: csi 0, outage true, los false, best_beam -1. Users in outage have "
        "best_beam -1 and path_gain at the floor."
    ),
}


TRAJECTORY_CONVENTION = (
    "Group trajectory, of users that move: csi[time, subcarrier, x, y] has the conventions of csi, with "
    "exp(-j 2 pi (f + frequency) delay) at each snapshot, and all paths (csi has the strongest max_paths); a snapshot "
    "without a path is 0. Positions are relative to the base station. All other arrays are of the first snapshot, at "
    "the carrier. kind: 0 walker, 1 vehicle, 2 cyclist."
)


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store.

    `dims` name its axes (the first is always `scene`); `fill` is what padding and unwritten scenes hold.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: float | str
    units: str
    long_name: str


def array_specs(
    spectrum: bool = True,
    paths: bool = True,
    gain_floor: float = -200.0,
    trajectory: bool = False,
    vertices: bool = False,
) -> list[ArraySpec]:
    """Return the arrays that units write, in writing order.

    Parameters
    ----------
    spectrum, paths : bool
        Whether the precomputed spectra and the path-level arrays are stored.
    gain_floor : float
        Path gain in dB of users in outage.
    trajectory : bool
        Whether users move.
    vertices : bool
        Whether the path-level arrays say where every interaction is.

    Examples
    --------
    >>> [spec.name for spec in array_specs(spectrum=False, paths=False)][:3]
    ['csi', 'height', 'occupancy']
    """
    user = ("scene", "user")
    specs = [
        ArraySpec("csi", (*user, "x", "y"), "complex64", 0, "1", "channel of every antenna, sqrt(power gain)"),
        ArraySpec("height", ("scene", "row", "column"), "float32", 0, "m", "height of the highest building"),
        ArraySpec("occupancy", ("scene", "patch_row", "patch_column"), "uint8", 0, "1", "patch is mostly built"),
        ArraySpec("user_position", (*user, "axis"), "float32", 0, "m", "user antenna relative to the base station"),
        ArraySpec("path_gain", user, "float32", gain_floor, "dB", "power gain summed over all paths"),
        ArraySpec("los", user, "bool", False, "1", "line of sight to the base station"),
        ArraySpec("outage", user, "bool", True, "1", "no path above the gain floor (or padding)"),
        ArraySpec("best_beam", user, "int16", -1, "1", "strongest DFT beam, codebook index"),
    ]
    if spectrum:
        specs.insert(1, ArraySpec("spectrum", (*user, "kx", "ky"), "float32", 0, "1", "DFT spatial power spectrum"))
    if paths:
        path = (*user, "path")
        specs += [
            ArraySpec("paths/gain", path, "complex64", 0, "1", "path coefficient at the carrier, 0 = no path"),
            ArraySpec("paths/delay", path, "float32", 0, "s", "absolute delay"),
            ArraySpec("paths/aod_zenith", path, "float32", 0, "rad", "zenith of departure"),
            ArraySpec("paths/aod_azimuth", path, "float32", 0, "rad", "azimuth of departure"),
            ArraySpec("paths/aoa_zenith", path, "float32", 0, "rad", "zenith of arrival"),
            ArraySpec("paths/aoa_azimuth", path, "float32", 0, "rad", "azimuth of arrival"),
            ArraySpec("paths/doppler", path, "float32", 0, "Hz", "Doppler shift"),
            ArraySpec("paths/interactions", (*path, "bounce"), "int8", 0, "1", "interaction of every bounce"),
            ArraySpec("paths/n_paths", user, "int32", 0, "1", "paths found, before the cut to the strongest"),
            ArraySpec("paths/power_cut", user, "float32", 0, "1", "share of the power in the paths cut"),
        ]
    if paths and vertices:
        place = "place of every interaction relative to the base station, 0 where there is none"
        specs.append(ArraySpec("paths/vertices", (*user, "path", "bounce", "axis"), "float32", 0, "m", place))
    if trajectory:
        time = (*user, "time")
        moving = "wideband channel of every antenna along the user's way"
        specs += [
            ArraySpec("trajectory/csi", (*time, "subcarrier", "x", "y"), "complex64", 0, "1", moving),
            ArraySpec(
                "trajectory/position", (*time, "axis"), "float32", 0, "m", "antenna relative to the base station"
            ),
            ArraySpec("trajectory/velocity", (*time, "axis"), "float32", 0, "m s-1", "velocity of the user"),
            ArraySpec("trajectory/kind", user, "uint8", 0, "1", "0 walker, 1 vehicle, 2 cyclist"),
        ]
    return specs


@dataclass(frozen=True)
class TrajectoryAxis:
    """A coordinate of the group `trajectory`, float64, along one dimension; written by the finishing step."""

    name: str
    dim: str
    units: str
    long_name: str


TRAJECTORY_AXES = [
    TrajectoryAxis("time", "time", "s", "time since the first snapshot"),
    TrajectoryAxis("frequency", "subcarrier", "Hz", "frequency of the subcarrier from the carrier"),
]


@dataclass(frozen=True)
class SceneField:
    """One value per scene, a coordinate of the root group; written once by the finishing step."""

    name: str
    dtype: str
    fill: float | str
    units: str
    long_name: str


SCENE_FIELDS = [
    SceneField("scene_id", "str", "", "", "identifier of the scene"),
    SceneField("city", "str", "", "", "city"),
    SceneField("country", "str", "", "", "ISO 3166-1 alpha-2 code of the country"),
    SceneField("latitude", "float64", np.nan, "degrees_north", "latitude of the tile centre, WGS84"),
    SceneField("longitude", "float64", np.nan, "degrees_east", "longitude of the tile centre, WGS84"),
    SceneField("split", "str", "", "", "train, validation or test"),
    SceneField("status", "str", "", "", "done, or quarantined (see the ledger)"),
    SceneField("n_users", "int32", 0, "1", "users that are real; the rest of the user axis is padding"),
    SceneField("bs_shift", "float32", 0, "m", "how far the base station was slid east along the top edge"),
    SceneField("mesh_checksum", "str", "", "", "SHA-256 of the scene's mesh"),
    SceneField("channel_checksum", "str", "", "", "SHA-256 of the scene's channels"),
]
