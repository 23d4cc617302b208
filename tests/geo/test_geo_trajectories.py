import hashlib
import pickle
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from geo_maps import LATITUDE, LONGITUDE, Building, Street, box
from numpy.typing import NDArray
from osm_reader import read_streets
from processes import python
from pydantic import ValidationError
from pyproj import Transformer

from wavecity.geo.errors import SceneError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.settings import AreaSettings, MobilitySettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.streets import directions, speed_limit, tile_streets
from wavecity.geo.tiles import Tile, plan_tiles
from wavecity.geo.trajectories import Mover, Trajectories, trajectories

# OpenStreetMap places a node to seven decimals.
CENTIMETRE = 0.011
SETTINGS = SceneSettings()
USERS = UserSettings(minimum=100, maximum=120)
# Short steps: few of them turn a corner.
FINE = MobilitySettings(steps=101, interval=0.02)
NO_VEHICLE = {"footway", "path", "pedestrian", "steps", "track", "cycleway", "construction", "proposed", "platform"}


def tiles_of(source: Source, count: int) -> list[Tile]:
    area = AreaSettings(scenes=count, split=SplitSettings(by="scene"))
    return [tile for tile in plan_tiles(source, area, SETTINGS, 0) if tile.status == "accepted"]


def move(
    source: Source, tile: Tile, mobility: MobilitySettings = FINE, users: UserSettings = USERS, seed: int = 0
) -> tuple[Trajectories, Footprints]:
    prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, SETTINGS, seed)
    streets = tile_streets(tile.latitude, tile.longitude, tile.size, source)
    return trajectories(prints, streets, tile.size, mobility, users, tile.id, seed), prints


def drivable_lines(path: Path, tile: Tile) -> gpd.GeoDataFrame:
    """Streets that are no paths, in metres around the tile: read and projected without the package."""
    crs = f"+proj=aeqd +lat_0={tile.latitude} +lon_0={tile.longitude} +datum=WGS84"
    to_local = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    rows = []
    for tags, runs in read_streets(path).values():
        if tags["highway"] not in NO_VEHICLE:
            for run in runs:
                rows.append((tags, shapely.LineString(np.column_stack(to_local.transform(*np.array(run).T)))))
    frame = gpd.GeoDataFrame({"tags": [row[0] for row in rows]}, geometry=[row[1] for row in rows])
    return frame[frame.intersects(shapely.box(*[-tile.size / 2] * 2, *[tile.size / 2] * 2))].reset_index(drop=True)


def check_shape(moved: Trajectories, mobility: MobilitySettings, users: UserSettings) -> None:
    n, steps, _ = moved.position.shape
    assert users.minimum <= n <= users.maximum
    assert moved.position.dtype == moved.velocity.dtype == np.float32
    assert moved.velocity.shape == moved.position.shape == (n, mobility.steps, 3)
    assert moved.kind.dtype == np.uint8
    assert moved.time.tolist() == [mobility.interval * step for step in range(steps)]
    heights = np.where(moved.kind == Mover.VEHICLE, mobility.vehicle_height, users.height)
    assert (moved.position[:, :, 2] == heights[:, None]).all()
    assert (moved.velocity[:, :, 2] == 0).all()


def check_outdoors(moved: Trajectories, prints: Footprints, size: float, users: UserSettings, top: float = 2.0) -> None:
    """In the tile and clear of walls, also on the straight line from one step to the next."""
    assert np.abs(moved.position[:, :, :2]).max() <= size / 2
    buildings = prints.buildings[prints.buildings["base"] < top].geometry.to_numpy()
    if len(buildings):
        lines = shapely.linestrings(moved.position[:, :, :2].astype(np.float64))
        tree = shapely.STRtree(buildings)
        _, distances = tree.query_nearest(lines, return_distance=True)
        assert distances.min() >= users.clearance


def differences(moved: Trajectories) -> NDArray[np.float64]:
    """Velocities (U, T - 1, 2) by finite differences."""
    return np.diff(moved.position[:, :, :2].astype(np.float64), axis=1) / np.diff(moved.time)[:, None]


