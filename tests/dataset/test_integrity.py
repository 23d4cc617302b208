"""A store with missing, cut or changed files is refused by every reader, and its finished units are built again."""

import json
import shutil
import warnings

import pytest
import xarray as xr
from toy import ATTRIBUTES, build_store, make_layout, write_synthetic_unit

from wavecity.dataset import InputError
from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft, open_draft
from wavecity.dataset.files import location, remove_folder
from wavecity.dataset.fingerprints import read_sealed, write_sealed
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.publish import pointed_at
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.users import find_users
from wavecity.flows.manual_publish import publish_newest

SHARD = "data.zarr/csi/c/1/0/0/0"
READERS = {
    "xarray": open_store,
    "paths": lambda store, **options: open_store(store, "paths", **options),
    "numpy": lambda store, **options: find_users(store, "train", **options),
    "samples": lambda store, **options: ChannelDataset(store, "train", ("los",), **options),
    "batches": lambda store, **options: ShuffledChannels(store, "train", ("los",), **options),
    "lightning": lambda store, **options: ChannelDataModule(store, ("los",), **options).train_dataloader(),
}


@pytest.fixture
def store(toy_store, tmp_path):
    """A copy of the toy store that a test may damage."""
    return shutil.copytree(toy_store, tmp_path / "store", symlinks=True)


