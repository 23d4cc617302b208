import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Polygon

from wavecity.geo import rasters
from wavecity.geo.errors import InputError
from wavecity.geo.rasters import cell_centres, grid_length, height_map, occupancy_grid, patch_shares


def frame(shapes: list[Polygon], heights: list[float]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"height": heights}, geometry=shapes)


def test_row_0_is_north_and_column_0_is_west() -> None:
    heights = height_map(frame([shapely.box(-100, 90, -80, 100)], [12.0]), 200.0, 200)
    assert heights.shape == (200, 200)
    assert heights.dtype == np.float32
    assert (heights[:10, :20] == 12).all()
    assert np.count_nonzero(heights) == 200
    x, y = cell_centres(200.0, 200)
    assert (x[0], y[0], x[-1], y[-1]) == (-99.5, 99.5, 99.5, -99.5)


def test_highest_building_counts_and_holes_are_ground() -> None:
    court = Polygon([(-10, -10), (10, -10), (10, 10), (-10, 10)], [[(-5, -5), (5, -5), (5, 5), (-5, 5)]])
    heights = height_map(frame([court, shapely.box(-10, -10, 0, 10)], [8.0, 20.0]), 200.0, 200)
    assert heights[100, 92] == 20
    assert heights[100, 108] == 8
    assert heights[100, 97] == 20
    assert heights[100, 102] == 0


@pytest.mark.parametrize(("covered", "occupied"), [(5.9, 0), (6.0, 0), (6.01, 1), (10.0, 1)])
def test_patch_is_occupied_above_60_percent_only(covered: float, occupied: int) -> None:
    built = shapely.box(-100, 90, -90, 90 + covered)
    grid = occupancy_grid(built, 200.0, 20, 0.6)
    assert grid.shape == (20, 20)
    assert grid.dtype == np.uint8
    assert grid[0, 0] == occupied
    assert grid.sum() == occupied


def test_60_percent_off_the_binary_grid_is_not_occupied() -> None:
    """Areas that add up to 60 % with rounding error, in every patch of the tile."""
    for k in range(20):
        strips = [shapely.box(-100 + 10 * k + 0.7 * j, 0, -100 + 10 * k + 0.7 * j + 0.6, 10) for j in range(10)]
        assert occupancy_grid(MultiPolygon(strips), 200.0, 20, 0.6).sum() == 0


def test_shares_add_up_to_the_built_area() -> None:
    circle = shapely.Point(13.3, -21.7).buffer(47.1, quad_segs=64)
    shares = patch_shares(circle, 200.0, 20)
    assert shares.sum() * 100 == pytest.approx(circle.area, rel=1e-7)
    assert shares.max() == pytest.approx(1)
    # Row 12, column 11 holds the centre.
    assert shares[12, 11] == pytest.approx(1)


def test_cell_must_divide_the_tile() -> None:
    assert grid_length(200.0, 0.1, "scene.resolution") == 2000
    with pytest.raises(InputError, match=r"scene.resolution: 3 m does not divide the tile of 200 m"):
        grid_length(200.0, 3.0, "scene.resolution")


def test_shares_do_not_depend_on_how_patches_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Polygon(
        [(-90, -90), (90, -80), (70, 95), (0, 20), (-60, 90)], [[(-40, -40), (30, -35), (0.5, 10), (-40, 3.25)]]
    )
    quick = patch_shares(shape, 200.0, 20)
    monkeypatch.setattr(rasters.shapely, "clip_by_rect", lambda shapes, *_: np.full(len(shapes), Polygon()))
    exact = patch_shares(shape, 200.0, 20)
    assert exact.sum() * 100 == pytest.approx(shape.area, rel=1e-6)
    assert np.allclose(quick, exact, atol=1e-6)
