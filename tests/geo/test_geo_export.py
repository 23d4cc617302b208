"""Exported scenes, opened by those who will read them: Sionna RT, trimesh, and a plain look at the glTF's JSON."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from processes import python

from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError
from wavecity.geo.export import export_gltf, export_mitsuba
from wavecity.geo.scene import Materials, Scene, Surface
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import plan_tiles

ALIKE = {"wall": "concrete", "roof": "concrete", "ground": "concrete"}
MIXED = {"wall": "brick", "roof": "metal", "ground": "concrete"}


@pytest.fixture(scope="module")
def scene(helsinki: Source) -> Scene:
    area = AreaSettings(scenes=1, split=SplitSettings(by="scene"))
    tile = next(tile for tile in plan_tiles(helsinki, area, SceneSettings(), 5) if tile.status == "accepted")
    return build_scene(tile, helsinki, SceneSettings(), UserSettings(), 5)


def area_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]].astype(float) for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def face_area(scene: Scene, *surfaces: Surface) -> float:
    return area_of(scene.mesh.vertices, scene.mesh.faces[np.isin(scene.mesh.surface, surfaces)])


@pytest.mark.parametrize("materials", [ALIKE, MIXED])
def test_sionna_opens_the_same_geometry(scene: Scene, tmp_path: Path, materials: dict[str, str]) -> None:
    from wavecity.raytrace.device import mi, rt

    path = export_mitsuba(scene, tmp_path / "scene", materials)
    loaded = rt.load_scene(str(path), merge_shapes=False)
    loaded.frequency = 28.5e9
    shapes = {name: shape.mi_mesh for name, shape in loaded.objects.items()}
    assert {shape.radio_material.itu_type for shape in loaded.objects.values()} == set(materials.values())
    areas, corners = {}, {}
    for name, shape in shapes.items():
        values = mi.traverse(shape)
        points = values["vertex_positions"].numpy().reshape(-1, 3)
        faces = values["faces"].numpy().reshape(-1, 3)
        areas[name] = area_of(points, faces)
        corners[name] = len(points)
    assert areas.pop("ground") == pytest.approx((2 * scene.size) ** 2)
    if materials is ALIKE:
        assert list(areas.values()) == pytest.approx([face_area(scene, *Surface)], rel=1e-5)
        # Welded as before: as many vertices as the mesh has.
        assert corners["buildings-concrete"] == len(scene.mesh.vertices)
    else:
        assert areas["buildings-metal"] == pytest.approx(face_area(scene, Surface.ROOF), rel=1e-5)
        assert areas["buildings-brick"] == pytest.approx(face_area(scene, Surface.WALL, Surface.FLOOR), rel=1e-5)

    # Rays from the base station meet what trimesh says they meet on our own mesh and the ground.
    random = np.random.default_rng(1)
    directions = random.normal(size=(400, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    origins = np.tile(scene.bs_position, (400, 1))
    ray = mi.Ray3f(mi.Point3f(origins.T.astype(np.float32)), mi.Vector3f(directions.T.astype(np.float32)))
    distance = loaded.mi_scene.ray_intersect(ray).t.numpy()
    assert np.allclose(
        np.nan_to_num(distance, posinf=1e9), nearest_hit(scene, origins, directions), rtol=1e-3, atol=1e-2
    )
    assert np.isfinite(distance).sum() > 100


def nearest_hit(scene: Scene, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance to the nearest triangle or the ground's square (Möller-Trumbore), 1e9 when there is none."""
    down = np.where(directions[:, 2] < 0, -origins[:, 2] / np.minimum(directions[:, 2], -1e-12), 1e9)
    ends = origins + down[:, None] * directions
    nearest = np.where((np.abs(ends[:, :2]) <= scene.size).all(1), down, 1e9)
    for a, b, c in scene.mesh.vertices[scene.mesh.faces]:
        p = np.cross(directions, c - a)
        determinant = p @ (b - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = ((origins - a) * p).sum(1) / determinant
            q = np.cross(origins - a, b - a)
            v = (directions * q).sum(1) / determinant
            t = q @ (c - a) / determinant
        hit = (np.abs(determinant) > 1e-12) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
        nearest = np.where(hit & (t < nearest), t, nearest)
    return nearest


def test_ply_is_read_by_others(scene: Scene, tmp_path: Path) -> None:
    export_mitsuba(scene, tmp_path, ALIKE)
    loaded = trimesh.load(tmp_path / "meshes" / "buildings-concrete.ply", process=False)
    assert loaded.is_watertight
    assert loaded.area == pytest.approx(face_area(scene, *Surface), rel=1e-5)
    assert np.abs(loaded.vertices - scene.mesh.vertices).max() < 1e-4
    text = (tmp_path / "scene.xml").read_text()
    assert "OpenStreetMap contributors" in text
    assert sorted(path.name for path in (tmp_path / "meshes").iterdir()) == ["buildings-concrete.ply", "ground.ply"]


def test_gltf_names_buildings_and_has_y_up(scene: Scene, tmp_path: Path) -> None:
    path = export_gltf(scene, tmp_path / "scene.glb")
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    tree = json.loads(data[20 : 20 + size])
    names = [node["name"] for node in tree["nodes"]]
    for building in scene.buildings.itertuples():
        assert any(name.startswith(f"{building.osm_type}/{building.osm_id}") for name in names)
    roofs = [mesh["extras"] for mesh in tree["meshes"] if mesh.get("extras", {}).get("surface") == "roof"]
    assert len(roofs) == len(scene.buildings)
    assert sorted(roof["osm_id"] for roof in roofs) == sorted(scene.buildings["osm_id"])
    assert {material["name"] for material in tree["materials"]} >= {"wall", "roof", "ground"}

    loaded = trimesh.load(path)
    merged = loaded.to_geometry()
    assert merged.area == pytest.approx(face_area(scene, *Surface) + (2 * scene.size) ** 2, rel=1e-4)
    assert merged.bounds[1][1] == pytest.approx(scene.mesh.vertices[:, 2].max(), abs=1e-3)
    # East 10, north 20, up 5: x, -z and y.
    for node in loaded.graph.nodes_geometry:
        transform, _ = loaded.graph[node]
        assert np.allclose(transform @ [10, 20, 5, 1], [10, 5, -20, 1])


def test_wrong_input(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"materials: wall; give one for each of wall, roof, ground"):
        export_mitsuba(scene, tmp_path, {"wall": "brick"})
    with pytest.raises(InputError, match=r"scene.obj: not a name for binary glTF"):
        export_gltf(scene, tmp_path / "scene.obj")
    assert list(tmp_path.iterdir()) == []


def test_export_needs_no_ray_tracer() -> None:
    code = "import sys, geo.export; print(sorted({'sionna', 'mitsuba', 'drjit'} & set(sys.modules)))"
    assert python(code) == "[]"


def test_materials_of_buildings_come_before_the_recipes(scene: Scene, tmp_path: Path) -> None:
    count = len(scene.buildings)
    own = Materials(wall=("brick",) + ("",) * (count - 1), roof=("",) * count, glass=(0.0,) * count)
    export_mitsuba(replace(scene, mesh=replace(scene.mesh, materials=own)), tmp_path, ALIKE)
    header = (tmp_path / "meshes" / "buildings-brick.ply").read_bytes().split(b"end_header")[0].decode()
    walls = (scene.mesh.building == 0) & (scene.mesh.surface != Surface.ROOF)
    assert f"element face {walls.sum()}" in header
    assert '<ref id="brick" name="bsdf"/>' in (tmp_path / "scene.xml").read_text(encoding="utf-8")
