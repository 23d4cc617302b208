"""Memory of this process."""

import resource
import sys
from pathlib import Path


def peak_memory() -> float:
    """Most resident memory that this process ever had, in MB."""
    try:
        # Linux passes `ru_maxrss` on to a new program: a worker would begin with the memory of who started it.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (1024**2 if sys.platform == "darwin" else 1024)
