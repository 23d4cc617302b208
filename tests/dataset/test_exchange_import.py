"""DeepMIMO scenarios and Sionna's paths as a store, against DeepMIMO, closed forms, and the store that was exported."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import wavecity
from exchange_store import RADIO, SCENES, build_paths_store
from scenarios import CARRIER, TX, C, plane_waves, write_scenario

from wavecity.dataset import InputError
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.exchange.deepmimo_paths import from_deepmimo, to_deepmimo
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.exchange.importing import PathSettings
from wavecity.dataset.exchange.scenarios import import_scenarios
from wavecity.dataset.exchange.sionna_paths import import_paths
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.views import derived_csi


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


def in_order(store, truth: dict) -> np.ndarray:
    """Rows of the truth of the users of a store's scene."""
    away = np.abs(store.user_position.values[:, None] - truth["position"]).max(-1)
    return away.argmin(1)


@pytest.mark.parametrize("array", [None, "16x3@0.7"])
def test_a_store_that_goes_through_deepmimo_comes_back(paths_store, tmp_path, v4, array):
    """Channels, paths, maps, splits and places; whatever array its phases were written for."""
    folder = v4
    if array is not None:
        export_dataset(str(paths_store), "deepmimo", tmp_path / "out", array=array)
        folder = tmp_path / "out"
    size = {} if array is None else {"columns": 8, "rows": 4, "spacing": 0.5}
    version = import_scenarios([folder], str(tmp_path / "store"), size)
    result = validate(version.folder)
    assert result.ok, result.findings
    back, before = open_store(tmp_path / "store"), open_store(paths_store)
    there = {str(name): row for row, name in enumerate(back.scene_id.values)}
    assert sorted(there) == sorted(name for name, _, _ in SCENES if name != "lost-0001")
    for row, (name, city, split) in enumerate(SCENES):
        if name not in there:
            continue
        one, users = back.isel(scene=there[name]), 5 + row
        right = before.isel(scene=row)
        assert (str(one.city.values), str(one.split.values), int(one.n_users)) == (city, split, users)
        assert float(one.bs_shift) == float(right.bs_shift)
        assert float(one.latitude) == float(right.latitude)
        # Angles in float32 degrees would leave -111 dB.
        assert nmse(one.csi.values[:users], right.csi.values[:users]) < -125
        np.testing.assert_allclose(one.user_position[:users], right.user_position[:users], atol=2e-5)
        np.testing.assert_allclose(one.path_gain[:users], right.path_gain[:users], atol=1e-4)
        np.testing.assert_array_equal(one.best_beam[:users], right.best_beam[:users])
        np.testing.assert_array_equal(one.outage[:users], right.outage[:users])
        np.testing.assert_array_equal(one.height, right.height)
        np.testing.assert_array_equal(one.occupancy, right.occupancy)
        paths = open_store(tmp_path / "store", "paths").isel(scene=there[name])
        old = open_store(paths_store, "paths").isel(scene=row)
        count = paths.sizes["path"]
        np.testing.assert_array_equal(paths.interactions[:users], old.interactions[:users, :count])
        np.testing.assert_allclose(paths.delay[:users], old.delay[:users, :count], rtol=1e-6)
    assert back.attrs["bs_position_m"] == before.attrs["bs_position_m"]
    assert "OpenStreetMap" in back.attrs["attribution"]
    # The panel's orientation is not the default one, and views know it.
    for columns, rows in ((8, 4), (3, 5)):
        other = derived_csi(tmp_path / "store", columns=columns, rows=rows)[there["Zug-0001"], :9].values
        assert nmse(other, derived_csi(paths_store, columns=columns, rows=rows)[4, :9].values) < -90
    assert len(ChannelDataset(tmp_path / "store", "train", ("csi", "height"))) == 4 + 5


