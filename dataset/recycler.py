"""Large arrays without the cost of new memory."""

import math
import sys
from collections import deque

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.schema import Values


class Recycler:
    """Reuses the memory of arrays that nobody holds any more.

    A large array that is newly allocated costs a page fault and the zeroing of every page, more than copying into it.
    NumPy arrays and torch tensors that share memory with such an array hold a reference to its block, so it is never
    reused under them.

    Parameters
    ----------
    keep : int
        Blocks remembered for a name; the oldest is forgotten, and lives as long as its arrays.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._blocks: dict[str, deque[NDArray[np.uint8]]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Values:
        """As `np.empty`."""
        size = math.prod(shape) * dtype.itemsize
        blocks = self._blocks.setdefault(name, deque(maxlen=self._keep))
        counts = zip(blocks, _reference_counts(blocks), strict=True)
        block = next((block for block, count in counts if block.nbytes >= size and count == _UNUSED), None)
        if block is None:
            block = np.empty(size, np.uint8)
            blocks.append(block)
        return block[:size].view(dtype).reshape(shape)


def _reference_counts(blocks: deque[NDArray[np.uint8]]) -> list[int]:
    """References to each block."""
    return [sys.getrefcount(block) for block in blocks]


# How many references the deque and the counting itself make, on this Python.
_UNUSED = _reference_counts(deque([np.empty(0, np.uint8)]))[0]