def version_of(store):
    return resolve(store).parent


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def refused(read, *arguments, **options):
    with pytest.raises(InputError) as error:
        read(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_store_without_a_shard(store, reader):
    (version_of(store) / SHARD).unlink()
    message = refused(READERS[reader], store)
    assert f"{version_of(store)}: 1 of " in message
    assert f"files are damaged: {SHARD} is missing; copy the version again, or build it again" in message


def test_a_shard_that_was_cut_and_several_damages(store):
    cut(version_of(store) / SHARD)
    size = (version_of(store) / SHARD).stat().st_size
    assert f"{SHARD} has {size} bytes, not {size + 7};" in refused(open_store, store)
    shutil.rmtree(version_of(store) / "data.zarr" / "height" / "c")
    (version_of(store) / "data.zarr" / "los" / "zarr.json").unlink()
    message = refused(open_store, store)
    assert "5 of " in message
    assert message.count("is missing") == 2
    assert ", and 2 more; copy" in message


@pytest.mark.parametrize("reader", READERS)
def test_bytes_are_compared_on_request(store, reader):
    READERS[reader](store, verify=True)
    flip(version_of(store) / SHARD)
    READERS[reader](store)
    assert f"{SHARD} has changed" in refused(READERS[reader], store, verify=True)


def test_shards_that_were_never_written_are_not_missed(tmp_path):
    """Scene 3 is quarantined: as a unit of its own it has no channels on disk."""
    build_store(tmp_path / "store", make_layout(unit=1))
    assert not (version_of(tmp_path / "store") / "data.zarr/csi/c/3").exists()
    assert open_store(tmp_path / "store", verify=True).sizes["scene"] == 6


def test_what_has_no_manifest_or_one_without_sizes(store, tmp_path):
    manifest = version_of(store) / "manifest.json"
    content = read_sealed(manifest)
    # Older versions: presence only.
    write_sealed(manifest, {"files": content["files"]})
    cut(version_of(store) / SHARD)
    open_store(store)
    (version_of(store) / SHARD).unlink()
    assert "is missing" in refused(open_store, store)
    cut(manifest)
    assert "manifest.json: cut short or changed" in refused(open_store, store)
    # A .zarr folder by itself is taken as it is.
    alone = shutil.copytree(version_of(store) / "data.zarr", tmp_path / "data.zarr")
    assert open_store(alone).sizes["scene"] == 6


def test_plain_xarray_reads_what_the_manifest_does_not_forbid(store):
    """What it is about: without the comparison a missing shard is silence."""
    (version_of(store) / SHARD).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csi = xr.open_zarr(resolve(store))["csi"]
    assert float(abs(csi[2]).max()) == 0


@pytest.mark.system
def test_a_store_on_object_storage(bucket):
    store = f"{bucket}/integrity"
    build_store(store)
    open_store(store, verify=True)
    version = resolve(store).parent
    shard = version / SHARD
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{SHARD} has {len(content) - 1} bytes, not {len(content)}" in refused(open_store, store)
    shard.unlink()
    assert f"{SHARD} is missing" in refused(ShuffledChannels, store)
    remove_folder(location(store))


def test_publishing_compares_every_byte(store):
    (store / "latest.zarr").unlink()
    assert publish_newest(str(store)).number == 1
    (store / "latest.zarr").unlink()
    flip(version_of(store / "versions" / "v1") / SHARD)
    with pytest.raises(CheckFailed, match=rf"checksum at {SHARD}: its bytes differ .* \(1 finding\)$"):
        publish_newest(str(store))
    assert pointed_at(store) is None


@pytest.fixture
def draft(tmp_path):
    """A finished, validated draft of three units."""
    draft = open_draft(tmp_path / "store", "0123456789abcdef0123", make_layout())
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    finish_draft(draft, ATTRIBUTES | {"recipe": {"store": {"keep": 2, "grace": 0.0}}}, {"map": {"name": "toy"}})
    seal(draft)
    assert validate(draft.folder).ok
    return draft


def test_publishing_a_draft_compares_every_byte(draft):
    store = draft.folder.parent.parent
    flip(draft.folder / SHARD)
    with pytest.raises(CheckFailed, match=f"checksum at {SHARD}"):
        publish_newest(str(store))
    assert not (store / "versions").exists()
    flip(draft.folder / SHARD)
    assert publish_newest(str(store)).number == 1


def test_units_with_damaged_files_are_built_again(draft):
    whole = {path: path.read_bytes() for path in draft.folder.rglob("*") if path.is_file()}
    assert draft.discard_damaged(verify=True) == []
    cut(draft.folder / SHARD)
    (draft.folder / "buildings" / "unit-00002.parquet").unlink()
    lines = draft.discard_damaged()
    assert [line.split(":")[0] for line in lines] == ["unit 1", "unit 2"]
    assert f"{SHARD} has " in lines[0]
    assert lines[1] == "unit 2: buildings/unit-00002.parquet is missing"
    assert draft.missing() == [1, 2]
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    assert draft.discard_damaged(verify=True) == []
    shards = [path for path in whole if "/c/" in str(path)]
    assert len(shards) > 30
    assert all(path.read_bytes() == whole[path] for path in shards)


def test_bytes_of_units_are_compared_on_request(draft):
    flip(draft.folder / SHARD)
    assert draft.discard_damaged() == []
    assert draft.discard_damaged(verify=True) == [f"unit 1: {SHARD} has changed"]
    assert draft.missing() == [1]


def test_a_unit_of_which_shards_and_receipt_were_cut_is_built_again(draft):
    """A machine that went down in the middle of writing."""
    whole = {name: (draft.folder / name).read_bytes() for name in draft.receipt(1)["files"]}
    for name in whole:
        cut(draft.folder / name)
    cut(draft.receipt_path(1))
    assert draft.discard_damaged() == []
    assert draft.missing() == [1]
    write_synthetic_unit(draft, 1)
    assert {name: (draft.folder / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"fingerprint": "0123456789abcdef0123"}'])
def test_a_receipt_that_was_cut_is_no_receipt(draft, content):
    draft.receipt_path(1).write_bytes(content)
    assert draft.discard_damaged(verify=True) == []
    assert draft.missing() == [1]


def test_receipts_of_older_versions_name_no_sizes(draft):
    receipt = json.loads(draft.receipt_path(1).read_text())
    del receipt["sizes"]
    draft.receipt_path(1).write_text(json.dumps(receipt))
    cut(draft.folder / SHARD)
    assert draft.discard_damaged() == []
    (draft.folder / SHARD).unlink()
    assert draft.discard_damaged() == [f"unit 1: {SHARD} is missing"]


def test_a_draft_without_the_metadata_of_an_array_begins_anew(draft):
    cut(draft.folder / "data.zarr" / "csi" / "zarr.json")
    again = open_draft(draft.folder.parent.parent, draft.fingerprint, draft.layout)
    assert len(again.discard_damaged()) == 3
    assert again.missing() == [0, 1, 2]
    for unit in again.missing():
        write_synthetic_unit(again, unit)
    finish_draft(again, ATTRIBUTES, {})
    seal(again)
    assert validate(again.folder).ok


def test_finishing_again_does_not_hold_the_draft_against_what_was_sealed_before(draft):
    finish_draft(draft, ATTRIBUTES | {"title": "a longer title than before"}, {})
    assert open_store(draft.folder).attrs["title"] == "a longer title than before"
    seal(draft)
    assert validate(load_draft(draft.folder).folder).ok
