"""Arrays of a store, opened and read for speed: whole scenes, straight into their place."""

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import zarr
import zarr.registry
from numpy.typing import NDArray
from zarr.buffer.cpu import NDBuffer
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.types import ArrayV3

from wavecity.dataset.bands import DIMS, Carrier, Port, index_of
from wavecity.dataset.base_stations import GROUP as BASE_STATIONS
from wavecity.dataset.base_stations import name_of
from wavecity.dataset.files import StorePath, open_group
from wavecity.dataset.reader import resolve
from wavecity.dataset.records import attributes_of
from wavecity.dataset.recycler import Recycler
from wavecity.dataset.schema import Arrays, Values
from wavecity.geo.errors import InputError

# Users in the first axis, of every array.
Batch: TypeAlias = Arrays
# What is selected of an array along its first dimensions.
Selection: TypeAlias = tuple[int | slice, ...]


def open_arrays(
    store: str | StorePath, fields: Sequence[str], links: int = 0, carrier: Carrier = None, port: Port = None
) -> dict[str, ArrayV3]:
    """Open arrays for fast reading of whole scenes; of one `carrier` or `port`, or of all, as of `open_store`.

    With `links`, the number of the store's base stations, each array holds the links of all of them one after the other:
    scene s of base station k is scene `k * scenes + s` (`LinkArray`).

    The codec pipeline of package `zarrs` decodes a shard several times faster than zarr's own, and is used where it is
    installed, without its pool of threads: that does not survive a fork, and the next read would wait for it for ever.

    Raises
    ------
    InputError
        No such array, or no such carrier, or several of which none is named.

    Examples
    --------
    >>> arrays = open_arrays("helsinki", ("csi", "height"))
    >>> read_scenes(arrays, np.array([0, 1]))["height"].shape
    (2, 200, 200)
    """
    # By its name: a connection to object storage that was opened before a fork cannot be used after it.
    root = open_group(resolve(str(store)))
    known = {name: array for name, array in root.members(max_depth=1) if isinstance(array, zarr.Array)}
    # Those of other base stations lie deeper, such as `bs/1/csi`.
    deeper = {
        field: root.get(field) for field in fields if field not in known and field.startswith(f"{BASE_STATIONS}/")
    }
    known |= {name: array for name, array in deeper.items() if isinstance(array, zarr.Array)}
    for field in fields:
        if field not in known or known[field].dtype.kind not in "biufc":
            numeric = sorted(name for name, array in known.items() if array.dtype.kind in "biufc")
            msg = f"{store}: no array {field!r}; it has {', '.join(numeric)}"
            raise InputError(msg)
    opened = {
        field: _fast(_of_links(store, root, field, known[field], links) if links else [known[field]])
        for field in fields
    }
    several = any(_has_bands(array) for parts in opened.values() for array in parts)
    if several or carrier is not None or port is not None:
        index = index_of(store, attributes_of(root.attrs.asdict()), carrier, port)
        if index is not None:
            opened = {field: [_at_band(array, index) for array in parts] for field, parts in opened.items()}
    return {field: cast(ArrayV3, LinkArray(parts)) if links else parts[0] for field, parts in opened.items()}


def _fast(arrays: list[ArrayV3]) -> list[ArrayV3]:
    """The same arrays, decoded by package `zarrs` where it is installed."""
    try:
        from zarrs import ZarrsCodecPipeline
    except ImportError:
        return arrays
    zarr.registry.register_pipeline(ZarrsCodecPipeline)
    # An array takes its pipeline, and the pipeline its number of threads, when it is made. zarrs decodes at least
    # `chunk_concurrent_minimum` shards at a time in its pool, whatever the number of threads.
    with zarr.config.set(_ZARRS):
        return [_made_again(array) for array in arrays]


def _of_links(store: str | StorePath, root: zarr.Group, field: str, first: ArrayV3, links: int) -> list[ArrayV3]:
    """A field of all base stations, of which `first` is that of base station 0."""
    if field.startswith("radio_map/"):
        msg = f"{store}: {field}: radio maps are of base station 0; leave the field or bs out"
        raise InputError(msg)
    parts = [root.get(name_of(number, field)) for number in range(links)]
    # What links do not have of their own, such as maps, is the store's.
    return [cast(ArrayV3, part) if isinstance(part, zarr.Array) else first for part in parts]


def _at_band(array: ArrayV3, index: int) -> ArrayV3:
    """An array at one of its bands (`AtBand`); as it is, where it has none."""
    return cast(ArrayV3, AtBand(array, index)) if _has_bands(array) else array


