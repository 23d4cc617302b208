"""Previews show what the store holds: solids, users, shares, and paths where the tracer found them."""

import json
import shutil
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pytest
import shapely
import trimesh
from PIL import Image
from shapely import MultiPolygon, Polygon

from wavecity.dataset import InputError
from wavecity.dataset.preview.output import draw_scene
from wavecity.dataset.preview.paths import STATUSES, first_hit, nearest_point, rebuild_path
from wavecity.dataset.preview.picture import SOURCE_COLOURS, look, render
from wavecity.dataset.preview.scene import load_view
from wavecity.dataset.preview.solids import prism, surface
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of

COURTYARD = Polygon([(0, 0), (30, 0), (30, 20), (0, 20)], [[(5, 5), (10, 5), (10, 15), (5, 15)]])


@pytest.fixture(scope="module")
def store(helsinki_store):
    return helsinki_store


@pytest.fixture(scope="module")
def scene_id(store):
    return str(open_store(store)["scene_id"].values[0])


@pytest.fixture(scope="module")
def view(store, scene_id):
    return load_view(store, scene_id)


@pytest.fixture(scope="module")
def table(store):
    """The scene's buildings as anybody reads them, in metres."""
    (path,) = resolve(store).parent.glob("buildings/*.parquet")
    return gpd.read_parquet(path).set_geometry("local_geometry")


# Solids


@pytest.mark.parametrize(("base", "top"), [(0.0, 12.0), (7.5, 9.0)])
def test_a_prism_is_closed_and_has_the_area_and_volume_of_its_footprint(base, top):
    triangles = prism(COURTYARD, base, top)
    solid = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles))
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.volume == pytest.approx(COURTYARD.area * (top - base))
    assert solid.area == pytest.approx(2 * COURTYARD.area + COURTYARD.length * (top - base))
    assert solid.bounds[:, 2].tolist() == [base, top]
    # n corners in r rings are triangulated with n + 2 (r - 2) triangles, and each edge has a wall of two.
    assert len(triangles) == 2 * (8 + 2 * (2 - 2)) + 2 * 8


def test_real_buildings_have_the_volume_that_shapely_gives(view, table):
    triangles, owner = surface(table)
    six = np.einsum("fi,fi->f", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))
    expected = shapely.area(table.geometry.to_numpy()) * (table["height"] - table["base"])
    np.testing.assert_allclose(np.bincount(owner, six) / 6, expected, rtol=1e-9)
    np.testing.assert_array_equal(view.triangles, triangles)


# Paths


def test_every_path_of_a_real_scene_is_rebuilt_where_the_tracer_found_it(store, scene_id, view, table):
    """Vertices of the tracer, in float64, against those rebuilt from the directions, rounded as the store rounds."""
    from wavecity.geo.mesh import build_mesh
    from wavecity.geo.settings import SceneSettings
    from wavecity.raytrace.settings import RadioSettings
    from wavecity.raytrace.solver import ChainSolver
    from wavecity.raytrace.world import build_world

    mesh = build_mesh(table)
    traced = attributes_of(open_store(store).attrs)["recipe"]
    assert SceneSettings(**traced["scene"]).bs_height == view.base[2]
    paths = ChainSolver(3, 20_000, diffraction=True)(
        build_world(mesh, view.size, RadioSettings(**traced["radio"])), view.base, view.users
    )
    assert len(paths) > 200
    for row in range(len(paths)):
        kinds = paths.types[row][paths.types[row] > 0].tolist()
        departure, arrival = paths.departure[row].astype(np.float32), paths.arrival[row].astype(np.float32)
        whole, lines = rebuild_path(
            view.base, departure.astype(float), view.users[paths.receiver[row]], arrival.astype(float), kinds,
            paths.length[row], view.triangles,
        )  # fmt: skip
        assert whole
        assert len(lines) == 1
        np.testing.assert_allclose(lines[0][1:-1], paths.vertices[row, : len(kinds)], atol=0.05)


def test_the_bounce_point_of_single_reflections_lies_on_a_wall_or_the_ground(store, scene_id):
    view = load_view(store, scene_id, max_paths=10_000)
    single = [path for path in view.paths if path.kind == "1 bounce"]
    reflecting = trimesh.Trimesh(**trimesh.triangles.to_kwargs(view.triangles))
    assert single
    for path in single:
        assert path.whole
        point = path.lines[0][1]
        on_wall = trimesh.proximity.closest_point_naive(reflecting, point[None])[1][0]
        assert min(on_wall, abs(point[2])) < 0.01


