"""Dr.Jit, Mitsuba and Sionna RT, imported on the chosen backend; and transfer of arrays without recompiling kernels.

A kernel is compiled once for all scenes only if nothing that changes from scene to scene is compiled into it. Literals
are, and so are the number of rows when a vector array is taken apart, and whether an array happens to be aligned in
memory.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.raytrace import backend

backend.prepare()

import drjit  # noqa: E402
import mitsuba  # noqa: E402
import sionna.rt  # noqa: E402

# Untyped on purpose: Dr.Jit's stubs know neither the chosen variant nor what indexing and operators return.
dr: Any = drjit
mi: Any = mitsuba
rt: Any = sionna.rt
# So are their objects. Dr.Jit arrays of numbers (mi.Float, mi.UInt, mi.Bool) and of vectors (mi.Point3f, mi.Vector3f):
Numbers: TypeAlias = Any
Vectors: TypeAlias = Any
# mi.Scene, mi.SurfaceInteraction3f; sionna.rt.Scene and sionna.rt.Paths; Sionna's private buffer of paths:
MitsubaScene: TypeAlias = Any
Interaction: TypeAlias = Any
SionnaScene: TypeAlias = Any
SionnaPaths: TypeAlias = Any
PathsBuffer: TypeAlias = Any

Number = TypeVar("Number", bound=np.generic)

# Bytes of a cache line and of the widest vector that kernels load.
ALIGNMENT = 64

# Columns whose tests are in one number of `crossed`, and the power of 2 that they are.
BITS, SHIFT = 32, 5


def load(kind: Any, values: ArrayLike) -> Any:
    """Numbers as a Dr.Jit array such as `mi.Float` or `mi.UInt`.

    Parameters
    ----------
    kind : type
        `mi.Float`, `mi.UInt`, `mi.Int` or `mi.Bool`.
    values : (N,)
    """
    numbers = {mi.Float: np.float32, mi.UInt: np.uint32, mi.Int: np.int32, mi.Bool: np.bool_}
    return kind(_aligned(np.asarray(values).astype(numbers[kind], copy=False)))


def load_rows(kind: Any, values: ArrayLike) -> Any:
    """Rows of numbers as a Dr.Jit vector array such as `mi.Point3f`.

    Parameters
    ----------
    kind : type
        Of M float components.
    values : float (..., M)
    """
    rows = np.asarray(values)
    rows = rows.reshape(-1, rows.shape[-1])
    return kind(*(load(mi.Float, rows[:, axis]) for axis in range(rows.shape[1])))


def load_table(kind: Any, values: ArrayLike) -> Any:
    """Rows to gather from, as `load` or (of M columns) `load_rows`, at least two.

    A table of one row would be gathered as a constant, by a kernel of its own.

    Parameters
    ----------
    kind : type
    values : (N,) or (N, M)
    """
    rows = np.asarray(values)
    if len(rows) == 1:
        rows = np.concatenate([rows, rows])
    return load(kind, rows) if rows.ndim == 1 else load_rows(kind, rows)


def load_packets(vectors: ArrayLike, numbers: ArrayLike = 0.0) -> Numbers:
    """Rows of three numbers and a fourth, side by side in memory, which `packets` gathers at once.

    Parameters
    ----------
    vectors : float (N, 3)
    numbers : float (N,)
    """
    rows = np.zeros((max(2, len(np.asarray(vectors))), 4), np.float32)
    rows[: len(np.asarray(vectors)), :3] = vectors
    rows[: len(np.asarray(vectors)), 3] = numbers
    return load(mi.Float, rows.ravel())


def packets(table: Numbers, index: Numbers, active: Numbers | bool = True) -> tuple[Vectors, Numbers]:
    """Vectors and fourth numbers of rows of `load_packets`."""
    row = dr.gather(mi.Vector4f, table, index, active)
    return mi.Vector3f(row.x, row.y, row.z), row.w


def divided(numbers: Numbers, divisor: int) -> Numbers:
    """Integer quotients.

    Processors have no vector instruction for them, but one for float64, which is exact enough for 32 bits.

    Parameters
    ----------
    numbers : mi.UInt
    divisor : int
        At least 1.
    """
    return mi.UInt((mi.Float64(numbers) + 0.5) * dr.opaque(mi.Float64, 1 / divisor))


def positions(chosen: Numbers) -> Numbers:
    """Positions at which a mask is true, a single one twice: kernels for one position would be compiled anew.

    Parameters
    ----------
    chosen : mi.Bool
    """
    found = dr.compress(chosen)
    return load(mi.UInt, np.repeat(found.numpy(), 2)) if dr.width(found) == 1 else found


def crossed(
    rows: int, columns: int, test_of: Callable[[Numbers], Callable[[Numbers], Numbers]]
) -> tuple[Numbers, Numbers]:
    """Pairs of a row and a column that pass a test, of all that there are.

    What a row's tests need is gathered once for 32 columns, not for every pair: most of the time goes into gathering.

    Parameters
    ----------
    rows, columns : int
    test_of : callable
        Takes rows (`mi.UInt`) and gives the test of as many columns: a mask.

    Returns
    -------
    mi.UInt (N,), mi.UInt (N,)
        Row and column, row by row.

    Examples
    --------
    >>> rows, columns = crossed(3, 2, lambda row: lambda column: row == column)
    >>> rows.numpy(), columns.numpy()
    (array([0, 1], dtype=uint32), array([0, 1], dtype=uint32))
    """
    if not rows * columns:
        return mi.UInt(), mi.UInt()
    words = -(-columns // BITS)
    width, last = dr.opaque(mi.UInt, words), dr.opaque(mi.UInt, columns - 1)
    bits = dr.opaque(mi.UInt, min(columns, BITS))
    index = dr.arange(mi.UInt, rows * words)
    row = divided(index, words)
    first, test = (index - row * width) * BITS, test_of(row)

    def step(bit: Numbers, passed: Numbers) -> tuple[Numbers, Numbers]:
        column = first + bit
        passes = test(dr.minimum(column, last)) & (column <= last)
        return bit + 1, dr.select(passes, passed | (mi.UInt(1) << bit), passed)

    start = dr.zeros(mi.UInt, dr.width(index)), dr.zeros(mi.UInt, dr.width(index))
    _, passed = dr.while_loop(start, lambda bit, _: bit < bits, step)
    dr.eval(passed)
    some = dr.compress(passed != 0)
    if not dr.width(some):
        return some, some
    number = dr.arange(mi.UInt, dr.width(some) * BITS)
    word = dr.gather(mi.UInt, passed, dr.gather(mi.UInt, some, number >> SHIFT))
    chosen = (word >> (number & (BITS - 1))) & 1 != 0
    dr.eval(chosen)
    found = positions(chosen)
    word = dr.gather(mi.UInt, some, found >> SHIFT)
    row = divided(word, words)
    column = (word - row * width) * BITS + (found & (BITS - 1))
    dr.eval(row, column)
    return row, column


def _aligned(values: NDArray[Number]) -> NDArray[Number]:
    """Copy that starts on a cache line and is followed by a spare one, which vector loads at the end may read."""
    room = np.zeros(values.nbytes + 2 * ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + values.nbytes].view(values.dtype)
    copy[:] = values.ravel()
    return copy
