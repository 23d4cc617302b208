"""Several base stations at several carriers: each link at each carrier is what a store of that alone would have."""

import re
from pathlib import Path

import base_station_store
import numpy as np
import pytest
import toy
import xarray as xr
import zarr
from base_station_store import SETTINGS, STEPS, SUBCARRIERS, build_links_store, make_links, make_links_draft, station_of
from command import wavecity as command

import wavecity
from wavecity.dataset.bands import per_band, stack_bands, with_bands
from wavecity.dataset.base_stations import with_links
from wavecity.dataset.card.croissant import describe as croissant
from wavecity.dataset.card.facts import gather_facts
from wavecity.dataset.card.source import load_source
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe, description_text
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.records import attributes_of
from wavecity.geo.errors import InputError

LOW = 3.5e9
CARRIERS = (LOW, toy.FREQUENCY)
LINK = ("csi", "spectrum", "path_gain", "outage", "best_beam", "los", "user_position")
CELLS = ("bs/serving", "bs/sinr", "bs/serving_along", "bs/handovers")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("link-bands") / "store"
    build_links_store(place, moving=True, carriers=CARRIERS)
    return place


def test_one_link_at_one_carrier_is_what_a_store_of_it_has(store: Path) -> None:
    for carrier in CARRIERS:
        expected = make_links(2, 10, True, carrier)
        for number in range(3):
            alone = expected[number]
            assert alone is not None
            data = wavecity.open_store(store, bs=number, carrier=carrier).isel(scene=2, user=slice(10))
            paths = wavecity.open_store(store, "paths", bs=number, carrier=carrier).isel(scene=2, user=slice(10))
            along = wavecity.open_store(store, "trajectory", bs=number, carrier=carrier).isel(scene=2, user=slice(10))
            for name in LINK:
                np.testing.assert_array_equal(data[name], alone[name])
            for name in ("gain", "delay", "n_paths"):
                np.testing.assert_array_equal(paths[name], alone[f"paths/{name}"])
            for name in ("csi", "position", "velocity"):
                np.testing.assert_array_equal(along[name], alone[f"trajectory/{name}"])
            assert data.attrs["frequency_hz"] == float(data["carrier"]) == float(along["carrier"]) == carrier
            assert (int(data["bs"]), data["csi"].dims) == (number, ("user", "x", "y"))


def test_all_links_at_all_carriers(store: Path) -> None:
    every = wavecity.open_store(store, bs="all", carrier="all")
    assert every["csi"].dims == ("bs", "scene", "user", "carrier", "x", "y")
    assert every["los"].dims == ("bs", "scene", "user")
    assert every["serving"].dims == every["sinr"].dims == ("scene", "user", "carrier")
    assert every["serving_along"].dims == ("scene", "user", "carrier", "time")
    assert every["handovers"].dims == ("scene", "user", "carrier")
    np.testing.assert_array_equal(every["carrier"], CARRIERS)
    one = wavecity.open_store(store, bs=1, carrier=LOW)
    np.testing.assert_array_equal(every.sel(bs=1, carrier=LOW)["csi"], one["csi"])
    assert one["sinr"].dims == ("scene", "user")
    along = wavecity.open_store(store, "trajectory", bs="all", carrier="all")
    assert along["csi"].dims == ("bs", "scene", "user", "carrier", "time", "subcarrier", "x", "y")
    assert along["velocity"].dims == ("scene", "user", "time", "axis")
    assert wavecity.open_store(store, "bs", carrier=LOW)["serving"].dims == ("scene", "user")


def test_xarray_alone_knows_the_carriers_of_any_link(store: Path) -> None:
    for group in ("bs", "bs/1", "bs/1/paths", "bs/2/trajectory", "trajectory"):
        data = xr.open_zarr(store / "latest.zarr", group=group)
        np.testing.assert_array_equal(data["carrier"], CARRIERS)
        assert data["carrier"].attrs["units"] == "Hz"
    root = zarr.open_group(store / "latest.zarr")
    assert str(root["bs"].attrs["coordinates"]).split().count("carrier") == 1
    assert root["bs/1/csi"].chunks[2] == root["bs/1/trajectory/csi"].chunks[2] == 1


def test_cells_are_those_of_each_carrier(store: Path) -> None:
    """Noise is -174 dBm/Hz over 100 MHz with a noise figure of 7 dB, all transmit 20 dBm: from the gains, in a loop."""
    ratios = []
    for carrier in CARRIERS:
        data = wavecity.open_store(store, bs="all", carrier=carrier).load()
        for scene in range(4):
            for user in range(8 + scene):
                heard = ~data["outage"].values[:, scene, user]
                gain = data["path_gain"].values[:, scene, user].astype(float)
                power = np.where(heard, 10 ** ((20 + gain) / 10), 0)
                serving = int(power.argmax()) if heard.any() else -1
                assert int(data["serving"][scene, user]) == serving
                if serving >= 0:
                    noise = 10 ** ((-174 + 80 + 7) / 10)
                    ratio = 10 * np.log10(power[serving] / (power.sum() - power[serving] + noise))
                    assert float(data["sinr"][scene, user]) == pytest.approx(ratio, abs=1e-3)
        ratios.append(float(np.nanmean(data["sinr"].values)))
    assert ratios[0] > ratios[1] + 1  # more than noise at the lower carrier


