"""Sizes of a store's dimensions, and how its arrays are cut into shards and chunks."""

import math
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from wavecity.dataset.bands import CARRIER, DIMS, PORT, with_bands
from wavecity.dataset.base_stations import base_station_specs
from wavecity.dataset.radio_maps import radio_map_specs
from wavecity.dataset.records import Content
from wavecity.dataset.schema import ArraySpec, array_specs
from wavecity.dataset.vegetation import vegetation_specs

# Arrays of which a whole unit has no more bytes than this are one chunk per unit.
SMALL = 2**20
# Bytes of a chunk of trajectories, one user's at least.
TRAJECTORY_CHUNK = 2**20


@dataclass(frozen=True)
class Layout:
    """Sizes of the store's dimensions and its sharding.

    Without `steps` its users do not move; without `map_metrics` its scenes have no radio maps. `base_stations` counts the
    first one. Without `carriers` there is one, without `ports` one pair; there are several of one of these two at most.
    """

    scenes: int
    users: int
    columns: int
    rows: int
    paths: int
    bounces: int
    height_cells: int
    occupancy_patches: int
    unit: int
    users_per_chunk: int
    with_spectrum: bool
    with_paths: bool
    gain_floor: float
    steps: int = 0
    subcarriers: int = 0
    with_vertices: bool = False
    map_metrics: tuple[str, ...] = ()
    map_cells: int = 0
    base_stations: int = 1
    with_vegetation: bool = False
    carriers: int = 0
    ports: int = 0

    @classmethod
    def of(cls, content: Content) -> Self:
        """The layout of a `draft.json`."""
        return cls(**{**content, "map_metrics": tuple(content.get("map_metrics", ()))})

    def content(self) -> Content:
        """What `draft.json` has of it; of what is off nothing, as before there was any of it."""
        content = asdict(self)
        if not self.with_vertices:
            del content["with_vertices"]
        if not self.with_radio_map:
            del content["map_metrics"], content["map_cells"]
        if self.base_stations == 1:
            del content["base_stations"]
        if not self.with_vegetation:
            del content["with_vegetation"]
        for name in ("carriers", "ports"):
            if not content[name]:
                del content[name]
        return content

    @property
    def with_trajectory(self) -> bool:
        """Whether users move."""
        return self.steps > 0

    @property
    def with_radio_map(self) -> bool:
        """Whether scenes have radio maps."""
        return bool(self.map_metrics)

    @property
    def bands(self) -> int:
        """Number of carriers, or of pairs of ports, where there are several; else 0."""
        return self.carriers or self.ports

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-self.scenes // self.unit)

    def specs(self) -> list[ArraySpec]:
        """Arrays that units write."""
        parts = self.with_spectrum, self.with_paths, self.gain_floor, self.with_trajectory, self.with_vertices
        specs = array_specs(*parts) + vegetation_specs(self.with_vegetation and self.with_paths)
        specs += base_station_specs(specs, self.base_stations) + radio_map_specs(self.map_metrics)
        return with_bands(specs, CARRIER if self.carriers else PORT) if self.bands else specs

    def shape(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape of one array."""
        sizes = {
            "scene": self.scenes,
            "user": self.users,
            "x": self.columns,
            "y": self.rows,
            "kx": self.columns,
            "ky": self.rows,
            "row": self.height_cells,
            "column": self.height_cells,
            "patch_row": self.occupancy_patches,
            "patch_column": self.occupancy_patches,
            "axis": 3,
            "path": self.paths,
            "bounce": self.bounces,
            "time": self.steps,
            "subcarrier": self.subcarriers,
            "map_row": self.map_cells,
            "map_column": self.map_cells,
            "bs": self.base_stations,
            CARRIER: self.carriers,
            PORT: self.ports,
        }
        return tuple(sizes[dim] for dim in spec.dims)

    def scenes_of(self, unit: int) -> range:
        """Scene indices of a unit."""
        return range(unit * self.unit, min((unit + 1) * self.unit, self.scenes))

    def chunk(self, spec: ArraySpec) -> tuple[int, ...]:
        """Chunk of an array inside a shard: few users of a scene where samples are large, else a whole scene or unit.

        Every chunk costs a reader some 0.1 ms of Python whatever its size: a flag per user in chunks of 64 users took
        30 times as long to read as in chunks of a unit. Where it is not small, a chunk is of one carrier, or pair of ports.
        """
        shape = self.shape(spec)
        item = np.dtype(spec.dtype).itemsize
        if "subcarrier" in spec.dims:
            rest = self._of_one_band(spec)[2:]
            users = min(max(1, TRAJECTORY_CHUNK // (item * math.prod(rest))), self.users_per_chunk, shape[1])
            return 1, users, *rest
        if {"x", "kx"} & set(spec.dims):
            return 1, min(self.users_per_chunk, shape[1]), *self._of_one_band(spec)[2:]
        small = item * math.prod(shape[1:]) * self.unit <= SMALL
        return (self.unit, *shape[1:]) if small else (1, *self._of_one_band(spec)[1:])

    def _of_one_band(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape of one array at one carrier, or pair of ports."""
        return tuple(1 if dim in DIMS else size for dim, size in zip(spec.dims, self.shape(spec), strict=True))

    def shard(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shard of an array: a unit's scenes, in whole chunks, so that the user axis is rounded up."""
        sizes = zip(self.shape(spec)[1:], self.chunk(spec)[1:], strict=True)
        return self.unit, *(-(-size // chunk) * chunk for size, chunk in sizes)