@pytest.mark.parametrize("ending", ["npz", "mat", "npy"])
def test_a_scenario_of_another_ray_tracer_becomes_a_store(tmp_path, ending):
    truth = write_scenario(tmp_path / "in" / "town", ending=ending)
    options = {"columns": 6, "rows": 3, "azimuth": 20.0, "split": "test", "licence": "CC BY 4.0"}
    version = import_scenarios([tmp_path / "in"], str(tmp_path / "store"), options)
    result = validate(version.folder)
    assert result.ok, result.findings
    store = open_store(tmp_path / "store").isel(scene=0)
    assert (str(store.scene_id.values), str(store.city.values), str(store.split.values)) == ("town", "town", "test")
    assert nmse(store.csi.values, plane_waves(truth, 6, 3, 20.0)) < -90
    np.testing.assert_array_equal(store.los, [True] * 11 + [False])
    np.testing.assert_array_equal(store.outage, [False] * 11 + [True])
    power = 10 * np.log10((np.abs(truth["gain"]) ** 2).sum(1))
    np.testing.assert_allclose(store.path_gain[:-1], power[:-1], atol=1e-4)
    # The map is the smallest square around base station and users, and the building is where it is.
    attributes = attributes_of(store.attrs)
    low, high = np.minimum(truth["position"].min(0), 0)[:2], np.maximum(truth["position"].max(0), 0)[:2]
    size = np.ceil((high - low).max() / 10) * 10
    assert attributes["tile_size_m"] == size
    x, y, z = attributes["bs_position_m"]
    np.testing.assert_allclose([x, y], -(low + high) / 2, atol=1e-4)
    assert z == pytest.approx(12)
    centre = (np.arange(200) + 0.5) * size / 200 - size / 2
    east, north = centre + TX[0] - x, -centre + TX[1] - y
    built = np.outer((north > 20) & (north < 60), (east > 10) & (east < 40))
    assert built.sum() > 100
    np.testing.assert_allclose(store.height, 9.0 * built, atol=1e-5)
    assert attributes["licence"] == "CC BY 4.0"
    assert "OpenStreetMap" not in attributes["attribution"]
    assert attributes["array"]["azimuth_deg"] == 20.0
    assert nmse(derived_csi(tmp_path / "store", columns=2, rows=9).values[0], plane_waves(truth, 2, 9, 20.0)) < -90


def test_every_transmitter_is_a_scene_and_some_can_be_chosen(tmp_path):
    write_scenario(tmp_path / "town")
    for path in list((tmp_path / "town").glob("*_t000_tx000_r001.npz")):
        shutil.copy(path, path.with_name(path.name.replace("tx000", "tx001")))
    params = json.loads((tmp_path / "town" / "params.json").read_text())
    params["txrx_sets"]["txrx_set_0"]["num_points"] = 2
    (tmp_path / "town" / "params.json").write_text(json.dumps(params))
    options = {"columns": 2, "rows": 2, "split": "test"}
    import_scenarios([tmp_path / "town"], str(tmp_path / "both"), options)
    both = open_store(tmp_path / "both")
    assert both.scene_id.values.tolist() == ["town-tx0", "town-tx1"]
    assert both.city.values.tolist() == ["town", "town"]
    import_scenarios([tmp_path / "town"], str(tmp_path / "one"), options, transmitters=[1])
    assert open_store(tmp_path / "one").scene_id.values.tolist() == ["town-tx1"]


@pytest.mark.parametrize("kept", ["next to", "in each"])
def test_snapshots_of_a_dynamic_scenario_are_scenes(tmp_path, kept):
    truths = [write_scenario(tmp_path / "street" / f"scene_{number}", 8 + number) for number in range(2)]
    params = json.loads((tmp_path / "street" / "scene_0" / "params.json").read_text())
    params["scene"]["num_scenes"] = 2
    for number in range(2):
        params["txrx_sets"]["txrx_set_1"]["num_points"] = 8 + number
        (tmp_path / "street" / f"scene_{number}" / "params.json").write_text(json.dumps(params))
    if kept == "next to":
        shutil.copy(tmp_path / "street" / "scene_0" / "params.json", tmp_path / "street")
    import_scenarios([tmp_path / "street"], str(tmp_path / "store"), {"columns": 2, "rows": 2, "split": "test"})
    store = open_store(tmp_path / "store")
    names = [f"street-scene_{number}" if kept == "next to" else f"scene_{number}" for number in range(2)]
    assert store.scene_id.values.tolist() == names
    for number, truth in enumerate(truths):
        csi = store.csi[number, : 8 + number].values
        assert nmse(csi, plane_waves(truth, 2, 2, -90.0)) < -90


def test_one_antenna_has_the_channel_that_deepmimo_computes(tmp_path):
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    write_scenario(tmp_path / "in" / "town")
    import_scenarios([tmp_path / "in"], str(tmp_path / "store"), {"columns": 1, "rows": 1, "split": "test"})
    dm.config.set("scenarios_folder", str(tmp_path / "in"))
    channel = dm.load("town").compute_channels(dm.ChannelParameters(bs_antenna={"shape": [1, 1]}))
    csi = open_store(tmp_path / "store").csi.values[0, :, 0, 0]
    assert nmse(csi, channel[:, 0, 0, 0] * np.sqrt(512)) < -90


