"""`mlcroissant` as the judge: it validates the file, and loads what the file says can be loaded."""

import hashlib
import json

import geopandas as gpd
import numpy as np
import pytest
import toy
import xarray as xr

from wavecity.dataset.card.croissant import describe, write_croissant
from wavecity.dataset.card.page import write_card
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.schema import array_specs

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    draft = open_draft(tmp_path_factory.mktemp("croissant"), "0123456789abcdef0123", toy.make_layout())
    for unit in draft.missing():
        toy.write_synthetic_unit(draft, unit)
    finish_draft(draft, toy.ATTRIBUTES, {})
    write_card(draft.folder)
    write_croissant(draft.folder)
    return draft.folder


@pytest.fixture(scope="module")
def loaded(folder):
    return mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))


def records(loaded, name):
    """Records without their record set's prefix, bytes as text."""
    found = list(loaded.records(name))
    text = [{key.split("/", 1)[1]: value for key, value in record.items()} for record in found]
    return [{key: of.decode() if isinstance(of, bytes) else of for key, of in record.items()} for record in text]


def test_it_validates(loaded):
    """No error, and no warning but that a draft has no date of publication yet."""
    issues = loaded.metadata.ctx.issues
    assert not issues.errors
    assert [text for text in issues.warnings if "datePublished" not in text] == []


def test_it_validates_as_json_too(folder):
    content = json.loads((folder / "croissant.json").read_text(encoding="utf-8"))
    assert mlcroissant.Dataset(jsonld=content).metadata.name == "wavecity-channels"


def test_what_a_dataset_must_say(loaded):
    metadata = loaded.metadata
    assert metadata.license == ["https://spdx.org/licenses/ODbL-1.0.html"]
    assert "OpenStreetMap contributors" in metadata.cite_as
    assert {creator.name for creator in metadata.creators} == {"Wavecity", "OpenStreetMap contributors"}
    assert metadata.version == "1.1.0+0123456789abcdef"
    assert "xarray" in metadata.description


def test_single_files_have_their_own_checksums(folder, loaded):
    named = {file.content_url: file.sha256 for file in loaded.metadata.file_objects}
    assert {"statistics.json", "card.html", "data.zarr/zarr.json"} <= named.keys()
    for name, digest in named.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_file_sets_name_every_other_file(folder, loaded):
    """Globs of the file sets against what lies there."""
    objects = {file.content_url for file in loaded.metadata.file_objects}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    by_set = {of.id: of.includes for of in loaded.metadata.file_sets}
    assert by_set["buildings-files"] == ["buildings/*.parquet"]
    covered = {name for name in there if name.startswith(("data.zarr/", "receipts/", "buildings/"))}
    assert there - covered - objects == {"croissant.json", "draft.json"}


def test_scenes_can_be_loaded(folder, loaded):
    data = xr.open_zarr(folder / "data.zarr")
    found = records(loaded, "scenes")
    assert len(found) == data.sizes["scene"]
    for name in ("scene_id", "city", "split", "status", "n_users", "latitude"):
        assert [record[name] for record in found] == data[name].values.tolist()


def test_splits_can_be_loaded_and_scenes_refer_to_them(loaded):
    found = {record["name"]: record["url"] for record in records(loaded, "splits")}
    assert found == {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
    assert {record["split"] for record in records(loaded, "scenes")} <= found.keys()


def test_buildings_can_be_loaded(folder, loaded):
    tables = [gpd.read_parquet(path) for path in sorted((folder / "buildings").glob("*.parquet"))]
    expected = [row for table in tables for row in table.drop(columns="geometry").to_dict("records")]
    found = records(loaded, "buildings")
    assert len(found) == len(expected) == 5
    for here, there in zip(found, expected, strict=True):
        assert here == {name: there[name] for name in here}
        assert here.keys() == there.keys()


def test_every_array_is_described_as_stored(folder, loaded):
    """Shape without scene and user axis, dtype (complex numbers as pairs), unit; and no loader gets wrong values."""
    stored = xr.open_datatree(folder / "data.zarr", engine="zarr")
    sets = {of.id: {field.name: field for field in of.fields} for of in loaded.metadata.record_sets}
    for spec in array_specs():
        group, name = spec.name.split("/") if "/" in spec.name else ("", spec.name)
        record_set = "path-arrays" if group else "user-arrays" if "user" in spec.dims else "scene-arrays"
        field, array = sets[record_set].pop(name), stored[spec.name]
        shape = list(array.shape[2 if "user" in spec.dims else 1 :]) + [2] * (array.dtype.kind == "c")
        assert list(map(int, (field.array_shape or "").split(","))) == shape if shape else not field.array_shape
        expected = np.dtype("float32") if array.dtype.kind == "c" else array.dtype
        assert np.dtype(field.data_type) == expected
        if spec.units != "1":
            assert f"({spec.units})" in field.description
    assert [list(sets[name]) for name in ("scene-arrays", "user-arrays", "path-arrays")] == [[], [], []]
    with pytest.raises(Exception, match=r"Read\(arrays\)"):
        list(loaded.records("user-arrays"))


def test_same_version_same_bytes(folder):
    before = (folder / "croissant.json").read_bytes()
    write_croissant(folder)
    assert (folder / "croissant.json").read_bytes() == before


def test_a_version_without_paths_describes_none(tmp_path):
    from dataclasses import replace

    layout = replace(toy.make_layout(scenes=2, unit=2), with_paths=False)
    draft = open_draft(tmp_path, "e" * 64, layout)
    toy.write_synthetic_unit(draft, 0)
    draft.buildings_path(0).unlink()
    finish_draft(draft, toy.ATTRIBUTES, {})
    content = describe(draft.folder)
    assert [of["@id"] for of in content["recordSet"]] == ["splits", "scenes", "scene-arrays", "user-arrays"]
    assert mlcroissant.Dataset(jsonld=content).metadata.record_sets
