"""Several base stations in a store: what is stored, read and found, and a store of one as it was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from base_station_store import (
    ATTRIBUTES,
    SETTINGS,
    STATIONS,
    TRAJECTORY,
    build_links_store,
    link,
    make_scene,
    station_of,
)
from command import wavecity as run

from wavecity.dataset.base_stations import cells_along, handovers, link_view, serving_cell, sinr
from wavecity.dataset.card.croissant import describe as croissant
from wavecity.dataset.card.page import write_card
from wavecity.dataset.checks.base_stations import BASE_STATION_CHECKS, check_walls, link_of
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.preview.scene import load_view
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.flows.explore.index import make_index
from wavecity.flows.fingerprint import FEATURES, code_fingerprint, code_of, fingerprint_below
from wavecity.flows.recipe import load_recipe
from wavecity.geo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
LINK = ("csi", "spectrum", "user_position", "path_gain", "los", "outage", "best_beam")


@pytest.fixture(scope="module")
def store(shared):
    return shared("toy-links", lambda folder: build_links_store(folder / "store")) / "store"


@pytest.fixture(scope="module")
def moving(shared):
    return shared("toy-moving-links", lambda folder: build_links_store(folder / "store", True)) / "store"


def test_xarray_alone_reads_any_link(store: Path) -> None:
    cells = xr.open_zarr(store / "latest.zarr", group="bs")
    assert {str(name): of.dims for name, of in cells.data_vars.items()} == {
        "position": ("scene", "bs", "axis"),
        "azimuth": ("scene", "bs"),
        "serving": ("scene", "user"),
        "sinr": ("scene", "user"),
    }
    assert cells["scene"].values.tolist() == [f"toy-{scene:04d}" for scene in range(4)]
    np.testing.assert_array_equal(cells["position"].values[2], [position for position, _ in STATIONS])
    assert np.isnan(cells["position"].values[1, 2]).all()
    assert np.isnan(cells["azimuth"].values[1]).tolist() == [False, False, True]
    link = xr.open_zarr(store / "latest.zarr", group="bs/1")
    assert set(link.data_vars) == set(LINK)
    expected = make_scene(2, 10)
    np.testing.assert_array_equal(link["csi"].values[2, :10], expected["bs/1/csi"])
    paths = xr.open_zarr(store / "latest.zarr", group="bs/2/paths")
    np.testing.assert_array_equal(paths["delay"].values[2, :10], expected["bs/2/paths/delay"])
    missing = xr.open_zarr(store / "latest.zarr", group="bs/2").isel(scene=1)
    assert bool(missing["outage"].all())
    assert not missing["csi"].values.any()


def test_one_dataset_with_all_links(store: Path) -> None:
    every, first = open_store(store, bs="all"), open_store(store)
    assert every["csi"].dims == ("bs", "scene", "user", "x", "y")
    assert every["height"].dims == first["height"].dims
    assert "bs" not in first.dims
    for number in range(3):
        one = open_store(store, bs=number)
        assert one["csi"].dims == first["csi"].dims
        assert int(one["bs"]) == number
        selected = every.sel(bs=number)
        for name in (*LINK, "height", "serving", "sinr"):
            np.testing.assert_array_equal(selected[name], one[name])
        np.testing.assert_array_equal(selected["bs_azimuth"], one["bs_azimuth"])
        raw = xr.open_zarr(store / "latest.zarr", group=f"bs/{number}" if number else None)
        np.testing.assert_array_equal(one["csi"], raw["csi"])
    at = every["bs_position"].isel(scene=0) + every["user_position"].isel(scene=0)
    at = at.isel(user=slice(8))
    np.testing.assert_allclose(at.sel(bs=1), at.sel(bs=2), atol=1e-4)
    delays = open_store(store, "paths", bs="all", scenes=["toy-0002"])["delay"]
    assert delays.dims == ("bs", "scene", "user", "path")
    np.testing.assert_array_equal(delays.sel(bs=1)[0, :10], make_scene(2, 10)["bs/1/paths/delay"])
    assert attributes_of(every.attrs)["base_stations"]["count"] == 3
    assert "several base stations" in attributes_of(every.attrs)["conventions"]["bs"]


def test_links_along_trajectories(moving: Path) -> None:
    along = open_store(moving, "trajectory", bs=1)
    expected = make_scene(0, 8, moving=True)
    np.testing.assert_array_equal(along["csi"].values[0, :8], expected["bs/1/trajectory/csi"])
    np.testing.assert_array_equal(along["velocity"].values[0, :8], expected["trajectory/velocity"])
    np.testing.assert_array_equal(along["time"], 0.1 * np.arange(5))
    cells = open_store(moving, "bs")
    assert cells["serving_along"].dims == ("scene", "user", "time")
    first = cells["serving_along"].values[..., 0]
    strongest = np.abs(open_store(moving, "trajectory", bs="all")["csi"].values[..., 0, :, :, :]) ** 2
    power = strongest.sum((-3, -2, -1))
    np.testing.assert_array_equal(first, np.where(power.any(0), power.argmax(0), -1))


def test_what_is_not_there_is_one_line(store: Path, toy_store: Path) -> None:
    for wrong, words in ((3, "no base station 3; give bs 0 to 2, or 'all'"), ("1", "no base station '1'")):
        with pytest.raises(InputError, match=words):
            open_store(store, bs=wrong)
    with pytest.raises(InputError, match=r"bs 1: has one base station; build it with scene.base_stations for more"):
        open_store(toy_store, bs=1)
    assert open_store(toy_store, bs=0).identical(open_store(toy_store))
    with pytest.raises(InputError, match="has no group 'bs'; it has one base station"):
        open_store(toy_store, "bs")
    with pytest.raises(InputError, match="group 'bs' is not of single links; open it without bs"):
        open_store(store, "bs", bs=1)


def test_each_check_has_run_for_each_link(store: Path) -> None:
    result = validate(store)
    assert result.ok, result.findings
    # Four scenes, of which two lack the third base station.
    assert {name: result.checks[name] for name in ("friis", "los", "spectrum")} == dict.fromkeys(
        ("friis", "los", "spectrum"), 10
    )
    assert result.checks["cells"] == result.checks["missing base stations"] == 4


def test_serving_cell_and_sinr_of_three_base_stations() -> None:
    """Worked out by hand: noise is -174 + 80 + 7 = -87 dBm, all transmit 30 dBm."""
    gain = np.array([[-90.0, -200.0, -np.inf], [-100.0, -np.inf, -np.inf], [-110.0, -np.inf, -np.inf]])
    assert serving_cell(gain).tolist() == [0, 0, -1]
    found = sinr(gain, 30.0, 100e6, 7.0)
    others = 1e-10 * 1e3 + 1e-11 * 1e3
    assert found[0] == pytest.approx(10 * np.log10(1e-9 * 1e3 / (others + 10**-8.7)), abs=1e-5)
    assert found[1] == pytest.approx(30 - 200 + 87, abs=1e-4)
    assert np.isnan(found[2])


def test_a_moving_user_stays_until_another_is_stronger_by_the_hysteresis() -> None:
    decibels = np.array([[0, 0, 0, 0, 0.0, -9, -9], [-9, 2, 2.9, 3.1, 2.0, 0, -99]])
    power = 10 ** (decibels / 10)[:, None]
    power[:, 0, 6] = 0, 0
    assert cells_along(power, 3.0).tolist() == [[0, 0, 0, 1, 1, 1, -1]]
    assert cells_along(power, 0.0).tolist() == [[0, 1, 1, 1, 1, 1, -1]]
    back = power.copy()
    back[0, 0, 6] = 1e-9
    along = cells_along(back, 3.0)
    assert along.tolist() == [[0, 0, 0, 1, 1, 1, 0]]
    assert handovers(along).tolist() == [2]
    # A gap between two cells is one handover, between the same cell none.
    assert handovers(np.array([[0, -1, 1], [1, -1, 1], [-1, 1, 0], [-1, -1, -1]], np.int8)).tolist() == [1, 0, 1, 0]


def broken(name: str, change, scene: int = 0, moving: bool = True) -> list[str]:
    """Checks that find something in a scene of which one array was changed."""
    n_users = 8 + scene
    arrays = make_scene(scene, n_users, moving) | {"bs_shift": np.float32(0)}
    arrays[name] = change(arrays[name].copy())
    attributes = ATTRIBUTES | {"trajectory": TRAJECTORY}
    return [check for check, find in BASE_STATION_CHECKS.items() if find(arrays, n_users, attributes)]


def at(index, value):
    def change(values: np.ndarray) -> np.ndarray:
        values[index] = value
        return values

    return change


def test_nothing_is_found_in_right_cells() -> None:
    for scene in range(3):
        assert broken("bs/sinr", lambda values: values, scene) == []


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("bs/position", at((0, 0), 5.0), "base stations"),
        ("bs/position", at((1, 0), 101.0), "base stations"),
        ("bs/position", at((1, 1), 97.0), "base stations"),  # then its users are elsewhere
        ("bs/position", at((1, 2), -1.0), "base stations"),
        ("bs/1/user_position", lambda values: values + 0.01, "base stations"),
        ("bs/position", at(1, np.nan), "missing base stations"),
        ("bs/azimuth", at(1, np.nan), "missing base stations"),
        ("bs/serving", at(0, -1), "cells"),
        ("bs/serving", lambda values: (values + 1) % 3, "cells"),
        ("bs/serving", at(0, 7), "cells"),
        ("bs/sinr", lambda values: values + 0.01, "cells"),
        ("bs/sinr", at(0, np.nan), "cells"),
        ("bs/2/path_gain", lambda values: values + 3, "cells"),  # interference
        ("bs/serving_along", lambda values: (values + 1) % 3, "handovers"),
        ("bs/serving_along", at((0, 2), -1), "handovers"),
        ("bs/handovers", lambda values: values + 1, "handovers"),
    ],
)
def test_what_is_wrong_is_found(name: str, change, check: str) -> None:
    assert check in broken(name, change)


def test_a_missing_base_station_has_no_paths() -> None:
    assert "missing base stations" in broken("bs/2/outage", at(0, False), scene=1)
    assert "missing base stations" in broken("bs/2/csi", at((0, 0, 0), 1e-6), scene=1)


def test_handovers_that_come_too_early_or_lead_astray_are_found() -> None:
    """Two equally strong base stations: no reason to change; and a third one is weaker."""
    arrays = make_scene(0, 8, True) | {"bs_shift": np.float32(0)}
    shape = arrays["trajectory/csi"].shape
    for number, level in enumerate((1.0, 1.0, 0.1)):
        arrays[f"bs/{number}/trajectory/csi" if number else "trajectory/csi"] = np.full(shape, level, np.complex64)
    check = BASE_STATION_CHECKS["handovers"]
    for row, counts, found in (
        ([0, 0, 0, 0, 0], 0, ""),
        ([0, 0, 1, 1, 1], 1, "a user changes its cell too early"),
        ([2, 2, 2, 2, 2], 0, "a serving base station is weaker than another by more than the hysteresis"),
    ):
        arrays["bs/serving_along"] = np.repeat(np.array([row], np.int8), 8, axis=0)
        arrays["bs/handovers"] = np.full(8, counts, np.int16)
        message = check(arrays, 8, ATTRIBUTES | {"trajectory": TRAJECTORY})
        assert message.startswith(found)
        assert bool(message) == bool(found)


def test_a_base_station_in_a_wall_is_found() -> None:
    from base_station_store import BLOCK

    inside, above = np.array([[0.0, 100, 15], [-50, 30, 6]]), np.array([[0.0, 100, 15], [-50, 30, 14], [np.nan] * 3])
    assert check_walls(BLOCK, inside) == "base station 1 is inside a building"
    assert check_walls(BLOCK, above) == ""


def test_a_link_is_checked_from_where_its_base_station_stands() -> None:
    arrays = make_scene(0, 8) | {"bs_shift": np.float32(4)}
    view, attributes = link_of(arrays, ATTRIBUTES, 1)
    assert attributes["bs_position_m"] == [98.0, 98.0, 15.0]
    assert view["bs_shift"] == 0
    users = arrays["user_position"].astype(float) + STATIONS[0][0]
    expected = link(users, np.zeros((8, 3)), *station_of(0, 1), moving=False)
    for name, values in expected.items():
        np.testing.assert_allclose(view[name], values, rtol=1e-3, atol=1e-9 if name != "user_position" else 1e-4)
    assert link_view(arrays, 0).keys() == view.keys()
    assert not any(name.startswith("bs/") for name in view)


def test_parts_of_a_store_keep_them_or_leave_them_out(store: Path, tmp_path: Path) -> None:
    subset(store, tmp_path / "with", scenes=["toy-0002"])
    here, there = open_store(tmp_path / "with", bs="all"), open_store(store, bs="all", scenes=["toy-0002"])
    for name in ("csi", "serving"):
        np.testing.assert_array_equal(here[name], there[name].isel(user=slice(10)))
    subset(store, tmp_path / "without", scenes=["toy-0002"], fields=["csi", "paths"])
    with pytest.raises(InputError, match="has one base station"):
        open_store(tmp_path / "without", bs=1)
    attributes = attributes_of(open_store(tmp_path / "without").attrs)
    assert "base_stations" not in attributes
    assert "bs" not in attributes["conventions"]
    assert not (latest(tmp_path / "without").folder / "data.zarr" / "bs").exists()
    assert validate(tmp_path / "without").ok


def test_without_them_nothing_has_changed(toy_store: Path) -> None:
    """Neither what is written of a recipe, nor a fingerprint, nor a store's files and metadata."""
    plain = load_recipe("quickstart")
    assert "base_stations" not in plain.model_dump(mode="json")["scene"]
    assert "base_stations" not in plain.data_parts()["scene"]
    assert code_of(plain) == code_fingerprint() == fingerprint_below(ROOT)
    draft = json.loads((latest(toy_store).folder / "draft.json").read_text())
    assert "base_stations" not in draft["layout"]
    metadata = (latest(toy_store).folder / "data.zarr" / "zarr.json").read_text()
    assert "bs/" not in metadata
    assert "base_stations" not in metadata
    assert SETTINGS.count == 3


