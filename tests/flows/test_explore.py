"""`wavecity explore`: the index of a store, the files of a site, the local server, and what is refused."""

import hashlib
import json
import os
import re
import shutil
import signal
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from command import PROGRAM, wavecity
from numpy.typing import NDArray
from processes import process, tail, wait_until

from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.flows.explore.index import index_bytes, make_index
from wavecity.flows.explore.predictions import Arrays
from wavecity.flows.explore.server import range_of, serving
from wavecity.flows.explore.site import Site, make_site, page_files
from wavecity.geo.errors import InputError


@pytest.fixture(scope="module")
def site(toy_store: Path) -> Site:
    return make_site(toy_store)


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers of an answer."""
    request = urllib.request.Request(address + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


# The index


def test_the_index_has_what_xarray_computes_of_every_scene(toy_store: Path) -> None:
    index = make_index(toy_store)
    path = str(toy_store / "latest.zarr")
    data, paths = xr.open_zarr(path).load(), xr.open_zarr(path, group="paths").load()
    scenes = index["scenes"]
    assert scenes["id"] == data.scene_id.values.tolist()
    assert [index["splits"][number] for number in scenes["split"]] == data.split.values.tolist()
    for row, number in enumerate(data.n_users.values.tolist()):
        one = data.isel(scene=row, user=slice(number))
        if not number:
            assert [scenes[name][row] for name in ("los", "outage", "gain", "paths")] == [None] * 4
            continue
        assert scenes["los"][row] == pytest.approx(float(one.los.mean()), abs=1e-3)
        assert scenes["outage"][row] == pytest.approx(float(one.outage.mean()), abs=1e-3)
        heard = one.path_gain.where(~one.outage)
        for name, share in (("gain_low", 0.1), ("gain", 0.5), ("gain_high", 0.9)):
            assert scenes[name][row] == pytest.approx(float(heard.quantile(share)), abs=0.06)
        found = paths.n_paths.isel(scene=row, user=slice(number)).where(~one.outage)
        assert scenes["paths"][row] == float(found.median())


def test_quarantined_scenes_have_their_reason(site: Site) -> None:
    scenes = site.index["scenes"]
    assert [index for index, status in enumerate(scenes["status"]) if status != "done"] == [3]
    assert (scenes["stage"][3], site.index["reasons"][scenes["reason"][3]]) == ("scene", "SceneError: toy")


def test_the_index_is_read_by_parts_where_it_would_not_fit(toy_store: Path, site: Site) -> None:
    with mock.patch("wavecity.flows.explore.index.BLOCK", 1):
        assert make_index(toy_store)["scenes"] == site.index["scenes"]


def test_shards_of_fill_values_are_named_and_lost_ones_are_damaged(toy_store: Path, tmp_path: Path) -> None:
    """Zarr reads both as fill values; only the manifest knows which is which."""
    store = tmp_path / "store"
    shutil.copytree(toy_store, store, symlinks=True)
    folder = resolve(store).parent
    absent = make_index(store)["absent"]
    for name in ("paths/doppler", "csi"):
        there = {int(shard.name) for shard in (folder / "data.zarr" / name / "c").glob("*")}
        assert absent.get(name, []) == sorted({0, 1, 2} - there)
    assert absent["paths/doppler"] == [0, 1, 2]
    shutil.rmtree(folder / "data.zarr/path_gain/c/1")
    (shard,) = (folder / "data.zarr/los/c/2").rglob("*")
    shard.write_bytes(shard.read_bytes()[:-1])
    index = make_index(store)
    assert set(index["damaged"]) == {"data.zarr/path_gain/c/1/0", "data.zarr/los/c/2/0"}
    assert "path_gain" not in index["absent"]
    scenes = index["scenes"]
    assert [value is None for value in scenes["gain"]] == [False, False, True, True, False, False]
    assert [value is None for value in scenes["los"]] == [False, False, False, True, True, True]


def test_a_shard_that_cannot_be_decoded_takes_its_unit_from_the_index_alone(toy_store: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(toy_store, store, symlinks=True)
    shard = resolve(store) / "path_gain/c/2/0"
    shard.write_bytes(bytes(shard.stat().st_size))
    assert [value is None for value in make_index(store)["scenes"]["gain"]] == [False, False, False, True, True, True]


def test_the_index_is_json_without_names_of_files_of_this_machine(site: Site, helsinki_store: Path) -> None:
    text = index_bytes(make_index(helsinki_store)).decode()
    index = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert set(index["attributes"]["recipe"]) == {"name", "radio", "scene", "solver"}
    assert "osm.pbf" not in text
    assert sum(counts[0] for counts in index["scenes"]["heights"].values()) > 10


# The server


def test_ranges_are_those_of_the_file(site: Site) -> None:
    name = "data.zarr/csi/c/0/0/0/0"
    content = (site.folder / name).read_bytes()
    with serving(site) as address:
        assert ask(address, f"data/{name}")[:2] == (200, content)
        for asked, part in (("2-9", content[2:10]), ("-16", content[-16:]), (f"{len(content) - 3}-", content[-3:])):
            status, body, headers = ask(address, f"data/{name}", Range=f"bytes={asked}")
            assert (status, body) == (206, part)
            start = content.index(part)
            assert headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        status, _, headers = ask(address, f"data/{name}", Range=f"bytes={len(content)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(content)}")


@pytest.mark.parametrize(("asked", "part"), [("bytes=0-0", (0, 1)), ("bytes=5-99", (5, 10)), ("bytes=-99", (0, 10))])
def test_ranges_end_with_the_file(asked: str, part: tuple[int, int]) -> None:
    assert range_of(asked, 10) == part


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=-0", "bytes=-", "bytes=1-2,4-5", "items=0-1", "bytes=3-2"])
def test_ranges_without_bytes_are_none(asked: str) -> None:
    assert range_of(asked, 10) is None


def test_the_server_has_the_page_and_the_version_and_nothing_else(site: Site) -> None:
    with serving(site) as address:
        assert ask(address, "")[1] == page_files()["index.html"]
        assert json.loads(ask(address, "explore.json")[1]) == site.index
        assert ask(address, "app.js")[2]["Content-Type"].startswith("text/javascript")
        for path in ("data/../../../latest.zarr/zarr.json", "data/%2e%2e/%2e%2e/pointer", "data/data.zarr", "nothing"):
            assert ask(address, path)[0] == 404
        # A page of another host that resolves to this address.
        connection = HTTPConnection(address.removeprefix("http://").rstrip("/"))
        connection.request("GET", "/explore.json", headers={"Host": "example.org"})
        assert connection.getresponse().status == 403
        connection.close()


def test_a_taken_port_is_refused(site: Site) -> None:
    with serving(site) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match=f"--port {port}: cannot be used"), serving(site, port):
            pass


# Static files


def test_a_site_points_at_the_data_next_to_it_and_is_replaced(toy_store: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store, tmp_path / "public/store", symlinks=True)
    for _ in range(2):
        ran = wavecity("explore", "public/store", "--out", "public/site", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "public/site"
    index = json.loads((folder / "explore.json").read_text())
    assert (folder / index["data"] / "data.zarr/zarr.json").is_file()
    assert index["store"] == "store"
    assert {path.name for path in folder.iterdir()} == {*page_files(), "explore.json"}
    ran = wavecity("explore", "public/store", "--out", "public/site", "--data", "https://x.org/v1", cwd=tmp_path)
    assert json.loads((folder / "explore.json").read_text())["data"] == "https://x.org/v1/"
    assert "https://x.org/v1/" in ran.stdout


@pytest.mark.parametrize(
    ("place", "make", "said"),
    [
        ("full", lambda path: (path.mkdir(), (path / "notes.txt").touch()), "holds notes.txt, not an earlier site"),
        ("file", lambda path: path.touch(), "is a file; name a folder"),
        ("store/versions/v1/site", lambda path: None, "lies in a published version"),
    ],
)
def test_places_where_no_site_may_be_written(
    toy_store: Path, tmp_path: Path, place: str, make: Callable[[Path], object], said: str
) -> None:
    shutil.copytree(toy_store, tmp_path / "store", symlinks=True)
    make(tmp_path / place)
    before = sorted(tmp_path.rglob("*"))
    ran = wavecity("explore", tmp_path / "store", "--out", tmp_path / place)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path, toy_store: Path) -> None:
    shutil.copytree(resolve(toy_store), tmp_path / "copied.zarr")
    for store, said in ((tmp_path, "not a Wavecity store"), (tmp_path / "copied.zarr", "no readable draft.json")):
        ran = wavecity("explore", store, "--no-browser")
        assert ran.returncode == 2
        assert said in ran.stderr.splitlines()[-1]
    ran = wavecity("explore", toy_store, "--data", "https://x.org")
    assert (ran.returncode, "only with --out" in ran.stderr) == (2, True)


def test_the_page_is_small_and_names_its_licences() -> None:
    assert sum(len(zlib.compress(content)) for content in page_files().values()) < 3e6
    licences = page_files()["LICENCES.txt"].decode()
    for name in ("three", "zarrita", "hyparquet", "preact", "@observablehq/plot", "numcodecs", "Natural Earth"):
        assert name in licences


def test_the_bundle_is_made_of_the_sources() -> None:
    """`npm run build` in flows/explore/page writes their sum into the page."""
    folder = Path(__file__).resolve().parents[2] / "flows/explore/page"
    names = [path.relative_to(folder).as_posix() for path in (folder / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name in sorted([*names, "package-lock.json"]):
        digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    assert f'content="{digest.hexdigest()}"' in page_files()["index.html"].decode()


def test_cities_are_in_the_middle_of_their_scenes(site: Site) -> None:
    assert site.index["cities"] == [{"name": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0}]
    assert np.unique(site.index["scenes"]["city"]).tolist() == [0]


# Predictions of a run


def write_run(folder: Path, store: Path, rows: list[int], shift: float = 0.0) -> NDArray[np.floating]:
    """A run with predictions that are 3 m east and 4 m north of the truth; returns the places of its users."""
    data = open_store(store)
    row = np.concatenate([np.full(int(data.n_users[row]), row) for row in rows])
    users = np.concatenate([np.arange(int(data.n_users[row])) for row in rows])
    true = data.user_position.values[row, users, :2] + np.float32(shift)
    shown = np.array([1, len(row) - 2])
    occupancy = np.full((2, 20, 20), np.nan, np.float32)
    occupancy[:, :4] = 0.25
    spectrum = np.ones((2, 32, 32), np.float32)
    spectrum[:, 3, 5] = 100
    (folder / "results").mkdir(parents=True)
    (folder / "pretrain.json").write_text("{}")
    np.savez(
        folder / "results/reconstruction.npz",
        location_true=true, location_model=true + np.float32([3, 4]), location_scene=row, spectrum_masked=0.94,
        spectrum_scene=row[shown], spectrum_position=true[shown], spectrum_model=spectrum, occupancy_model=occupancy,
    )  # fmt: skip
    return users[shown]


def test_predictions_are_those_of_the_runs_users(toy_store: Path, tmp_path: Path) -> None:
    shown = write_run(tmp_path / "run", toy_store, [4, 5])
    site = make_site(toy_store, tmp_path / "run")
    assert site.index["run"] == {"name": "run", "scenes": [4, 5], "rays": False}
    told = json.loads(site.files()["run.json"])
    positions = open_store(toy_store).user_position.values
    for row in (4, 5):
        own = told["scenes"][str(row)]
        numbers = own["users"]["number"]
        assert numbers == list(range(int(open_store(toy_store).n_users[row])))
        np.testing.assert_allclose(own["users"]["place"], positions[row, numbers, :2] + [3, 4], atol=0.006)
    assert [told["scenes"][row]["shown"][0]["user"] for row in ("4", "5")] == shown.tolist()
    kept = told["scenes"]["4"]["shown"][0]
    assert np.array(kept["spectrum"]).argmax() == 3 * 32 + 5
    assert (kept["occupancy"][0][0], kept["occupancy"][19][0]) == (0.25, None)


def write_rays_run(folder: Path, store: Path, row: int) -> Arrays:
    """A run of a path model with two waves of every user in a scene that has a path: one lands 1 m east of the user by
    way of a wall, one leads nowhere. Returns what the evaluation left.
    """
    data = open_store(store).isel(scene=row).load()
    users = np.flatnonzero(~data.outage.values[: int(data.n_users)])
    true = data.user_position.values[users]
    corners = np.full((len(users), 3, 7, 3), np.nan, np.float32)
    corners[:, :2, 0] = 0
    corners[:, 0, 1] = true + np.float32([0, 60, 20]) / 2
    corners[:, 0, 2] = true + np.float32([1, 0, 0])
    corners[:, 1, 1] = [15, 0, 3]
    gain = np.float32([-100, -112.25, np.nan]) + np.zeros((len(users), 1), np.float32)
    arrays: Arrays = {
        "location_scene": np.full(len(users), row), "location_true": true[:, :2],
        "location_model": true[:, :2] + np.float32([3, 4]),
        "location_physics": true[:, :2] + np.float32([6, 8]), "kind": np.zeros(len(users), np.int64),
        "ray_corners": corners, "ray_gain": gain, "ray_lands": np.array([True, False, False]) & np.isfinite(gain),
        "spectrum_scene": np.array([row]), "spectrum_position": true[:1, :2], "spectrum_masked": np.array(0.75),
        "spectrum_model": np.ones((1, 32, 32), np.float32), "occupancy_model": np.full((1, 20, 20), 0.5, np.float32),
    }  # fmt: skip
    (folder / "results").mkdir(parents=True)
    (folder / "pretrain.json").write_text('{"settings": {"backbone": "rays"}}')
    # As `wavecity evaluate --set` names it; another evaluation was of other data.
    np.savez(folder / "results/zero-shot-0123abcd.npz", **arrays)  # type: ignore[arg-type]
    np.savez(folder / "results/zero-shot.npz", **{**arrays, "location_true": true[:, :2] + 1})  # type: ignore[arg-type]
    return arrays


def test_waves_that_a_model_followed_are_those_of_its_evaluation(toy_store: Path, tmp_path: Path) -> None:
    arrays = write_rays_run(tmp_path / "run", toy_store, 4)
    site = make_site(toy_store, tmp_path / "run")
    assert site.index["run"] == {"name": "run", "scenes": [4], "rays": True}
    told = json.loads(site.files()["run.json"])
    assert told["masked"] == 0.75
    scene = told["scenes"]["4"]
    # The last user is in outage.
    assert scene["users"]["number"] == list(range(int(open_store(toy_store).n_users[4]) - 1))
    np.testing.assert_allclose(scene["physics"], arrays["location_physics"], atol=0.006)
    assert list(scene["rays"]) == [str(user) for user in scene["users"]["number"]]
    first, second = scene["rays"]["2"]
    assert (first["gain"], first["lands"], second["gain"], second["lands"]) == (-100, True, -112.2, False)
    np.testing.assert_allclose(first["points"], arrays["ray_corners"][2, 0, :3], atol=0.006)
    assert second["points"] == [[0, 0, 0], [15, 0, 3]]


def test_a_temporal_run_is_refused(toy_store: Path, tmp_path: Path) -> None:
    (tmp_path / "pretrain.json").write_text('{"settings": {"backbone": "temporal"}}')
    with pytest.raises(InputError, match="a temporal model"):
        make_site(toy_store, tmp_path)


def test_runs_of_other_data_or_without_predictions_are_refused(toy_store: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "other", toy_store, [4], shift=1.0)
    write_run(tmp_path / "empty", toy_store, [4])
    (tmp_path / "empty/results/reconstruction.npz").unlink()
    for run, said in (
        ("other", "of other users"),
        ("empty", "no such file, so no predictions"),
        ("none", "no pretrain"),
    ):
        ran = wavecity("explore", toy_store, "--run", tmp_path / run, "--no-browser")
        assert ran.returncode == 2
        assert said in ran.stderr.splitlines()[-1]


def test_a_site_without_a_run_replaces_one_with_it(toy_store: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", toy_store, [4])
    wavecity("explore", toy_store, "--out", tmp_path / "site", "--run", tmp_path / "run")
    assert (tmp_path / "site/run.json").is_file()
    (tmp_path / "site/chunk-ABCDEFGH.js").touch()
    (tmp_path / "site/notes.txt").touch()
    wavecity("explore", toy_store, "--out", tmp_path / "site")
    found = {path.name for path in (tmp_path / "site").iterdir()}
    assert found == {*page_files(), "explore.json", "notes.txt"}


@pytest.mark.parametrize("theme", [r":root \{", r":root\[data-theme=\"dark\"\] \{"])
def test_texts_stand_out_by_wcag_aa(theme: str) -> None:
    """4.5 : 1 for letters on every ground that they stand on; 3 : 1 for what is drawn."""
    css = Path(__file__).resolve().parents[2] / "flows/explore/page/src/page.css"
    block = re.search(theme + r"(.*?)\}", css.read_text(), re.DOTALL)
    assert block
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[1]))

    def luminance(name: str) -> float:
        parts = np.array([int(colours[name][at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(name: str, ground: str) -> float:
        low, high = sorted([luminance(name), luminance(ground)])
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "tint"):
        for name in ("ink", "soft", "link"):
            assert contrast(name, ground) >= 4.5, (name, ground)
        for name in ("accent", "mark"):
            assert contrast(name, ground) >= 3, (name, ground)
    for ground in ("problem", "sea", "ground"):
        assert contrast("ink", ground) >= 4.5, ground


@pytest.mark.system
def test_the_command_serves_until_it_is_interrupted(toy_store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with process([PROGRAM, "explore", toy_store, "--no-browser"], log, os.environ) as started:
        found = wait_until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", log.read_text()), 60, lambda: tail(log))
        assert ask(found[0], "explore.json")[0] == 200
        # As "Copy code" reads data on a web server, which lists no files.
        users = ChannelDataset(f"{found[0]}data/", split="test")
        csi = open_store(toy_store).csi.values[users.scene_index[3], users.user_index[3]]
        np.testing.assert_array_equal(users[3]["csi"], csi)
        np.testing.assert_array_equal(open_store(f"{found[0]}data/").scene_id, open_store(toy_store).scene_id)
        started.send_signal(signal.SIGINT)
        assert started.wait(60) == 0
    assert "ended" in log.read_text()