def check_speeds(moved: Trajectories, mobility: MobilitySettings, slowest_vehicle: float) -> None:
    measured = np.hypot(*np.moveaxis(differences(moved), 2, 0))
    # float32 positions are known to 8 micrometres at 100 m.
    rounding = 2e-5 / mobility.interval
    for kind, (low, high) in (
        (Mover.WALKER, mobility.walker_speed),
        (Mover.VEHICLE, (min(slowest_vehicle, mobility.vehicle_speed[0]), mobility.vehicle_speed[1])),
    ):
        speeds = measured[moved.kind == kind]
        if not speeds.size:
            continue
        assert speeds.max() <= high + rounding
        # A step round a corner is shorter as the crow flies.
        assert np.mean(speeds >= low - rounding) > 0.95
    exact = np.abs(differences(moved) - moved.velocity[:, :-1, :2]).max(axis=2) <= rounding
    assert exact[moved.kind == Mover.WALKER].mean() > 0.95
    if (moved.kind == Mover.VEHICLE).any():
        assert exact[moved.kind == Mover.VEHICLE].mean() > 0.9


def tagged_limit(tags: dict[str, str], sense: str) -> float:
    """km/h."""
    text = tags.get(f"maxspeed:{sense}") or tags.get("maxspeed", "")
    return float(text.split()[0]) * (1.609344 if "mph" in text else 1) if text[:1].isdigit() else np.inf


def check_vehicles(moved: Trajectories, lines: gpd.GeoDataFrame) -> None:
    """On a drivable street, in its direction, at most at its limit: some street must allow what is done."""
    vehicles = np.flatnonzero(moved.kind == Mover.VEHICLE)
    points = shapely.points(moved.position[vehicles, ::10, :2].astype(np.float64))
    velocity = moved.velocity[vehicles, ::10, :2].astype(np.float64)
    tree = shapely.STRtree(lines.geometry.to_numpy())
    for point, v in zip(points.ravel(), velocity.reshape(-1, 2), strict=True):
        allowed = False
        for row in tree.query(point, predicate="dwithin", distance=0.01):
            tags, line = lines["tags"].iloc[row], lines.geometry.iloc[row]
            place = line.project(point)
            # At a corner the velocity may be that along either side.
            stops = [max(place - 0.02, 0.0), place, min(place + 0.02, line.length)]
            sides = np.diff([line.interpolate(stop).coords[0] for stop in stops], axis=0)
            cosine = sides @ v / (np.hypot(*sides.T) * np.hypot(*v) + 1e-9)
            along, against = cosine.max() > 0.99, cosine.min() < -0.99
            oneway = tags.get("oneway") in ("yes", "true", "1") or tags.get("junction") == "roundabout"
            senses = [along and tags.get("oneway") != "-1" and "forward", against and not oneway and "backward"]
            allowed |= any(np.hypot(*v) <= tagged_limit(tags, sense) / 3.6 + 1e-5 for sense in senses if sense)
        assert allowed, (point, v)


@pytest.mark.parametrize("index", range(4))
def test_helsinki(helsinki: Source, index: int) -> None:
    tile = tiles_of(helsinki, 4)[index]
    moved, prints = move(helsinki, tile)
    check_shape(moved, FINE, USERS)
    check_outdoors(moved, prints, tile.size, USERS)
    check_speeds(moved, FINE, slowest_vehicle=20 / 3.6)
    assert (moved.kind == Mover.VEHICLE).mean() == pytest.approx(0.3, abs=0.01)
    check_vehicles(moved, drivable_lines(find_helsinki(), tile))


@pytest.mark.parametrize("name", ["nyc-west-village.osm.pbf", "sofia-centre.osm", "los-angeles-ucla.osm"])
def test_other_cities(shared_osm: Path, extract: Callable[[str], Source], name: str) -> None:
    source, vehicles = extract(name), 0
    for tile in tiles_of(source, 2):
        moved, prints = move(source, tile)
        vehicles += (moved.kind == Mover.VEHICLE).sum()
        check_shape(moved, FINE, USERS)
        check_outdoors(moved, prints, tile.size, USERS)
        check_speeds(moved, FINE, slowest_vehicle=5 / 3.6)
        check_vehicles(moved, drivable_lines(shared_osm / name, tile))
    assert vehicles >= 30


