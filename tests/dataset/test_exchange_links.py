"""Stores with several base stations in other tools' formats, and DeepMIMO scenarios with several transmitters as one store."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from command import wavecity
from exchange_store import RADIO, SCENES, build_paths_store, link_values, scene_values, stations_of
from scenarios import CARRIER, TX, plane_waves, write_scenario

from wavecity.dataset import InputError
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.exchange.deepmimo_paths import csi_of
from wavecity.dataset.exchange.deepmimo_v4 import scenario_csi
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.exchange.scenarios import import_scenarios
from wavecity.dataset.exchange.selection import Selection
from wavecity.dataset.reader import open_store

DONE = (0, 1, 2, 4)


@pytest.fixture(scope="session")
def links_store(shared) -> Path:
    return shared("exchange-links", lambda folder: build_paths_store(folder / "store", several=True)) / "store"


@pytest.fixture(scope="session")
def v4(shared, links_store) -> Path:
    return shared("links-v4", lambda folder: export_dataset(str(links_store), "deepmimo", folder / "out")) / "out"


def nmse(found, right) -> float:
    """Normalised squared error in dB."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10((np.abs(found - right) ** 2).sum() / (np.abs(right) ** 2).sum()))


def values_of(row: int, number: int) -> dict:
    return link_values(row, number) if number else scene_values(row, 5 + row)


def plane_sum(row: int, number: int, columns: int = 8, rows: int = 4, spacing: float = 0.5) -> np.ndarray:
    """The channel of a link as the sum over paths of plane waves at every antenna of the panel at its base station."""
    values, (_, azimuth) = values_of(row, number), stations_of(row)[number]
    zenith, turn = (values[f"paths/aod_{name}"].astype(float) for name in ("zenith", "azimuth"))
    wave = np.stack([np.sin(zenith) * np.cos(turn), np.sin(zenith) * np.sin(turn), np.cos(zenith)], -1)
    a, b = np.deg2rad([azimuth, RADIO.downtilt])
    along = np.array([-np.sin(a), np.cos(a), 0])
    down = np.array([-np.cos(a) * np.sin(b), -np.sin(a) * np.sin(b), -np.cos(b)])
    x = (np.arange(columns) - (columns - 1) / 2) * spacing
    y = (np.arange(rows) - (rows - 1) / 2) * spacing
    place = x[:, None, None] * along + y[:, None] * down
    turns = np.exp(2j * np.pi * np.einsum("upc,xyc->upxy", wave, place))
    return np.einsum("up,upxy->uxy", values["paths/gain"].astype(complex), turns)


def deepmimo_of(folder: Path, name: str, **options):
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    dm.config.set("scenarios_folder", str(folder))
    return dm.load(name, max_paths=32, **options)


def test_deepmimo_v4_has_a_transmitter_for_each_base_station_with_the_channels_of_its_links(v4):
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    scenario = deepmimo_of(v4, "gdynia-0001")
    assert len(scenario) == 3
    for number in range(3):
        link, (position, azimuth) = scenario[number], stations_of(2)[number]
        array = {"shape": [8, 4], "spacing": 0.5, "rotation": [0, 9.0, azimuth]}
        channel = link.compute_channels(dm.ChannelParameters(num_paths=32, bs_antenna=array))
        csi = csi_of(channel, 8, 4, 512)[:, 0]
        assert nmse(csi, plane_sum(2, number)) < -90
        assert nmse(csi, values_of(2, number)["csi"]) < -90
        np.testing.assert_allclose(np.reshape(link.tx_pos, 3), position, atol=1e-5)
        np.testing.assert_allclose(link.rx_pos, scenario[0].rx_pos, atol=1e-4)
        there = values_of(2, number)["paths/gain"] != 0
        np.testing.assert_array_equal(link.num_paths, there.sum(1))
        other = scenario_csi(link, 16, 3, 0.7)
        assert nmse(other, plane_sum(2, number, 16, 3, 0.7)) < -90
    with pytest.raises(InputError, match=r"the scenario has 3 links; give one of them, e\.g\. scenario\[0\]"):
        scenario_csi(scenario)


