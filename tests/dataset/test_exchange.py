"""A store as DeepMIMO scenarios, HDF5, MATLAB files and tar shards, read by the packages of those formats."""

import gc
import json
import re
import runpy
import shutil
import tarfile
import weakref
from pathlib import Path

import numpy as np
import pytest
from command import wavecity
from exchange_store import BASE, QUARANTINED, RADIO, SCENES, build_paths_store, scene_values

from wavecity.dataset import InputError
from wavecity.dataset.exchange.deepmimo_paths import csi_of
from wavecity.dataset.exchange.deepmimo_v4 import scenario_csi
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.exchange.selection import Selection
from wavecity.dataset.reader import open_store
from wavecity.dataset.views import derived_csi
from wavecity.raytrace.settings import RadioSettings

ATTRIBUTION = "© OpenStreetMap contributors"


@pytest.fixture(scope="session")
def paths_store(shared) -> Path:
    return shared("paths", lambda folder: build_paths_store(folder / "store")) / "store"


@pytest.fixture(scope="session")
def v4(shared, paths_store) -> Path:
    return shared("deepmimo", lambda folder: export_dataset(str(paths_store), "deepmimo", folder / "out")) / "out"


def nmse(found, right) -> float:
    """Normalised squared error in dB."""
    with np.errstate(divide="ignore"):
        return float(10 * np.log10((np.abs(found - right) ** 2).sum() / (np.abs(right) ** 2).sum()))


def expected(row: int, radio: RadioSettings = RADIO, frequencies=(0.0,)) -> np.ndarray:
    """The channel as the sum over paths of plane waves at every antenna, in double precision: (user, k, x, y)."""
    values = scene_values(row, 5 + row)
    zenith, azimuth = (values[f"paths/aod_{name}"].astype(float) for name in ("zenith", "azimuth"))
    wave = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)
    a, b = np.deg2rad([radio.azimuth, radio.downtilt])
    along = np.array([-np.sin(a), np.cos(a), 0])
    down = np.array([-np.cos(a) * np.sin(b), -np.sin(a) * np.sin(b), -np.cos(b)])
    x = (np.arange(radio.columns) - (radio.columns - 1) / 2) * radio.spacing
    y = (np.arange(radio.rows) - (radio.rows - 1) / 2) * radio.spacing
    place = x[:, None, None] * along + y[:, None] * down
    gain = values["paths/gain"].astype(complex)
    turns = np.einsum("upc,xyc->upxy", wave, place)
    delays = np.exp(-2j * np.pi * values["paths/delay"].astype(float)[..., None] * np.asarray(frequencies))
    return np.einsum("up,upk,upxy->ukxy", gain, delays, np.exp(2j * np.pi * turns))


def load_v4(folder: Path, name: str, max_paths: int = 32):
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    dm.config.set("scenarios_folder", str(folder))
    return dm.load(name, max_paths=max_paths)


@pytest.mark.parametrize("row", [0, 2, 4])
def test_deepmimo_v4_computes_the_channels_of_the_store(v4, row):
    """As its README says: array, rotation, the vertical axis upwards, division by the root of the subcarriers."""
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    scenario = load_v4(v4, SCENES[row][0].lower())
    array = {"shape": [8, 4], "spacing": 0.5, "rotation": [0, 9.0, -70.0]}
    channel = scenario.compute_channels(dm.ChannelParameters(num_paths=32, bs_antenna=array))
    csi = channel[:, 0, :, 0].reshape(-1, 4, 8)[:, ::-1].swapaxes(1, 2) * np.sqrt(512)
    assert nmse(csi, scene_values(row, 5 + row)["csi"]) < -90
    assert nmse(csi, expected(row)[:, 0]) < -90
    assert not csi[-1].any()