def test_long_steps_cut_no_corner(helsinki: Source) -> None:
    """A vehicle's step of some 20 m, straight, still passes no wall."""
    coarse = MobilitySettings(steps=21, interval=2.0)
    for tile in tiles_of(helsinki, 3):
        moved, prints = move(helsinki, tile, coarse)
        check_outdoors(moved, prints, tile.size, USERS)


def test_streets_of_the_map_are_all_there(helsinki: Source) -> None:
    """Tags and every run of nodes of the clipped extract, against a reading of our own."""
    found = helsinki.streets((-180, -90, 180, 90))
    known = read_streets(find_helsinki())
    assert found["osm_id"].tolist() == sorted(known)
    for number, tags, line in zip(found["osm_id"], found["tags"], found.geometry, strict=True):
        assert tags == known[number][0]
        runs = [shapely.get_coordinates(run).tolist() for run in shapely.get_parts(line)]
        assert runs == [[list(node) for node in run] for run in known[number][1]]
    assert (found.geom_type == "MultiLineString").any()
    assert helsinki.provenance["counts"]["streets"] == len(known)


def test_streets_by_box(helsinki: Source) -> None:
    west, south, east, north = helsinki.bounds
    bounds = (west + (east - west) * 0.3, south, west + (east - west) * 0.4, south + (north - south) * 0.4)
    whole = helsinki.streets((-180, -90, 180, 90))
    edges = whole.bounds
    wanted = (
        (edges.minx <= bounds[2]) & (edges.maxx >= bounds[0]) & (edges.miny <= bounds[3]) & (edges.maxy >= bounds[1])
    )
    assert 0 < wanted.sum() < len(whole)
    assert helsinki.streets(bounds)["osm_id"].tolist() == whole[wanted]["osm_id"].tolist()


def test_tile_streets_reach_over_the_edge(town: Callable[..., Source], middle: Tile) -> None:
    streets: list[Street] = [
        ([(-140, 0), (140, 0)], {"highway": "residential"}),
        ([(-140, 140), (140, 140)], {"highway": "path"}),
    ]
    found = tile_streets(LATITUDE, LONGITUDE, middle.size, town([HOUSE], streets=streets))
    assert found["osm_id"].tolist() == [1]
    assert found.total_bounds == pytest.approx([-140, 0, 140, 0], abs=CENTIMETRE)
    assert found["tags"].iloc[0] == {"highway": "residential"}


HOUSE: Building = (box(60, 60, 70, 70), {"building": "yes", "height": "9"})
# Right across the tile, with a wall between its halves.
WALL: Building = (box(-5, -100, 5, 100), {"building": "yes", "height": "9"})
RAISED: Building = (box(-5, -100, 5, 100), {"building": "yes", "height": "9", "min_height": "4"})
LOW: Building = (box(-5, -100, 5, 100), {"building": "yes", "height": "9", "min_height": "1.9"})
ACROSS = [(-140.0, 0.0), (140.0, 0.0)]
ALL_DRIVE = MobilitySettings(steps=501, interval=0.1, vehicles=1.0)
FEW = UserSettings(minimum=10, maximum=10)


@pytest.mark.parametrize(
    ("wall", "tags", "through"),
    [
        (RAISED, {}, True),
        (RAISED, {"tunnel": "building_passage"}, True),
        (LOW, {}, False),
        (WALL, {}, False),
        (WALL, {"tunnel": "building_passage"}, False),
    ],
)
def test_passages(
    town: Callable[..., Source], middle: Tile, wall: Building, tags: dict[str, str], through: bool
) -> None:
    source = town([wall], streets=[(ACROSS, {"highway": "residential", **tags})])
    moved, prints = move(source, middle, ALL_DRIVE, FEW)
    assert (moved.kind == Mover.VEHICLE).all()
    check_outdoors(moved, prints, middle.size, FEW)
    assert np.abs(moved.position[:, :, 1]).max() <= CENTIMETRE
    sides = np.sign(moved.position[:, :, 0])
    assert (sides.min(axis=1) < sides.max(axis=1)).all() == through
    # 250 m or more: everybody has been everywhere, and turned.
    assert (moved.velocity[:, :, 0].min(axis=1) < 0).all()
    assert (moved.velocity[:, :, 0].max(axis=1) > 0).all()