class LinkArray:
    """An array of several base stations, read as if each had scenes of its own: all of base station 0, then of 1, ...

    It has what readers use of a Zarr array. Of an array with a dimension `bs`, such as `bs/azimuth`, each base station
    has its own part.

    Parameters
    ----------
    parts : sequence of zarr.Array
        One for each base station, of the same shape.
    """

    def __init__(self, parts: Sequence[ArrayV3]) -> None:
        first, dims = parts[0], dims_of(parts[0])
        self._parts, self._by_station = parts, dims[1:2] == ("bs",)
        self._scenes, rest = first.shape[0], 2 if self._by_station else 1
        self.shape, self.dims = (len(parts) * self._scenes, *first.shape[rest:]), (*dims[:1], *dims[rest:])
        self.dtype, self.attrs, self.shards, self.chunks = first.dtype, first.attrs, first.shards, first.chunks

    def __getitem__(self, key: int | slice | tuple[int, slice]) -> Values:
        """All scenes, or some, of all base stations; or one scene of one base station, and of its users some."""
        if isinstance(key, slice):
            parts = [part[:, number] if self._by_station else part[:] for number, part in enumerate(self._parts)]
            return np.concatenate([np.asarray(part) for part in parts])[key]
        scene, users = key if isinstance(key, tuple) else (key, slice(None))
        number, row = divmod(int(scene), self._scenes)
        return np.asarray(self._parts[number][row, number if self._by_station else users])

    def get_basic_selection(self, selection: tuple[slice, ...], out: NDBuffer) -> None:
        """Read scenes, which may be of several base stations, into `out`."""
        scene, *rest = selection
        start = scene.start
        while start < scene.stop:
            number, row = divmod(start, self._scenes)
            count = min(scene.stop - start, self._scenes - row)
            values = out.as_numpy_array()[start - scene.start :][:count]
            part = slice(row, row + count)
            if self._by_station:
                values[...] = self._parts[number][part, number]
            else:
                self._parts[number].get_basic_selection((part, *rest), out=NDBuffer(values))  # type: ignore[arg-type]
            start += count


_ZARRS = {
    "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
    "codec_pipeline.chunk_concurrent_minimum": 1,
    "threading.max_workers": 1,
}


def _made_again(array: ArrayV3) -> ArrayV3:
    """Make the same array with the pipeline configured now; nothing is read, so zarr starts no thread for it."""
    made = array.async_array
    return zarr.Array(zarr.AsyncArray(made.metadata, made.store_path, made.config))


class AtBand:
    """An array of a store at one of its carriers, or pairs of ports, as if it had no other.

    It has as much of a Zarr array as readers use.

    Parameters
    ----------
    array : zarr.Array
        (scene, user, carrier or port, ...), or (scene, carrier or port, ...) of a radio map.
    index : int
        Number of the carrier, or the pair.
    """

    def __init__(self, array: ArrayV3, index: int) -> None:
        self._array, self._index = array, index
        self.dtype, self.attrs, self.name = array.dtype, array.attrs, array.name
        dims = dims_of(array)
        self._axis = next(place for place, dim in enumerate(dims) if dim in DIMS)
        self.dims = dims[: self._axis] + dims[self._axis + 1 :]
        self.shape, self.chunks = self._without(array.shape), self._without(array.chunks)
        self.shards = None if array.shards is None else self._without(array.shards)

    def __getitem__(self, key: Selection | int | slice) -> Values:
        return np.asarray(self._array[self._all_of(key)])

    def get_basic_selection(self, key: Selection, *, out: NDBuffer | None = None) -> object:
        """See `zarr.Array.get_basic_selection`."""
        return self._array.get_basic_selection(self._all_of(key), out=out)

    def _without(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Sizes without that of the bands."""
        return sizes[: self._axis] + sizes[self._axis + 1 :]

    def _all_of(self, key: Selection | int | slice) -> Selection:
        """A selection along the first dimensions, in the array with all bands."""
        given = key if isinstance(key, tuple) else (key,)
        given = (*given, *[slice(None)] * (self._axis - len(given)))
        return (*given[: self._axis], self._index, *given[self._axis :])


def _has_bands(array: ArrayV3) -> bool:
    """Whether an array has a dimension `carrier` or `port`."""
    return any(dim in DIMS for dim in dims_of(array))


def is_per_user(array: ArrayV3) -> bool:
    """Whether an array has a user axis, or holds one value for all users of a scene."""
    return dims_of(array)[1:2] == ("user",)


def dims_of(array: ArrayV3) -> tuple[str | None, ...]:
    """Names of an array's dimensions; nothing where it has none."""
    if (dims := getattr(array, "dims", None)) is not None:  # a `LinkArray` or an `AtBand`
        return tuple(dims)
    metadata = array.metadata
    return tuple(metadata.dimension_names or ()) if isinstance(metadata, ArrayV3Metadata) else ()


def read_scenes(
    arrays: dict[str, ArrayV3],
    scenes: NDArray[np.int64],
    memory: Recycler | None = None,
    users: int | None = None,
) -> Batch:
    """Read scenes.

    Parameters
    ----------
    arrays : dict
    scenes : int64 (S,)
        Ascending. Neighbours are read together, and whole shards at once.
    memory : Recycler, optional
        Where the arrays returned come from.
    users : int, optional
        How many users of each scene, from its first on; all by default. The user axis of a store is as long as its
        largest scene needs, which may be many times what the scenes of a split have.

    Returns
    -------
    dict
        Of every array (S, ...), those of users (S, users, ...).
    """
    starts = np.flatnonzero(np.diff(scenes, prepend=-2) != 1)
    memory = memory or Recycler(0)
    read = {}
    for name, array in arrays.items():
        some = (slice(users),) if users is not None and is_per_user(array) and users < array.shape[1] else ()
        shape = (len(scenes), *(part.stop for part in some), *array.shape[1 + len(some) :])
        values = memory.empty(name, shape, array.dtype)
        for first, stop in zip(starts, [*starts[1:], len(scenes)], strict=True):
            run = (slice(int(scenes[first]), int(scenes[stop - 1]) + 1), *some)
            # Straight into its place: a copy of a window costs as much as decoding some of it.
            array.get_basic_selection(run, out=NDBuffer(values[first:stop]))  # type: ignore[arg-type]
        read[name] = values
    return read
