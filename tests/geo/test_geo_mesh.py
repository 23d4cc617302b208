from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pytest
import shapely
import trimesh
from shapely import MultiPolygon, Polygon

from wavecity.geo.build import build_scene
from wavecity.geo.errors import SceneError
from wavecity.geo.mesh import build_mesh, check_mesh, extrude
from wavecity.geo.scene import Mesh, Scene, Surface
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import plan_tiles

SQUARE = Polygon([(0, 0), (10, 0), (10, 10), (0, 10)])
L_SHAPE = Polygon([(0, 0), (20, 0), (20, 5), (5, 5), (5, 30), (0, 30)])
U_SHAPE = Polygon([(0, 0), (30, 0), (30, 20), (25, 20), (25, 5), (5, 5), (5, 20), (0, 20)])
COURT = Polygon([(0, 0), (40, 0), (40, 40), (0, 40)], [[(10, 10), (30, 10), (30, 30), (20, 12), (10, 30)]])
FLAT_CORNERS = Polygon([(0, 0), (5, 0), (10, 0), (20, 0), (20, 10), (10, 10), (0, 10)])
COMB = Polygon(
    [(0, 0), (50, 0), (50, 20)] + [(50 - 2 * k - (k % 2), 20 if k % 2 else 2) for k in range(1, 24)] + [(0, 20)]
)
SHAPES = {"square": SQUARE, "L": L_SHAPE, "U": U_SHAPE, "court": COURT, "flat": FLAT_CORNERS, "comb": COMB}


def frame(shapes: list[Polygon | MultiPolygon], base: float = 0.0, height: float = 10.0) -> gpd.GeoDataFrame:
    n = len(shapes)
    columns = {"osm_type": ["way"] * n, "osm_id": range(n), "height": [height] * n, "base": [base] * n}
    return gpd.GeoDataFrame(columns, geometry=shapes)


def as_trimesh(mesh: Mesh, row: int | None = None) -> trimesh.Trimesh:
    faces = mesh.faces if row is None else mesh.faces[mesh.building == row]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


@pytest.mark.parametrize("name", SHAPES)
def test_roof_covers_the_footprint_and_nothing_else(name: str) -> None:
    shape = SHAPES[name]
    assert shape.is_valid
    vertices, faces, surface = extrude(shape, 0, 10)
    roof = vertices[faces[surface == Surface.ROOF]][:, :, :2]
    triangles = shapely.polygons(roof)
    assert shapely.area(triangles).sum() == pytest.approx(shape.area, rel=1e-12)
    assert shapely.difference(shapely.union_all(triangles), shape).area == pytest.approx(0, abs=1e-9)
    # Twice the corners (floor and roof) and no vertex besides.
    corners = sum(len(ring.coords) - 1 for ring in (shape.exterior, *shape.interiors))
    assert len(vertices) == 2 * corners


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("base", [0.0, 5.5])
def test_prism_is_closed_and_faces_outward(name: str, base: float) -> None:
    shape = SHAPES[name]
    mesh = build_mesh(frame([shape], base, 20.0))
    solid = as_trimesh(mesh)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume == pytest.approx(shape.area * (20 - base), rel=1e-9)
    normals = np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2)))
    assert (normals[mesh.surface == Surface.ROOF, 2] > 0).all()
    assert (normals[mesh.surface == Surface.FLOOR, 2] < 0).all()
    assert np.allclose(normals[mesh.surface == Surface.WALL, 2], 0)


def test_walls_share_their_vertices_with_roof_and_floor() -> None:
    mesh = build_mesh(frame([L_SHAPE]))
    walls, roof, floor = (set(mesh.faces[mesh.surface == kind].ravel().tolist()) for kind in Surface)
    assert walls == roof | floor
    assert len(np.unique(mesh.vertices, axis=0)) == len(mesh.vertices)