@pytest.mark.parametrize(("columns", "rows", "spacing"), [(8, 4, 0.5), (16, 3, 0.7), (1, 12, 0.5)])
def test_one_export_gives_the_channels_of_any_array_and_band(v4, columns, rows, spacing):
    scenario = load_v4(v4, "alba-0002")
    phase = np.array(scenario.phase)
    radio = RADIO.model_copy(update={"columns": columns, "rows": rows, "spacing": spacing})
    assert nmse(scenario_csi(scenario, columns, rows, spacing), expected(1, radio)[:, 0]) < -90
    wide = scenario_csi(scenario, columns, rows, spacing, subcarriers=8, bandwidth=1e6)
    assert nmse(wide, expected(1, radio, np.arange(8) * 1e6 / 8)) < -90
    np.testing.assert_array_equal(scenario.phase, phase)


@pytest.mark.parametrize(("array", "radio"), [("16x3@0.7", (16, 3, 0.7)), ("2x9", (2, 9, 0.5))])
def test_an_export_for_another_array_has_its_phases(paths_store, tmp_path, array, radio):
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    export_dataset(str(paths_store), "deepmimo", tmp_path / "out", scenes=["alba-0001"], array=array)
    scenario = load_v4(tmp_path / "out", "alba-0001")
    columns, rows, spacing = radio
    antennas = {"shape": [columns, rows], "spacing": spacing, "rotation": [0, 9.0, -70.0]}
    channel = scenario.compute_channels(dm.ChannelParameters(num_paths=32, bs_antenna=antennas))
    other = RADIO.model_copy(update={"columns": columns, "rows": rows, "spacing": spacing})
    assert nmse(csi_of(channel, columns, rows, 512)[:, 0], expected(0, other)[:, 0]) < -90
    view = derived_csi(str(paths_store), columns=columns, rows=rows, spacing=spacing)[0, :5]
    assert nmse(csi_of(channel, columns, rows, 512)[:, 0], view.values) < -90


def test_deepmimo_v4_sees_paths_positions_buildings_and_sight_as_they_are(v4):
    scenario, values = load_v4(v4, "alba-0002"), scene_values(1, 6)
    place = BASE + np.array([2.0, 0, 0])
    np.testing.assert_allclose(np.reshape(scenario.tx_pos, 3), place)
    np.testing.assert_allclose(scenario.rx_pos, values["user_position"] + place, atol=1e-5)
    np.testing.assert_allclose(scenario.distance, np.linalg.norm(values["user_position"], axis=1), rtol=1e-6)
    there = values["paths/gain"] != 0
    np.testing.assert_array_equal(scenario.num_paths, there.sum(1))
    direct = (there & ~values["paths/interactions"].any(-1)).any(1)
    np.testing.assert_array_equal(scenario.los, np.where(there.any(1), direct, -1))
    assert 0 < direct.sum() < 5
    letters = {0: "", 1: "R", 8: "D", 2: "S", 4: "T"}
    ours = {"".join(letters[int(kind)] for kind in path) for path in values["paths/interactions"][there]}
    assert set(scenario.inter_str[~np.isnan(scenario.inter)].tolist()) == ours
    assert np.isnan(scenario.power[-1]).all()
    assert np.isnan(scenario.power[there.sum(1) == 1][:, 1:]).all()
    (block,) = scenario.scene.get_objects("buildings")
    box = block.bounding_box
    assert [box.x_min, box.x_max, box.y_min, box.y_max, box.z_min, box.z_max] == [-80, -40, 25, 60, 0, 12]
    assert sum(face.area for face in block.faces) == pytest.approx(2 * 40 * 35 + 2 * (40 + 35) * 12)
    assert scenario.rt_params["frequency"] == 28.5e9
    assert ATTRIBUTION in scenario.rt_params["raw_params"]["wavecity"]["attribution"]


def test_a_copy_of_the_arrays_alone_becomes_scenarios_without_buildings(paths_store, tmp_path):
    shutil.copytree((paths_store / "latest.zarr").resolve(), tmp_path / "copy.zarr")
    export_dataset(str(tmp_path / "copy.zarr"), "deepmimo", tmp_path / "out", scenes=["alba-0002"])
    objects = json.loads((tmp_path / "out" / "alba-0002" / "objects.json").read_text())
    assert [one["label"] for one in objects] == ["terrain"]