def test_phases_without_the_carrier_get_it(tmp_path):
    """Those that DeepMIMO converted from Sionna; delays in float32 leave some -40 dB."""
    truth = write_scenario(tmp_path / "in" / "town", raytracer_name="Sionna Ray Tracing")
    path = tmp_path / "in" / "town" / "phase_t000_tx000_r001.npz"
    phase = np.tile(np.float32([0, 180]), (12, 1))
    phase[-1] = np.nan
    np.savez_compressed(path, phase=phase)
    options = {"columns": 2, "rows": 2, "split": "test"}
    import_scenarios([tmp_path / "in"], str(tmp_path / "with"), options)
    right = plane_waves(truth, 2, 2, -90.0)
    assert nmse(open_store(tmp_path / "with").csi.values[0], right) < -35
    import_scenarios([tmp_path / "in"], str(tmp_path / "without"), {**options, "carrier_phase": "included"})
    assert nmse(open_store(tmp_path / "without").csi.values[0], right) > -10


def test_users_are_drawn_and_those_without_paths_left_out(tmp_path):
    truth = write_scenario(tmp_path / "in" / "town", 40)
    options = {"columns": 2, "rows": 2, "users": 10, "reached": True, "split": "user", "test": 0.2, "validation": 0.2}
    import_scenarios([tmp_path / "in"], str(tmp_path / "store"), options)
    store = open_store(tmp_path / "store")
    assert dict(zip(store.split.values.tolist(), store.n_users.values.tolist(), strict=True)) == {
        "train": 6, "validation": 2, "test": 2,
    }  # fmt: skip
    right = plane_waves(truth, 2, 2, -90.0)
    seen = set()
    for row in range(3):
        scene = store.isel(scene=row, user=slice(int(store.n_users[row])))
        users = in_order(scene, truth)
        seen |= set(users.tolist())
        assert nmse(scene.csi.values, right[users]) < -90
        assert not scene.outage.any()
    assert len(seen) == 10
    assert 39 not in seen


def test_a_user_below_the_floor_is_in_outage_and_those_not_reached_can_be_left_out(tmp_path):
    write_scenario(tmp_path / "town")
    path = tmp_path / "town" / "power_t000_tx000_r001.npz"
    power = np.load(path)["power"]
    power[3] = -230
    np.savez_compressed(path, power=power)
    options = {"columns": 2, "rows": 2, "split": "test"}
    version = import_scenarios([tmp_path / "town"], str(tmp_path / "all"), options)
    assert validate(version.folder).ok
    store, paths = open_store(tmp_path / "all").isel(scene=0), open_store(tmp_path / "all", "paths").isel(scene=0)
    assert np.flatnonzero(store.outage).tolist() == [3, 11]
    assert not paths.gain[[3, 11]].values.any()
    assert not paths.n_paths[[3, 11]].values.any()
    import_scenarios([tmp_path / "town"], str(tmp_path / "reached"), {**options, "reached": True})
    # That of -230 dB has paths.
    assert open_store(tmp_path / "reached").n_users.values.tolist() == [11]


def test_more_paths_than_are_kept_are_counted():
    rng = np.random.default_rng(0)
    matrices = {name: rng.uniform(10, 80, (4, 9)) for name in ("phase", "aod_el", "aod_az", "aoa_el", "aoa_az")}
    matrices |= {
        "power": rng.uniform(-120, -80, (4, 9)),
        "delay": np.full((4, 9), 1e-7),
        "inter": np.full((4, 9), 21.0),
    }
    matrices["power"][1, 3:] = np.nan
    arrays = from_deepmimo(matrices, None, 5, None)
    level = 10 ** (np.nan_to_num(matrices["power"], nan=-np.inf) / 10)
    best = -np.sort(-level, 1)[:, :5]
    np.testing.assert_allclose(np.abs(arrays["paths/gain"]) ** 2, best, rtol=1e-5)
    np.testing.assert_array_equal(arrays["paths/n_paths"], [9, 3, 9, 9])
    np.testing.assert_allclose(arrays["paths/power_cut"], 1 - best.sum(1) / level.sum(1), atol=1e-6)
    np.testing.assert_allclose(arrays["path_gain"], 10 * np.log10(level.sum(1)))
    assert arrays["paths/interactions"][0, 0].tolist() == [8, 1]
    back = to_deepmimo(arrays, RADIO)
    assert np.isnan(back["power"][1]).tolist() == [False] * 3 + [True] * 2


