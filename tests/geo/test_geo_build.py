import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from geo_maps import Building, box
from processes import python

from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError, SceneError
from wavecity.geo.gates import limits
from wavecity.geo.scene import Mesh, Scene
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile, plan_tiles

SCENE = SceneSettings()
USERS = UserSettings()


def first_tiles(source: Source, count: int) -> list[Tile]:
    area = AreaSettings(scenes=count, split=SplitSettings(by="scene"))
    return [tile for tile in plan_tiles(source, area, SCENE, 5) if tile.status == "accepted"]


def digest(scene: Scene) -> str:
    """Everything of a scene that must be the same bytes everywhere."""
    total = hashlib.sha256(scene.mesh.checksum.encode())
    for array in (scene.height, scene.occupancy, scene.users, scene.bs_position, scene.mesh.building):
        total.update(np.ascontiguousarray(array).tobytes())
    total.update(scene.buildings.to_wkb().to_csv().encode())
    total.update(json.dumps(scene.provenance, sort_keys=True).encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def scene(helsinki: Source) -> Scene:
    return build_scene(first_tiles(helsinki, 1)[0], helsinki, SCENE, USERS, 5)


def rays_down(mesh: Mesh, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the first surface under each point (Möller-Trumbore, every triangle); 0 where there is none."""
    heights = np.zeros(len(x))
    down = np.array([0.0, 0.0, -1.0])
    origins = np.column_stack([x, y, np.full(len(x), 1000.0)])
    for a, b, c in mesh.vertices[mesh.faces]:
        p = np.cross(down, c - a)
        determinant = (b - a) @ p
        if abs(determinant) < 1e-12:
            continue  # a wall
        offset = origins - a
        u = offset @ p / determinant
        q = np.cross(offset, b - a)
        v = q @ down / determinant
        depth = q @ (c - a) / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1)
        heights[hit] = np.maximum(heights[hit], 1000.0 - depth[hit])
    return heights


def assert_heights_equal_rays(scene: Scene) -> None:
    random = np.random.default_rng(0)
    rows, columns = random.integers(0, 200, (2, 1500))
    x, y = -99.5 + columns, 99.5 - rows
    boundary = shapely.distance(shapely.boundary(scene.buildings.geometry.union_all()), shapely.points(x, y))
    edges = np.min([shapely.distance(one.boundary, shapely.points(x, y)) for one in scene.buildings.geometry], axis=0)
    clear = (boundary > 0.01) & (edges > 0.01)
    rays = rays_down(scene.mesh, x[clear], y[clear])
    assert clear.sum() > 1300
    assert np.allclose(scene.height[rows[clear], columns[clear]], rays, atol=1e-3)


def test_height_map_equals_rays_cast_on_the_mesh(scene: Scene) -> None:
    assert scene.height.max() > 0
    assert_heights_equal_rays(scene)


@pytest.mark.parametrize("name", ["nyc-west-village.osm.pbf", "berlin-prenzlauer-berg.osm", "sofia-centre.osm"])
def test_height_map_equals_rays_elsewhere(extract: Callable[[str], Source], name: str) -> None:
    source = extract(name)
    assert_heights_equal_rays(build_scene(first_tiles(source, 1)[0], source, SCENE, USERS, 5))


def test_scene_is_complete(scene: Scene) -> None:
    assert scene.height.shape == (200, 200)
    assert scene.occupancy.shape == (20, 20)
    assert scene.bs_position.tolist() == [scene.bs_shift, 100, 15]
    assert "+proj=aeqd" in scene.crs
    assert scene.buildings.crs is not None
    assert scene.split in ("train", "validation", "test")
    points = shapely.points(scene.users[:, :2].astype(float))
    # Under what hangs higher than a user and their clearance is open ground.
    standing = scene.buildings[scene.buildings["base"] < 2].geometry.union_all()
    assert not shapely.contains(standing, points).any()
    assert (np.abs(scene.users[:, :2]) <= 100).all()
    assert len(scene.users) >= 300
    # The share of occupied patches cannot exceed what is built / 60 %.
    assert scene.occupancy.mean() <= scene.provenance["coverage"] / 0.6


def test_provenance_is_json_with_all_gates(scene: Scene) -> None:
    provenance = json.loads(json.dumps(scene.provenance, allow_nan=False))
    assert provenance == scene.provenance
    assert provenance["mesh_checksum"] == scene.mesh.checksum
    assert sum(provenance["height_sources"].values()) == pytest.approx(1)
    gates = provenance["gates"]
    assert set(limits(SCENE, USERS)) <= set(gates)
    assert gates["watertight"] is True
    assert gates["volume_error_max"] < 1e-6
    assert gates["height_map_agreement"] == 1
    assert gates["bs_clearance"] >= 2
    assert gates["user_clearance"] >= 0.498
    assert provenance["map"]["licence"].startswith("© OpenStreetMap contributors")
    assert provenance["features"]["used"] >= 4


def test_same_bytes_in_another_process(scene: Scene, map_cache: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_geo_build import SCENE, USERS, digest, first_tiles
from wavecity.geo.build import build_scene
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import open_source
source = open_source(AreaSettings(), Path({str(map_cache)!r}))
print(digest(build_scene(first_tiles(source, 1)[0], source, SCENE, USERS, 5)))
"""
    assert python(code, env={**os.environ, "PYTHONHASHSEED": "12345"}) == digest(scene)


def test_seed_changes_users(scene: Scene, helsinki: Source) -> None:
    other = build_scene(first_tiles(helsinki, 1)[0], helsinki, SCENE, USERS, 6)
    assert other.users.tolist() != scene.users.tolist()


def test_scene_that_cannot_be_made(town: Callable[..., Source], middle: Tile) -> None:
    wall: Building = (box(-40, 97, 40, 99), {"building": "yes", "height": "20"})
    with pytest.raises(SceneError, match="no clear base station position"):
        build_scene(middle, town([wall]), SCENE, USERS, 0)
    with pytest.raises(SceneError, match="no buildings"):
        build_scene(middle, town([(box(120, 120, 140, 140), {"building": "yes"})]), SCENE, USERS, 0)


def test_resolution_must_divide_the_tile(town: Callable[..., Source], middle: Tile) -> None:
    source = town([(box(0, 0, 20, 20), {"building": "yes", "height": "9"})])
    with pytest.raises(InputError, match=r"scene.occupancy_patch: 7 m does not divide"):
        build_scene(middle, source, SceneSettings(occupancy_patch=7), USERS, 0)


def test_scene_of_one_house(town: Callable[..., Source], middle: Tile) -> None:
    source = town([(box(-10, -10, 10, 10), {"building": "yes", "height": "9"})])
    one = build_scene(middle, source, SCENE, USERS, 0)
    assert np.count_nonzero(one.height) == 400
    assert (one.height[90:110, 90:110] == 9).all()
    assert one.occupancy.sum() == 4
    assert len(one.mesh.faces) == 2 + 2 + 8