@pytest.mark.parametrize(
    "tags",
    [
        {"tunnel": "yes"},
        {"layer": "-1"},
        {"covered": "yes"},
        {"indoor": "yes"},
        {"location": "underground"},
        {"motor_vehicle": "no", "foot": "no"},
        {"access": "no"},
        {"highway": "proposed"},
        {"highway": "motorway", "foot": "no", "access": "no"},
    ],
)
def test_no_street_to_be_on(town: Callable[..., Source], middle: Tile, tags: dict[str, str]) -> None:
    source = town([HOUSE], streets=[(ACROSS, {"highway": "residential", **tags})])
    moved, prints = move(source, middle, ALL_DRIVE, USERS)
    assert (moved.kind == Mover.WALKER).all()
    check_outdoors(moved, prints, middle.size, USERS)
    # On open ground instead, everywhere.
    assert np.abs(moved.position[:, :, 1]).max() > 70
    assert differences(moved)[..., 0].std() > 0.3


def test_junctions_and_turns(town: Callable[..., Source], middle: Tile) -> None:
    """A cross: all ways are taken at the junction, and only the tile's edge turns anybody round."""
    streets: list[Street] = [
        ([(-140, 0), (0, 0), (140, 0)], {"highway": "residential"}),
        ([(0, -140), (0, 0), (0, 140)], {"highway": "tertiary"}),
    ]
    mobility = MobilitySettings(steps=1001, interval=0.05, vehicles=1.0, vehicle_speed=(10, 10))
    moved, _ = move(town([HOUSE], streets=streets), middle, mobility, UserSettings(minimum=30, maximum=30))
    velocity, place = moved.velocity[:, :, :2].astype(float), moved.position[:, :, :2].astype(float)
    turn = (velocity[:, 1:] * velocity[:, :-1]).sum(axis=2) / 100
    assert np.hypot(*np.moveaxis(velocity, 2, 0)) == pytest.approx(10, rel=1e-6)
    assert (turn < -0.99).sum() > 30
    assert np.abs(place[:, 1:][turn < -0.99]).max(axis=1).min() >= 99.4
    # Every passage of the junction: the way two steps before against that two steps after.
    near = np.abs(place).max(axis=2) <= 0.26
    user, step = np.nonzero(near[:, 2:-2])
    passed = (velocity[user, step] * velocity[user, step + 4]).sum(axis=1) / 100
    assert np.isin(passed.round(2), (-0.0, 0.0, 1.0)).all()
    assert len(passed) > 60
    assert np.mean(passed > 0.5) == pytest.approx(1 / 3, abs=0.12)


@pytest.mark.parametrize(("oneway", "sign"), [("yes", 1), ("-1", -1)])
def test_oneway_out_of_the_tile(town: Callable[..., Source], middle: Tile, oneway: str, sign: int) -> None:
    source = town([HOUSE], streets=[(ACROSS, {"highway": "residential", "oneway": oneway})])
    short = MobilitySettings(steps=21, interval=0.1, vehicles=1.0)
    moved, _ = move(source, middle, short, FEW)
    assert (sign * moved.velocity[:, :, 0] >= 5 * (1 - 1e-6)).all()  # started where the way is long enough
    moved, _ = move(source, middle, MobilitySettings(steps=61, interval=1.0, vehicles=1.0), FEW)
    assert (sign * np.diff(moved.position[:, :, 0], axis=1) >= 0).all()
    assert (moved.velocity[:, -1] == 0).all()
    assert moved.position[:, -1, 0] == pytest.approx(100 * sign, abs=CENTIMETRE)


