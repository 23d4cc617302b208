"""`Scene`: the result of the map stage, and input of the ray tracer and the dataset. Light: NumPy only."""

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Surface(IntEnum):
    """Kind of a mesh face; a recipe gives each kind its radio material."""

    WALL = 0
    ROOF = 1
    FLOOR = 2


@dataclass(frozen=True)
class Materials:
    """Radio materials of B buildings, where they differ from building to building.

    Attributes
    ----------
    wall, roof : tuple of str (B,)
        ITU-R P.2040 materials; empty for those of the recipe.
    glass : tuple of float (B,)
        Share of the walls that is windows.
    """

    wall: tuple[str, ...]
    roof: tuple[str, ...]
    glass: tuple[float, ...]


@dataclass(frozen=True)
class Mesh:
    """All buildings of a scene as closed prisms with welded vertices.

    Attributes
    ----------
    vertices : float64 (V, 3)
        Metres in the scene's frame: x east, y north, z up, origin at the tile centre on the ground.
    faces : int32 (F, 3)
        Vertex indices, counter-clockwise seen from outside.
    building : int32 (F,)
        Row of the face's building in `Scene.buildings`.
    surface : uint8 (F,)
        `Surface` of the face.
    materials : Materials, optional
        Of the buildings; without them each kind of surface has the recipe's.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    building: NDArray[np.int32]
    surface: NDArray[np.uint8]
    materials: Materials | None = None

    @property
    def checksum(self) -> str:
        """SHA-256 of the geometry, and of materials by building: same mesh, same channels."""
        digest = hashlib.sha256()
        for array in (self.vertices, self.faces, self.surface):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.materials is not None:
            digest.update(self.building.tobytes() + repr(self.materials).encode())
        return digest.hexdigest()


class Mover(IntEnum):
    """Kind of a user that moves."""

    WALKER = 0
    VEHICLE = 1
    CYCLIST = 2


@dataclass(frozen=True)
class Trajectories:
    """Users of a tile at regular times: walkers, then cyclists, then vehicles.

    Attributes
    ----------
    position : float32 (U, T, 3)
        Antennas in m in the scene's frame (x east, y north, z up, origin at the tile's centre).
    velocity : float32 (U, T, 3)
        m/s, derivative along the route. At a corner, which is turned instantly, that of the piece after it.
    kind : uint8 (U,)
        `Mover`.
    time : float64 (T,)
        s since the start.
    """

    position: NDArray[np.float32]
    velocity: NDArray[np.float32]
    kind: NDArray[np.uint8]
    time: NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """One tile, ready for ray tracing.

    Attributes
    ----------
    id, city, country : str
        `helsinki-0007`, `Helsinki`, `FI`.
    latitude, longitude : float
        Tile centre, WGS84 degrees.
    crs : str
        PROJ string of the local metric projection centred on the tile.
    size : float
        Edge of the tile in m; the tile spans [-size/2, size/2] in x and y.
    split : str
        `train`, `validation` or `test`.
    mesh : Mesh
        The buildings. The ground is the plane z = 0, added by the ray tracer.
    height : float32 (rows, columns)
        Height in m of the highest building at each cell centre, row 0 = north, column 0 = west.
    occupancy : uint8 (rows, columns)
        1 where more than the recipe's share of the patch is built; same orientation.
    bs_position : float64 (3,)
        Base station in m; `bs_shift` says how far it was shifted east along the top edge.
    users : float32 (U, 3)
        User antennas in m, scene frame; where users move, at the start.
    buildings : geopandas.GeoDataFrame
        One row per building: osm_type, osm_id, height, base, height_source, confidence, geometry (local metres), and its
        materials where the recipe wants them (`wavecity.geo.materials`).
    provenance : dict
        JSON-ready: map source, date, SHA-256, licence; mesh checksum; quality gates; shares of height sources.
    tracks : Trajectories, optional
        Where users move: their routes. `users` are the first positions.
    """

    id: str
    city: str
    country: str
    latitude: float
    longitude: float
    crs: str
    size: float
    split: str
    mesh: Mesh
    height: NDArray[np.float32]
    occupancy: NDArray[np.uint8]
    bs_position: NDArray[np.float64]
    bs_shift: float
    users: NDArray[np.float32]
    buildings: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    tracks: Trajectories | None = None
