"""Paths of other tools as a store: channels are computed from them for an array of one's choice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from wavecity.dataset.importing.channel_files import CELLS, PATCH
from wavecity.dataset.importing.importer import USER_HEIGHT, ImportSettings, Source, import_sources
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import csi
from wavecity.raytrace.settings import RadioSettings

# Edges of maps are multiples of this many m.
EDGE = 10.0
# Base stations of one store may differ in height by so many m.
SAME_HEIGHT = 0.01


class PathSettings(ImportSettings):
    """Array, paths and users of an import from paths; what it shares with `ImportSettings` means the same.

    `tile_size` and `bs_position` are those of the scenario where it was exported from a store; else the map is the
    smallest square around the base station and all users, in steps of 10 m, unless `bs_position` is given.
    """

    columns: int = Field(32, ge=1, le=256, description="Antennas of the array along x (horizontal).")
    rows: int = Field(32, ge=1, le=256, description="Antennas of the array along y (vertical).")
    downtilt: float = Field(0.0, ge=-90, le=90, description="Degrees below the horizon.")
    max_paths: int = Field(32, ge=1, le=1024, description="Strongest paths kept for a user; the power cut is recorded.")
    users: int | None = Field(None, ge=1, description="At most so many users of a scene, drawn at random; empty: all.")
    reached: bool = Field(False, description="Leave out users without a path, as those inside buildings.")
    cells: int = Field(
        CELLS, ge=PATCH, le=4000, multiple_of=PATCH, description="Cells of the height map along an edge."
    )
    carrier_phase: Literal["auto", "included", "missing"] = Field(
        "auto",
        description="Whether phases include exp(-j 2 pi f delay). Auto: those of DeepMIMO's converter from Sionna do not.",
    )

    interactions: Literal["kinds", "positions"] = Field(
        "kinds",
        description="What is stored of a path's interactions; positions: where they are, as well as their kinds.",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out positions where they are not wanted: what is written of an import is as it was before there were any."""
        content: dict[str, object] = handler(self)
        if self.interactions == "kinds":
            content.pop("interactions", None)
        return content

    @property
    def positions(self) -> bool:
        """Whether to store where interactions are."""
        return self.interactions == "positions"

    def radio(self) -> RadioSettings:
        """The array.

        Raises
        ------
        InputError
            A carrier that the channel model does not cover.
        """
        try:
            return RadioSettings(
                frequency=self.frequency,
                columns=self.columns,
                rows=self.rows,
                spacing=self.spacing,
                azimuth=self.azimuth,
                downtilt=self.downtilt,
            )
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else "array"
            msg = f"{name} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
            raise InputError(msg) from error


@dataclass(frozen=True)
class Frame:
    """The map that all scenes of a store share.

    Attributes
    ----------
    tile_size : float
        Edge in m; its centre is the origin.
    bs_position : tuple of float
        Base station in m, before it is slid.
    """

    tile_size: float
    bs_position: tuple[float, float, float]


def frame_around(
    sites: Sequence[tuple[str, NDArray[np.floating], NDArray[np.floating]]], settings: PathSettings, fixed: Frame | None
) -> Frame:
    """The map of a store: as asked for, as the scenarios say, or the smallest square.

    Parameters
    ----------
    sites : sequence of (str, float (3,), float (U, 3))
        Of each scene: its name, base station and users, m, in a frame whose ground is at z = 0.
    settings : PathSettings
    fixed : Frame, optional
        That of the store that all scenarios were exported from.

    Raises
    ------
    InputError
        Base stations of different heights: a store has one.
    """
    heights = {name: float(base[2]) for name, base, _ in sites}
    low, high = min(heights, key=heights.__getitem__), max(heights, key=heights.__getitem__)
    if heights[high] - heights[low] > SAME_HEIGHT:
        msg = (
            f"{high}: its base station is at {heights[high]:g} m, that of {low} at {heights[low]:g} m; a store has one "
            "height for base station 0: import them into separate stores (--transmitters chooses), or as base "
            "stations of one scene (--links)"
        )
        raise InputError(msg)
    if settings.bs_position is not None:
        return Frame(settings.tile_size, settings.bs_position)
    if fixed is not None:
        return fixed
    away = np.concatenate([np.zeros((1, 2)), *(users[:, :2] - base[:2] for _, base, users in sites)])
    first, last = away.min(0), away.max(0)
    edge = max(np.ceil(float((last - first).max()) / EDGE), 1.0) * EDGE
    if "tile_size" in settings.model_fields_set:
        edge = settings.tile_size
    middle = (first + last) / 2
    return Frame(float(edge), (float(-middle[0]), float(-middle[1]), heights[high] or USER_HEIGHT))