def test_deepmimo_v4_leaves_out_a_base_station_without_a_place_and_loads_those_that_are_asked_for(
    v4, links_store, tmp_path
):
    assert len(deepmimo_of(v4, "alba-0002")) == 2
    last = deepmimo_of(v4, "gdynia-0001", tx_sets={0: [2]})
    assert nmse(scenario_csi(last), plane_sum(2, 2)) < -90
    export_dataset(str(links_store), "deepmimo", tmp_path / "out", scenes=["gdynia-0001", "alba-0002"], bs=[2, 1])
    chosen, alone = deepmimo_of(tmp_path / "out", "gdynia-0001"), deepmimo_of(tmp_path / "out", "alba-0002")
    assert [nmse(scenario_csi(chosen[k]), plane_sum(2, k + 1)) < -90 for k in range(2)] == [True, True]
    assert nmse(scenario_csi(alone), plane_sum(1, 1)) < -90
    said = json.loads((tmp_path / "out" / "alba-0002" / "params.json").read_text())["rt_params"]["raw_params"][
        "wavecity"
    ]
    assert said["base_stations"]["transmitters"] == [
        {"number": 1, "position_m": [98.0, 98.0, 21.0], "azimuth_deg": -135.0}
    ]


def test_deepmimo_v3_has_a_file_for_each_base_station_with_the_channels_of_its_links(links_store, tmp_path):
    """As the page of the export says: an array for each, turned to where its panel faces."""
    v3 = pytest.importorskip("DeepMIMOv3", reason="needs the dependency group deepmimo")
    export_dataset(str(links_store), "deepmimo-v3", tmp_path, scenes=["gdynia-0001", "alba-0002"])
    assert len(list((tmp_path / "alba-0002").glob("BS*.mat"))) == 2
    settings = v3.default_params() | {"dataset_folder": str(tmp_path), "scenario": "gd-ynia-0001", "num_paths": 20}
    settings |= {"user_rows": np.arange(1), "enable_BS2BS": False, "active_BS": np.arange(1, 4)}
    settings["ue_antenna"]["shape"] = np.array([1, 1])
    turned = [np.array([0, 9.0, azimuth]) for _, azimuth in stations_of(2)]
    panel = {**settings["bs_antenna"], "shape": np.array([8, 4])}
    settings["bs_antenna"] = [{**panel, "rotation": rotation} for rotation in turned]
    for number, link in enumerate(v3.generate_data(settings)):
        assert nmse(csi_of(link["user"]["channel"], 8, 4, 512)[:, 0], plane_sum(2, number)) < -90
        np.testing.assert_allclose(link["location"], stations_of(2)[number][0])
        users = values_of(2, number)["user_position"] + stations_of(2)[number][0]
        np.testing.assert_allclose(link["user"]["location"], users, atol=1e-4)
    page = (tmp_path / "README.md").read_text()
    assert "rotations = [[0.0, 9.0, -70.0], [0.0, 9.0, -135.0]]" in page  # of alba-0002, the first


def names_of(number: int, name: str) -> str:
    return f"bs/{number}/{name}" if number else name


@lru_cache(64)
def values_in(store: Path, number: int, name: str) -> np.ndarray:
    group, last = name.split("/") if "/" in name else (None, name)
    return open_store(store, group, bs=number)[last].values


def in_store(store: Path, row: int, number: int, name: str) -> np.ndarray:
    return values_in(store, number, name)[row, : 5 + row]


