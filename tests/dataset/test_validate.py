"""Validation finds what was broken on purpose, and says where."""

import json
import shutil
from hashlib import sha256
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import zarr
from toy import write_synthetic_unit

from wavecity.dataset import InputError
from wavecity.dataset.checks.findings import Finding, Validation
from wavecity.dataset.checks.physics import _occupancy, _users
from wavecity.dataset.checks.validate import processes, validate
from wavecity.dataset.draft import load_draft
from wavecity.dataset.fingerprints import array_checksum
from wavecity.dataset.finish import seal
from wavecity.geo.rasters import height_map, occupancy_grid


@pytest.fixture
def version(toy_store, tmp_path):
    return shutil.copytree((toy_store / "latest.zarr").resolve().parent, tmp_path / "v1")


def _forge(version, name, change):
    """Change an array of scene 0 and all its checksums: only the physics can tell."""
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


def _add(value, *index):
    def change(values):
        values[index] += value

    return change


def _scale(factor, *index):
    def change(values):
        values[index] *= factor

    return change


def test_a_sound_version_passes(version):
    result = validate(version)
    assert result.ok
    assert result.checks["friis"] == 5


@pytest.mark.parametrize(
    ("check", "name", "change"),
    [
        ("friis", "paths/gain", _scale(2, 0, 0, 0)),
        ("delay", "paths/delay", _scale(0.9, 0, 0, 0)),
        ("spectrum", "spectrum", _scale(1.1, 0, 0)),
        ("best_beam", "best_beam", _add(1, 0, 0)),
        ("finite", "path_gain", _scale(np.nan, 0, 0)),
        ("padding", "csi", _add(1, 0, 11)),
        ("users", "user_position", _scale(9, 0, 0)),
        ("occupancy", "occupancy", _add(1, 0, 0, 0)),
    ],
)
def test_each_physics_check_finds_its_fault(version, check, name, change):
    _forge(version, name, change)
    findings = validate(version).findings
    assert (check, "scene toy-0000") in [(finding.check, finding.where) for finding in findings]


def test_a_user_inside_a_building_is_found(version):
    def move(values):
        # Cell (57, 40) of the 200 x 200 map, in the middle of the block, in metres from the base station.
        values[0, 0] = (-60.0, -57.0, -13.5)

    _forge(version, "user_position", move)
    assert any("inside buildings" in finding.message for finding in validate(version).findings)