def v3_settings(folder: Path, scenario: str, **changes) -> dict:
    v3 = pytest.importorskip("DeepMIMOv3", reason="needs the dependency group deepmimo")
    settings = v3.default_params()
    settings |= {"dataset_folder": str(folder), "scenario": scenario, "user_rows": np.arange(1), "enable_BS2BS": False}
    settings |= {"num_paths": 20, "active_BS": np.array([1])}
    settings["bs_antenna"] |= {"shape": np.array([8, 4]), "rotation": np.array([0, 9.0, -70.0])}
    settings["ue_antenna"]["shape"] = np.array([1, 1])
    for name, value in changes.items():
        settings[name] |= value
    return settings


@pytest.mark.parametrize("array", [None, "5x6@0.6", "32x1"])
def test_deepmimo_v3_computes_the_channels_of_the_store(paths_store, tmp_path, array):
    v3 = pytest.importorskip("DeepMIMOv3", reason="needs the dependency group deepmimo")
    export_dataset(str(paths_store), "deepmimo-v3", tmp_path, scenes=["gdynia-0001"], array=array)
    columns, rows, spacing = {None: (8, 4, 0.5), "5x6@0.6": (5, 6, 0.6), "32x1": (32, 1, 0.5)}[array]
    antennas = {"shape": np.array([columns, rows]), "spacing": spacing}
    # "gdynia" would be a scenario that moves.
    users = v3.generate_data(v3_settings(tmp_path, "gd-ynia-0001", bs_antenna=antennas))[0]["user"]
    radio = RADIO.model_copy(update={"columns": columns, "rows": rows, "spacing": spacing})
    assert nmse(csi_of(users["channel"], columns, rows, 512)[:, 0], expected(2, radio)[:, 0]) < -90
    values = scene_values(2, 7)
    there = values["paths/gain"] != 0
    direct = (there & ~values["paths/interactions"].any(-1)).any(1)
    np.testing.assert_array_equal(users["LoS"], np.where(there.any(1), direct, -1))
    np.testing.assert_allclose(users["location"], values["user_position"] + BASE, atol=1e-5)


def test_the_loading_steps_of_lwm_run_on_a_v3_export(paths_store, tmp_path):
    """Its parameters: 32 x 1 antennas, 32 subcarriers of 30 kHz, 20 paths; users without a path are dropped."""
    v3 = pytest.importorskip("DeepMIMOv3", reason="needs the dependency group deepmimo")
    from DeepMIMOv3.utils import uniform_sampling

    export_dataset(str(paths_store), "deepmimo-v3", tmp_path, scenes=["alba-0002"], array="32x1")
    table = json.loads((tmp_path / "lwm_scenarios.json").read_text())["alba-0002"]
    ofdm = {"subcarriers": 32, "selected_subcarriers": np.arange(32), "bandwidth": 30e3 * 32 / 1e9}
    settings = v3_settings(tmp_path, "alba-0002", bs_antenna={"shape": np.array([32, 1])}, OFDM=ofdm)
    settings["user_rows"] = np.arange(table["n_rows"])
    users = v3.generate_data(settings)[0]["user"]
    sampled = uniform_sampling([1, 1], table["n_rows"], table["n_per_row"])
    heard = users["LoS"][sampled] != -1
    channel = users["channel"][sampled][heard] * 1e6
    assert channel.shape == (5, 1, 32, 32)
    radio = RADIO.model_copy(update={"columns": 32, "rows": 1})
    wide = expected(1, radio, np.arange(32) * 30e3)[:5, :, :, 0]
    assert nmse(channel[:, 0].swapaxes(1, 2), wide * 1e6 / np.sqrt(32)) < -90
    flat = channel.reshape(5, -1).astype(np.csingle)
    assert np.hstack([flat.real, flat.imag]).reshape(5, -1, 16).shape == (5, 128, 16)


