"""Distinct rows of tables of integers: NumPy compares rows byte by byte, numbers are much faster."""

import numpy as np
from numpy.typing import NDArray

# Largest number of values that a key of 64 bits may have.
KEYS = 2**62


def row_keys(table: NDArray[np.integer]) -> NDArray[np.int64]:
    """A number for each row: the same for equal rows, and in their lexicographic order.

    Parameters
    ----------
    table : int (N, M)

    Returns
    -------
    int64 (N,)

    Examples
    --------
    >>> row_keys(np.array([[1, 5], [0, 7], [1, 5]]))
    array([3, 2, 3])
    """
    if not table.size:
        return np.zeros(len(table), np.int64)
    least = table.min(axis=0).astype(np.int64)
    extent = (table.max(axis=0).astype(np.int64) - least + 1).tolist()
    if np.prod(extent, dtype=object) > KEYS:
        number: NDArray[np.int64] = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return number
    key = np.zeros(len(table), np.int64)
    for column, low, count in zip(table.T, least, extent, strict=True):
        key = key * count + (column - low)
    return key


def unique_rows(table: NDArray[np.int32]) -> NDArray[np.int32]:
    """The distinct rows (N, M), in lexicographic order."""
    _, first = np.unique(row_keys(table), return_index=True)
    distinct: NDArray[np.int32] = table[first]
    return distinct
