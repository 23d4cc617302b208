"""Each gate against a scene that was spoilt on purpose in just that way."""

from collections.abc import Callable
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from geo_maps import box
from shapely import Polygon

from wavecity.geo.build import build_scene
from wavecity.geo.errors import SceneError
from wavecity.geo.gates import (
    Gate,
    check,
    coverage_error,
    front_clearance,
    height_map_agreement,
    inward_solids,
    limits,
    measure,
    overhang,
    overhead,
    overlap_volume,
)
from wavecity.geo.mesh import build_mesh
from wavecity.geo.scene import Mesh, Scene, Surface
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile, plan_tiles

SCENE = SceneSettings()
USERS = UserSettings()


@pytest.fixture(scope="module")
def scene(helsinki: Source) -> Scene:
    area = AreaSettings(scenes=1, split=SplitSettings(by="scene"))
    tile = next(tile for tile in plan_tiles(helsinki, area, SCENE, 5) if tile.status == "accepted")
    return build_scene(tile, helsinki, SCENE, USERS, 5)


def frame(shapes: list[Polygon], base: list[float], height: list[float]) -> gpd.GeoDataFrame:
    n = len(shapes)
    columns = {"osm_type": ["way"] * n, "osm_id": range(n), "height": height, "base": base}
    return gpd.GeoDataFrame(columns, geometry=shapes)


def union_of(scene: Scene) -> shapely.Geometry:
    return shapely.union_all(scene.buildings.geometry.to_numpy(), grid_size=0.001)


def numbers(scene: Scene) -> dict[str, float | int | bool]:
    return measure(
        scene.mesh,
        scene.buildings,
        union_of(scene),
        scene.height,
        scene.bs_position,
        scene.users,
        scene.size,
        scene.id,
        USERS,
        5,
    )


def test_real_scene_passes_and_its_receipt_holds_the_numbers(scene: Scene) -> None:
    assert numbers(scene) == scene.provenance["gates"]
    assert set(limits(SCENE, USERS)) <= set(scene.provenance["gates"])
    check(scene.provenance["gates"], limits(SCENE, USERS))


def shifted_map(scene: Scene) -> Scene:
    return replace(scene, height=np.roll(scene.height, 3, axis=0))


def user_indoors(scene: Scene) -> Scene:
    walls = scene.buildings[scene.buildings["base"] == 0].geometry
    inside = max(walls, key=lambda one: one.area).representative_point()
    return replace(scene, users=np.vstack([scene.users, [[inside.x, inside.y, 1.5]]]).astype(np.float32))


def user_at_the_wall(scene: Scene) -> Scene:
    wall = shapely.get_coordinates(scene.buildings[scene.buildings["base"] == 0].geometry.iloc[0])[0]
    return replace(scene, users=np.vstack([scene.users, [[*wall, 1.5]]]).astype(np.float32))


def user_outside(scene: Scene) -> Scene:
    return replace(scene, users=np.vstack([scene.users, [[100.5, 0, 1.5]]]).astype(np.float32))


def station_at_a_wall(scene: Scene) -> Scene:
    x, y = shapely.get_coordinates(scene.buildings.geometry.iloc[0])[0]
    return replace(scene, bs_position=np.array([x + 0.5, y, 15.0]))


def inside_out_prism(scene: Scene) -> Scene:
    """Volume sums hide a solid turned inside out as long as another of the same building outweighs it."""
    two = frame([shapely.MultiPolygon([shapely.box(0, 0, 30, 30), shapely.box(40, 0, 42, 2)])], [0.0], [10.0])
    mesh = build_mesh(two)
    small = (mesh.vertices[mesh.faces][:, :, 0] >= 40).all(axis=1)
    faces = np.where(small[:, None], mesh.faces[:, ::-1], mesh.faces)
    return replace(scene, mesh=replace(mesh, faces=faces))


@pytest.mark.parametrize(
    ("spoil", "gate", "least", "most"),
    [
        (shifted_map, "height_map_agreement", 0, 0.99),
        (user_indoors, "users_outdoors", 0.9, 0.999),
        (user_at_the_wall, "user_clearance", 0, 0.01),
        (user_outside, "overhang", 0.5, 0.5),
        (station_at_a_wall, "bs_clearance", 0, 0.51),
    ],
)
def test_gate_sees(scene: Scene, spoil: Callable[[Scene], Scene], gate: str, least: float, most: float) -> None:
    found = numbers(spoil(scene))
    assert least <= found[gate] <= most
    with pytest.raises(SceneError, match=f"gate {gate}: "):
        check({**scene.provenance["gates"], gate: found[gate]}, limits(SCENE, USERS))


