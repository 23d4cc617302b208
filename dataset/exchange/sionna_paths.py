"""Sionna RT's `Paths` -> a published store. Works on any object with their attributes; Sionna itself is not imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.exchange.deepmimo_paths import places_of, strongest
from wavecity.dataset.exchange.importing import (
    PathSettings,
    checksum_of,
    frame_around,
    import_path_sources,
    scene_arrays,
)
from wavecity.dataset.importing.channel_files import PATCH
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version
from wavecity.dataset.records import Outcome
from wavecity.dataset.schema import Arrays, Values
from wavecity.geo.errors import InputError

# Names in a store -> attributes of `Paths`.
COLUMNS = {
    "paths/delay": "tau",
    "paths/aod_zenith": "theta_t",
    "paths/aod_azimuth": "phi_t",
    "paths/aoa_zenith": "theta_r",
    "paths/aoa_azimuth": "phi_r",
    "paths/doppler": "doppler",
}


class Numbers(Protocol):
    """An array of Dr.Jit."""

    def numpy(self) -> Values:
        """Values."""


class SionnaPaths(Protocol):
    """Attributes of `sionna.rt.Paths` that are read, with those in `COLUMNS`; R receivers, T transmitters, P paths.

    `vertices` are read where they are to be stored.

    One antenna per end: then a synthetic array or not makes no difference but for axes of length 1.
    """

    a: tuple[Numbers, Numbers]
    valid: Numbers
    interactions: Numbers
    sources: Numbers
    targets: Numbers
    vertices: Numbers


@dataclass(frozen=True, eq=False)
class SionnaSource:
    """The paths of one transmitter as a source of channels."""

    name: str
    city: str
    arrays: Arrays

    def __str__(self) -> str:
        return self.name

    @property
    def stem(self) -> str:
        """Name of the scene."""
        return self.name

    def load(self) -> Arrays:
        """Channels, paths and map."""
        return self.arrays

    def checksum(self) -> str:
        """SHA-256 of the arrays."""
        return checksum_of(self.arrays)

    def facts(self) -> Outcome:
        """The scene stands for a city."""
        return {"city": self.city}


Scenes: TypeAlias = Mapping[str, SionnaPaths]


def import_paths(
    scenes: Scenes,
    store: str,
    settings: PathSettings,
    *,
    heights: Mapping[str, NDArray[np.floating]] | None = None,
    progress: Tracker = iter,
) -> Version:
    """Write paths that Sionna RT has traced into a store as its next version, validate and publish it.

    Every transmitter of every `Paths` is a scene, its receivers are the users. Channels of an array are computed from
    the paths, so they are traced with one antenna per end. Positions need a ground at z = 0.

    Parameters
    ----------
    scenes : mapping of str to sionna.rt.Paths
        By the names of the scenes.
    store : str
        Folder or URL; a new one, or one of imports.
    settings : PathSettings
        At least `frequency`, the scene's.
    heights : mapping of str to float (n, n), optional
        Height maps in m, row 0 = north, n a multiple of 10, of the store's map; open ground without them. They need
        `tile_size` and `bs_position`, which say where they lie.
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.

    Returns
    -------
    Version

    Raises
    ------
    InputError
        Paths between panels of several antennas, maps of other sizes, ...

    Examples
    --------
    >>> scene.tx_array = scene.rx_array = PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    >>> paths = PathSolver()(scene, max_depth=3)
    >>> import_paths({"munich": paths}, "stores/munich", PathSettings(frequency=3.5e9, columns=8, rows=8))
    """
    if heights and not {"tile_size", "bs_position"} <= settings.model_fields_set:
        msg = "import_paths: heights need tile_size and bs_position in the settings, which say where the maps lie"
        raise InputError(msg)
    parts = [part for name, paths in scenes.items() for part in _transmitters(name, paths, settings)]
    sites = [(name, base, users) for name, _, base, users, _ in parts]
    if not sites:
        msg = "import_paths: no scenes"
        raise InputError(msg)
    frame = frame_around(sites, settings, None)
    sources = []
    for name, scene, base, users, paths in parts:
        arrays = scene_arrays(name, paths, users - base, settings)
        arrays["height"] = _map((heights or {}).get(scene, np.zeros((settings.cells,) * 2)), scene)
        sources.append(SionnaSource(name, scene, arrays))
    return import_path_sources(sources, store, settings, frame, progress)


_Part: TypeAlias = tuple[str, str, NDArray[np.float64], NDArray[np.float64], Arrays]


def _transmitters(name: str, paths: SionnaPaths, settings: PathSettings) -> list[_Part]:
    """Of each transmitter: names of its scene and of the `Paths`, position, positions of the users, their paths."""
    real, imaginary = (part.numpy() for part in paths.a)
    if real.ndim != 5 or real.shape[1] != 1 or real.shape[3] != 1:
        antennas = f"{real.shape[3]} and {real.shape[1]}" if real.ndim == 5 else "several"
        msg = (
            f"{name}: traced with {antennas} antennas at transmitter and receiver; trace with one each, the array's "
            "channels are computed from the paths"
        )
        raise InputError(msg)
    receivers, _, senders, _, count = real.shape

    def plain(values: Numbers) -> Values:
        """(..., R, [1], T, [1], P) without the antennas."""
        found = values.numpy()
        lead = found.shape[: found.ndim - (5 if found.ndim >= 5 else 3)]
        return found.reshape(*lead, receivers, senders, count)

    coefficient = (real + 1j * imaginary).reshape(receivers, senders, count).astype(np.complex128)
    columns = {key: plain(getattr(paths, attribute)) for key, attribute in COLUMNS.items()}
    bounces = paths.interactions.numpy()
    # Depth first, then as the others.
    bounces = np.moveaxis(bounces.reshape(len(bounces), receivers, senders, count), 0, -1).astype(np.int8)
    if not bounces.shape[-1]:
        bounces = np.zeros((receivers, senders, count, 1), np.int8)
    there = plain(paths.valid).astype(bool)
    delay = columns["paths/delay"].astype(np.float64)
    # Coefficients of `Paths` lack the carrier's phase, which `cfr` adds.
    gain = coefficient * np.exp(-2j * np.pi * settings.frequency * np.where(there, delay, 0))
    sources, users = paths.sources.numpy().T.astype(np.float64), paths.targets.numpy().T.astype(np.float64)
    parts = []
    for sender in range(senders):
        own = {key: values[:, sender] for key, values in columns.items()}
        own |= {"paths/gain": gain[:, sender], "paths/interactions": bounces[:, sender]}
        if settings.positions:
            place = paths.vertices.numpy().reshape(-1, receivers, senders, count, 3)[:, :, sender]
            seen = np.where(there[:, sender, :, None], bounces[:, sender], 0)
            own["paths/vertices"] = places_of(seen, np.moveaxis(place, 0, 2) - sources[sender])
        label = name if senders == 1 else f"{name}-tx{sender}"
        parts.append((label, name, sources[sender], users, strongest(own, there[:, sender], settings.max_paths)))
    return parts


def _map(height: NDArray[np.floating], name: str) -> NDArray[np.float32]:
    """A height map, checked."""
    values = np.asarray(height, np.float32)
    if (
        values.ndim != 2
        or values.shape[0] != values.shape[1]
        or values.shape[0] % PATCH
        or not np.isfinite(values).all()
    ):
        msg = f"{name}: height map of shape {values.shape}; expected finite m, (n, n), n a multiple of {PATCH}"
        raise InputError(msg)
    return values
