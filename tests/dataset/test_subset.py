"""A part of a store as a store of its own."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from command import wavecity as run
from toy import ATTRIBUTES, build_store, make_layout

import wavecity
from wavecity.dataset import InputError
from wavecity.dataset.card.croissant import write_croissant
from wavecity.dataset.card.page import write_card
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import files_below, folder_size, read_json
from wavecity.dataset.finish import seal
from wavecity.dataset.importing import subset as module
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.publish import latest, versions
from wavecity.dataset.reader import open_store


def test_a_part_holds_what_the_whole_holds(toy_store: Path, tmp_path: Path) -> None:
    """Scenes of several units, of which one was quarantined, without an array."""
    version = subset(toy_store, tmp_path / "part", scenes=["toy-0001", "toy-000[3-5]"], fields=["csi", "paths/gain"])
    assert validate(tmp_path / "part").findings == []
    whole, part = open_store(toy_store), open_store(tmp_path / "part")
    assert part["scene_id"].values.tolist() == ["toy-0001", "toy-0004", "toy-0005"]
    assert part.sizes["user"] == int(part["n_users"].max()) < whole.sizes["user"]
    assert set(whole.data_vars) - set(part.data_vars) == {"spectrum"}
    for group in (None, "paths"):
        here, there = open_store(tmp_path / "part", group), open_store(toy_store, group)
        for scene in here["scene"].values.tolist():
            users = int(part.sel(scene=scene)["n_users"])
            of, expected = here.sel(scene=scene).load(), there.sel(scene=scene).load()
            for name in of.data_vars:
                some = {"user": slice(users)} if "user" in of[name].dims else {}
                np.testing.assert_array_equal(of[name].isel(some).values, expected[name].isel(some).values, name)
            assert all(of[name].item() == expected[name].item() for name in ("city", "split"))
    assert folder_size(version.folder) < folder_size(latest(toy_store).folder)


def test_it_says_what_it_is_of(toy_store: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store, tmp_path / "whole", symlinks=True)
    draft = load_draft((tmp_path / "whole" / "latest.zarr").resolve().parent)
    write_card(draft.folder)
    write_croissant(draft.folder)
    seal(draft)
    version = subset(tmp_path / "whole", tmp_path / "part", splits=["train", "validation"])
    attributes = wavecity.attributes_of(open_store(tmp_path / "part").attrs)
    assert {name: attributes[name] for name in ATTRIBUTES} == ATTRIBUTES
    assert "OpenStreetMap" in attributes["attribution"]
    assert attributes["fingerprint"] != draft.fingerprint
    assert read_json(version.folder / "lineage.json")["subset"]["of"] == draft.fingerprint
    card = (version.folder / "card.md").read_text(encoding="utf-8")
    assert f"A subset: 3 of the 6 scenes of version {draft.fingerprint[:16]}" in card
    assert "© OpenStreetMap contributors" in card
    assert (version.folder / "croissant.json").exists()
    # All train scenes are in it: the same numbers for normalisation.
    whole = wavecity.attributes_of(open_store(toy_store).attrs)["statistics"]
    assert attributes["statistics"] == pytest.approx(whole)


def test_the_readers_take_it(toy_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    subset(toy_store, tmp_path / "part", splits=["test"])
    users = wavecity.ChannelDataset(tmp_path / "part", "test", fields=("csi", "height", "paths/delay"))
    whole = wavecity.ChannelDataset(toy_store, "test", fields=("csi", "height", "paths/delay"))
    assert len(users) == len(whole)
    for one, other in zip(users, whole, strict=True):
        for name in users.fields:
            np.testing.assert_array_equal(one[name], other[name])


def test_buildings_come_along(toy_store: Path, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    version = subset(toy_store, tmp_path / "part", scenes=["toy-0001", "toy-0004"])
    table = geopandas.read_parquet(version.folder / "buildings" / "unit-00000.parquet")
    assert table["scene_id"].tolist() == ["toy-0001", "toy-0004"]
    # In degrees around the scene, as the format wants.
    west, south, east, north = table.total_bounds
    assert 24.99 < west < east < 25.01
    assert 59.99 < south < north < 60.01


def test_killed_it_goes_on_with_what_is_missing(
    toy_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = module._write

    def stop(draft: object, unit: int, part: object) -> None:
        if unit == 1 and len(written) == 1:
            raise KeyboardInterrupt
        written.append(unit)
        write(draft, unit, part)

    monkeypatch.setattr(module, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        subset(toy_store, tmp_path / "part")
    assert latest(tmp_path / "part") is None
    monkeypatch.setattr(module, "_write", lambda *given: (written.append(given[1]), write(*given)))
    version = subset(toy_store, tmp_path / "part")
    assert written == [0, 1, 2]
    monkeypatch.setattr(module, "_write", None)
    assert subset(toy_store, tmp_path / "part") == version
    # At once, the bytes are the same.
    monkeypatch.setattr(module, "_write", write)
    other = subset(toy_store, tmp_path / "other")
    for name in files_below(version.data):
        assert (version.data / name).read_bytes() == (other.data / name).read_bytes(), name


def test_a_damaged_source_is_not_copied(toy_store: Path, tmp_path: Path) -> None:
    shutil.copytree(toy_store, tmp_path / "whole", symlinks=True)
    csi = tmp_path / "whole" / "versions" / "v1" / "data.zarr" / "csi"
    shard = next(file for file in (csi / "c" / "2").rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="unit 2 is damaged"):
        subset(tmp_path / "whole", tmp_path / "part", splits=["test"])
    assert not versions(tmp_path / "part")
    # What the damage is not in can be taken.
    assert subset(tmp_path / "whole", tmp_path / "other", scenes=["toy-0000"]).number == 1


def test_a_version_by_its_number(tmp_path: Path) -> None:
    for fingerprint in ("first-fingerprint", "second-fingerprint"):
        build_store(tmp_path / "whole", make_layout(scenes=2), fingerprint=fingerprint)
    version = subset(tmp_path / "whole", tmp_path / "part", scenes=["toy-0000"], version=1)
    assert read_json(version.folder / "lineage.json")["subset"]["of"] == "first-fingerprint"


WRONG = {
    "city": (["--cities", "Tox"], "no city 'Tox'; did you mean Toy?"),
    "scene": (["--scenes", "oslo-*"], "no scene 'oslo-\\*'; it has toy-0000, "),
    "split": (["--split", "exam"], "no split 'exam'; it has test, train, validation"),
    "field": (["--fields", "csi,images"], "no array 'images'; it has csi, spectrum, height"),
    "none": (["--split", "test", "--scenes", "toy-0000"], "no chosen scene is in these splits"),
    "lost": (["--scenes", "toy-0003"], "the scenes chosen were quarantined"),
    "version": (["--version", "7"], "version 7 is not there; its versions are 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_choices_get_one_line_and_leave_nothing(toy_store: Path, tmp_path: Path, case: str) -> None:
    options, message = WRONG[case]
    done = run("subset", toy_store, "--out", tmp_path / "part", *options)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("wavecity: ")
    assert re.search(message, last)
    assert not (tmp_path / "part").exists()


def test_another_dataset_is_not_overwritten(toy_store: Path, tmp_path: Path) -> None:
    build_store(tmp_path / "other", make_layout(scenes=2))
    for out in (toy_store, tmp_path / "other"):
        with pytest.raises(InputError, match="holds another dataset already"):
            subset(toy_store, out, splits=["test"])


def test_to_object_storage_and_from_there(bucket: str, toy_store: Path, tmp_path: Path) -> None:
    place = f"{bucket}/{tmp_path.name}"
    subset(toy_store, f"{place}/part", splits=["test"], fields=["csi"])
    subset(f"{place}/part", tmp_path / "here", scenes=["toy-0005"])
    part, here = open_store(f"{place}/part"), open_store(tmp_path / "here")
    assert part["scene"].values.tolist() == ["toy-0004", "toy-0005"]
    np.testing.assert_array_equal(here["csi"].values[0], part.sel(scene="toy-0005")["csi"].values[: here.sizes["user"]])


def test_the_command_says_where_it_is(toy_store: Path, tmp_path: Path) -> None:
    done = run("subset", toy_store, "--out", tmp_path / "part", "--cities", "toy", "--split", "test,validation")
    assert done.returncode == 0, done.stderr
    assert f"published v1, {folder_size(tmp_path / 'part' / 'versions' / 'v1') / 1e6:.1f} MB" in done.stdout
    assert "subset" in done.stderr
    data = xr.open_zarr(tmp_path / "part" / "latest.zarr")
    assert set(data["split"].values.tolist()) == {"test", "validation"}
    assert zarr.open_group(str(tmp_path / "part" / "latest.zarr"), mode="r")["csi"].shape[0] == 3