def test_cells_differ_where_the_carriers_do() -> None:
    """Base station 1 louder at one carrier alone: each band's cells are those of a scene with that carrier only."""
    stations = [station_of(0, number) for number in range(3)]
    each = []
    for carrier, factor in ((LOW, 1.0), (toy.FREQUENCY, 30.0)):
        links = make_links(0, 8, True, carrier)
        louder = links[1]
        assert louder is not None
        louder["path_gain"] = louder["path_gain"] + np.float32(20 * np.log10(factor))
        louder["trajectory/csi"] = louder["trajectory/csi"] * np.float32(factor)
        each.append(links)
    alone = [with_links(links[0], links[1:], stations, SETTINGS, -200.0) for links in each]
    stacked = [stack_bands([links[number] for links in each]) for number in range(3)]
    together = with_links(stacked[0], stacked[1:], stations, SETTINGS, -200.0)
    for number, one in enumerate(alone):
        for name in CELLS:
            np.testing.assert_array_equal(together[name][:, number], one[name])
    assert (alone[0]["bs/serving"] != alone[1]["bs/serving"]).any()
    assert (alone[0]["bs/serving_along"] != alone[1]["bs/serving_along"]).any()


def test_every_link_has_its_gates_at_every_carrier(store: Path) -> None:
    result = validate(store)
    assert result.ok, result.findings
    # Four scenes of three base stations, of which two scenes lack the third: ten links at two carriers.
    assert result.checks["friis"] == result.checks["first snapshot"] == 20
    assert result.checks["carriers"] == result.checks["los"] == 10
    assert result.checks["cells"] == result.checks["handovers"] == 8


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("paths/gain", "friis: scene toy-0000, bs 1 at 28.5 GHz: LoS gain 6.02 dB above Friis"),
        ("paths/delay", "carriers: scene toy-0000, bs 1: the direct path of"),
        ("trajectory/csi", "first snapshot: scene toy-0000, bs 1 at 28.5 GHz"),
    ],
)
def test_what_is_wrong_at_one_carrier_of_one_link_is_found(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = base_station_store.link

    def wrong(users: np.ndarray, velocity: np.ndarray, station: np.ndarray, *more: object) -> dict[str, np.ndarray]:
        arrays = right(users, velocity, station, *more)
        if station[0] == 98 and more[2] == toy.FREQUENCY:
            arrays[name] = (arrays[name] * 2).astype(arrays[name].dtype)
        return arrays

    monkeypatch.setattr(base_station_store, "link", wrong)
    found = validate(make_links_draft(tmp_path / "store", moving=True, carriers=CARRIERS).folder)
    assert any(f"{one.check}: {one.where}: {one.message}".startswith(said) for one in found.findings), found.findings
    assert all(", bs 1" in one.where for one in found.findings)


def test_wrong_cells_at_one_carrier_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = base_station_store.with_links

    def wrong(*given: object) -> dict[str, np.ndarray]:
        arrays = right(*given)
        arrays["bs/sinr"][:, 1] += 1
        return arrays

    monkeypatch.setattr(base_station_store, "with_links", wrong)
    found = validate(make_links_draft(tmp_path / "store", carriers=CARRIERS).folder).findings
    assert {(one.check, one.where) for one in found} == {("cells", f"scene toy-{n:04d} at 28.5 GHz") for n in range(4)}


def test_without_a_carrier_readers_of_links_say_which_there_are(store: Path) -> None:
    for read in (
        lambda: wavecity.open_store(store, bs="all"),
        lambda: wavecity.open_store(store, "bs"),
        lambda: wavecity.open_store(store, "trajectory", bs=1),
        lambda: wavecity.ChannelDataset(store, "train", bs="all"),
        lambda: wavecity.ShuffledChannels(store, "train", bs=1),
    ):
        with pytest.raises(InputError, match=r"3.5 and 28.5 GHz.*carrier=3.5e\+09"):
            read()


@pytest.mark.parametrize("preload", [True, False])
def test_torch_reads_any_link_at_any_carrier(store: Path, preload: bool) -> None:
    fields = ("csi", "height", "bs/azimuth", "bs/serving", "paths/delay", "trajectory/csi")
    at = wavecity.ChannelDataset(store, "train", fields, bs="all", carrier=LOW, preload=preload)
    every = wavecity.ChannelDataset(store, "train", fields, bs="all", carrier="all", preload=preload)
    data = wavecity.open_store(store, bs="all", carrier="all").load()
    along = wavecity.open_store(store, "trajectory", bs="all", carrier="all")["csi"].load()
    assert len(at) == len(every) == int((~data["outage"].isel(carrier=0, scene=slice(2))).sum())
    assert set(at.bs_index.tolist()) == {0, 1, 2}
    for index in range(0, len(at), 4):
        one, both = at[index], every[index]
        number, scene, user = one["bs"], one["scene"], one["user"]
        assert (both["bs"], both["scene"], both["user"]) == (number, scene, user)
        here = data.isel(bs=number, scene=scene, user=user)
        np.testing.assert_array_equal(both["csi"], here["csi"])
        np.testing.assert_array_equal(one["csi"], here["csi"].sel(carrier=LOW))
        np.testing.assert_array_equal(one["trajectory/csi"], along[number, scene, user, 0])
        assert one["trajectory/csi"].shape == (STEPS, SUBCARRIERS, 4, 4)
        assert int(one["bs/serving"]) == int(here["serving"].sel(carrier=LOW))
        assert float(one["bs/azimuth"]) == float(here["bs_azimuth"])
    reader = wavecity.ShuffledChannels(
        store, "train", ("csi", "bs/sinr"), batch_size=7, bs="all", carrier=toy.FREQUENCY
    )
    found = []
    for batch in reader:
        for row in range(len(batch["csi"])):
            place = int(batch["bs"][row]), int(batch["scene"][row]), int(batch["user"][row])
            np.testing.assert_array_equal(batch["csi"][row], data["csi"].sel(carrier=toy.FREQUENCY).values[place])
            found.append(place)
    assert sorted(found) == sorted(zip(at.bs_index, at.scene_index, at.user_index, strict=True))


def test_parts_keep_links_and_carriers_or_leave_them_out(store: Path, tmp_path: Path) -> None:
    done = command("subset", store, "--out", tmp_path / "one", "--carrier", "3.5e9")
    assert done.returncode == 0, done.stderr
    here, before = (
        wavecity.open_store(tmp_path / "one", bs="all").load(),
        wavecity.open_store(store, bs="all", carrier=LOW).load(),
    )
    for name in ("csi", "serving", "sinr", "handovers"):
        values = before[name].isel(user=slice(here.sizes["user"]))
        np.testing.assert_array_equal(here[name], values)
    assert "carrier" not in {**here.sizes, **here.attrs}
    assert validate(tmp_path / "one").checks["friis"] == 10
    subset(store, tmp_path / "first", scenes=["toy-0000"], fields=["csi", "trajectory"])
    first = wavecity.open_store(tmp_path / "first", "trajectory", carrier="all")
    alone = make_links(0, 8, True, LOW)[0]
    assert alone is not None
    np.testing.assert_array_equal(first["csi"].sel(carrier=LOW).values[0], alone["trajectory/csi"])
    with pytest.raises(InputError, match="has one base station"):
        wavecity.open_store(tmp_path / "first", bs=1, carrier=LOW)


def test_what_is_said_of_a_store_names_both(store: Path) -> None:
    said = describe(store)
    fields = {field["name"]: field for field in said["fields"]}
    assert fields["bs/serving_along"]["dims"] == ["scene", "user", "carrier", "time"]
    assert fields["trajectory/csi"]["dims"] == ["scene", "user", "carrier", "time", "subcarrier", "x", "y"]
    assert "3.5 and 28.5 GHz" in description_text(said)
    shown = command("inspect", store)
    assert shown.returncode == 0, shown.stderr
    ratio = np.nanmedian(wavecity.open_store(store, "bs", carrier=LOW)["sinr"].values)
    assert "users served by base stations 0 to 2" in " ".join(shown.stdout.split())
    assert re.search(rf"SINR\s+\S+,\s+{ratio:.1f},", shown.stdout)
    folder = (store / "latest.zarr").resolve().parent
    facts = gather_facts(load_source(folder))
    glance = dict(facts["glance"])
    assert glance["carriers"] == "3.5 and 28.5 GHz"
    serving = wavecity.open_store(store, "bs", carrier=LOW)["serving"].values
    share = 100 * (serving == 0).sum() / (serving >= 0).sum()
    assert f"users served by base stations 0 to 2: {share:.0f}," in glance["cells"]
    records = {part["name"]: part for part in croissant(folder)["recordSet"]}
    assert {field["name"] for field in records["bs-arrays"]["field"]} >= {"serving", "sinr"}
    attributes = attributes_of(wavecity.open_store(store, bs=1, carrier=LOW).attrs)
    assert attributes["base_stations"]["count"] == 3
    assert "carriers" not in attributes


def test_what_follows_from_geometry_alone_has_no_carrier() -> None:
    names = ("los", "height", "user_position", "trajectory/position", "bs/2/los", "bs/position", "radio_map/los")
    assert not [name for name in names if per_band(name)]
    assert per_band("bs/12/paths/gain")
    assert per_band("radio_map/path_gain")
    maps = wavecity.dataset.radio_maps.radio_map_specs(["path_gain", "los"])
    assert [spec.dims for spec in with_bands(maps, "carrier")] == [
        ("scene", "carrier", "map_row", "map_column"),
        ("scene", "map_row", "map_column"),
    ]