def test_hdf5_has_every_link_under_its_name_in_the_store(links_store, tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs wavecity[exchange]")
    export_dataset(str(links_store), "hdf5", tmp_path / "out")
    export_dataset(str(links_store), "hdf5", tmp_path / "some", bs=[2], fields=["csi", "height", "paths/gain"])
    with h5py.File(tmp_path / "out" / "data.h5") as file, h5py.File(tmp_path / "some" / "data.h5") as some:
        for place, row in enumerate(DONE):
            for number, station in enumerate(stations_of(row)):
                found = file["bs/position"][place, number]
                np.testing.assert_array_equal(found, np.full(3, np.nan) if station is None else station[0])
                for name in ("csi", "user_position", "paths/gain", "outage"):
                    values = file[names_of(number, name)][place, : 5 + row]
                    np.testing.assert_array_equal(values, in_store(links_store, row, number, name))
            np.testing.assert_array_equal(some["bs/2/csi"][place], file["bs/2/csi"][place])
            serving = open_store(links_store, "bs").serving.values[row, : 5 + row]
            np.testing.assert_array_equal(file["bs/serving"][place, : 5 + row], serving)
        assert sorted(some["bs/2"]) == ["csi", "paths"]
        assert not {"csi", "paths"} & set(some)
        assert some["height"].shape == (4, 200, 200)
        assert [dim.label for dim in file["bs/1/csi"].dims] == ["scene", "user", "x", "y"]
        assert json.loads(file.attrs["base_stations"])["transmit_power_dbm"] == 24.0


def test_a_matlab_file_has_every_link_of_a_scene(links_store, tmp_path):
    scipy_io = pytest.importorskip("scipy.io", reason="needs wavecity[exchange]")
    export_dataset(str(links_store), "mat", tmp_path, scenes=["gdynia-0001"])
    scene = scipy_io.loadmat(tmp_path / "gdynia-0001.mat", simplify_cells=True)
    for number in (1, 2):
        link = scene["bs"][f"bs{number}"]
        np.testing.assert_array_equal(link["csi"], values_of(2, number)["csi"])
        np.testing.assert_array_equal(link["paths"]["gain"], values_of(2, number)["paths/gain"])
    np.testing.assert_array_equal(scene["csi"], values_of(2, 0)["csi"])
    np.testing.assert_allclose(scene["bs"]["azimuth"], [-70.0, -135.0, 123.0])
    assert json.loads(scene["base_station_settings"])["count"] == 3


def test_webdataset_has_a_sample_for_each_link(links_store, tmp_path):
    wds = pytest.importorskip("webdataset", reason="needs wavecity[test]")
    export_dataset(str(links_store), "webdataset", tmp_path / "out")
    found = list(wds.WebDataset(str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False).decode())
    # Base station 2 has no place in the second scene.
    links = [("alba-0001", number, user) for number in range(3) for user in range(5)]
    links += [("alba-0002", number, user) for number in range(2) for user in range(6)]
    assert [(one["json"]["scene_id"], one["json"]["bs"], one["json"]["user"]) for one in found] == links
    for one in found:
        row, number, user = (
            SCENES.index((one["json"]["scene_id"], "Alba", "train")),
            one["json"]["bs"],
            one["json"]["user"],
        )
        values = values_of(row, number)
        np.testing.assert_array_equal(one["csi.npy"], values["csi"][user])
        position, azimuth = stations_of(row)[number]
        np.testing.assert_allclose(one["user_position.npy"] + position, values["user_position"][user] + position)
        np.testing.assert_allclose(one["json"]["bs_position_m"], position)
        assert one["json"]["bs_azimuth_deg"] == azimuth
        assert one["json"]["path_gain"] == pytest.approx(float(values["path_gain"][user]))
        gains = [values_of(row, k)["path_gain"][user] for k, station in enumerate(stations_of(row)) if station]
        heard = max(gains) > -200
        assert one["json"]["bs/serving"] == (int(np.argmax(gains)) if heard else -1)
    export_dataset(str(links_store), "webdataset", tmp_path / "one", bs=[1], splits=["test"], fields=["csi", "height"])
    (test,) = (tmp_path / "one").glob("*.tar")
    alone = list(wds.WebDataset(str(test), shardshuffle=False).decode())
    assert [one["__key__"] for one in alone] == [f"Zug-0001-{user:05d}-bs1" for user in range(9)]
    np.testing.assert_array_equal(alone[3]["csi.npy"], values_of(4, 1)["csi"][3])


@pytest.mark.parametrize("to", ["deepmimo", "deepmimo-v3", "webdataset"])
def test_an_export_reads_a_link_at_a_time(links_store, tmp_path, monkeypatch, to):
    read, seen = Selection.read, []

    def watched(selection, scene, number=None):
        values = read(selection, scene, number)
        seen.append((scene.id, number, {name for name in values if name.startswith("bs/")} - {"bs/serving"}))
        return values

    monkeypatch.setattr(Selection, "read", watched)
    export_dataset(str(links_store), to, tmp_path / "out", scenes=["alba-0001", "alba-0002"], bs=[0, 2])
    assert seen == [("alba-0001", 0, set()), ("alba-0001", 2, set()), ("alba-0002", 0, set())]


REFUSED = {
    "number": (["--bs", "3"], "--bs 3: {store} has base stations 0 to 2"),
    "word": (["--bs", "1,two"], "--bs two: expected numbers from 0 on, separated by commas"),
    "negative": (["--bs", "-1"], "--bs -1: expected numbers from 0 on"),
    "field": (["--fields", "bs/1/csi"], "no array 'bs/1/csi'; meant"),
    "missing": (
        ["--to", "deepmimo", "--bs", "2"],
        "--bs 2: scene 'alba-0002' has no base station 2; choose others with --scenes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_numbers_are_refused_in_one_line_and_nothing_is_written(links_store, tmp_path, name):
    options, words = REFUSED[name]
    done = wavecity("export-dataset", links_store, "--to", "mat", "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("wavecity: ")]
    assert words.format(store=links_store) in line
    assert not (tmp_path / "out").exists()


def test_a_store_with_one_base_station_has_number_0_alone(tmp_path):
    build_paths_store(tmp_path / "store")
    assert export_dataset(str(tmp_path / "store"), "mat", tmp_path / "out", bs=[0], scenes=["alba-0001"]).written == 1
    assert "base_stations" not in json.loads((tmp_path / "out" / "export.json").read_text())
    # The same export: nothing is written again.
    assert not export_dataset(str(tmp_path / "store"), "mat", tmp_path / "out", scenes=["alba-0001"]).written
    with pytest.raises(InputError, match=r"--bs 1: .* has one base station, 0"):
        export_dataset(str(tmp_path / "store"), "mat", tmp_path / "none", bs=[1])


def test_links_that_go_through_deepmimo_come_back(links_store, v4, tmp_path):
    version = import_scenarios([v4], str(tmp_path / "store"), {})
    assert validate(version.folder).ok
    back, before = (open_store(store, bs="all") for store in (tmp_path / "store", links_store))
    there = {str(name): row for row, name in enumerate(back.scene_id.values)}
    assert len(there) == len(DONE)
    for row in DONE:
        one, users = back.isel(scene=there[SCENES[row][0]]), 5 + row
        right = before.isel(scene=row)
        np.testing.assert_allclose(one.bs_position, right.bs_position, atol=1e-5)
        np.testing.assert_array_equal(one.bs_azimuth, right.bs_azimuth)
        np.testing.assert_array_equal(one.serving[:users], right.serving[:users])
        np.testing.assert_allclose(one.sinr[:users], right.sinr[:users], atol=1e-3)
        np.testing.assert_array_equal(one.height, right.height)
        assert float(one.bs_shift) == float(right.bs_shift)
        for number, station in enumerate(stations_of(row)):
            if station is None:
                assert one.outage[number].all()
                continue
            assert nmse(one.csi.values[number, :users], right.csi.values[number, :users]) < -120
            np.testing.assert_allclose(
                one.user_position[number, :users], right.user_position[number, :users], atol=3e-5
            )
            np.testing.assert_array_equal(one.best_beam[number, :users], right.best_beam[number, :users])
    assert back.attrs["bs_position_m"] == before.attrs["bs_position_m"]
    assert back.attrs["base_stations"] == before.attrs["base_stations"]


def write_three(folder: Path) -> tuple[list[dict], list[np.ndarray]]:
    """A scenario of another ray tracer with three transmitters, which serve the same users; two of them in one set."""
    places = [TX, TX + np.array([60.0, -30.0, 14.0]), TX + np.array([-40.0, -20.0, -5.0])]
    rng = np.random.default_rng(8)
    users = np.column_stack([rng.uniform(-20, 130, 12), rng.uniform(-30, 130, 12), np.full(12, 1.5)])
    truth = []
    for number, place in enumerate(places):
        part = folder.with_name(f"part{number}")
        truth.append(write_scenario(part, tx=place, users=12, rx=users))
        suffix = ("t000_tx000_r001", "t000_tx001_r001", "t002_tx000_r001")[number]
        folder.mkdir(exist_ok=True)
        for path in part.iterdir():
            path.rename(folder / path.name.replace("t000_tx000_r001", suffix))
    params = json.loads((folder / "params.json").read_text())
    params["txrx_sets"]["txrx_set_0"]["num_points"] = 2
    params["txrx_sets"]["txrx_set_2"] = {**params["txrx_sets"]["txrx_set_0"], "id": 2, "num_points": 1}
    (folder / "params.json").write_text(json.dumps(params))
    return truth, places


def test_transmitters_of_another_ray_tracer_are_base_stations_of_one_scene_when_asked_for(tmp_path):
    truth, places = write_three(tmp_path / "city")
    arrays = ["--columns", "4", "--rows", "3", "--azimuth", "-90", "--split", "test"]
    # Of different heights they are no scenes of one store.
    refused = wavecity("import-dataset", tmp_path / "city", "--out", tmp_path / "none", *arrays)
    assert refused.returncode == 2
    assert "(--links)" in refused.stderr
    done = wavecity("import-dataset", tmp_path / "city", "--out", tmp_path / "store", "--links", *arrays)
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "store", bs="all")
    assert dict(store.sizes)["bs"] == 3
    assert store.scene_id.values.tolist() == ["city"]
    one = store.isel(scene=0)
    for number, place in enumerate(places):
        assert nmse(one.csi.values[number], plane_waves(truth[number], 4, 3, -90.0)) < -80
        np.testing.assert_allclose(one.bs_position[number] - one.bs_position[0], place - places[0], atol=1e-4)
        np.testing.assert_allclose(one.user_position[number], truth[number]["position"], atol=1e-4)
    watts = np.array([np.sum(np.abs(each["gain"]) ** 2, axis=1) for each in truth])
    np.testing.assert_array_equal(one.serving[:-1], watts.argmax(0)[:-1])
    assert int(one.serving[-1]) == -1
    noise = 10 ** ((-174 + 80 + 7 - 30) / 10)  # 100 MHz, noise figure 7 dB, over 30 dBm
    ratio = watts.max(0) / (watts.sum(0) - watts.max(0) + noise)
    np.testing.assert_allclose(one.sinr[:-1], 10 * np.log10(ratio)[:-1], atol=1e-3)
    chosen = import_scenarios(
        [tmp_path / "city"], str(tmp_path / "two"), {"split": "test"}, transmitters=[0, 2], links=True
    )
    assert open_store(chosen.folder / "data.zarr", bs="all").sizes["bs"] == 2
    assert store.attrs["frequency_hz"] == CARRIER


def test_transmitters_whose_users_differ_are_no_links_of_one_scene(tmp_path):
    write_three(tmp_path / "city")
    path = tmp_path / "city" / "rx_pos_t000_tx001_r001.npz"
    with np.load(path) as archive:
        place = archive["rx_pos"]
    np.savez_compressed(path, rx_pos=place + np.float32([0, 0.5, 0]))
    with pytest.raises(InputError, match="users of transmitter 1 of set 0 are not where those of city-tx0 are"):
        import_scenarios([tmp_path / "city"], str(tmp_path / "store"), {}, links=True)
