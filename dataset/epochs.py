"""Which epoch an iterator reads: counted over the processes that share its batches, without a lock.

A DataLoader does not notify a dataset of a new epoch, and its workers have copies of the dataset. So each process that
starts to read appends a record to one small file, which is atomic: iterators are numbered in the order of their first
records. Workers of one iterator recognise each other by the seed that torch gives them.
"""

import multiprocessing
import os
import struct
import tempfile
import uuid
from collections import Counter
from multiprocessing.util import Finalize
from pathlib import Path

# An iterator (its key, the worker, 0), or a position that was set (-1, epoch, batch).
_RECORD = struct.Struct("<qqq")
_SET = -1


class EpochCounter:
    """Positions of the iterators of one dataset: the first one set, then the beginnings of the epochs after it.

    Copies in worker processes of `torch.utils.data.DataLoader` count together with the process that started them. Every
    other copy (of a rank of distributed training, one that was unpickled) counts for itself, from the same position.

    Examples
    --------
    >>> counter = EpochCounter()
    >>> counter.take(), counter.take()
    ((0, 0), (1, 0))
    >>> counter.move_to(7, batch=3)
    >>> counter.take(), counter.take()
    ((7, 3), (8, 0))
    """

    def __init__(self) -> None:
        self._start = (0, 0)
        self._base = _new_base()
        self._clean_up()
        self._begin()

    def __getstate__(self) -> dict[str, object]:
        # Workers find the file of this process, which says where counting began; other processes begin here.
        self._begin()
        return {"_base": self._base, "_start": self.following(), "_process": os.getpid()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        if self._process == os.getpid():
            # Another counter of this process; elsewhere the process id distinguishes the files.
            self._base = _new_base()
        self._clean_up()

    def move_to(self, epoch: int, batch: int = 0) -> None:
        """The next iterator starts there."""
        self._start = (epoch, batch)
        self._append(_SET, epoch, batch)

    def following(self) -> tuple[int, int]:
        """Epoch and first batch of the next iterator."""
        (epoch, batch), seen = self._read(worker=False)
        return (epoch + len(seen), 0) if seen else (epoch, batch)

    def take(self, seed: int | None = None, worker: int | None = None) -> tuple[int, int]:
        """Epoch and first batch of the iterator that starts now.

        Parameters
        ----------
        seed : int, optional
            In a worker process: what all workers of the same iterator have in common; not negative.
        worker : int, optional
            In a worker process: its number.
        """
        own = (uuid.uuid4().int >> 65 if seed is None else seed, worker or 0)
        self._append(*own, 0, worker=worker is not None)
        (epoch, batch), seen = self._read(worker=worker is not None)
        # The same worker comes again with the same seed where workers stay from epoch to epoch.
        turns = [turn for turn, workers in seen.items() if own[1] in workers and turn[0] == own[0]]
        number = list(seen).index(turns[-1])
        return (epoch + number, 0) if number else (epoch, batch)

    def _clean_up(self) -> None:
        """Remove this process's file when the process ends."""
        self._process = os.getpid()
        # Not `weakref.finalize`: that is not called at the end of a process of `multiprocessing`, such as a rank.
        Finalize(self, _remove, (self._base,), exitpriority=0)

    def _begin(self) -> None:
        """Create this process's file, with the position from which it counts."""
        if not self._file(worker=False).exists():
            self.move_to(*self._start)

    def _file(self, worker: bool) -> Path:
        """File of this process, or in a worker that of the process that started it."""
        parent = multiprocessing.parent_process() if worker else None
        return Path(f"{self._base}.{parent.pid if parent else os.getpid()}")

    def _append(self, *record: int, worker: bool = False) -> None:
        """Append a record, which is atomic."""
        if not worker and self._process != os.getpid():
            self._clean_up()
        file = os.open(self._file(worker), os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            os.write(file, _RECORD.pack(*record))
        finally:
            os.close(file)

    def _read(self, worker: bool) -> tuple[tuple[int, int], dict[tuple[int, int], set[int]]]:
        """Position set last, and the iterators since: (key, how often workers came with it before) -> its workers."""
        path = self._file(worker)
        start = self._start
        seen: dict[tuple[int, int], set[int]] = {}
        turns: Counter[tuple[int, int]] = Counter()
        for key, first, second in _RECORD.iter_unpack(path.read_bytes() if path.exists() else b""):
            if key == _SET:
                start = (first, second)
                seen.clear()
                turns.clear()
                continue
            seen.setdefault((key, turns[key, first]), set()).add(first)
            turns[key, first] += 1
        return start, seen


def _new_base() -> str:
    """Path of a new counter's files, without the process id."""
    return os.path.join(tempfile.gettempdir(), f"wavecity-epochs-{uuid.uuid4().hex}")


def _remove(base: str) -> None:
    """A process removes its own file only: copies of a counter end in many processes."""
    Path(f"{base}.{os.getpid()}").unlink(missing_ok=True)