def test_one_corrupted_byte_is_found_and_named(version):
    shard = next(path for path in (version / "data.zarr" / "csi" / "c" / "1").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    findings = validate(version).findings
    assert [(finding.check, finding.where) for finding in findings] == [("checksum", str(shard.relative_to(version)))]


def files_of(version):
    return sorted(path for path in version.rglob("*") if path.is_file())


def two_of_each_kind(version, rng):
    """Two random files of each kind: shards and metadata of arrays, receipts, buildings, records at the top."""
    kinds = {}
    for path in files_of(version):
        parts = path.relative_to(version).parts
        kinds.setdefault((len(parts) > 1 and parts[0], "c" in parts, path.suffix), []).append(path)
    return [path for paths in kinds.values() for path in rng.permutation(paths)[:2]]


def any_hundred(version, rng):
    """Random files; large ones no more often than small ones."""
    files = files_of(version)
    return [files[rng.integers(len(files))] for _ in range(100)]


@pytest.mark.parametrize("draw", [two_of_each_kind, pytest.param(any_hundred, marks=pytest.mark.heavy)])
def test_a_corrupted_byte_anywhere_is_found_and_named(version, draw):
    """One random bit of each of the files drawn."""
    rng = np.random.default_rng(3)
    drawn = draw(version, rng)
    assert len(drawn) >= 8
    for file in [*drawn, *(version / name for name in ("manifest.json", "published.json", "validation.json"))]:
        before = file.read_bytes()
        content = bytearray(before)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        try:
            named = [finding.where for finding in validate(version).findings]
        except InputError as error:  # a version without readable sizes cannot be checked at all
            named = [str(error)]
        assert any(str(file.relative_to(version)) in where for where in named), file
        file.write_bytes(before)
    assert validate(version).ok


def test_a_damaged_name_of_a_column_is_found(version):
    """Readers may take the table for a good one: Arrow's do not check names."""
    path = sorted((version / "buildings").glob("*.parquet"))[0]
    gpd.read_parquet(path).rename(columns={"height": "heighv"}).to_parquet(path)
    findings = validate(version).findings
    assert [(finding.check, finding.where) for finding in findings] == [("checksum", str(path.relative_to(version)))]


def test_several_processes_find_the_same(version):
    shard = next(path for path in (version / "data.zarr" / "csi" / "c" / "1").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    alone = validate(version)
    with processes(2) as each:
        together = validate(version, each=each)
    assert together == alone
    assert len(alone.findings) == 1


def test_files_that_are_missing_or_too_many_are_named(version):
    (version / "data.zarr" / "height" / "zarr.json").rename(version / "data.zarr" / "stray")
    found = {(finding.where, finding.message[:7]) for finding in validate(version).findings}
    assert {("data.zarr/height/zarr.json", "missing"), ("data.zarr/stray", "not lis")} <= found


def test_totals_and_coordinates_follow_from_the_receipts(version):
    statistics = json.loads((version / "statistics.json").read_text())
    (version / "statistics.json").write_text(json.dumps(statistics | {"csi_rms": 2 * statistics["csi_rms"]}))
    zarr.open_group(str(version / "data.zarr"), mode="r+")["latitude"][2] = 61.0
    seal(load_draft(version))
    findings = validate(version).findings
    assert [(finding.check, finding.where) for finding in findings] == [
        ("structure", "latitude of scene toy-0002"),
        ("statistics", "statistics.json"),
    ]


def test_line_of_sight_labels_are_held_against_the_buildings(version):
    def swap(values):
        values[0, :8] = ~values[0, :8]

    _forge(version, "los", swap)
    messages = [finding.message for finding in validate(version).findings if finding.check == "los"]
    assert len(messages) == 1
    assert "user 0" in messages[0]


def test_a_city_in_two_splits_is_found(version):
    _attribute(version, split_by="city")
    seal(load_draft(version))
    assert [(finding.check, finding.where) for finding in validate(version).findings] == [("split", "Toy")]


def test_a_missing_receipt_is_found(version):
    draft = load_draft(version)
    draft.receipt_path(2).unlink()
    assert [finding.where for finding in validate(version).findings] == ["receipts/unit-00002.json", "unit 2"]
    write_synthetic_unit(draft, 2)
    seal(draft)
    assert validate(version).ok


def _attribute(version, **changed):
    import warnings

    group = zarr.open_group(str(version / "data.zarr"), mode="r+")
    group.attrs.update(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(version / "data.zarr"))


def test_line_of_sight_without_a_direct_path_is_right_where_it_is_not_traced(version):
    _forge(version, "paths/gain", _scale(0, 0, 0, 0))
    assert [finding.check for finding in validate(version).findings] == ["friis"]
    _attribute(version, los_traced=False)
    seal(load_draft(version))
    assert validate(version).ok


def test_line_of_sight_below_the_gain_floor_is_in_outage(version):
    def silence(value):
        def change(values):
            values[0, 0] = value

        return change

    for name, value in (("paths/gain", 0), ("outage", True), ("csi", 0), ("spectrum", 0), ("best_beam", -1)):
        _forge(version, name, silence(value))
    # The forged user still counts in the receipt's sums.
    assert {finding.check for finding in validate(version).findings} == {"statistics"}


def test_a_copied_group_without_its_receipts_gets_one_line(version, tmp_path):
    shutil.copytree(version / "data.zarr", tmp_path / "alone" / "copy.zarr")
    with pytest.raises(InputError, match=r"no readable draft\.json"):
        validate(tmp_path / "alone" / "copy.zarr")


@pytest.mark.parametrize(("under_cover", "message"), [(3, ""), (2, "1 users inside buildings"), (0, "3 users inside")])
def test_users_under_raised_buildings_are_outdoors(under_cover: int, message: str) -> None:
    """The height map shows a bridge as if it reached the ground; how many stand under one the receipt says."""
    height = np.zeros((200, 200), np.float32)
    height[80:120, 80:120] = 7.5
    position = np.array([[0, 0, 1.5], [5, 5, 1.5], [-5, 5, 1.5], [50, 50, 1.5]]) - [0, 100, 15]
    arrays = {
        "height": height,
        "user_position": position.astype(np.float32),
        "bs_shift": np.float32(0),
        "users_under_cover": np.asarray(under_cover),
    }
    found = _users(arrays, 4, {"tile_size_m": 200.0, "bs_position_m": [0.0, 100.0, 15.0]})
    assert found.startswith(message)
    assert bool(found) == bool(message)


def test_findings_are_counted_in_words():
    finding = Finding("los", "scene toy-0001", "no path")
    assert [Validation({}, [finding] * count, []).found for count in (0, 1, 2)] == [
        "0 findings",
        "1 finding",
        "2 findings",
    ]


def test_houses_narrower_or_wider_than_their_cells_do_not_contradict_their_occupancy() -> None:
    """Two rows of houses of 3.45 and 2.6 m cover 60.5 % of a patch, and 5 of its 10 rows of cells."""
    rows = [shapely.box(-40, low, 40, high) for low, high in ((10.55, 14.0), (15.55, 18.15))]
    buildings = gpd.GeoDataFrame({"height": [9.0, 9.0], "base": [0.0, 0.0]}, geometry=rows)
    arrays: Any = {
        "height": height_map(buildings, 200.0, 200),
        "occupancy": occupancy_grid(shapely.union_all(rows), 200.0, 20, 0.6),
    }
    attributes: Any = {"occupancy_threshold": 0.6}
    assert arrays["occupancy"].sum() == 8
    assert _occupancy(arrays, 0, attributes) == ""
    for missing in (True, False):
        row, column = np.argwhere(arrays["occupancy"] == missing)[-3]
        changed = arrays["occupancy"].copy()
        changed[row, column] ^= 1
        assert _occupancy({**arrays, "occupancy": changed}, 0, attributes) == (
            "" if missing else "1 occupancy patches contradict the height map"
        )
    assert _occupancy({**arrays, "occupancy": np.roll(arrays["occupancy"], 1, axis=0)}, 0, attributes).startswith("8 ")