@pytest.mark.parametrize(
    ("tags", "fastest"),
    [
        ({"maxspeed": "30"}, 30 / 3.6),
        ({"maxspeed": "20 mph"}, 20 * 1609.344 / 3600),
        ({"maxspeed": "10"}, 10 / 3.6),
        ({"maxspeed": "none"}, 15.0),
        ({"maxspeed": "30", "maxspeed:forward": "20", "maxspeed:backward": "20"}, 20 / 3.6),
    ],
)
def test_speed_limits(town: Callable[..., Source], middle: Tile, tags: dict[str, str], fastest: float) -> None:
    moved, _ = move(town([HOUSE], streets=[(ACROSS, {"highway": "primary", **tags})]), middle, ALL_DRIVE, FEW)
    speeds = np.abs(differences(moved)[..., 0])
    assert speeds.max() <= fastest + 1e-3
    assert speeds.max() >= 0.75 * fastest


def test_speed_limit_of_each_direction(town: Callable[..., Source], middle: Tile) -> None:
    tags = {"highway": "primary", "maxspeed:forward": "30", "maxspeed:backward": "10"}
    moved, _ = move(town([HOUSE], streets=[(ACROSS, tags)]), middle, ALL_DRIVE, FEW)
    east = differences(moved)[..., 0]
    assert 0.75 * 30 / 3.6 <= east.max() <= 30 / 3.6 + 1e-3
    assert -10 / 3.6 - 1e-3 <= east.min() <= -0.99 * 10 / 3.6


@pytest.mark.parametrize(
    ("text", "limit"),
    [("50", 50 / 3.6), ("50 km/h", 50 / 3.6), ("30mph", 13.4112), ("50;30", 30 / 3.6), ("walk", 7 / 3.6)]
    + [(text, np.inf) for text in ("", "none", "FI:urban", "signals", "0", "-5", "fast", "1e9", "٣")],
)
def test_maxspeed_as_written(text: str, limit: float) -> None:
    assert speed_limit({"maxspeed": text}, "forward") == pytest.approx(limit)


def test_directions_as_written() -> None:
    assert directions({"highway": "residential"}) == (True, True)
    assert directions({"highway": "residential", "oneway": "yes"}) == (True, False)
    assert directions({"highway": "residential", "oneway": "reverse"}) == (False, True)
    assert directions({"highway": "motorway"}) == (True, False)
    assert directions({"highway": "motorway", "oneway": "no"}) == (True, True)
    assert directions({"highway": "primary", "junction": "roundabout"}) == (True, False)


def test_walkers_keep_to_the_side(town: Callable[..., Source], middle: Tile) -> None:
    walk = MobilitySettings(steps=101, interval=0.2, vehicles=0.0)
    source = town([HOUSE], streets=[(ACROSS, {"highway": "residential", "lanes": "2"})])
    moved, _ = move(source, middle, walk, FEW)
    assert np.abs(moved.position[:, :, 1]) == pytest.approx(np.full((10, 101), 4.25), abs=CENTIMETRE)
    assert {1.0, -1.0} == set(np.sign(moved.position[:, 0, 1]).tolist())
    # A footway is walked in the middle, and crossed to from the pavement.
    path = town([HOUSE], streets=[(ACROSS, {"highway": "footway"})])
    moved, _ = move(path, middle, walk, FEW)
    assert np.abs(moved.position[:, :, 1]).max() <= CENTIMETRE


def test_no_room_on_the_streets(town: Callable[..., Source], middle: Tile) -> None:
    """200 m of street take 50 vehicles in both directions; the others walk, at last on open ground."""
    source = town([HOUSE], streets=[(ACROSS, {"highway": "service"})])
    users = UserSettings(minimum=300, maximum=300)
    moved, prints = move(source, middle, MobilitySettings(vehicles=1.0), users)
    assert (moved.kind == Mover.VEHICLE).sum() == 50
    on_street = (np.abs(moved.position[:, :, 1]) <= CENTIMETRE).all(axis=1)
    assert on_street.sum() == 250
    check_outdoors(moved, prints, middle.size, users)


