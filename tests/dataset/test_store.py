"""Writing, resuming, publishing and reading a store."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from toy import ATTRIBUTES, build_store, make_arrays, make_layout, write_synthetic_unit

from wavecity.dataset import InputError
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import files_below, location, write_json
from wavecity.dataset.fingerprints import array_checksum, write_sealed
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import latest, publish, retire, versions
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of
from wavecity.dataset.writer import write_shards, write_unit


def test_plain_xarray_reads_names_units_and_finite_values(toy_store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xr.open_zarr(toy_store / "latest.zarr")
    assert data["csi"].dims == ("scene", "user", "x", "y")
    assert data["spectrum"].dims == ("scene", "user", "kx", "ky")
    assert data["path_gain"].attrs["units"] == "dB"
    assert data["height"].attrs["units"] == "m"
    assert set(data["city"].values) == {"Toy"}
    assert "OpenStreetMap" in data.attrs["attribution"]
    for name, array in data.data_vars.items():
        assert np.isfinite(array.values).all(), name
    paths = xr.open_zarr(toy_store / "latest.zarr", group="paths")
    assert paths["delay"].dims == ("scene", "user", "path")


def test_values_survive_with_padding(toy_store):
    data = open_store(toy_store)
    for scene in (0, 5):
        n_users = 8 + scene % 4
        expected = make_arrays(np.random.default_rng(scene), n_users)
        assert int(data["n_users"][scene]) == n_users
        np.testing.assert_array_equal(data["csi"][scene, :n_users].values, expected["csi"])
        np.testing.assert_array_equal(data["height"][scene].values, expected["height"])
        assert not data["csi"][scene, n_users:].values.any()
        assert data["outage"][scene, n_users:].values.all()
    assert str(data["status"].values[3]) == "quarantined"


# What a reader may rely on where there is no user: no power, in outage, no beam.
EMPTY = {"path_gain": -200, "outage": 1, "best_beam": -1}


def test_places_without_a_user_hold_what_the_schema_says(toy_store):
    """Padding, and the whole scene that was quarantined, of which nothing was written."""
    root = zarr.open_group(f"{toy_store}/latest.zarr", mode="r")
    users, arrays = root["n_users"][:], dict(root.members(max_depth=None))
    checked = set()
    for name, array in arrays.items():
        if getattr(array, "ndim", 0) < 2 or array.metadata.dimension_names[1] != "user":
            continue
        for scene, count in enumerate(users):
            np.testing.assert_array_equal(array[scene, count:], EMPTY.get(name, 0), err_msg=f"{name}, scene {scene}")
        checked.add(name)
    assert users[3] == 0
    assert checked >= {"csi", "spectrum", "user_position", "los", "paths/gain", "paths/n_paths", *EMPTY}


def test_unaligned_write_is_refused_with_the_remedy(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    array = group.create_array("a", shape=(10, 2), chunks=(1, 2), shards=(4, 2), dtype="int16")
    for start, length in ((1, 4), (0, 3), (4, 2), (8, 1)):
        with pytest.raises(ValueError, match="whole shards of 4 scenes"):
            write_shards(array, start, np.ones((length, 2), np.int16))
    write_shards(array, 8, np.ones((2, 2), np.int16))
    write_shards(array, 0, np.ones((8, 2), np.int16))
    assert (array[:] == 1).all()


def test_resume_redoes_only_units_without_a_valid_receipt(tmp_path):
    draft = open_draft(tmp_path, "f" * 64, make_layout())
    assert draft.missing() == [0, 1, 2]
    for unit in (0, 1, 2):
        write_synthetic_unit(draft, unit)
    draft.receipt_path(1).write_text('{"fingerprint": "cut o')
    (draft.folder / "data.zarr" / "csi" / "half.partial").write_bytes(b"orphan")
    again = open_draft(tmp_path, "f" * 64, make_layout())
    assert again.missing() == [1]
    assert not list(tmp_path.rglob("*.partial"))


def test_negative_zeros_of_a_whole_chunk_keep_their_checksum(tmp_path):
    layout = make_layout(scenes=1, unit=1)
    draft = open_draft(tmp_path, "f" * 64, layout)
    arrays = make_arrays(np.random.default_rng(0), 11)  # user 10, in outage, is alone in its chunk
    arrays["csi"][10] = complex(-0.0, -0.0)
    outcome = {"scene_id": "toy-0000", "status": "done", "split": "train", "n_users": 11}
    receipt = write_unit(draft, 0, [arrays], [outcome], {})
    stored = zarr.open_group(str(draft.data), mode="r")["csi"][:]
    assert array_checksum(stored) == receipt["sha256"]["csi"]


def test_same_bytes_whatever_the_order_of_units(tmp_path):
    checksums = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        draft = open_draft(tmp_path / name, "f" * 64, make_layout())
        for unit in order:
            write_synthetic_unit(draft, unit)
        files = sorted(path for path in draft.data.rglob("*") if path.is_file())
        checksums.append([(path.relative_to(draft.data), path.read_bytes()) for path in files])
    assert checksums[0] == checksums[1]


def test_statistics_are_of_the_train_split_without_outage(toy_store):
    data = open_store(toy_store).load()
    power = []
    for scene in np.flatnonzero(data["split"].values.astype(str) == "train"):
        for user in range(int(data["n_users"][scene])):
            if not data["outage"].values[scene, user]:
                power.append(np.mean(np.abs(data["csi"].values[scene, user].astype(complex)) ** 2))
    found = attributes_of(open_store(toy_store).attrs)["statistics"]
    assert found["n_samples"] == len(power)
    assert found["csi_rms"] == pytest.approx(np.sqrt(np.mean(power)), rel=1e-6)
    assert found["csi_rms_db_mean"] == pytest.approx(np.mean(10 * np.log10(power)), rel=1e-6)
    assert found["csi_rms_db_std"] == pytest.approx(np.std(10 * np.log10(power)), rel=1e-5)


def test_publishing_moves_the_pointer_and_leaves_old_readers_alone(tmp_path):
    first = build_store(tmp_path)
    opened = open_store(tmp_path)
    before = opened["csi"].values.copy()
    second = build_store(tmp_path, fingerprint="another-fingerprint")
    assert [version.number for version in versions(tmp_path)] == [1, 2]
    assert latest(tmp_path) == second
    assert resolve(tmp_path) == second.data.resolve()
    assert first.data.exists()
    np.testing.assert_array_equal(opened["csi"].values, before)
    build_store(tmp_path, fingerprint="a-third-fingerprint")
    assert [version.number for version in versions(tmp_path)] == [2, 3]


def test_a_version_beyond_keep_stays_until_its_readers_had_time(tmp_path):
    """A file that is removed under a reader looks to Zarr like a chunk of fill values."""
    for fingerprint in ("first-fingerprint", "second-fingerprint", "third-fingerprint"):
        build_store(tmp_path, fingerprint=fingerprint)
    assert [version.number for version in versions(tmp_path)] == [2, 3]
    assert retire(tmp_path, keep=1, grace=1.0) == []
    published = tmp_path / "versions" / "v3" / "published.json"
    write_sealed(published, {"version": 3, "published": "2020-01-01T00:00:00+00:00"})
    assert [version.number for version in retire(tmp_path, keep=1, grace=1.0)] == [2]
    assert sorted(path.name for path in (tmp_path / "versions").iterdir()) == ["v3"]


def test_a_draft_that_changed_after_its_validation_is_not_published(tmp_path):
    draft = open_draft(tmp_path, "f" * 64, make_layout())
    for unit in (0, 1, 2):
        write_synthetic_unit(draft, unit)
    finish_draft(draft, ATTRIBUTES, {})
    seal(draft)
    assert validate(draft.folder).ok
    write_synthetic_unit(draft, 1)
    write_json(draft.receipt_path(1), draft.receipt(1) | {"seconds_write": -1})
    seal(draft)
    with pytest.raises(InputError, match="has changed since it was validated"):
        publish(tmp_path, draft.folder, keep=1)


def contents(folder):
    """Bytes of every file that is the same in every build."""
    names = [name for name in files_below(folder) if name.startswith(("data.zarr", "buildings"))]
    return {name: (folder / name).read_bytes() for name in [*names, "statistics.json", "ledger.json"]}


@pytest.fixture
def remote(bucket, tmp_path):
    return location(f"{bucket}/{tmp_path.name}/store")


def test_object_storage_holds_the_same_store(remote, toy_store):
    """Built, resumed, validated, published, read: the same code, the same bytes, and no folder needed."""
    first = open_draft(remote, "f" * 64, make_layout())
    write_synthetic_unit(first, 1)
    draft = open_draft(remote, "f" * 64, make_layout())
    assert draft.missing() == [0, 2]
    version = build_store(remote, fingerprint="f" * 64)
    assert not [name for name in files_below(remote / ".staging") if "lease" not in name]
    assert latest(remote) == version
    there, here = contents(version.folder), contents((toy_store / "latest.zarr").resolve().parent)
    # The fingerprint is an attribute of the root group.
    assert {name for name in here if there[name] != here[name]} == {"data.zarr/zarr.json"}
    assert there.keys() == here.keys()
    remote_data, local = open_store(str(remote)), open_store(toy_store)
    xr.testing.assert_equal(remote_data.load(), local.load())
    assert open_store(str(remote), "paths")["delay"].chunks is not None


def test_versions_on_object_storage_leave_old_readers_alone(remote):
    small = make_layout(scenes=2)
    build_store(remote, small, fingerprint="first-fingerprint")
    opened = open_store(remote)
    second = build_store(remote, small, fingerprint="second-fingerprint")
    assert resolve(str(remote)) == second.data
    assert opened["csi"].values.any()
    third = build_store(remote, small, fingerprint="third-fingerprint")
    assert [version.number for version in versions(remote)] == [2, 3]
    # Killed while the next version was copied: its folder is no version, and the next publication clears it away.
    write_json(remote / "versions" / "v4" / "stray.json", {})
    assert latest(remote) == third
    build_store(remote, small, fingerprint="fourth-fingerprint")
    assert "stray.json" not in files_below(remote / "versions" / "v4")


def test_killed_between_copies_and_deletes_the_version_is_published_once(remote):
    draft = open_draft(remote, "f" * 64, make_layout())
    for unit in (0, 1, 2):
        write_synthetic_unit(draft, unit)
    finish_draft(draft, ATTRIBUTES, {})
    seal(draft)
    validate(draft.folder)
    for name in files_below(draft.folder):
        (remote / "versions" / "v1" / name).write_bytes((draft.folder / name).read_bytes())
    version = publish(remote, draft.folder, keep=1)
    assert version.number == 1
    assert [known.number for known in versions(remote)] == [1]
    assert not files_below(draft.folder)


def test_a_corrupted_object_is_found_and_named(remote):
    version = build_store(remote)
    shard = next(name for name in files_below(version.folder) if name.startswith("data.zarr/spectrum/c/2"))
    content = bytearray((version.folder / shard).read_bytes())
    content[-1] ^= 1
    (version.folder / shard).write_bytes(content)
    assert [finding.where for finding in validate(str(remote)).findings] == [shard]


def test_object_storage_that_cannot_be_read_gets_one_line(bucket, monkeypatch):
    for url in ("s3://no-such-bucket/store", f"{bucket}/nothing-here", "nowhere://a/b"):
        with pytest.raises(InputError, match=url) as error:
            open_store(url)
        assert "\n" not in str(error.value)


def test_an_unvalidated_draft_is_not_published(tmp_path):
    draft = open_draft(tmp_path, "f" * 64, make_layout())
    with pytest.raises(InputError, match="not validated"):
        publish(tmp_path, draft.folder, keep=1)


@pytest.mark.parametrize("kind", ["missing", "empty", "zarr", "draft"])
def test_what_is_no_store_gets_one_line(tmp_path, kind):
    if kind == "empty":
        (tmp_path / "store").mkdir()
    if kind == "zarr":
        zarr.open_group(str(tmp_path / "store"), mode="w")
    if kind == "draft":
        open_draft(tmp_path / "store", "f" * 64, make_layout())
    with pytest.raises(InputError) as error:
        open_store(tmp_path / "store")
    assert str(tmp_path / "store") in str(error.value)
    assert "\n" not in str(error.value)


def test_ledger_names_the_quarantined_scene(toy_store):
    ledger = json.loads((toy_store / "versions" / "v1" / "ledger.json").read_text())
    assert [(entry["scene_id"], entry["reason"]) for entry in ledger] == [("toy-0003", "SceneError: toy")]
