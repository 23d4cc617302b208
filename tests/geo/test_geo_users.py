import geopandas as gpd
import numpy as np
import pytest
import shapely
from scipy.stats import chisquare
from shapely import Polygon

from wavecity.geo.errors import SceneError
from wavecity.geo.settings import SceneSettings, UserSettings
from wavecity.geo.users import front_sector, place_base_station, place_users

SETTINGS = SceneSettings()
USERS = UserSettings()


def frame(shapes: list[Polygon], heights: list[float] | None = None, base: float = 0.0) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"height": heights or [20.0] * len(shapes), "base": [base] * len(shapes)}, geometry=shapes)


@pytest.mark.parametrize(
    ("shape", "shift"),
    [
        (shapely.box(-90, -90, -50, -50), 0),  # far away
        (shapely.box(-10, 95, 3.5, 100), 6),  # under the mast: first metre with 2 m clearance to the east
        (shapely.box(-3.5, 95, 10, 100), -6),  # west is nearer
        (shapely.box(-20, 98.5, 20, 98.6), None),  # a wall all along
        (shapely.box(1.9, 99, 30, 100), -1),  # 1.9 m is too near
        (shapely.box(2.1, 99, 30, 100), 0),
    ],
)
def test_base_station_slides_to_the_nearest_clear_place(shape: Polygon, shift: float | None) -> None:
    settings = SETTINGS.model_copy(update={"bs_front": 0.0})
    if shift is None:
        with pytest.raises(SceneError, match="no clear base station position within 20 m of the top centre"):
            place_base_station(frame([shape]), 200.0, settings)
        return
    position, moved = place_base_station(frame([shape]), 200.0, settings)
    assert moved == shift
    assert position.tolist() == [shift, 100, 15]


@pytest.mark.parametrize(("height", "base", "blocked"), [(20.0, 0.0, True), (14.0, 0.0, False), (40.0, 16.0, False)])
def test_wall_right_in_front_moves_the_base_station(height: float, base: float, blocked: bool) -> None:
    wall = frame([shapely.box(-4, 93, 4, 94)], [height], base)
    _, shift = place_base_station(wall, 200.0, SETTINGS)
    assert (shift != 0) == blocked
    sector = front_sector(shift, 100.0, SETTINGS.bs_front)
    assert blocked == (not shapely.intersects(sector, wall.geometry.iloc[0]))


def test_front_sector_faces_south() -> None:
    sector = front_sector(5.0, 100.0, 10.0)
    assert sector.contains(shapely.Point(5, 91))
    assert not sector.contains(shapely.Point(5, 101))
    # 90 degrees of a circle, drawn with 12 chords.
    assert sector.area == pytest.approx(np.pi * 100 / 4, rel=5e-3)


def test_users_stand_outdoors_inside_the_tile() -> None:
    court = Polygon([(-50, -50), (50, -50), (50, 50), (-50, 50)], [[(-30, -30), (30, -30), (30, 30), (-30, 30)]])
    users = place_users(court, 200.0, USERS, "town-0001", 7)
    assert users.dtype == np.float32
    assert 300 <= len(users) <= 500
    assert (users[:, 2] == 1.5).all()
    assert np.abs(users[:, :2]).max() <= 100
    points = shapely.points(users[:, :2].astype(float))
    # The buffer's round corners are polygons, hence the 1 %.
    assert shapely.distance(court, points).min() >= 0.5 * 0.99
    in_court = (np.abs(users[:, :2]) < 30).all(axis=1).mean()
    free = 200**2 - 101**2 + 59**2
    assert in_court == pytest.approx(59**2 / free, abs=0.04)


def test_users_are_uniform() -> None:
    many = USERS.model_copy(update={"minimum": 20_000, "maximum": 20_000})
    users = place_users(Polygon(), 200.0, many, "town-0001", 7)
    counts, _, _ = np.histogram2d(users[:, 0], users[:, 1], bins=10, range=[[-100, 100]] * 2)
    assert chisquare(counts.ravel()).pvalue > 0.001


def test_users_follow_seed_and_scene() -> None:
    def draw(scene: str, seed: int) -> list[list[float]]:
        drawn: list[list[float]] = place_users(Polygon(), 200.0, USERS, scene, seed).tolist()
        return drawn

    assert draw("a", 1) == draw("a", 1)
    assert draw("a", 1) != draw("a", 2)
    assert draw("a", 1) != draw("b", 1)
    counts = [len(draw("a", seed)) for seed in range(200)]
    assert min(counts) >= 300
    assert max(counts) <= 500
    assert np.mean(counts) == pytest.approx(400, abs=15)


def test_scenes_of_the_test_split_may_have_more() -> None:
    settings = USERS.model_copy(update={"test": 2000})
    assert len(place_users(Polygon(), 200.0, settings, "a", 1, "test")) == 2000
    assert 300 <= len(place_users(Polygon(), 200.0, settings, "a", 1, "train")) <= 500
    assert settings.most == 2000
    assert USERS.most == 500


def test_too_little_open_ground() -> None:
    with pytest.raises(SceneError, match=r"open ground .* below 5 %"):
        place_users(shapely.box(-100, -100, 100, 96), 200.0, USERS, "a", 0)