FORMATS = ("deepmimo", "deepmimo-v3", "hdf5", "mat", "webdataset")


def in_store(store: Path, row: int, name: str) -> np.ndarray:
    group, last = name.split("/") if "/" in name else (None, name)
    values = open_store(store, group)[last].values[row]
    return values[: 5 + row] if name not in ("height", "occupancy") else values


def test_hdf5_has_all_scenes_in_one_file(paths_store, tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="needs wavecity[exchange]")
    monkeypatch.setattr("wavecity.dataset.exchange.array_files.PART", 3)
    export_dataset(str(paths_store), "hdf5", tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    done = [0, 1, 2, 4]
    with h5py.File(tmp_path / "moved" / "data.h5") as file:
        assert file["scene_id"].asstr()[:].tolist() == [SCENES[row][0] for row in done]
        assert file["split"].asstr()[:].tolist() == [SCENES[row][2] for row in done]
        np.testing.assert_array_equal(file["n_users"][:], [5, 6, 7, 9])
        for name in ("csi", "height", "user_position", "paths/gain", "paths/interactions", "los"):
            for place, row in enumerate(done):
                values = file[name][place]
                values = values[: 5 + row] if name != "height" else values
                np.testing.assert_array_equal(values, in_store(paths_store, row, name))
        assert "spectrum" not in file
        assert not file["csi"][0, 5:].any()
        assert file["outage"][0, 5:].all()
        assert [dim.label for dim in file["csi"].dims] == ["scene", "user", "x", "y"]
        assert file["paths/delay"].attrs["units"] == "s"
        assert ATTRIBUTION in file.attrs["attribution"]
        assert json.loads(file.attrs["conventions"])["csi"].startswith("csi[x, y]")


def test_a_matlab_file_has_a_scene(paths_store, tmp_path):
    scipy_io = pytest.importorskip("scipy.io", reason="needs wavecity[exchange]")
    export_dataset(str(paths_store), "mat", tmp_path, scenes=["zug-0001", "alba-0002"])
    assert sorted(path.name for path in tmp_path.glob("*.mat")) == ["Zug-0001.mat", "alba-0002.mat"]
    scene = scipy_io.loadmat(tmp_path / "Zug-0001.mat", simplify_cells=True)
    for name in ("csi", "height", "user_position"):
        np.testing.assert_array_equal(scene[name], in_store(paths_store, 4, name))
    np.testing.assert_array_equal(scene["paths"]["gain"], in_store(paths_store, 4, "paths/gain"))
    assert (scene["city"], scene["split"], scene["n_users"]) == ("Zug", "test", 9)
    assert scene["frequency_hz"] == 28.5e9
    assert ATTRIBUTION in scene["attribution"]


def test_webdataset_reads_a_sample_for_each_user(paths_store, tmp_path, monkeypatch):
    wds = pytest.importorskip("webdataset", reason="needs wavecity[test]")
    monkeypatch.setattr("wavecity.dataset.exchange.tar_files.SHARD", 1)  # a shard for every scene
    export_dataset(str(paths_store), "webdataset", tmp_path, fields=["csi", "height", "paths/delay", "path_gain"])
    shards = sorted(path.name for path in tmp_path.glob("*.tar"))
    assert shards == ["test-000000.tar", "train-000000.tar", "train-000001.tar", "validation-000000.tar"]
    found = list(wds.WebDataset(str(tmp_path / "train-{000000..000001}.tar"), shardshuffle=False).decode())
    assert [(sample["json"]["scene_id"], sample["json"]["user"]) for sample in found] == [
        *(("alba-0001", user) for user in range(5)),
        *(("alba-0002", user) for user in range(6)),
    ]
    for sample in found:
        row, user = (0 if sample["json"]["scene_id"] == "alba-0001" else 1), sample["json"]["user"]
        np.testing.assert_array_equal(sample["csi.npy"], in_store(paths_store, row, "csi")[user])
        np.testing.assert_array_equal(sample["paths_delay.npy"], in_store(paths_store, row, "paths/delay")[user])
        np.testing.assert_array_equal(sample["height.npy"], in_store(paths_store, row, "height"))
        assert sample["json"]["path_gain"] == pytest.approx(float(in_store(paths_store, row, "path_gain")[user]))
        assert sample["json"]["split"] == "train"
        assert ATTRIBUTION in sample["json"]["attribution"]
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert {member.mtime for member in tar} == {0}


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_was_killed_goes_on_and_a_finished_one_does_nothing(paths_store, tmp_path, monkeypatch, to):
    monkeypatch.setattr("wavecity.dataset.exchange.array_files.PART", 1)
    monkeypatch.setattr("wavecity.dataset.exchange.tar_files.SHARD", 1)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert export_dataset(str(paths_store), to, whole).written == 4

    def killed(items):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        export_dataset(str(paths_store), to, out, progress=killed)
    # What a process leaves that cannot clean up.
    (out / "piece.0123.partial").mkdir()
    (out / "piece.0123.partial" / "file").write_bytes(b"half")
    seen = []
    done = export_dataset(str(paths_store), to, out, progress=lambda items: seen.extend(items) or items)
    assert (done.items, done.written, len(seen)) == (4, 2, 2)
    names = {str(path.relative_to(out)): path.stat().st_size for path in out.rglob("*") if path.is_file()}
    right = {str(path.relative_to(whole)): path.stat().st_size for path in whole.rglob("*") if path.is_file()}
    # MATLAB files have the time in them, the page the folder's path; all have their length.
    assert names.keys() == right.keys()
    record = (out / "export.json").read_bytes()
    again = export_dataset(str(paths_store), to, out)
    assert (again.written, again.bytes) == (0, done.bytes)
    assert (out / "export.json").read_bytes() == record
    # A file that was cut short afterwards is written again, with the piece that it belongs to.
    piece = max((path for path in out.rglob("*") if path.suffix in (".npz", ".mat", ".h5", ".tar")),
                key=lambda path: ("part" in str(path), path.stat().st_size))  # fmt: skip
    content = piece.read_bytes()
    piece.write_bytes(content[:-1])
    assert export_dataset(str(paths_store), to, out).written == 1
    assert len(piece.read_bytes()) == len(content)
    assert ATTRIBUTION in (out / "README.md").read_text()
    assert ATTRIBUTION in json.loads(record)["attribution"]


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_holds_a_scene_or_two_at_a_time(paths_store, tmp_path, monkeypatch, to):
    read, held = Selection.read, []

    def watched(selection, scene, number=None):
        gc.collect()
        assert not any(array() is not None for arrays in held[:-1] for array in arrays)
        values = read(selection, scene, number)
        held.append([weakref.ref(array.base if array.base is not None else array) for array in values.values()])
        return values

    monkeypatch.setattr(Selection, "read", watched)
    export_dataset(str(paths_store), to, tmp_path / "out")
    assert len(held) == 4


def test_the_command_exports_says_so_and_finds_it_done(paths_store, tmp_path):
    done = wavecity("export-dataset", paths_store, "--to", "mat", "--out", tmp_path / "out", "--cities", "alba, Zug",
                    "--split", "train")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "exported 2 scenes, 11 users" in done.stdout
    assert "write mat (2 files)" in done.stderr
    again = wavecity("export-dataset", paths_store, "--to", "mat", "--out", tmp_path / "out", "--cities", "Alba,zug",
                     "--split", "train")  # fmt: skip
    assert again.returncode == 0
    assert "nothing to do: the export is whole" in again.stderr


REFUSED = {
    "city": (["--cities", "Albas"], "no city 'Albas'; meant Alba?"),
    "far city": (["--cities", "Paris"], "no city 'Paris'; it has Alba, Gdynia, Zug"),
    "split": (["--split", "testing"], "no split 'testing'; meant test?"),
    "scene": (["--scenes", "alba-0003"], "no scene 'alba-0003'; meant alba-0002 or alba-0001"),
    "quarantined": (["--scenes", QUARANTINED], "scene 'lost-0001' is quarantined"),
    "nothing": (["--cities", "Zug", "--split", "train"], "no scene is of city Zug, split train"),
    "field": (["--fields", "csi,paths/gian"], "no array 'paths/gian'; meant paths/gain?"),
    "coordinate": (["--fields", "bs_shift"], "no array 'bs_shift'; it has best_beam, csi"),
    "array": (["--array", "8x4"], "--array is for deepmimo, deepmimo-v3"),
    "bad array": (["--to", "deepmimo", "--array", "8 by 4"], "--array 8 by 4: expected COLUMNSxROWS"),
    "large array": (["--to", "deepmimo", "--array", "999x4"], "--array: columns = 999: input should be less than"),
    "fields": (["--to", "deepmimo", "--fields", "csi"], "--fields is for hdf5, mat, webdataset"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_refused_in_one_line_and_nothing_is_written(paths_store, tmp_path, name):
    options, words = REFUSED[name]
    done = wavecity("export-dataset", paths_store, "--to", "mat", "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("wavecity: ")]
    assert words in line
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_and_a_store_without_paths_are_refused(paths_store, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="full: holds something else; name a new or empty folder"):
        export_dataset(str(paths_store), "mat", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    export_dataset(str(paths_store), "mat", tmp_path / "out", scenes=["alba-0001"])
    with pytest.raises(InputError, match=r"holds another export \(mat, 1 scenes\)"):
        export_dataset(str(paths_store), "mat", tmp_path / "out", scenes=["alba-0002"])
    with pytest.raises(InputError, match=r"notes\.txt: a file; name a folder"):
        export_dataset(str(paths_store), "mat", tmp_path / "full" / "notes.txt")
    build_paths_store(tmp_path / "bare", with_paths=False)
    for to in ("deepmimo", "deepmimo-v3"):
        with pytest.raises(InputError, match=r"stores no paths, .* features\.paths: true"):
            export_dataset(str(tmp_path / "bare"), to, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert export_dataset(str(tmp_path / "bare"), "mat", tmp_path / "bare-mat", scenes=["alba-0001"]).written == 1


def test_a_package_that_is_missing_is_named_with_its_extra(paths_store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(InputError, match=r"--to hdf5 needs h5py: pip install 'wavecity\[exchange\]'"):
        export_dataset(str(paths_store), "hdf5", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_exports_do_not_write_into_one_folder(paths_store, tmp_path):
    out = tmp_path / "out"

    def other(items):
        with pytest.raises(InputError, match="another export is writing there"):
            export_dataset(str(paths_store), "mat", out)
        yield from items

    assert export_dataset(str(paths_store), "mat", out, progress=other).written == 4


def test_the_page_has_what_the_script_types():
    """The script executes every line with the real packages; the page shows them with what they answered."""
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "howto" / "exchange.md").read_text(encoding="utf-8")
    shown = page.split("```pycon\n")[1].split("```")[0]
    (scene,) = set(re.findall(r'scene="([\w-]+)"', shown))
    script = runpy.run_path(str(root / "scripts" / "deepmimo_transcript.py"))
    for part in shown.split("\n\n"):
        folder, *lines = part.strip().splitlines()
        typed = [line.removeprefix(">>> ") for line in lines if line.startswith(">>> ")]
        text = script["TYPED"][folder.removeprefix("# ")].format(name=scene, scene=scene)
        assert typed == text.strip().splitlines()
    # In dB: the bound of the tests.
    assert [int(line) < -90 for line in shown.splitlines() if line.startswith("-")] == [True, True]
