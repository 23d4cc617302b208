"""Kernels that Dr.Jit compiles for a solver, kept apart from the time that the solver takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from wavecity.raytrace.device import dr

Result = TypeVar("Result")


@dataclass
class Kernels:
    """Kernels that one solver has launched so far in this process, and what compiling took.

    Attributes
    ----------
    names : set of str
        Kernels are named by their content.
    compiled : list of int
        New names of each run.
    seconds : float
        Compiling them; those that Dr.Jit has on disk from an earlier process take none.
    """

    names: set[str] = field(default_factory=set)
    compiled: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, call: Callable[[], Result]) -> tuple[Result, float]:
        """Call, and return the result and the seconds it took without compiling."""
        with dr.scoped_set_flag(dr.JitFlag.KernelHistory):
            dr.kernel_history_clear()
            start = time.perf_counter()
            result = call()
            dr.sync_thread()
            seconds = time.perf_counter() - start
            history = [kernel for kernel in dr.kernel_history() if kernel["type"] == dr.KernelType.JIT]
        new = {kernel["hash"] for kernel in history} - self.names
        self.names |= new
        self.compiled.append(len(new))
        compiling = sum(kernel["backend_time"] for kernel in history) / 1000
        self.seconds += compiling
        return result, seconds - compiling
