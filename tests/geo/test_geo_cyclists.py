"""Cyclists, and scenes whose users move."""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np
import pytest
import shapely
from geo_maps import Building, Street, box
from osm_reader import read_streets
from pyproj import Transformer

from wavecity.geo.build import build_scene
from wavecity.geo.extract import find_helsinki
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.settings import AreaSettings, MobilitySettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.streets import cycling_directions, may_cycle, tile_streets
from wavecity.geo.tiles import Tile, plan_tiles
from wavecity.geo.trajectories import Mover, Trajectories, trajectories

CENTIMETRE = 0.011
SETTINGS = SceneSettings()
HOUSE: Building = (box(60, 60, 70, 70), {"building": "yes", "height": "9"})
ACROSS = [(-140.0, 0.0), (140.0, 0.0)]
CYCLE = MobilitySettings(steps=201, interval=0.1, vehicles=0.0, cyclists=1.0)
FEW = UserSettings(minimum=10, maximum=10)
MIXED = MobilitySettings(steps=51, interval=0.02, vehicles=0.3, cyclists=0.3)


def move(source: Source, tile: Tile, mobility: MobilitySettings = CYCLE, users: UserSettings = FEW) -> Trajectories:
    where = (tile.latitude, tile.longitude, tile.size, source)
    prints = tile_footprints(*where, SETTINGS, 0)
    return trajectories(prints, tile_streets(*where), tile.size, mobility, users, tile.id, 0)


def tiles_of(source: Source, count: int) -> list[Tile]:
    area = AreaSettings(scenes=count, split=SplitSettings(by="scene"))
    return [tile for tile in plan_tiles(source, area, SETTINGS, 0) if tile.status == "accepted"]


# What OpenStreetMap's wiki says of access by bicycle.
@pytest.mark.parametrize(
    ("tags", "allowed"),
    [
        ({"highway": "residential"}, True),
        ({"highway": "primary"}, True),
        ({"highway": "primary", "bicycle": "no"}, False),
        ({"highway": "secondary", "bicycle": "use_sidepath"}, False),
        ({"highway": "cycleway"}, True),
        ({"highway": "cycleway", "access": "no"}, False),
        ({"highway": "service", "access": "no", "bicycle": "yes"}, True),
        ({"highway": "service", "vehicle": "no"}, False),
        ({"highway": "residential", "motor_vehicle": "no"}, True),
        ({"highway": "path"}, True),
        ({"highway": "track"}, True),
        ({"highway": "footway"}, False),
        ({"highway": "footway", "bicycle": "designated"}, True),
        ({"highway": "pedestrian"}, False),
        ({"highway": "pedestrian", "bicycle": "yes"}, True),
        ({"highway": "footway", "bicycle": "dismount"}, False),
        ({"highway": "steps", "bicycle": "yes"}, False),
        ({"highway": "motorway"}, False),
        ({"highway": "trunk"}, False),
        ({"highway": "trunk", "bicycle": "yes"}, True),
        ({"highway": "proposed"}, False),
    ],
)
def test_where_one_cycles(tags: dict[str, str], allowed: bool) -> None:
    assert may_cycle(tags) == allowed


@pytest.mark.parametrize(
    ("tags", "directions"),
    [
        ({}, (True, True)),
        ({"oneway": "yes"}, (True, False)),
        ({"oneway": "-1"}, (False, True)),
        ({"oneway": "yes", "oneway:bicycle": "no"}, (True, True)),
        ({"oneway": "-1", "oneway:bicycle": "no"}, (True, True)),
        ({"oneway": "no", "oneway:bicycle": "yes"}, (True, False)),
        ({"oneway": "yes", "cycleway:left": "opposite_lane"}, (True, True)),
        ({"oneway": "yes", "cycleway": "opposite"}, (True, True)),
        ({"oneway": "yes", "cycleway": "lane"}, (True, False)),
        ({"junction": "roundabout"}, (True, False)),
    ],
)
def test_directions_of_cyclists(tags: dict[str, str], directions: tuple[bool, bool]) -> None:
    assert cycling_directions({"highway": "residential", **tags}) == directions


def test_cyclists_ride_in_the_middle_at_their_speed(town: Callable[..., Source], middle: Tile) -> None:
    moved = move(town([HOUSE], streets=[(ACROSS, {"highway": "cycleway"})]), middle)
    assert (moved.kind == Mover.CYCLIST).all()
    assert np.abs(moved.position[:, :, 1]).max() <= CENTIMETRE
    assert (moved.position[:, :, 2] == np.float32(FEW.height)).all()
    speed = np.linalg.norm(moved.velocity.astype(float), axis=2)
    assert speed.min() >= 3.5 - 1e-5
    assert speed.max() <= 6.5 + 1e-5
    assert np.ptp(speed[:, 0]) > 1
    measured = np.abs(np.diff(moved.position[:, :, 0].astype(float), axis=1)) / CYCLE.interval
    assert np.mean(np.abs(measured - speed[:, :-1]) < 1e-3) > 0.95