def chosen_users(name: str, heard: NDArray[np.bool_], settings: PathSettings) -> NDArray[np.int64]:
    """Users (N,) of a scene that are imported; `heard` (U,) says who has a path.

    Raises
    ------
    InputError
        There is none.
    """
    chosen = np.flatnonzero(heard) if settings.reached else np.arange(len(heard))
    if settings.users is not None and len(chosen) > settings.users:
        rng = np.random.default_rng([settings.seed, *name.encode()])
        chosen = np.sort(rng.choice(chosen, settings.users, replace=False))
    if not len(chosen):
        msg = f"{name}: no user has a path; leave it out"
        raise InputError(msg)
    return chosen


def scene_arrays(
    name: str,
    paths: Arrays,
    position: NDArray[np.floating],
    settings: PathSettings,
    chosen: NDArray[np.int64] | None = None,
    azimuth: float | None = None,
) -> Arrays:
    """Arrays of a source from the paths of its users.

    Parameters
    ----------
    name : str
        Of the scene; its users are drawn by it and the seed.
    paths : dict
        As of `deepmimo_paths.strongest`.
    position : float (U, 3)
        Relative to the base station, m.
    settings : PathSettings
    chosen : int (N,), optional
        The users that are imported; by default as of `chosen_users`.
    azimuth : float, optional
        Where the panel faces, degrees from east; by default as the settings say.

    Returns
    -------
    dict
        As `importer.Source.load` has to return them, without a map.
    """
    if chosen is None:
        chosen = chosen_users(name, np.isfinite(paths["path_gain"]), settings)
    arrays: Arrays = {key: values[chosen] for key, values in paths.items()}
    table = SimpleNamespace(**{key.removeprefix("paths/"): values for key, values in arrays.items()})
    there = arrays["paths/gain"] != 0
    radio = settings.radio()
    return {
        **arrays,
        "csi": csi(table, radio if azimuth is None else radio.model_copy(update={"azimuth": azimuth})),
        "user_position": np.asarray(position, np.float64)[chosen],
        "los": (there & ~arrays["paths/interactions"].any(-1)).any(1),
    }


def import_path_sources(
    sources: Sequence[Source],
    store: str,
    settings: PathSettings,
    frame: Frame,
    progress: Tracker = iter,
    known: StoreAttributes | None = None,
) -> Version:
    """Write sources with paths into a store; `known` are attributes that they know of the data."""
    # Element patterns are in the gains, and nobody says which; so nothing is compared with free space.
    attributes: StoreAttributes = {"title": "Imported paths", "element_pattern": "unknown", **(known or {})}
    attributes["array"] = {
        "columns": settings.columns,
        "rows": settings.rows,
        "spacing_wavelengths": settings.spacing,
        "azimuth_deg": settings.azimuth,
        "downtilt_deg": settings.downtilt,
    }
    placed = settings.model_copy(update={"tile_size": frame.tile_size, "bs_position": frame.bs_position})
    return import_sources(sources, store, placed, progress, attributes)


def checksum_of(arrays: Arrays) -> str:
    """SHA-256 of arrays by their names."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