def test_lengths_of_whole_paths_are_the_stored_delays(store, scene_id):
    view = load_view(store, scene_id, max_paths=10_000)
    assert len(view.paths) == (view.status < 2).sum()
    delay = open_store(store, "paths")["delay"].values[0]
    for path in view.paths:
        if path.whole:
            length = np.linalg.norm(np.diff(path.lines[0], axis=0), axis=1).sum()
            assert length == pytest.approx(299_792_458 * delay[path.user, 0], abs=0.05)
            np.testing.assert_allclose(path.lines[0][0], view.base)
            np.testing.assert_allclose(path.lines[0][-1], view.users[path.user])


def test_half_of_the_drawn_paths_are_for_users_without_line_of_sight(store, scene_id):
    view = load_view(store, scene_id, max_paths=10)
    users = [path.user for path in view.paths]
    assert len(set(users)) == len(users) <= 10
    hidden = int((view.status == 1).sum())
    assert (view.status[users] == 1).sum() == (hidden if hidden < 5 else pytest.approx(4, abs=1))


def _unit(start, end):
    return (np.asarray(end, float) - start) / np.linalg.norm(np.asarray(end, float) - start)


def test_paths_by_hand():
    """A wall along x = 10, from y = -50 to 50: image of the user at 20 - x."""
    wall = prism(Polygon([(10, -50), (12, -50), (12, 50), (10, 50)]), 0.0, 30.0)
    base, user = np.array([0.0, 0.0, 15.0]), np.array([5.0, 20.0, 1.5])
    image = np.array([15.0, 20.0, 1.5])
    bounce = base + (image - base) * (10 / 15)
    length = float(np.linalg.norm(image - base))
    whole, lines = rebuild_path(base, _unit(base, bounce), user, _unit(user, bounce), [1], length, wall)
    assert whole
    np.testing.assert_allclose(lines[0], [base, bounce, user], atol=1e-9)

    # The same directions with another delay are not that path: both known ends, up to the wall they meet.
    whole, lines = rebuild_path(base, _unit(base, bounce), user, _unit(user, bounce), [1], length + 1, wall)
    assert not whole
    np.testing.assert_allclose(lines, [[base, bounce], [user, bounce]], atol=1e-9)

    up = np.array([0.0, 0, 15])
    # Bent at two edges: only a stub from each end, for the rays meet no wall.
    whole, lines = rebuild_path(base, _unit(base, [0, 0, 99]), user, _unit(user, [5, 20, 99]), [8, 8], 300.0, wall)
    assert not whole
    np.testing.assert_allclose(lines, [[base, base + up], [user, user + up]])

    # Straight through the wall, and on to a reflection from the ground behind it.
    behind, ground = np.array([30.0, 0.0, 5.0]), np.array([22.5, 0.0, 0.0])
    length = float(np.hypot(30, 20))
    ends = (base, _unit(base, ground), behind, _unit(behind, ground))
    whole, lines = rebuild_path(*ends, [4, 4, 1], length, wall)
    assert whole
    np.testing.assert_allclose(lines[0][-2], ground, atol=1e-9)
    whole, lines = rebuild_path(
        base, _unit(base, behind), behind, _unit(behind, base), [4, 4], float(np.hypot(30, 10)), wall
    )
    assert whole
    np.testing.assert_allclose(lines[0], [base, behind])


def test_rays_and_meeting_points_by_hand():
    block = prism(COURTYARD, 0.0, 10.0)
    distance, normal = first_hit(np.array([-5.0, 10.0, 4.0]), np.array([1.0, 0, 0]), block)
    assert distance == pytest.approx(5)
    np.testing.assert_allclose(np.abs(normal), [1, 0, 0])
    assert first_hit(np.array([7.0, 10.0, 20.0]), np.array([0, 0, -1.0]), block)[0] == pytest.approx(20)
    assert first_hit(np.array([2.0, 10.0, 20.0]), np.array([0, 0, -1.0]), block)[0] == pytest.approx(10)
    assert first_hit(np.array([7.0, 10.0, 20.0]), np.array([0, 0, 1.0]), block)[0] == np.inf
    point, gap = nearest_point(np.zeros(3), np.array([1.0, 0, 0]), np.array([4.0, -3, 0.2]), np.array([0, 1.0, 0]))
    np.testing.assert_allclose(point, [4, 0, 0.1], atol=1e-12)
    assert gap == pytest.approx(0.2)
    assert (
        nearest_point(np.zeros(3), np.array([-1.0, 0, 0]), np.array([4.0, -3, 0]), np.array([0, 1.0, 0]))[1] == np.inf
    )


