"""What a store and its readers say of themselves, and readers of some scenes, cities and versions."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import wavecity as run
from toy import build_store, make_layout

import wavecity
from wavecity.dataset import InputError
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe, description_text, size_text
from wavecity.dataset.files import folder_size
from wavecity.dataset.reader import open_store


def test_a_description_says_what_zarr_says(toy_store: Path) -> None:
    found = describe(toy_store)
    root = zarr.open_group(str(toy_store / "latest.zarr"), mode="r")
    fields = {field["name"]: field for field in found["fields"]}
    arrays = {name: array for name, array in root.members(max_depth=None) if isinstance(array, zarr.Array)}
    copies = {"paths/scene", "paths/city", "paths/split"}
    assert set(fields) == set(arrays) - copies
    for name, field in fields.items():
        assert tuple(field["shape"]) == arrays[name].shape
        assert tuple(field["dims"]) == arrays[name].metadata.dimension_names
        assert field["units"] == arrays[name].attrs.get("units", "")
        assert field["bytes"] == folder_size((toy_store / "latest.zarr").resolve() / name), name
    assert fields["csi"]["dtype"] == "complex64"
    assert fields["city"]["dtype"] == "string"
    assert found["sizes"]["path"] == 3
    assert found["scenes"] == {"done": 5, "quarantined": 1}
    # Scenes 0 and 1 have 8 and 9 users, scene 3 was quarantined; the last user of each has no path.
    assert found["splits"]["train"] == {"scenes": 2, "users": 17, "users_with_a_path": 15, "cities": {"Toy": 2}}
    assert list(found["splits"]) == ["train", "validation", "test"]
    assert found["bytes"] >= sum(field["bytes"] for field in found["fields"])
    assert found["conventions"]["csi"].startswith("csi[x, y]")
    assert json.loads(json.dumps(found)) == found


def test_a_copy_without_its_manifest_is_described_too(toy_store: Path, tmp_path: Path) -> None:
    (tmp_path / "alone.zarr").symlink_to((toy_store / "latest.zarr").resolve())
    found = describe(tmp_path / "alone.zarr")
    whole = describe(toy_store)
    assert [field["bytes"] for field in found["fields"]] == [field["bytes"] for field in whole["fields"]]


def test_the_command_prints_it_for_people_and_programs(toy_store: Path) -> None:
    shown = run("describe", toy_store)
    assert shown.returncode == 0
    assert shown.stdout.strip() == description_text(describe(str(toy_store))).strip()
    for words in ("csi", "scene 6, user 12, x 32, y 32", "complex64", "28.5 GHz, 32 x 32 antennas", "© OpenStreetMap"):
        assert words in shown.stdout
    data = json.loads(run("describe", toy_store, "--json").stdout)
    assert data == describe(str(toy_store))


def test_wrong_stores_get_one_line(tmp_path: Path) -> None:
    done = run("describe", tmp_path / "nothing")
    assert done.returncode == 2
    assert "no such store" in done.stderr


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (3.4e9, "3.4 GB"), (2e12, "2.0 TB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert size_text(size) == text


# --- Readers of a part ------------------------------------------------------------------------------------------------


def test_open_store_takes_scenes_and_cities(toy_store: Path) -> None:
    whole = open_store(toy_store)
    for group in (None, "paths"):
        part = open_store(toy_store, group, scenes=["toy-0004", "toy-000[12]"], cities=["TOY"])
        assert part["scene"].values.tolist() == ["toy-0001", "toy-0002", "toy-0004"]
    np.testing.assert_array_equal(open_store(toy_store, scenes=["toy-0004"])["csi"].values, whole["csi"].values[4:5])
    with pytest.raises(InputError, match="no city 'Tov'; did you mean Toy"):
        open_store(toy_store, cities=["Tov"])
    with pytest.raises(InputError, match="no scene 'oslo-1'; it has toy-0000, toy-0001"):
        open_store(toy_store, "paths", scenes=["oslo-1"])


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions") / "store"
    build_store(folder, make_layout(scenes=2), fingerprint="first-fingerprint")
    build_store(folder, make_layout(scenes=4), fingerprint="second-fingerprint")
    return folder


def test_open_store_takes_a_version(two_versions: Path) -> None:
    assert [open_store(two_versions, version=number).sizes["scene"] for number in (1, 2, None)] == [2, 4, 4]
    assert describe(two_versions, version=1)["fingerprint"] == "first-fingerprint"
    with pytest.raises(InputError, match="version 3 is not there; its versions are 1, 2"):
        open_store(two_versions, version=3)
    with pytest.raises(InputError, match="version 1 is not there; name the folder of a build"):
        open_store(two_versions / "versions" / "v1", version=1)
    assert validate(two_versions).ok


def test_the_readers_take_scenes_cities_and_versions(toy_store: Path, two_versions: Path) -> None:
    pytest.importorskip("torch")
    users = wavecity.ChannelDataset(toy_store, "test", fields=("csi",), scenes=["toy-0005"])
    assert set(users.scene_index.tolist()) == {5}
    stream = wavecity.ShuffledChannels(
        toy_store, "train", fields=("csi",), batch_size=4, scenes=["toy-0001"], cities=["Toy"]
    )
    batches = list(stream)
    assert {scene for batch in batches for scene in batch["scene"].tolist()} == {1}
    assert sum(len(batch["scene"]) for batch in batches) == 8
    assert len(wavecity.ChannelDataset(two_versions, "train", fields=("csi",), version=1)) == 15
    with pytest.raises(InputError, match="no chosen scene is in split 'test'; they are in train"):
        wavecity.ChannelDataset(toy_store, "test", scenes=["toy-0001"])


def test_the_data_module_takes_them_as_well(toy_store: Path) -> None:
    pytest.importorskip("lightning")
    module = wavecity.ChannelDataModule(toy_store, fields=("csi",), batch_size=4, scenes=["toy-0001", "toy-0002"])
    assert {scene for batch in module.train_dataloader() for scene in batch["scene"].tolist()} == {1}
    assert "scenes=['toy-0001', 'toy-0002']" in repr(module)
    assert "of 4 users" in module._repr_html_()


def test_other_scenes_do_not_resume(toy_store: Path) -> None:
    """What was read so far would be something else."""
    pytest.importorskip("torch")
    options = {"fields": ("csi",), "batch_size": 4}
    one = wavecity.ShuffledChannels(toy_store, "train", scenes=["toy-0001"], **options)
    state = one.state_dict(0, 1)
    with pytest.raises(InputError, match="scenes is None, but"):
        wavecity.ShuffledChannels(toy_store, "train", **options).load_state_dict(state)
    one.load_state_dict(state)


# --- How the readers show themselves ----------------------------------------------------------------------------------


def test_readers_show_what_they_read(toy_store: Path) -> None:
    pytest.importorskip("torch")
    fields = ("csi", "height", "user_position")
    users = wavecity.ChannelDataset(toy_store, "train", fields)
    stream = wavecity.ShuffledChannels(toy_store, "train", fields, batch_size=4, seed=3)
    for reader in (users, stream):
        for words in (
            "15 of 2 scenes in Toy",
            "csi: complex64 (x 32, y 32)",
            "height: float32 (row 200, column 200) m, one for a scene",
            "user_position: float32 (axis 3) m",
        ):
            assert words in repr(reader)
            assert words in reader._repr_html_()
    assert "4 of 4 users" in repr(stream)
    assert repr(users).startswith("<wavecity.ChannelDataset>")
    # Fields stand below each other.
    lines = repr(users).splitlines()
    (first,) = (line for line in lines if "csi: complex64" in line)
    assert lines[lines.index(first) + 1].index("height") == first.index("csi")


def test_what_is_shown_in_a_notebook_is_escaped(toy_store: Path) -> None:
    pytest.importorskip("torch")

    class Odd:
        def __call__(self, sample: dict) -> dict:
            return sample

        def __repr__(self) -> str:
            return "<script>alert(1)</script>"

    users = wavecity.ChannelDataset(toy_store, "train", ("csi",), transform=Odd())
    assert "<script>" not in users._repr_html_()
    assert "&lt;script&gt;" in users._repr_html_()
