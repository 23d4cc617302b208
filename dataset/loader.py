"""Shuffled batches of a split, NumPy only: the common part of the torch and TensorFlow readers.

Shuffling single users of a compressed store would decode a chunk for every one of them. Instead units (shards) are
permuted, some of them are decoded together as a *window*, and the users of a window are shuffled. The order is a pure
function of (seed, epoch, stream), so that reading can start anywhere in it without decoding what comes before.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from zarr.types import ArrayV3

from wavecity.dataset.arrays import Batch, is_per_user, read_scenes
from wavecity.dataset.recycler import Recycler
from wavecity.dataset.schema import Values
from wavecity.dataset.users import Users
from wavecity.geo.errors import InputError

# Seconds after which decoding of a window is given up: it takes less than one from a disk, minutes over a slow link.
TIMEOUT = 600.0


class Stalled(TimeoutError):
    """Reading has stalled."""


@dataclass(frozen=True)
class Order:
    """What the order of an epoch depends on, apart from its number.

    Every user occurs once per epoch. Ranks get equal numbers of users, and so of batches: where the users cannot be
    divided evenly, the first few come twice, `world - 1` at most. Units are disjoint between the streams (ranks and
    their workers) except those in which one stream ends and the next begins.

    Attributes
    ----------
    batch_size : int
        Of one rank.
    seed : int
    window : int
        Units decoded together; two windows are in memory at a time, in every worker.
    drop_last : bool
        All batches are full: what is left of a rank's users after its last full batch, and of all users after dividing
        them evenly, is left out in this epoch.
    rank, world : int
        Of the processes that train together.
    """

    batch_size: int
    seed: int = 0
    window: int = 4
    drop_last: bool = False
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("seed", 0), ("window", 1), ("world", 1), ("rank", 0)):
            if getattr(self, name) < least:
                msg = f"{name} {getattr(self, name)}: must be at least {least}"
                raise InputError(msg)
        if self.rank >= self.world:
            msg = f"rank {self.rank} of {self.world}: ranks count from 0 to {self.world - 1}"
            raise InputError(msg)

    def users(self, count: int) -> int:
        """Number of `count` users that each rank gets."""
        return count // self.world // self.batch_size * self.batch_size if self.drop_last else -(-count // self.world)

    def batches(self, count: int) -> int:
        """Number of batches of `count` users that each rank gets."""
        return -(-self.users(count) // self.batch_size)


def units_within(users: Users, fields: Sequence[str], size: int) -> int:
    """Number of units whose fields take at most `size` bytes when decoded; at least one.

    As a `window` (see `Order`) it mixes as many users as the memory allows, in a small store all of them.
    """
    arrays = users.open_arrays(fields)
    most = int(users.user_index.max(initial=0)) + 1
    scene = sum(
        array.dtype.itemsize * (most * math.prod(array.shape[2:]) if is_per_user(array) else math.prod(array.shape[1:]))
        for array in arrays.values()
    )
    scenes = max(array.shards[0] if array.shards else array.chunks[0] for array in arrays.values())
    return max(size // (scene * scenes), 1)


class BatchReader:
    """Batches of an epoch, starting at any of them.

    Parameters
    ----------
    users : Users
    fields : sequence of str
        Arrays of the schema, `paths/...` among them. Those of scenes (`height`, `occupancy`) are repeated for every
        user.
    order : Order
    timeout : float
        Seconds after which the decoding of a window is given up.
    scenes_once : bool
        Arrays of scenes are not repeated: they come once for every scene of a batch, and `scene_row` says which row
        is a user's. A height map of 200 x 200 cells is 20 times as large as a channel of 32 x 32 antennas.

    Raises
    ------
    InputError
        No such array, or not one full batch with `drop_last`.
    """

    def __init__(
        self,
        users: Users,
        fields: Sequence[str],
        order: Order,
        timeout: float = TIMEOUT,
        scenes_once: bool = False,
    ) -> None:
        self.users = users
        self.order = order
        self.timeout = timeout
        self.scenes_once = scenes_once
        self._open(fields)
        self._first = np.flatnonzero(np.diff(users.unit, prepend=-1))
        self._counts = np.diff(self._first, append=len(users))
        if not len(self):
            msg = f"split {users.split!r} of {users.path} has {len(users)} users with a path, too few for a batch"
            if len(users):
                msg += f" of {order.batch_size} on each of {order.world} ranks; lower batch_size or leave drop_last off"
            raise InputError(msg)

    def _open(self, fields: Sequence[str]) -> None:
        """Open the arrays in this process."""
        self._process = os.getpid()
        self.arrays = self.users.open_arrays(fields)

    def __len__(self) -> int:
        return self.order.batches(len(self.users))

    def windows(self, epoch: int, stream: int = 0, streams: int = 1) -> list[list[NDArray[np.int64]]]:
        """The plan of a stream: its windows, each with the ranges of users that it takes from its units.

        Parameters
        ----------
        epoch : int
        stream, streams : int
            Batch k of a rank comes from stream `k % streams`.

        Returns
        -------
        list of list of int64 (3,)
            Position of the unit, and the range of its users in the unit's own shuffled order.
        """
        order, batch = self.order, self.order.batch_size
        users = order.users(len(self.users))
        batches = len(range(stream, len(self), streams))
        before = sum(len(range(other, len(self), streams)) for other in range(stream))
        # The only batch that may be short is the rank's last; it is also the last of its stream.
        short = len(self) * batch - users
        last = (len(self) - 1) % streams
        start = order.rank * users + before * batch - (short if last < stream else 0)
        stop = start + batches * batch - (short if last == stream else 0)
        permuted = self._random(epoch, _UNITS).permutation(len(self._counts))
        ends = np.cumsum(self._counts[permuted])
        pieces = []
        while start < stop:
            # After the last user comes the first again, for the rank that would have too few.
            offset = start % len(self.users)
            place = int(np.searchsorted(ends, offset, side="right"))
            unit, end = permuted[place], ends[place]
            taken = min(int(end) - offset, stop - start)
            first = offset - int(end - self._counts[unit])
            pieces.append(np.array([unit, first, first + taken]))
            start += taken
        if not pieces:
            return []
        # Windows of equal numbers of units: a single one left at the end would be mixed with nothing.
        return [list(part) for part in np.array_split(np.array(pieces), -(-len(pieces) // order.window))]

    def batches(self, epoch: int, start: int = 0, stream: int = 0, streams: int = 1) -> Iterator[Batch]:
        """Read the batches of one stream; the next window is decoded in the background meanwhile.

        Parameters
        ----------
        epoch : int
        start : int
            Batches of this stream that are left out; nothing is decoded for them.
        stream, streams : int
            Batch k of a rank comes from stream `k % streams`.

        Yields
        ------
        dict
            Every field (B, ...), and `scene` and `user`, int64 (B,), as in the store; of several base stations `bs`.
            With `scenes_once` those of scenes (S, ...), and `scene_row`, int64 (B,). Arrays are the caller's to keep.

        Raises
        ------
        Stalled
            A window was not decoded within `timeout` seconds.
        """
        if self._process != os.getpid():
            # A forked process: connections do not survive that.
            self._open(list(self.arrays))
        plan = self.windows(epoch, stream, streams)
        sizes = [sum(int(stop - first) for _, first, stop in window) for window in plan]
        ends = np.cumsum([0, *sizes])
        left = int(ends[-1]) - start * self.order.batch_size
        if left <= 0:
            return
        number = int(np.searchsorted(ends, start * self.order.batch_size, side="right")) - 1
        place = start * self.order.batch_size - int(ends[number])
        # A window is decoded while another is in use; the caller holds a batch while it asks for the next.
        window_memory, batch_memory = Recycler(2), Recycler(3)
        pool = ThreadPoolExecutor(1, thread_name_prefix="wavecity-decode")

        def ahead(number: int) -> "Future[_Window] | None":
            if number == len(plan):
                return None
            random = self._random(epoch, _WINDOWS, self.order.rank, stream, number)
            return pool.submit(self._decode, epoch, plan[number], random, window_memory)

        coming = ahead(number)
        window: _Window | None = None
        ends_by_itself = True
        try:
            while left:
                batch = self._empty(min(self.order.batch_size, left), batch_memory)
                filled = 0
                scenes = _Scenes()
                while filled < len(batch["scene"]):
                    if window is None:
                        assert coming is not None
                        window = self._wait(coming)
                        number += 1
                        coming = ahead(number)
                    taken = window.fill(batch, filled, place)
                    if self.scenes_once:
                        scenes.add(window, place, taken)
                    filled, place = filled + taken, place + taken
                    if place == len(window):
                        window, place = None, 0
                left -= filled
                yield batch | scenes.joined() if self.scenes_once else batch
                del batch
        except Stalled:
            ends_by_itself = False
            raise
        finally:
            pool.shutdown(ends_by_itself, cancel_futures=True)

    def _wait(self, coming: "Future[_Window]") -> "_Window":
        """Result of a window that is being decoded; raises `Stalled` after the time limit."""
        if wait([coming], self.timeout).done:
            return coming.result()
        msg = (
            f"{self.users.path}: {self.order.window} units of split {self.users.split!r} were not read within "
            f"{self.timeout:g} s in process {os.getpid()}; is the storage reachable? A larger `timeout` waits longer"
        )
        raise Stalled(msg)

    def _empty(self, count: int, memory: Recycler) -> Batch:
        """A batch whose values are not set."""
        batch = {
            name: memory.empty(name, (count, *array.shape[2 if is_per_user(array) else 1 :]), array.dtype)
            for name, array in self.arrays.items()
            if is_per_user(array) or not self.scenes_once
        }
        names = ("scene", "user", "bs") if self.users.links else ("scene", "user")
        return batch | {name: np.empty(count, np.int64) for name in names}

    def _decode(
        self, epoch: int, pieces: list[NDArray[np.int64]], random: np.random.Generator, memory: Recycler
    ) -> "_Window":
        """Decode the units of a window, and shuffle its users."""
        samples = []
        for unit, first, stop in pieces:
            shuffled = self._random(epoch, _WITHIN, unit).permutation(self._counts[unit])
            samples.append(self._first[unit] + shuffled[first:stop])
        chosen = random.permutation(np.concatenate(samples))
        scene, user = self.users.scene_index[chosen], self.users.user_index[chosen]
        scenes, row = np.unique(scene, return_inverse=True)
        read = read_scenes(self.arrays, scenes, memory, int(user.max()) + 1)
        return _Window(self.users.identity(scene), user, row, read, self.arrays)

    def _random(self, epoch: int, *purpose: int) -> np.random.Generator:
        """Random numbers of one purpose in an epoch."""
        return np.random.default_rng([self.order.seed, epoch, *map(int, purpose)])


# Purposes of random streams. None is 0: NumPy ignores trailing zeros of a seed.
_UNITS, _WITHIN, _WINDOWS = 1, 2, 3


class _Window:
    """Users of some units, decoded and in shuffled order."""

    def __init__(
        self,
        identity: dict[str, NDArray[np.int64]],
        user: NDArray[np.int64],
        row: NDArray[np.int64],
        values: Batch,
        arrays: dict[str, ArrayV3],
    ) -> None:
        # Every field as one table of rows, and for every user its row in it.
        self._tables: dict[str, tuple[Values, NDArray[np.int64]]] = {}
        self.scene_tables: Batch = {}
        self.scene_row = row
        for name, array in arrays.items():
            value = values[name]
            if is_per_user(array):
                self._tables[name] = value.reshape(-1, *value.shape[2:]), row * value.shape[1] + user
            else:
                self._tables[name] = value, row
                self.scene_tables[name] = value
        self._tables |= {name: (value, np.arange(len(user))) for name, value in (*identity.items(), ("user", user))}
        self._length = len(user)

    def __len__(self) -> int:
        return self._length

    def fill(self, batch: Batch, filled: int, place: int) -> int:
        """Gather users from `place` on into a batch from `filled` on; returns how many there were."""
        count = min(len(batch["scene"]) - filled, len(self) - place)
        for name in batch:
            table, rows = self._tables[name]
            # With mode="clip" numpy writes straight into `out`; by default it would buffer it.
            np.take(table, rows[place : place + count], axis=0, out=batch[name][filled : filled + count], mode="clip")
        return count


class _Scenes:
    """Arrays of the scenes of one batch, each scene once for every window that the batch takes users from."""

    def __init__(self) -> None:
        self._parts: list[tuple[Batch, NDArray[np.int64]]] = []

    def add(self, window: _Window, place: int, count: int) -> None:
        """Copy what `count` users of a window, from `place` on, need."""
        rows, row = np.unique(window.scene_row[place : place + count], return_inverse=True)
        self._parts.append(({name: table[rows] for name, table in window.scene_tables.items()}, row))

    def joined(self) -> Batch:
        """The arrays (S, ...) and `scene_row` (B,)."""
        first = np.cumsum([0, *(int(row.max()) + 1 for _, row in self._parts)])
        rows = [row + start for (_, row), start in zip(self._parts, first, strict=False)]
        names = self._parts[0][0]
        joined = {name: np.concatenate([arrays[name] for arrays, _ in self._parts]) for name in names}
        return joined | {"scene_row": np.concatenate(rows)}
