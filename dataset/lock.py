"""One builder per store: a lease in the store itself, on local disk as on object storage.

The holder is the process that made the lease with the highest number; a lease is made by exclusive creation, which
exactly one process wins, and is never renamed or taken over in place. The holder renews it at intervals; a lease has
ended when it was released, when its process is gone (same host), or when it was not renewed for `LEASE` seconds.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from wavecity.dataset.files import StorePath, children, make_folder, read_json, write_json
from wavecity.geo.errors import InputError

# Seconds without a beat after which a holder on another host, or one that was suspended, counts as gone.
LEASE = 120.0


class StoreBusy(InputError):
    """Another process builds or publishes in a store; the message names it."""


class _Lease(TypedDict, total=False):
    """Content of a lease's file."""

    host: str
    pid: int
    started: str
    beat: float
    released: bool


@dataclass
class Lock:
    """A lease that this process holds."""

    folder: StorePath
    number: int
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> StorePath:
        """The lease's file."""
        return _path(self.folder, self.number)

    def check(self) -> None:
        """Do nothing while this process is the holder.

        Raises
        ------
        InputError
            This process was suspended for so long that another one took over.
        """
        if _highest(self.folder) != self.number:
            msg = (
                f"{self.folder.parent}: another build took this store over while this one was suspended; that one "
                f"goes on"
            )
            raise InputError(msg)

    def _beat(self) -> None:
        """Renew the lease until the block ends or another process took over."""
        while not self._ended.wait(LEASE / 6):
            try:
                self.check()
                write_json(self.path, _me())
            except InputError:
                return  # taken over: the next call of `check` says so
            except Exception:  # object storage has errors of its own
                continue  # a network that fails for a while; the lease outlasts five beats


@contextmanager
def builder_lock(store: StorePath) -> Iterator[Lock]:
    """Hold the store's lease.

    Raises
    ------
    StoreBusy
        Another process builds or publishes in this store.

    Examples
    --------
    >>> with builder_lock(Path("helsinki")) as lock:
    ...     lock.check()
    """
    folder = store / ".staging"
    make_folder(folder)
    lock = _acquire(store, folder)
    beating = threading.Thread(target=lock._beat, daemon=True, name="store-lease")
    beating.start()
    try:
        yield lock
    finally:
        lock._ended.set()
        beating.join()
        if _highest(folder) == lock.number:
            write_json(lock.path, {**_me(), "released": True})


def refuse_busy(store: StorePath) -> None:
    """Refuse a store whose lease another process holds, without taking it.

    Raises
    ------
    StoreBusy
        Another process builds or publishes in this store.
    """
    _free_number(store, store / ".staging")


def _free_number(store: StorePath, folder: StorePath) -> int:
    """Number of the latest lease, which nobody holds any more."""
    number = _highest(folder)
    holder = read_json(_path(folder, number)) if number else None
    if holder is not None and _alive(holder):
        raise StoreBusy(_refusal(store, holder))
    return number


def _acquire(store: StorePath, folder: StorePath) -> Lock:
    """Make the next lease, unless somebody holds one."""
    lock = Lock(folder, _free_number(store, folder) + 1)
    try:
        _create(lock.path, _me())
    except FileExistsError:
        raise StoreBusy(_refusal(store, read_json(lock.path))) from None
    except (OSError, ValueError) as error:
        msg = f"{store}: cannot be written ({error}); check the address and the credentials in the environment"
        raise InputError(msg) from error
    if _highest(folder) != lock.number:
        # The listing above was stale: leases up to here have come and gone meanwhile.
        lock.path.unlink()
        raise StoreBusy(_refusal(store, None))
    for old in _numbers(folder):
        if old < lock.number:
            _path(folder, old).unlink(missing_ok=True)
    return lock


def _refusal(store: StorePath, holder: _Lease | None) -> str:
    """Message that names who holds the lease."""
    who = f"process {holder['pid']} on {holder['host']}" if holder and "pid" in holder else "another process"
    return f"{store}: {who} is building in this store; wait for it or stop it, then run the same command again"


def _me() -> _Lease:
    """Lease of this process, now."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid()), "beat": time.time()}


def _started(pid: int) -> str:
    """When a process of this machine began, in the kernel's count; empty where it cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(holder: _Lease) -> bool:
    """Whether the process that holds a lease still runs, as far as can be seen from here."""
    if holder.get("released"):
        return False
    if holder.get("host") == socket.gethostname():
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it lives, as another user
        # A container that is started again has the host name of before, and counts its processes from 1 again.
        started = _started(int(holder["pid"]))
        if started and started != (holder.get("started") or started):
            return False
    return time.time() - float(holder.get("beat", 0)) < LEASE


def _path(folder: StorePath, number: int) -> StorePath:
    """File of a lease."""
    return folder / f"lease-{number:06d}.json"


def _numbers(folder: StorePath) -> list[int]:
    """Numbers of all leases, ascending."""
    found = [re.fullmatch(r"lease-(\d+)\.json", path.name) for path in children(folder)]
    return sorted(int(match[1]) for match in found if match)


def _highest(folder: StorePath) -> int:
    """Number of the latest lease, 0 without any."""
    return max(_numbers(folder), default=0)


def _create(path: StorePath, content: _Lease) -> None:
    """Write a file that must not be there yet."""
    if isinstance(path, Path):
        # Written whole under a name of its own, then linked: a reader never sees half of it.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        temporary.write_text(json.dumps(content))
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()
    else:
        path.fs.pipe_file(path.path, json.dumps(content).encode(), mode="create")