def test_the_same_again_changes_nothing_and_a_killed_import_goes_on(tmp_path, monkeypatch):
    for name in "abc":
        write_scenario(tmp_path / "in" / name, 8 + ord(name) % 5)
    monkeypatch.setattr("wavecity.dataset.importing.importer.UNIT_BYTES", 1)  # a unit for every scene
    options = {"columns": 2, "rows": 2}

    def killed(units):
        yield from units[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_scenarios([tmp_path / "in"], str(tmp_path / "store"), options, progress=killed)
    left = []
    first = import_scenarios(
        [tmp_path / "in"], str(tmp_path / "store"), options, progress=lambda u: left.extend(u) or u
    )
    assert left == [2]
    assert first.number == 1
    assert import_scenarios([tmp_path / "in"], str(tmp_path / "store"), options) == first
    assert import_scenarios([tmp_path / "in"], str(tmp_path / "store"), {"columns": 3, "rows": 2}).number == 2


def test_the_command_imports(tmp_path):
    write_scenario(tmp_path / "town")
    done = wavecity("import-dataset", tmp_path / "town", "--out", tmp_path / "store", "--columns", 4, "--rows", 2,
                    "--split", "test")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "published v1" in done.stdout
    assert open_store(tmp_path / "store").csi.shape == (1, 12, 4, 2)


def change(folder: Path, **rt_params) -> None:
    params = json.loads((folder / "params.json").read_text())
    params["rt_params"] |= rt_params
    (folder / "params.json").write_text(json.dumps(params))


def refused_high(folder: Path) -> None:
    write_scenario(folder / "b", tx=TX + np.array([0, 0, 5]))


REFUSED = {
    "heights": (refused_high, [], "b: its base station is at 17 m, that of a at 12 m; a store has one height"),
    "carriers": (lambda f: (write_scenario(f / "b"), change(f / "b", frequency=28e9)), [], "b: 28 GHz, a is 3.5 GHz"),
    "low": (lambda f: change(f / "a", frequency=9e8), [], "frequency 900000000.0: input should be greater than"),
    "matrix": (lambda f: (f / "a" / "delay_t000_tx000_r001.npz").unlink(), [], "no delay_t000_tx000_r001.npz"),
    "cut": (
        lambda f: (f / "a" / "delay_t000_tx000_r001.npz").write_bytes(b"PK"),
        [],
        "delay_t000_tx000_r001.npz: cannot",
    ),
    "shape": (
        lambda f: np.savez(f / "a" / "delay_t000_tx000_r001.npz", delay=np.zeros((3, 2))),
        [],
        "do not fit together",
    ),
    "params": (lambda f: (f / "a" / "params.json").write_text("{}"), [], "params.json: not of a DeepMIMO v4 scenario"),
    "array": (lambda f: None, ["--columns", "0"], "--columns 0: input should be greater than or equal to 1"),
    "map": (lambda f: None, ["--tile-size", "50"], "is off the map, 50 m wide"),
    "transmitter": (lambda f: None, ["--transmitters", "3"], "has transmitter 3"),
    "words": (lambda f: None, ["--transmitters", "first"], "--transmitters first: expected numbers from 0 on"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_scenarios_are_refused_in_one_line(tmp_path, name):
    spoil, options, words = REFUSED[name]
    write_scenario(tmp_path / "in" / "a")
    spoil(tmp_path / "in")
    done = wavecity("import-dataset", tmp_path / "in", "--out", tmp_path / "store", *options)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("wavecity: ")]
    assert words in line
    assert done.returncode == 2
    assert not (tmp_path / "store").exists()


def test_what_is_no_scenario_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "params.mat").write_bytes(b"")
    for folder, words in (("none", "no such folder"), ("empty", "no DeepMIMO v4 scenario"), ("old", "DeepMIMO v3")):
        with pytest.raises(InputError, match=words):
            import_scenarios([tmp_path / folder], str(tmp_path / "store"), {})


# --- Sionna -----------------------------------------------------------------------------------------------------------


class Numbers:
    def __init__(self, values) -> None:
        self.values = np.asarray(values)

    def numpy(self) -> np.ndarray:
        return self.values


def sionna_like(users: int = 9, antennas: int = 1):
    """Attributes of Sionna's `Paths` for two transmitters: line of sight and a ground reflection of each."""
    rng = np.random.default_rng(3)
    sources = np.array([[0.0, 10.0, 8.0], [30.0, -5.0, 8.0]])
    targets = np.column_stack([rng.uniform(-60, 60, users), rng.uniform(-90, -20, users), np.full(users, 1.5)])
    ways = np.stack([targets[:, None] - sources, targets[:, None] * [1, 1, -1] - sources], 2)  # (R, T, P, 3)
    length = np.linalg.norm(ways, axis=-1)
    a = (C / (4 * np.pi * CARRIER * length) * [1, -0.5])[:, None, :, None] * np.ones((1, 1, 1, antennas, 1))
    kinds = np.zeros((2, users, 2, 2))
    kinds[0, ..., 1] = 1
    valid = np.ones(length.shape, bool)
    valid[-1, 1] = False
    zenith, azimuth = np.arccos(ways[..., 2] / length), np.arctan2(ways[..., 1], ways[..., 0])
    paths = SimpleNamespace(
        a=(Numbers(a.astype(np.float32)), Numbers(np.zeros(a.shape, np.float32))),
        tau=Numbers((length / C).astype(np.float32)),
        theta_t=Numbers(zenith),
        phi_t=Numbers(azimuth),
        theta_r=Numbers(np.pi - zenith),
        phi_r=Numbers(azimuth),
        doppler=Numbers(np.zeros(length.shape)),
        valid=Numbers(valid),
        interactions=Numbers(kinds),
        sources=Numbers(sources.T),
        targets=Numbers(targets.T),
    )
    gain = a[:, 0, :, 0] * np.exp(-2j * np.pi * CARRIER * length / C) * valid[..., :]
    return paths, gain, ways / length[..., None]


def test_paths_of_sionna_become_a_store_with_a_scene_for_each_transmitter(tmp_path):
    paths, gain, ways = sionna_like()
    settings = PathSettings(frequency=CARRIER, columns=4, rows=3, split="test")
    version = import_paths({"yard": paths}, str(tmp_path / "store"), settings)
    result = validate(version.folder)
    assert result.ok, result.findings
    store = open_store(tmp_path / "store")
    assert store.scene_id.values.tolist() == ["yard-tx0", "yard-tx1"]
    assert set(store.city.values.tolist()) == {"yard"}
    for sender in range(2):
        right = plane_waves({"gain": np.vstack([gain[:, sender], [[0, 0]]]), "ways": np.vstack([ways[:, sender], ways[:1, 0]])},
                            4, 3, -90.0)[:-1]  # fmt: skip
        # float32 delays at the carrier.
        assert nmse(store.csi.values[sender], right) < -45
        np.testing.assert_array_equal(store.outage[sender], np.abs(gain[:, sender]).sum(1) == 0)
        np.testing.assert_array_equal(store.los[sender], np.abs(gain[:, sender, 0]) > 0)
    assert open_store(tmp_path / "store", "paths").interactions.values[0, 0].tolist() == [[0, 0], [1, 0]]


def test_paths_between_panels_and_maps_without_a_place_are_refused(tmp_path):
    settings = PathSettings(frequency=CARRIER, columns=4, rows=3, split="test")
    paths, _, _ = sionna_like(antennas=4)
    with pytest.raises(InputError, match=r"yard: traced with 4 and 1 antennas .* trace with one each"):
        import_paths({"yard": paths}, str(tmp_path / "store"), settings)
    paths, _, _ = sionna_like()
    with pytest.raises(InputError, match="heights need tile_size and bs_position"):
        import_paths({"yard": paths}, str(tmp_path / "store"), settings, heights={"yard": np.zeros((20, 20))})
    placed = settings.model_copy(update={"tile_size": 250.0, "bs_position": (0.0, 100.0, 8.0)})
    placed = PathSettings.model_validate(placed.model_dump())
    with pytest.raises(InputError, match=r"yard: height map of shape \(20, 25\)"):
        import_paths({"yard": paths}, str(tmp_path / "store"), placed, heights={"yard": np.zeros((20, 25))})
    assert not (tmp_path / "store").exists()


def test_a_scenario_names_its_ray_tracer_and_no_other(tmp_path, v4):
    """Paths of another origin do not become Sionna's on their way through a store."""
    write_scenario(tmp_path / "in" / "town", raytracer_name="Remcom Wireless Insite")
    import_scenarios([tmp_path / "in"], str(tmp_path / "store"), {"columns": 2, "rows": 2, "split": "test"})
    export_dataset(str(tmp_path / "store"), "deepmimo", tmp_path / "out")
    for folder, name in ((tmp_path / "out" / "town", "not stated"), (v4 / "alba-0001", "Sionna Ray Tracing")):
        assert json.loads((folder / "params.json").read_text())["rt_params"]["raytracer_name"] == name


# --- Places of interactions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounces", [1, 4])
def test_places_of_interactions_come_with_a_scenario_when_asked_for(tmp_path, bounces):
    """The mirror's point on the ground, whose way is that of the delay; in the axes of any length."""
    truth = write_scenario(tmp_path / "in" / "town")
    ground = truth["position"] * (TX[2] / (TX[2] + 1.5))  # by the intercept theorem
    ground[:, 2] = -TX[2]
    place = np.full((12, 2, bounces, 3), np.nan)
    place[:-1, 1, 0] = ground[:-1] + TX
    path = tmp_path / "in" / "town" / "inter_pos_t000_tx000_r001.npz"
    options = {"columns": 2, "rows": 2, "split": "test"}
    for given, message in ((None, "no inter_pos_t000_tx000_r001"), (0 * place + np.nan, "11 of 11 interactions have no"),
                           (place[..., :2], r"inter_pos of town has shape .*, expected \(12, 2, 'bounces', 3\)")):  # fmt: skip
        if given is not None:
            np.savez_compressed(path, inter_pos=given.astype(np.float32))
        with pytest.raises(InputError, match=message):
            import_scenarios([tmp_path / "in"], str(tmp_path / "store"), {**options, "interactions": "positions"})
    assert not (tmp_path / "store" / "latest.zarr").exists()
    np.savez_compressed(path, inter_pos=place.astype(np.float32))
    ended = wavecity("import-dataset", tmp_path / "in", "--out", tmp_path / "store", "--columns", "2", "--rows", "2",
                     "--split", "test", "--interactions", "positions")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    paths = open_store(tmp_path / "store", "paths").isel(scene=0)
    found, kinds = paths.vertices.values, paths.interactions.values
    assert kinds[:, :, 0].tolist() == [[0, 1]] * 11 + [[0, 0]]
    np.testing.assert_allclose(found[:-1, 1, 0], ground[:-1], atol=1e-4)
    assert not found[kinds == 0].any()
    import_scenarios([tmp_path / "in"], str(tmp_path / "without"), options)
    assert "vertices" not in open_store(tmp_path / "without", "paths")


def test_places_of_interactions_that_do_not_fit_the_delays_are_refused(tmp_path):
    write_scenario(tmp_path / "in" / "town")
    path = tmp_path / "in" / "town" / "inter_pos_t000_tx000_r001.npz"
    np.savez_compressed(path, inter_pos=np.ones((12, 2, 1, 3), np.float32))
    options = {"columns": 2, "rows": 2, "split": "test", "interactions": "positions"}
    with pytest.raises(InputError, match="11 paths are not as long over their vertices as their delay says"):
        import_scenarios([tmp_path / "in"], str(tmp_path / "store"), options)


def test_places_of_interactions_come_with_paths_of_sionna_when_asked_for(tmp_path):
    paths, _, _ = sionna_like()
    sources, targets = (values.numpy().T for values in (paths.sources, paths.targets))
    share = sources[:, 2] / (sources[:, 2] + 1.5)
    ground = sources + (targets[:, None] - sources) * share[:, None]
    ground[..., 2] = 0
    place = np.zeros((2, 9, 2, 2, 3))
    place[0, :, :, 1] = ground
    paths.vertices = Numbers(place.astype(np.float32))
    settings = PathSettings(frequency=CARRIER, columns=4, rows=3, split="test", interactions="positions")
    version = import_paths({"yard": paths}, str(tmp_path / "store"), settings)
    result = validate(version.folder)
    assert result.ok, result.findings
    stored = open_store(tmp_path / "store", "paths")
    for sender in range(2):
        users = range(9 - sender)  # the last one has no path of the second
        found = stored.vertices.values[sender, users, 1, 0]
        np.testing.assert_allclose(found, ground[users, sender] - sources[sender], atol=1e-4)
        assert not stored.vertices.values[sender][stored.interactions.values[sender] == 0].any()


def test_what_is_written_of_an_import_without_places_is_as_before_there_were_any():
    plain = PathSettings(frequency=CARRIER)
    assert "interactions" not in plain.model_dump(mode="json")
    asked = PathSettings(frequency=CARRIER, interactions="positions")
    assert PathSettings.model_validate(asked.model_dump(mode="json")) == asked