@pytest.mark.parametrize(
    "other",
    [
        shapely.box(10, 0, 20, 10),  # party wall
        shapely.box(10, 5, 20, 15),  # half a party wall
        shapely.box(10, 10, 20, 20),  # corner
    ],
)
def test_touching_buildings_stay_two_solids(other: Polygon) -> None:
    mesh = build_mesh(frame([SQUARE, other]))
    for row in range(2):
        assert as_trimesh(mesh, row).is_watertight
    shared = set(mesh.faces[mesh.building == 0].ravel()) & set(mesh.faces[mesh.building == 1].ravel())
    assert not shared
    assert as_trimesh(mesh).is_watertight


def test_multipolygon_is_one_building_of_several_solids() -> None:
    mesh = build_mesh(frame([MultiPolygon([SQUARE, shapely.box(20, 0, 30, 10)])]))
    assert set(mesh.building.tolist()) == {0}
    assert as_trimesh(mesh).body_count == 2


def test_leak_and_wrong_volume_are_found() -> None:
    buildings = frame([SQUARE, L_SHAPE.buffer(0)])
    mesh = build_mesh(buildings)
    keep = np.arange(len(mesh.faces)) != len(mesh.faces) - 1
    open_mesh = Mesh(mesh.vertices, mesh.faces[keep], mesh.building[keep], mesh.surface[keep])
    with pytest.raises(SceneError, match="way 1 is not closed"):
        check_mesh(open_mesh, buildings)
    inside_out = Mesh(mesh.vertices, mesh.faces[:, ::-1], mesh.building, mesh.surface)
    with pytest.raises(SceneError, match="way 0 has a volume off"):
        check_mesh(inside_out, buildings)
    shifted = Mesh(mesh.vertices * [1, 1, 1.00001], mesh.faces, mesh.building, mesh.surface)
    with pytest.raises(SceneError, match="volume off by 1e-05"):
        check_mesh(shifted, buildings)


def test_checksum_follows_the_geometry() -> None:
    one, same = build_mesh(frame([SQUARE])), build_mesh(frame([SQUARE]))
    assert one.checksum == same.checksum
    assert one.checksum != build_mesh(frame([SQUARE], height=10.001)).checksum


def scenes_of(source: Source, count: int) -> list[Scene]:
    area = AreaSettings(scenes=count, split=SplitSettings(by="scene"))
    tiles = [tile for tile in plan_tiles(source, area, SceneSettings(), 3) if tile.status == "accepted"]
    return [build_scene(tile, source, SceneSettings(), UserSettings(), 3) for tile in tiles]


def assert_sound(scene: Scene) -> None:
    """By trimesh, which knows nothing of how the mesh was made."""
    mesh = scene.mesh
    buildings = scene.buildings
    for row in range(len(buildings)):
        solid = as_trimesh(mesh, row)
        assert solid.is_watertight
        assert solid.is_winding_consistent
        expected = buildings.geometry.iloc[row].area * (buildings["height"].iloc[row] - buildings["base"].iloc[row])
        assert solid.volume == pytest.approx(expected, rel=1e-6)
    assert np.abs(mesh.vertices[:, :2]).max() <= scene.size / 2
    assert mesh.vertices[:, 2].min() >= 0


def test_real_helsinki_meshes_are_sound(helsinki: Source) -> None:
    scenes = scenes_of(helsinki, 4)
    assert len(scenes) == 4
    for scene in scenes:
        assert_sound(scene)


@pytest.mark.parametrize(
    "name", ["nyc-west-village.osm.pbf", "berlin-prenzlauer-berg.osm", "los-angeles-ucla.osm", "sofia-centre.osm"]
)
def test_real_meshes_of_other_cities_are_sound(extract: Callable[[str], Source], name: str) -> None:
    scenes = scenes_of(extract(name), 2)
    assert len(scenes) == 2
    for scene in scenes:
        assert_sound(scene)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name",
    [
        "baltimore.osm.pbf",
        "berlin-prenzlauer-berg.osm",
        "granada.osm",
        "los-angeles-ucla.osm",
        "nyc-west-village.osm.pbf",
        "seattle-northgate.osm",
        "sofia-centre.osm",
    ],
)
def test_all_tiles_of_all_extracts_are_sound(extract: Callable[[str], Source], name: str) -> None:
    for scene in scenes_of(extract(name), 1000):
        assert_sound(scene)