# Texts


def test_titles_and_shares_are_those_of_the_table(store, scene_id, view, table):
    shares = table["height_source"].value_counts(normalize=True)
    for source, share in shares.items():
        assert f"{source} {100 * share:.0f} %" in view.subtitle
    scene = open_store(store).isel(scene=0).load()
    n = int(scene["n_users"])
    los, outage = scene["los"].values[:n], scene["outage"].values[:n]
    expected = [(los & ~outage).sum(), (~los & ~outage).sum(), outage.sum()]
    assert list(view.status_counts.values()) == expected
    assert f"{expected[0]} {STATUSES[0]}" in view.subtitle
    assert view.title.startswith(f"{scene_id} · Helsinki · map of 2019-")
    assert "OpenStreetMap" in view.attribution


# The three files


def test_a_covered_face_is_not_drawn():
    """Red block in front of a blue one that it hides wholly, whatever their order."""
    red, blue = prism(shapely.box(0, -10, 20, 0), 0, 60), prism(shapely.box(8, 5, 12, 8), 0, 5)
    for front in (0, 1):
        solids = [red, blue] if front == 0 else [blue, red]
        owner = np.repeat([0, 1], [len(one) for one in solids])
        colours = np.array([[1.0, 0, 0], [0, 0, 1.0]])[:: 1 if front == 0 else -1]
        image, depth, _ = render(np.concatenate(solids), owner, colours)
        assert (image[..., 2][image[..., 3] > 0] == 0).all()
        assert depth.max() == pytest.approx(look(red)[..., 2].max(), abs=0.2)


def test_the_picture_is_readable_in_size_and_has_the_colours_of_its_legend(store, scene_id, view, tmp_path):
    out = draw_scene(store, scene_id, tmp_path / "new" / "scene.png")
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert picture.shape == (900, 1600, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)}
    for source, colour in SOURCE_COLOURS.items():
        rgb = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
        assert (rgb in colours) == (source in view.source_counts)
    assert [path.name for path in out.parent.iterdir()] == ["scene.png"]