@pytest.mark.parametrize(
    ("tags", "east", "west"),
    [({"oneway": "yes"}, True, False), ({"oneway": "yes", "oneway:bicycle": "no"}, True, True)],
)
def test_oneway_streets(
    town: Callable[..., Source], middle: Tile, tags: dict[str, str], east: bool, west: bool
) -> None:
    short = CYCLE.model_copy(update={"steps": 11})
    source = town([HOUSE], streets=[(ACROSS, {"highway": "residential", **tags})])
    moved = move(source, middle, short, UserSettings(minimum=30, maximum=30))
    assert ((moved.velocity[:, :, 0] > 0).any(), (moved.velocity[:, :, 0] < 0).any()) == (east, west)


def test_without_lanes_they_walk(town: Callable[..., Source], middle: Tile) -> None:
    moved = move(town([HOUSE], streets=[(ACROSS, {"highway": "footway"})]), middle)
    assert (moved.kind == Mover.WALKER).all()


def test_shares_and_order(helsinki: Source) -> None:
    users = UserSettings(minimum=100, maximum=100)
    moved = move(helsinki, tiles_of(helsinki, 1)[0], MIXED, users)
    assert np.bincount(moved.kind, minlength=3).tolist() == [40, 30, 30]
    order = [Mover.WALKER, Mover.CYCLIST, Mover.VEHICLE]
    assert moved.kind.tolist() == [int(kind) for kind in order for _ in range(np.count_nonzero(moved.kind == kind))]


def test_cyclists_of_helsinki_keep_to_what_the_map_allows(helsinki: Source) -> None:
    """Streets read and projected without the package; the rule is the wiki's table, written out once more."""
    tile = tiles_of(helsinki, 2)[1]
    crs = f"+proj=aeqd +lat_0={tile.latitude} +lon_0={tile.longitude} +datum=WGS84"
    to_local = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    lines = []
    for tags, runs in read_streets(find_helsinki()).values():
        kind, said = tags["highway"], tags.get("bicycle", tags.get("vehicle", tags.get("access", "")))
        if kind in ("footway", "pedestrian", "bridleway", "trunk", "trunk_link"):
            allowed = tags.get("bicycle") in ("yes", "designated", "permissive")
        else:
            allowed = kind not in ("steps", "motorway", "motorway_link", "construction", "proposed", "platform")
            allowed &= said not in ("no", "dismount", "use_sidepath")
        if allowed:
            lines += [shapely.LineString(np.column_stack(to_local.transform(*np.array(run).T))) for run in runs]
    moved = move(helsinki, tile, MIXED, UserSettings(minimum=100, maximum=100))
    places = moved.position[moved.kind == Mover.CYCLIST][:, ::10, :2].reshape(-1, 2).astype(float)
    assert len(places) >= 100
    _, distance = shapely.STRtree(lines).query_nearest(shapely.points(places), return_distance=True, all_matches=False)
    assert distance.max() <= 0.01


def test_a_scene_whose_users_move(helsinki: Source) -> None:
    tile = tiles_of(helsinki, 1)[0]
    users = UserSettings(minimum=30, maximum=40)
    scene = build_scene(tile, helsinki, SETTINGS, users, 3, MIXED)
    assert scene.tracks is not None
    assert scene.tracks.position.shape == (len(scene.users), 51, 3)
    np.testing.assert_array_equal(scene.users, scene.tracks.position[:, 0])
    # Buildings, base station and number of users are those of the tile without mobility.
    still = build_scene(tile, helsinki, SETTINGS, users, 3)
    assert still.tracks is None
    assert scene.mesh.checksum == still.mesh.checksum
    assert len(scene.users) == len(still.users)
    again = build_scene(tile, helsinki, SETTINGS, users, 3, MIXED)
    for one, two in zip(astuple(scene.tracks), astuple(again.tracks), strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(one, two)


def test_number_of_users_in_the_test_split(town: Callable[..., Source], middle: Tile) -> None:
    streets: list[Street] = [(ACROSS, {"highway": "residential"})]
    source = town([HOUSE], streets=streets)
    held_out = Tile(**{**vars(middle), "split": "test"})
    users = UserSettings(minimum=10, maximum=10, test=17)
    assert len(build_scene(held_out, source, SETTINGS, users, 0, MIXED).users) == 17
    assert len(build_scene(middle, source, SETTINGS, users, 0, MIXED).users) == 10