def test_scraps_of_streets_are_left_out(town: Callable[..., Source], middle: Tile) -> None:
    """What two buildings leave of a street, 9 m, is not driven to and fro on."""
    walls: list[Building] = [(box(x, -3, x + 96, 3), {"building": "yes", "height": "9"}) for x in (-100, 6)]
    moved, prints = move(town(walls, streets=[(ACROSS, {"highway": "service"})]), middle, ALL_DRIVE, FEW)
    assert (moved.kind == Mover.WALKER).all()
    check_outdoors(moved, prints, middle.size, FEW)


def test_no_room_at_all(town: Callable[..., Source], middle: Tile) -> None:
    full: Building = (box(-120, -120, 120, 98), {"building": "yes", "height": "9"})
    with pytest.raises(SceneError, match=r"streets for 0 of 10 users, open ground .* below 5 %"):
        move(town([full], streets=[(ACROSS, {"highway": "residential"})]), middle, ALL_DRIVE, FEW)
    strip: Street = ([(-140, 99), (140, 99)], {"highway": "service"})
    moved, _ = move(town([full], streets=[strip]), middle, ALL_DRIVE, FEW)
    assert (moved.kind == Mover.VEHICLE).all()


def test_steps_too_long_for_the_streets(town: Callable[..., Source], middle: Tile) -> None:
    """Round a square block whose walls are as near as can be, half a minute a step."""
    block: Building = (box(-89, -89, 89, 89), {"building": "yes", "height": "9"})
    ring = [(-90.0, -90.0), (90.0, -90.0), (90.0, 90.0), (-90.0, 90.0), (-90.0, -90.0)]
    source = town([block], streets=[(ring, {"highway": "residential", "oneway": "yes"})])
    far = MobilitySettings(steps=20, interval=10, vehicles=1.0)
    with pytest.raises(SceneError, match=r"in steps of 10 s .* make mobility\.interval smaller"):
        move(source, middle, far, FEW)


def test_same_bytes_in_every_process(helsinki: Source) -> None:
    tile = tiles_of(helsinki, 1)[0]

    def digest(moved: Trajectories) -> str:
        return hashlib.sha256(b"".join(array.tobytes() for array in astuple(moved))).hexdigest()

    code = (
        "import hashlib, pickle, sys; from dataclasses import astuple; from wavecity.geo.footprints import tile_footprints\n"
        "from wavecity.geo.streets import tile_streets; from wavecity.geo.trajectories import trajectories\n"
        "source, tile, scene, mobility, users = pickle.load(sys.stdin.buffer)\n"
        "where = (tile.latitude, tile.longitude, tile.size, source)\n"
        "moved = trajectories(tile_footprints(*where, scene, 0), tile_streets(*where), tile.size, mobility, users, tile.id, 0)\n"
        "print(hashlib.sha256(b''.join(array.tobytes() for array in astuple(moved))).hexdigest())"
    )
    given = pickle.dumps((helsinki, tile, SETTINGS, FINE, USERS))
    here = digest(move(helsinki, tile)[0])
    assert python(code, input=given) == here == digest(move(helsinki, tile)[0])
    assert digest(move(helsinki, tile, seed=1)[0]) != here


@pytest.mark.parametrize(
    "wrong",
    [
        {"walker_speed": (0, 1)},
        {"walker_speed": (2, 1)},
        {"walker_speed": (1, 11)},
        {"vehicle_speed": (5, 71)},
        {"vehicle_speed": (float("nan"), 10)},
        {"steps": 1},
        {"interval": 0},
        {"vehicles": 1.1},
        {"vehicle_height": 0},
        {"riders": 1},
        {"cyclists": 0.8},
        {"cyclists": -0.1},
        {"cyclist_speed": (6, 4)},
        {"cyclist_speed": (4, 21)},
        {"subcarriers": 0},
        {"subcarrier_spacing": 0},
        {"waypoint": 0},
        {"tolerance": 0},
    ],
)
def test_wrong_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MobilitySettings.model_validate(wrong)