@pytest.mark.system
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
def test_the_page_opens_in_a_browser(store, scene_id, view, tmp_path):
    """No console error, no request that leaves the page, the scene drawn, the attribution in sight, nothing covered."""
    from playwright.sync_api import sync_playwright

    out = draw_scene(store, scene_id, tmp_path / "scene.html")
    assert out.stat().st_size < 8e6
    problems, requests = [], []
    software = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking", *software],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url[:80]))
        page.goto(out.as_uri())
        page.wait_for_selector("#scene canvas")
        legend = page.locator("#scene .legendtext").all_text_contents()
        shown = page.get_by_text("OpenStreetMap").is_visible()
        boxes = [page.locator(f"#scene .{name}").first.bounding_box() for name in ("modebar", "legend", "colorbar")]
        bottom = page.evaluate("document.querySelector('footer').getBoundingClientRect().bottom")
        title, picture = page.title(), page.screenshot()
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert title == view.title
    assert shown
    assert bottom <= 800
    # From the top: plotly's toolbar, the legend, the colour bar.
    for above, below in pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"]
    for source, count in view.source_counts.items():
        assert any(f": {count} ({100 * count / len(view.buildings):.0f} %)" in text for text in legend), source
    for status, count in view.status_counts.items():
        assert count == 0 or f"{status}: {count} user{'s' * (count > 1)}" in legend
    (tmp_path / "page.png").write_bytes(picture)
    colours = np.unique(np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 100


def test_the_model_loads_back(store, scene_id, view, table, tmp_path):
    out = draw_scene(store, scene_id, tmp_path / "scene.glb")
    scene = trimesh.load_scene(out)
    geometry = scene.geometry
    solids = {name: one for name, one in geometry.items() if name.startswith(("way/", "relation/"))}
    assert len(solids) == len(table)
    assert {name.split("#")[0] for name in solids} == set(table["osm_type"] + "/" + table["osm_id"].astype(str))
    for _, row in table.drop_duplicates(["osm_type", "osm_id"]).iterrows():
        solid = solids[f"{row['osm_type']}/{row['osm_id']}"]
        assert solid.is_watertight
        assert solid.metadata["height_m"] == row["height"]
        assert solid.metadata["height_source"] == row["height_source"]
        colour = SOURCE_COLOURS[row["height_source"]]
        rgb = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert solid.visual.material.baseColorFactor[:3].tolist() == rgb
    total = (shapely.area(table.geometry.to_numpy()) * (table["height"] - table["base"])).sum()
    assert sum(solid.volume for solid in solids.values()) == pytest.approx(total, rel=1e-4)
    users = [name for name in geometry if name.startswith("user/")]
    assert len(users) == len(view.users)
    assert sum(name.startswith("path/") for name in geometry) == len(view.paths)
    # glTF: y up, z south. The base station stands in the north, at its height.
    middle = scene.dump(concatenate=False)
    station = next(one for one in middle if one.metadata.get("name") == "base station")
    np.testing.assert_allclose(station.bounds.mean(0), [view.base[0], view.base[2], -view.base[1]], atol=1e-3)
    assert scene.bounds[0, 1] == pytest.approx(0, abs=1e-6)
    content = out.read_bytes()
    header = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert "OpenStreetMap" in header["asset"]["copyright"]
    names = {node.get("name") for node in header["nodes"]}
    assert set(solids) <= names
    assert "boresight" in names


# What cannot be drawn


@pytest.mark.parametrize(
    ("scene", "name", "words"),
    [
        ("toy-0001", "scene.jpg", r"suffix '\.jpg'; one of \.png, \.html, \.glb"),
        ("toy-0001", "scene", r"suffix ''"),
        ("toy-0099", "scene.png", "no scene 'toy-0099'; it has toy-0000"),
        ("toy-0003", "scene.png", "'toy-0003' is quarantined"),
    ],
)
def test_what_cannot_be_drawn_gets_one_line_and_no_file(toy_store, tmp_path, scene, name, words):
    with pytest.raises(InputError, match=words) as error:
        draw_scene(toy_store, scene, tmp_path / name)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["missing", "broken", "other"])
def test_a_store_without_the_buildings_gets_one_line(toy_store, tmp_path, damage):
    version = shutil.copytree((toy_store / "latest.zarr").resolve().parent, tmp_path / "v1")
    (table,) = version.glob("buildings/unit-00000.parquet")
    if damage == "missing":
        table.unlink()
    elif damage == "broken":
        table.write_bytes(b"no parquet")
    else:
        shutil.copy(version / "buildings" / "unit-00001.parquet", table)
    with pytest.raises(InputError, match=r"unit-00000\.parquet") as error:
        draw_scene(version, "toy-0001", tmp_path / "scene.png")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "scene.png").exists()


def test_a_failing_drawing_leaves_nothing_behind(toy_store, tmp_path, monkeypatch):
    def fail(view, out):
        out.write_bytes(b"half")
        raise RuntimeError

    monkeypatch.setattr("wavecity.dataset.preview.output.write_model", fail)
    (tmp_path / "scene.glb").write_bytes(b"the one before")
    with pytest.raises(RuntimeError):
        draw_scene(toy_store, "toy-0001", tmp_path / "scene.glb")
    assert [path.name for path in tmp_path.iterdir()] == ["scene.glb"]
    assert (tmp_path / "scene.glb").read_bytes() == b"the one before"


@pytest.mark.parametrize("suffix", ["png", "html", "glb"])
def test_scenes_without_outage_paths_or_reflections_can_be_drawn_too(toy_store, tmp_path, suffix, monkeypatch):
    """The toy's users see the base station, but for one; then without the stored paths, and all in outage."""
    view = load_view(toy_store, "toy-0001")
    assert isinstance(view.buildings.geometry[0], MultiPolygon)
    assert draw_scene(toy_store, "toy-0001", tmp_path / f"a.{suffix}").stat().st_size > 1000
    from dataclasses import replace

    silent = replace(view, paths=[], n_paths=None, status=np.full(len(view.users), 2), gain=view.gain * 0 - 200)
    monkeypatch.setattr("wavecity.dataset.preview.output.load_view", lambda *_, **__: silent)
    assert draw_scene(toy_store, "toy-0001", tmp_path / f"b.{suffix}").stat().st_size > 1000
    assert "keeps no paths" in silent.path_note
