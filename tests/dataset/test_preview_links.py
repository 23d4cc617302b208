"""Previews of scenes with several base stations, and with crowns of trees."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from base_station_store import CROWN_LOSS, STATIONS, build_links_store
from command import wavecity
from PIL import Image

from wavecity.dataset import InputError
from wavecity.dataset.preview.output import draw_scene
from wavecity.dataset.preview.page import write_model
from wavecity.dataset.preview.scene import load_view
from wavecity.dataset.preview.solids import crown_area, crown_surface
from wavecity.dataset.reader import open_store


@pytest.fixture(scope="module")
def store(shared) -> Path:
    return shared("preview-links", lambda folder: build_links_store(folder / "store", crowns=True)) / "store"


def facing(azimuth: float) -> list[float]:
    return [np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth)), 0.0]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_links_of_a_base_station_are_drawn_and_the_others_stand_where_they_are(store: Path, number: int) -> None:
    view = load_view(store, "toy-0002", bs=number)
    data = open_store(store, bs=number).isel(scene=2).load()
    users = int(data.n_users)
    place, azimuth = STATIONS[number]
    np.testing.assert_allclose(view.base, place)
    np.testing.assert_allclose(view.boresight, facing(azimuth), atol=1e-6)
    assert [one for one, _, _ in view.others] == [one for one in range(3) if one != number]
    for other, position, boresight in view.others:
        np.testing.assert_allclose(position, STATIONS[other][0])
        np.testing.assert_allclose(boresight, facing(STATIONS[other][1]), atol=1e-6)
    np.testing.assert_allclose(view.users, load_view(store, "toy-0002").users, atol=1e-4)
    np.testing.assert_array_equal(view.gain, data.path_gain.values[:users].astype(float))
    np.testing.assert_array_equal(view.serving, data.serving.values[:users])
    assert f"base station {number}, which serves {int((view.serving == number).sum())}" in view.subtitle
    assert all(path.whole for path in view.paths)
    assert {path.loss for path in view.paths} == {0.0, CROWN_LOSS}
    through = sum(path.user % 2 == 0 for path in view.paths)
    assert f"; {through} go through crowns, which take up to 6.0 dB" in view.path_note


def test_crowns_are_solids(store: Path) -> None:
    view = load_view(store, "toy-0002")
    assert view.crowns_text == "crowns: 3 trees, 1 woods"
    tree, wood = view.crowns[1], view.crowns[-1]
    assert crown_area(wood).area == pytest.approx(40 * 40 - 20 * 20)
    assert crown_area(tree).area == pytest.approx(np.pi * 6**2, rel=0.02)
    for crown, volume in ((tree, np.pi * 36 * 10), (wood, 1200 * 12)):
        solid = trimesh.Trimesh(**trimesh.triangles.to_kwargs(crown_surface(crown)))
        assert solid.is_watertight
        assert solid.volume == pytest.approx(volume, rel=0.02)
    assert load_view(store, "toy-0002").crowns[0].top == 10


def test_the_model_has_a_node_for_each(store: Path, tmp_path: Path) -> None:
    write_model(load_view(store, "toy-0002", bs=1), tmp_path / "scene.glb")
    scene = trimesh.load(tmp_path / "scene.glb")
    names = set(scene.geometry)
    assert {f"base station {k}" for k in range(3)} | {f"boresight {k}" for k in range(3)} <= names
    assert {"tree/0", "tree/1", "tree/2", "wood/3"} <= names
    # glTF: y is up, z is south.
    np.testing.assert_allclose(scene.geometry["base station 1"].centroid + 0, STATIONS[1][0], atol=1e-4)
    losses = {name: one.metadata.get("crowns_db") for name, one in scene.geometry.items() if name.startswith("path/")}
    assert {int(name[5:]) % 2 == 0 for name, loss in losses.items() if loss} == {True}


def test_pictures_and_pages_have_them(store: Path, tmp_path: Path) -> None:
    done = wavecity("preview", store, "--scene", "toy-0002", "--bs", "1", "--out", tmp_path / "one.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    data = page[page.index("Plotly.newPlot") :]
    for text in ("base station 1, and where it faces", "other base stations", "crowns: 3 trees, 1 woods"):
        assert json.dumps(text)[1:-1] in data
    serving = open_store(store, bs=1).isel(scene=2).serving.values
    for number in range(3):
        # Said of each user under the pointer.
        assert data.count(f"served by base station {number}") == int((serving == number).sum())
    draw_scene(store, "toy-0002", tmp_path / "one.png", bs=1)
    draw_scene(store, "toy-0002", tmp_path / "first.png")
    one, first = (
        np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("one.png", "first.png")
    )
    assert one.shape == (900, 1600, 3)
    assert (np.abs(one - first).max(-1) > 30).sum() > 1000
    # Crowns are green, and nothing else is.
    green = (one[..., 1] > one[..., 0] + 20) & (one[..., 1] > one[..., 2] + 20)
    assert green.sum() > 3000


def test_base_stations_that_are_not_there_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no base station 3; give bs 0 to 2"):
        load_view(store, "toy-0002", bs=3)
    with pytest.raises(InputError, match=r"--bs 2: found no place in scene 'toy-0001'; it has 0, 1"):
        load_view(store, "toy-0001", bs=2)