def test_their_code_counts_where_there_are_several(tmp_path: Path) -> None:
    for folder in ("geo", "raytrace", "dataset"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    several = ("base_stations",)
    before, without = fingerprint_below(tmp_path, several), fingerprint_below(tmp_path)
    assert before == code_of(load_recipe("quickstart", ("scene.base_stations=corners",))) != without
    for folder, names in FEATURES["base_stations"].items():
        for name in names:
            path = tmp_path / folder / f"{name}.py"
            path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    assert fingerprint_below(tmp_path, several) != before
    assert fingerprint_below(tmp_path) == without


def samples_of(store: Path, numbers: list[int], split: str = "train") -> list[tuple[int, int, int]]:
    """Base station, scene and user of every link with a path, from the arrays themselves."""
    found = []
    for number in numbers:
        data = open_store(store, bs=number)
        for scene in np.flatnonzero(data["split"].values == split).tolist():
            heard = np.flatnonzero(~data["outage"].values[scene]).tolist()
            found += [(number, scene, user) for user in heard]
    return found


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("bs", ["all", 2])
def test_any_link_is_a_sample(store: Path, bs: int | str, preload: bool) -> None:
    """Positions relative to its base station, whose place and azimuth come with it."""
    fields = ("csi", "user_position", "height", "bs/position", "bs/azimuth", "bs/serving", "paths/delay")
    data = ChannelDataset(store, "train", fields, bs=bs, preload=preload)
    expected = samples_of(store, [0, 1, 2] if bs == "all" else [2])
    found = list(zip(data.bs_index.tolist(), data.scene_index.tolist(), data.user_index.tolist(), strict=True))
    assert found == expected
    assert (2, 1, 0) not in found  # that base station has no place in that scene
    every, paths = open_store(store, bs="all"), open_store(store, "paths", bs="all")
    for index in range(0, len(data), 3):
        sample = data[index]
        number, scene, user = sample["bs"], sample["scene"], sample["user"]
        assert (number, scene, user) == expected[index]
        of = every.isel(bs=number, scene=scene)
        for name in ("csi", "user_position"):
            np.testing.assert_array_equal(sample[name], of[name][user])
        np.testing.assert_array_equal(sample["height"], of["height"])
        np.testing.assert_array_equal(sample["bs/position"], of["bs_position"])
        assert float(sample["bs/azimuth"]) == float(of["bs_azimuth"])
        assert int(sample["bs/serving"]) == int(of["serving"][user])
        np.testing.assert_array_equal(sample["paths/delay"], paths["delay"][number, scene, user])
    assert "base stations" in repr(data)


def test_shuffled_batches_have_every_link_once(store: Path) -> None:
    reader = ShuffledChannels(store, "train", ("csi", "bs/azimuth", "height"), batch_size=7, bs="all", scenes_once=True)
    data, found = open_store(store, bs="all"), []
    for batch in reader:
        numbers = zip(batch["bs"].tolist(), batch["scene"].tolist(), batch["user"].tolist(), strict=True)
        for row, (number, scene, user) in enumerate(numbers):
            found.append((number, scene, user))
            np.testing.assert_array_equal(batch["csi"][row], data["csi"][number, scene, user])
            azimuth = batch["bs/azimuth"][batch["scene_row"][row]]
            assert float(azimuth) == float(data["bs_azimuth"][scene, number])
    assert sorted(found) == samples_of(store, [0, 1, 2])
    one = ShuffledChannels(store, "train", ("csi",), batch_size=50, bs=1)
    assert sorted(next(iter(one))["user"].tolist()) == sorted(user for _, _, user in samples_of(store, [1]))
    state = reader.state_dict(0, 1)
    with pytest.raises(InputError, match="bs is 1, but 'all' in the saved state"):
        one.load_state_dict(state | {"batch_size": 50})


def test_readers_without_bs_are_those_of_base_station_0(store: Path) -> None:
    plain, first = ChannelDataset(store, "train"), ChannelDataset(store, "train", bs=0)
    assert plain[0].keys() == {"csi", "height", "user_position", "scene", "user"}
    assert plain.user_index.tolist() == first.user_index.tolist()
    assert not plain.bs_index.any()
    np.testing.assert_array_equal(plain[3]["csi"], first[3]["csi"])
    with pytest.raises(InputError, match=r"radio_map/los: radio maps are of base station 0|no array 'radio_map/los'"):
        ChannelDataset(store, "train", ("radio_map/los",), bs=1)
    with pytest.raises(InputError, match="no base station 5"):
        ShuffledChannels(store, "train", bs=5)


def test_the_card_names_them(moving: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(latest(moving).folder, tmp_path / "version")
    write_card(folder)
    card = " ".join((folder / "card.md").read_text(encoding="utf-8").split())
    assert "with 3 base stations of 4 × 4 antennas" in card
    assert "3 in a scene, each 20 dBm; noise of 100 MHz, noise figure 7 dB" in card
    assert "users served by base stations 0 to 2:" in card
    assert "are of the links of base station 0" in card
    record = next(part for part in croissant(folder)["recordSet"] if part["name"] == "bs-arrays")
    assert {field["name"] for field in record["field"]} >= {"position", "azimuth", "serving", "sinr", "handovers"}


def test_descriptions_name_them(store: Path) -> None:
    fields = {field["name"]: field for field in describe(store)["fields"]}
    assert fields["bs/position"]["dims"] == ["scene", "bs", "axis"]
    assert fields["bs/sinr"]["bytes"] > 0
    shown = run("inspect", store)
    assert "base stations" in shown.stdout
    assert "cells" in shown.stdout


def test_tools_for_one_base_station_show_the_first(store: Path) -> None:
    assert load_view(store, "toy-0001").base.tolist() == STATIONS[0][0].tolist()
    index = make_index(store)
    assert index["scenes"]["id"][0] == "toy-0000"
    assert not index["damaged"]
