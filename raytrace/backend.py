"""Backend of Dr.Jit: CUDA where there is a GPU, else a usable LLVM. Chosen before `drjit` is imported."""

import ctypes
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wavecity.geo.errors import InputError

LIBRARY_VARIABLE = "DRJIT_LIBLLVM_PATH"

# LLVM 14 and 15 stop with "Cannot select ... VFPROUND" on CPUs that have AVX512-FP16; 19, 22 and 23 work. LLVM asks the CPU
# itself, and a kernel or a virtual machine may not list that flag: with AVX512 of any kind, old ones are not trusted.
FIRST_SAFE_ON_AVX512 = 16
# Dr.Jit's own lower bound.
FIRST_SUPPORTED = 8

SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/llvm-*/lib",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/lib",
    "/opt/homebrew/opt/llvm/lib",
    "/usr/local/opt/llvm/lib",
)


@dataclass(frozen=True)
class Backend:
    """What the ray tracer runs on.

    Attributes
    ----------
    variant : str
        Mitsuba variant, `cuda_ad_mono_polarized` or `llvm_ad_mono_polarized`.
    library : str
        The LLVM library, or "" on CUDA.
    threads : int
        Dr.Jit worker threads of this process.
    """

    variant: str
    library: str
    threads: int


def prepare(threads: int | None = None) -> Backend:
    """Choose the backend and import Dr.Jit, Mitsuba and Sionna RT on it; later calls only set the thread count.

    Safe to call at the start of every task of a worker process.

    Parameters
    ----------
    threads : int, optional
        Dr.Jit threads of this process; by default unchanged, at first one per core that the process may use.

    Raises
    ------
    InputError
        No usable LLVM (the message says what to install), or `DRJIT_LIBLLVM_PATH` names a file that does not exist.

    Examples
    --------
    >>> prepare(threads=1).variant
    'llvm_ad_mono_polarized'
    """
    first = "drjit" not in sys.modules
    if first and not has_cuda():
        os.environ[LIBRARY_VARIABLE] = str(find_llvm())

    import drjit as dr
    import mitsuba as mi

    variant = mi.variant()
    if variant is None or not variant.endswith("_ad_mono_polarized"):
        variant = "cuda_ad_mono_polarized" if has_cuda() else "llvm_ad_mono_polarized"
        mi.set_variant(variant)
    if threads is None and first:
        threads = usable_cores()
    if threads is not None and dr.thread_count() != threads:
        dr.set_thread_count(threads)
    library = "" if variant.startswith("cuda") else os.environ.get(LIBRARY_VARIABLE, "")
    return Backend(variant, library, dr.thread_count())


def usable_cores() -> int:
    """Cores this process may run on (a container or a Dask worker may have fewer than the machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_cuda() -> bool:
    """Whether there is an NVIDIA driver with at least one device (by the driver itself, without drjit)."""
    for name in ("libcuda.so.1", "libcuda.so"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False


def has_avx512() -> bool:
    """Whether the CPU has AVX512."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "avx512f" in flags.split()


def find_llvm() -> Path:
    """The LLVM library to use: the user's, else the wheel's, else the newest usable one of the system.

    Raises
    ------
    InputError
    """
    chosen = os.environ.get(LIBRARY_VARIABLE)
    if chosen:
        if not Path(chosen).is_file():
            msg = f"{LIBRARY_VARIABLE}={chosen} is not a file: unset it, or name a libLLVM shared library"
            raise InputError(msg)
        return Path(chosen)
    # karellen-llvm-core puts its library under the environment's lib folder.
    wheel = pick_llvm(libraries([Path(sys.prefix) / "lib"]), has_avx512())
    if wheel is not None:
        return wheel
    root = Path("/")
    folders = [found for pattern in SYSTEM_FOLDERS for found in sorted(root.glob(pattern.lstrip("/")))]
    system = pick_llvm(libraries(folders), has_avx512())
    if system is not None:
        return system
    msg = (
        f"no usable LLVM library for the ray tracer ({platform.machine()}, no NVIDIA GPU): "
        f"pip install karellen-llvm-core, or set {LIBRARY_VARIABLE} to a libLLVM of version {FIRST_SAFE_ON_AVX512} or "
        f"newer"
    )
    raise InputError(msg)


def libraries(folders: Iterable[Path]) -> list[Path]:
    """All LLVM libraries in these folders."""
    names = ("libLLVM.so*", "libLLVM-*.so*", "libLLVM*.dylib")
    return [path for folder in folders for name in names for path in sorted(folder.glob(name)) if path.is_file()]


def pick_llvm(paths: Iterable[Path], avx512: bool) -> Path | None:
    """The newest usable library.

    Parameters
    ----------
    paths : iterable of Path
    avx512 : bool
        The CPU has AVX512, and so perhaps AVX512-FP16, on which LLVM before 16 crashes.
    """
    oldest = FIRST_SAFE_ON_AVX512 if avx512 else FIRST_SUPPORTED
    versions = {path: llvm_version(path) for path in paths}
    usable = [path for path, version in versions.items() if version and version[0] >= oldest]
    # libLLVM-23.so is a link to libLLVM.so.23.1: the name with the longest version number is the file itself.
    return max(usable, key=lambda path: (versions[path], path.name), default=None)


def llvm_version(path: Path) -> tuple[int, ...]:
    """Version in the library's name or, for a bare `libLLVM.so`, in the name it links to; () when there is none."""
    for name in (path.name, path.resolve().name):
        found = re.search(r"libLLVM[-.](?:so\.)?(\d+(?:\.\d+)*)", name)
        if found:
            return tuple(int(part) for part in found.group(1).split("."))
    return ()
