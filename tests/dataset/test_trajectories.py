"""Users that move, in the store: layout, reading, checks, descriptions. Free-space channels from a cheap generator."""

import json
import shutil
from dataclasses import asdict, replace
from hashlib import sha256

import numpy as np
import pytest
import toy
import xarray as xr
import zarr

from wavecity.dataset import InputError
from wavecity.dataset.card.croissant import write_croissant
from wavecity.dataset.card.page import write_card
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft, open_draft
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.fingerprints import array_checksum
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.publish import publish
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.users import find_users
from wavecity.dataset.writer import write_unit

STEPS, SUBCARRIERS, INTERVAL, SPACING = 6, 4, 1e-3, 1e6
LAYOUT = replace(toy.make_layout(scenes=2), with_spectrum=False, steps=STEPS, subcarriers=SUBCARRIERS)
FASTEST = [2.0, 15.0, 7.0]
ATTRIBUTES = {
    **toy.ATTRIBUTES,
    "trajectory": {
        "interval_s": INTERVAL,
        "steps": STEPS,
        "subcarriers": SUBCARRIERS,
        "subcarrier_spacing_hz": SPACING,
        "fastest_mps": FASTEST,
    },
}
LIGHT = 299_792_458.0


def moving_arrays(scene: int, n_users: int) -> dict[str, np.ndarray]:
    """The toy's users, who walk or drive straight on; the line of sight over a band."""
    random = np.random.default_rng(scene)
    arrays = toy.make_arrays(random, n_users)
    kind = (np.arange(n_users) % 3).astype(np.uint8)
    angle, speed = random.uniform(0, 2 * np.pi, n_users), random.uniform(0.5, 1, n_users) * np.array(FASTEST)[kind]
    velocity = speed[:, None] * np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    time, frequency = INTERVAL * np.arange(STEPS), SPACING * np.array([-2, -1, 0, 1])
    position = arrays["user_position"].astype(float)[:, None] + velocity[:, None] * time[:, None]
    position = position.astype(np.float32)
    distance = np.linalg.norm(position.astype(float), axis=-1)
    gain = LIGHT / (4 * np.pi * toy.FREQUENCY * distance)[..., None] * (~arrays["outage"])[:, None, None]
    gain = gain * np.exp(-2j * np.pi * (toy.FREQUENCY + frequency) * distance[..., None] / LIGHT)
    kx, ky = -0.5 * position[..., 0] / distance, -0.5 * position[..., 2] / distance
    phase = kx[..., None, None] * np.arange(32)[:, None] + ky[..., None, None] * np.arange(32)
    csi = gain[..., None, None] * np.exp(2j * np.pi * phase)[:, :, None]
    return arrays | {
        "trajectory/csi": csi.astype(np.complex64),
        "trajectory/position": position,
        "trajectory/velocity": np.repeat(velocity[:, None], STEPS, axis=1).astype(np.float32),
        "trajectory/kind": kind,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = tmp_path_factory.mktemp("moving") / "store"
    draft = open_draft(store, "fedcba9876543210fedc", LAYOUT)
    for unit in range(LAYOUT.units):
        outcomes = []
        for scene in LAYOUT.scenes_of(unit):
            outcome = {"scene_id": f"toy-{scene:04d}", "city": "Toy", "country": "FI", "latitude": 60.0}
            outcome |= {"longitude": 25.0, "split": ("train", "test")[scene % 2], "n_users": 8 + scene % 4}
            outcomes.append({**outcome, "status": "done", "bs_shift": 0.0})
        toy.write_buildings(draft.buildings_path(unit), outcomes)
        scenes = [moving_arrays(scene, 8 + scene % 4) for scene in LAYOUT.scenes_of(unit)]
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    finish_draft(draft, ATTRIBUTES, {})
    finish_draft(draft, ATTRIBUTES, {})  # killed after it, a build does it again
    write_card(draft.folder)
    write_croissant(draft.folder)
    seal(draft)
    result = validate(draft.folder)
    assert result.ok, result.findings
    publish(store, draft.folder, keep=2)
    return store


@pytest.fixture
def version(store, tmp_path):
    return shutil.copytree((store / "latest.zarr").resolve().parent, tmp_path / "v1")


def test_xarray_opens_the_group_with_its_coordinates(store):
    data = open_store(store, "trajectory")
    assert set(data.data_vars) == {"csi", "position", "velocity", "kind"}
    assert data["csi"].dims == ("scene", "user", "time", "subcarrier", "x", "y")
    np.testing.assert_array_equal(data["time"], INTERVAL * np.arange(6))
    np.testing.assert_array_equal(data["frequency"], [-2e6, -1e6, 0, 1e6])
    assert data["frequency"].dims == ("subcarrier",)
    assert data["time"].attrs["units"] == "s"
    assert data["velocity"].attrs["units"] == "m s-1"
    expected = moving_arrays(1, 9)
    found = data.sel(time=3e-3).isel(scene=1, user=slice(9))
    np.testing.assert_array_equal(found["csi"], expected["trajectory/csi"][:, 3])
    # The root is what it always was, and plain xarray reads both.
    assert "time" not in open_store(store).dims
    plain = xr.open_zarr((store / "latest.zarr").resolve(), group="trajectory")
    assert {"time", "frequency"} <= set(plain.coords)
    assert "walker" in attributes_of(open_store(store).attrs)["conventions"]["trajectory"]


def test_a_store_without_them_says_so(toy_store):
    with pytest.raises(InputError, match=r"no group 'trajectory'; its users do not move.*mobility"):
        open_store(toy_store, "trajectory")
    with pytest.raises(InputError, match="trajectory/csi"):
        ChannelDataset(toy_store, "train", ("trajectory/csi",))


def test_the_readers_take_them_as_any_field(store):
    fields = ("trajectory/csi", "trajectory/velocity", "trajectory/kind", "csi")
    for preload in (True, False):
        data = ChannelDataset(store, "test", fields, preload=preload)
        assert data.attrs["trajectory"]["interval_s"] == INTERVAL
        for index in (0, len(data) - 1):
            sample, arrays = data[index], moving_arrays(data.scene_index[index], 8 + data.scene_index[index] % 4)
            for name in fields:
                np.testing.assert_array_equal(sample[name], arrays[name][data.user_index[index]])
    reader = BatchReader(find_users(store, "train"), fields, Order(5))
    (batch, *_) = reader.batches(0)
    for row, (scene, user) in enumerate(zip(batch["scene"], batch["user"], strict=True)):
        np.testing.assert_array_equal(
            batch["trajectory/csi"][row], moving_arrays(scene, 8 + scene % 4)["trajectory/csi"][user]
        )


@pytest.mark.parametrize(("users", "steps", "columns", "expected"), [(60, 32, 16, 4), (60, 32, 256, 1), (3, 2, 1, 3)])
def test_a_chunk_is_a_megabyte_or_one_user(tmp_path, users, steps, columns, expected):
    layout = Layout(2, users, columns, 1, 3, 2, 20, 2, 2, 64, False, True, -200.0, steps, 64)
    draft = open_draft(tmp_path, "a" * 64, layout)
    csi = zarr.open_group(str(draft.data))["trajectory/csi"]
    assert csi.chunks == (1, expected, steps, 64, columns, 1)


def test_layouts_of_older_versions_are_read(toy_store):
    draft = load_draft((toy_store / "latest.zarr").resolve().parent)
    assert not draft.layout.with_trajectory
    content = {name: value for name, value in asdict(draft.layout).items() if name not in ("steps", "subcarriers")}
    assert Layout(**content) == draft.layout
    assert not [spec for spec in draft.layout.specs() if spec.name.startswith("trajectory")]


def _forge(version, name, change):
    """Change an array of the first unit and all its checksums: only the physics can tell."""
    draft = load_draft(version)
    array = zarr.open_group(str(draft.data), mode="r+")[name]
    values = array[:2]
    change(values)
    array[:2] = values
    receipt = json.loads(draft.receipt_path(0).read_text())
    receipt["sha256"][name] = array_checksum(values)
    for file in (path for path in (draft.data / name / "c" / "0").rglob("*") if path.is_file()):
        receipt["files"][str(file.relative_to(version))] = sha256(file.read_bytes()).hexdigest()
    draft.receipt_path(0).write_text(json.dumps(receipt))
    seal(draft)


def _set(index, value):
    return lambda values: values.__setitem__(index, value)


def _times(index, factor):
    return lambda values: values.__setitem__(index, values[index] * factor)


@pytest.mark.parametrize(
    ("check", "name", "change"),
    [
        ("finite", "trajectory/csi", _set((0, 3, 2, 1, 5, 6), np.nan)),
        ("finite", "trajectory/velocity", _set((0, 3, 2), np.inf)),
        ("padding", "trajectory/csi", _set((0, 11, 2), 1)),
        ("padding", "trajectory/kind", _set((0, 11), 2)),
        ("start", "trajectory/position", _times((0, 3, 0), 1.001)),
        ("motion", "trajectory/position", _times((0, 3, 4), 1.01)),
        ("motion", "trajectory/velocity", _times((0,), -1)),
        ("motion", "trajectory/velocity", _times((0, 3, 2), 9)),
        ("motion", "trajectory/kind", _set((0, 3), 3)),
        ("first snapshot", "trajectory/csi", _times((0, 3), 1.01)),
        ("first snapshot", "trajectory/csi", lambda values: np.copyto(values, values.conj() + 0)),
    ],
)
def test_each_check_finds_its_fault(version, check, name, change):
    _forge(version, name, change)
    findings = [(finding.check, finding.where) for finding in validate(version).findings]
    assert (check, "scene toy-0000") in findings


def test_cut_paths_may_be_missing_at_the_first_snapshot(version):
    """A path of a hundredth of the power that csi lacks, and no more than it."""

    def add_path(share):
        def change(values):
            gain = np.abs(values[0, :, 0, :, 0, 0])[:, None, :, None, None]
            values[0] += np.sqrt(share) * gain

        return change

    for name, value in (("paths/n_paths", 2), ("paths/power_cut", 0.01)):
        _forge(version, name, lambda values, value=value: np.copyto(values[0, :7], value))
    _forge(version, "trajectory/csi", add_path(0.009))
    assert validate(version).ok
    _forge(version, "trajectory/csi", add_path(0.009))
    assert {finding.check for finding in validate(version).findings} == {"first snapshot"}


def test_changed_times_are_found(version):
    root = zarr.open_group(str(version / "data.zarr"), mode="r+")
    root["trajectory/time"][1] = 2.0
    seal(load_draft(version))
    findings = [(finding.check, finding.where) for finding in validate(version).findings]
    assert findings == [("structure", "trajectory/time")]


def test_every_trajectory_check_ran(version):
    checks = validate(version).checks
    assert checks["start"] == checks["motion"] == checks["first snapshot"] == 2


def test_corners_are_allowed(version):
    """One user turns round, at once, in the middle of a step."""

    def turn(values):
        there = values[0, 2, :3].copy()
        values[0, 2, 3:] = there[::-1]

    _forge(version, "trajectory/position", turn)
    assert validate(version).ok


def test_card_and_croissant_describe_them(store):
    folder = (store / "latest.zarr").resolve().parent
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "6 snapshots every 1 ms, 4 subcarriers every 1000 kHz" in card
    for name in ("csi", "position", "velocity", "kind", "time", "frequency"):
        assert f"trajectory/{name}" in card
    sets = {of["@id"]: of for of in json.loads((folder / "croissant.json").read_text())["recordSet"]}
    fields = {field["name"]: field for field in sets["trajectory-arrays"]["field"]}
    assert set(fields) == {"csi", "position", "velocity", "kind"}
    assert fields["csi"]["arrayShape"] == "6,4,32,32,2"
    assert "trajectory/velocity" in fields["velocity"]["description"]
    assert fields["kind"]["dataType"] == "cr:UInt8"
    mlcroissant = pytest.importorskip("mlcroissant")
    assert mlcroissant.Dataset(jsonld=str(folder / "croissant.json")).metadata.record_sets


def test_exports_have_them(store, tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs wavecity[exchange]")
    scipy_io = pytest.importorskip("scipy.io", reason="needs wavecity[exchange]")
    for to in ("hdf5", "mat"):
        export_dataset(str(store), to, tmp_path / to)
    right = open_store(store, "trajectory")
    with h5py.File(tmp_path / "hdf5" / "data.h5") as file:
        np.testing.assert_array_equal(file["trajectory/csi"][1, :9], right.csi[1, :9])
        assert [dim.label for dim in file["trajectory/velocity"].dims] == ["scene", "user", "time", "axis"]
    scene = scipy_io.loadmat(tmp_path / "mat" / "toy-0001.mat", simplify_cells=True)
    np.testing.assert_array_equal(scene["trajectory"]["position"], right.position[1, :9])


def test_a_scene_too_large_for_a_matlab_file_is_refused(store, tmp_path, monkeypatch):
    pytest.importorskip("scipy.io", reason="needs wavecity[exchange]")
    monkeypatch.setattr("wavecity.dataset.exchange.array_files.LARGEST", 10**6)
    with pytest.raises(
        InputError, match=r"trajectory of a scene has 0\.0 GB, a variable of a MATLAB file holds 2; use --to hdf5"
    ):
        export_dataset(str(store), "mat", tmp_path / "out")
    assert not (tmp_path / "out").exists()