def test_inward_solids(scene: Scene) -> None:
    assert inward_solids(scene.mesh) == 0
    # One solid, and its two roof and two floor triangles.
    assert inward_solids(inside_out_prism(scene).mesh) == 1 + 2 + 2
    turned = replace(scene.mesh, surface=np.full_like(scene.mesh.surface, Surface.ROOF))
    assert inward_solids(turned) == (scene.mesh.surface != Surface.ROOF).sum()
    assert inward_solids(Mesh(np.empty((0, 3)), np.empty((0, 3), np.int32), np.empty(0, np.int32), np.empty(0))) == 0


def test_overlap_volume() -> None:
    shapes = [shapely.box(0, 0, 10, 10), shapely.box(8, 0, 20, 10), shapely.box(20, 0, 30, 10)]
    assert overlap_volume(frame(shapes, [0, 0, 0], [10, 6, 9])) == pytest.approx(2 * 10 * 6)
    assert overlap_volume(frame(shapes, [6, 0, 0], [10, 6, 9])) == 0  # one over the other
    assert overlap_volume(frame(shapes[1:], [0, 0], [10, 10])) == 0  # a party wall


def test_coverage_error(scene: Scene) -> None:
    whole = union_of(scene)
    roofs = scene.mesh.vertices[scene.mesh.faces[scene.mesh.surface == Surface.ROOF]][:, :, :2]
    assert coverage_error(shapely.polygons(roofs), whole, scene.size) < 1e-6
    missing = shapely.polygons(roofs[1:])
    assert coverage_error(missing, whole, scene.size) == pytest.approx(
        shapely.polygons(roofs[0]).area / 200**2, rel=1e-3
    )


def test_overhang(scene: Scene) -> None:
    assert overhang(scene.mesh, scene.bs_position, scene.users, 200.0) == 0
    assert (
        overhang(replace(scene.mesh, vertices=scene.mesh.vertices - [0, 0, 2]), scene.bs_position, scene.users, 200)
        == 2
    )
    assert overhang(scene.mesh, np.array([0, 107.0, 15]), scene.users, 200.0) == 7


def test_front_clearance() -> None:
    station = np.array([0.0, 100.0, 15.0])

    def front(*walls: tuple[Polygon, float, float]) -> float:
        shapes, base, height = zip(*walls, strict=True)
        return front_clearance(build_mesh(frame(list(shapes), list(base), list(height))), station, 200.0)

    ahead = shapely.box(-5, 60, 5, 70)
    assert front((ahead, 0, 20)) == pytest.approx(30)
    assert front((ahead, 0, 14)) == 200  # below the panel
    assert front((ahead, 16, 20)) == 200  # above it
    assert front((shapely.box(50, 90, 60, 99), 0, 20)) == 200  # beside it
    # Half in sight: the ray at 45 degrees meets the wall at (20, 80).
    assert front((shapely.box(20, 70, 30, 99), 0, 20)) == pytest.approx(np.hypot(20, 20), rel=1e-3)


def test_overhead_counts_windings() -> None:
    bridge, house = shapely.box(0, 0, 20, 20), shapely.box(40, 0, 60, 20)
    court = Polygon(shapely.box(-60, -60, -20, -20).exterior, [shapely.box(-50, -50, -30, -30).exterior.coords])
    mesh = build_mesh(frame([bridge, house, court], [5.5, 0, 0], [7.5, 9, 9]))
    points = [(10, 10, 1.5), (10, 10, 6.5), (10, 10, 8), (50, 10, 1.5), (50, 10, 10), (-40, -40, 1.5), (-25, -40, 1.5)]
    inside, under = overhead(mesh, np.array(points, dtype=np.float32))
    assert inside.tolist() == [0, 1, 0, 1, 0, 0, 1]
    assert under.tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_agreement_sees_a_mirrored_map(scene: Scene) -> None:
    assert height_map_agreement(scene.mesh, scene.height, 200.0, scene.id, 5) == 1
    assert height_map_agreement(scene.mesh, scene.height[::-1], 200.0, scene.id, 5) < 0.99


def test_message_names_gate_value_and_limit() -> None:
    with pytest.raises(SceneError, match=r"^gate overhang: 0\.25, at most 0 wanted$"):
        check({"overhang": 0.25}, {"overhang": Gate(most=0)})
    with pytest.raises(SceneError, match=r"^gate users_outdoors: nan, at least 1 wanted$"):
        check({"users_outdoors": float("nan")}, {"users_outdoors": Gate(least=1)})


def test_build_refuses_what_misses_a_gate(
    town: Callable[..., Source], middle: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = town([(box(-10, -10, 10, 10), {"building": "yes", "height": "9"})])
    monkeypatch.setattr("wavecity.geo.build.height_map", lambda *_: np.zeros((200, 200), dtype=np.float32))
    with pytest.raises(SceneError, match=r"^gate height_map_agreement: 0\.9\d*, at least 1 wanted$"):
        build_scene(middle, source, SCENE, USERS, 0)
