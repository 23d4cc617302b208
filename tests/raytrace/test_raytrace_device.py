"""Kernels over all pairs of rows and columns."""

import numpy as np
import pytest

from wavecity.raytrace.device import crossed, dr, load, mi


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 31), (7, 32), (5, 33), (40, 100), (3, 1000)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_all_pairs_that_pass_and_no_others(rows: int, columns: int, share: float) -> None:
    passes = np.random.default_rng(rows).uniform(size=(rows, columns)) < share
    table = load(mi.Bool, np.append(passes.ravel(), False))
    row, column = crossed(rows, columns, lambda row: lambda column: dr.gather(mi.Bool, table, row * columns + column))
    found = np.column_stack([row.numpy(), column.numpy()])
    # A single one comes twice: kernels for one are compiled anew.
    expected = np.argwhere(passes)
    np.testing.assert_array_equal(np.repeat(expected, 2, axis=0) if len(expected) == 1 else expected, found)


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_has_no_pairs(rows: int, columns: int) -> None:
    row, column = crossed(rows, columns, lambda row: lambda column: row == column)
    assert dr.width(row) == dr.width(column) == 0
