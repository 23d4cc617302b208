"""No scene ends while kernels are recorded.

Dr.Jit 1.5 compiles a call of a mesh's methods as a direct one where a single mesh is alive in the process, and through a
table where there are several. If that changes between two calls that end up in one kernel, as when Python's garbage
collector removes an earlier scene in between, the kernel has the same function twice, LLVM refuses it ("invalid
redefinition of function"), and Dr.Jit ends the process.
"""

import gc
import threading
from contextlib import ContextDecorator


class Recording(ContextDecorator):
    """Holds off the garbage collector within a block or a decorated function; of several blocks, until the last ends.

    What is no longer referenced is freed as usual, only not what refers to itself. Scenes from `sionna.rt.load_scene` do.

    Examples
    --------
    >>> with recording:
    ...     gc.isenabled()
    False
    """

    def __init__(self) -> None:
        self._lock, self._blocks, self._resume = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._resume = gc.isenabled()
                gc.disable()
            self._blocks += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks and self._resume:
                gc.enable()


recording = Recording()
