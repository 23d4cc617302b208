"""Several carriers in one store: each is what a store of it alone would be."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from carrier_store import CARRIERS, LOW, arrays_at, build_carrier_store, make_draft
from command import wavecity as command
from toy import FREQUENCY, make_layout

import wavecity
from wavecity.dataset.bands import at_band, stack_bands
from wavecity.dataset.checks.bands import check_bands
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe, description_text
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.layout import Layout
from wavecity.dataset.records import attributes_of
from wavecity.dataset.statistics import merge_statistics, unit_statistics
from wavecity.dataset.views import derived_csi, stored_csi
from wavecity.geo.errors import InputError

USERS = (8, 9, 10, 11)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("carriers") / "store"
    build_carrier_store(place)
    return place


def test_one_carrier_writes_what_it_always_did() -> None:
    layout = make_layout()
    assert "carriers" not in layout.content()
    assert not any("carrier" in spec.dims for spec in layout.specs())
    assert Layout.of(layout.content()) == layout


def test_a_carrier_is_what_a_store_of_it_alone_has(store: Path) -> None:
    for carrier in CARRIERS:
        data = wavecity.open_store(store, carrier=carrier)
        paths = wavecity.open_store(store, "paths", carrier=carrier)
        assert data.csi.dims == ("scene", "user", "x", "y")
        assert float(data.carrier) == float(paths.carrier) == data.attrs["frequency_hz"] == carrier
        for scene, users in enumerate(USERS):
            alone = arrays_at(carrier, scene, users)
            for name in ("csi", "spectrum", "path_gain", "outage", "best_beam", "los", "height"):
                values = data[name].values[scene]
                np.testing.assert_array_equal(values[:users] if "user" in data[name].dims else values, alone[name])
            for name in ("gain", "delay", "n_paths"):
                np.testing.assert_array_equal(paths[name].values[scene, :users], alone[f"paths/{name}"])


def test_all_carriers_have_a_dimension_with_their_frequencies(store: Path) -> None:
    data, paths = wavecity.open_store(store, carrier="all"), wavecity.open_store(store, "paths", carrier="all")
    assert data.csi.dims == ("scene", "user", "carrier", "x", "y")
    assert data.path_gain.dims == ("scene", "user", "carrier")
    assert data.los.dims == ("scene", "user")
    assert paths.delay.dims == ("scene", "user", "carrier", "path")
    for group in (data, paths):
        np.testing.assert_array_equal(group.carrier, CARRIERS)
        assert group.carrier.attrs["units"] == "Hz"
    np.testing.assert_array_equal(data.sel(carrier=FREQUENCY).csi, wavecity.open_store(store, carrier=FREQUENCY).csi)


def test_a_chunk_is_of_one_carrier(store: Path) -> None:
    assert zarr.open_group(store / "latest.zarr")["csi"].chunks[2] == 1


def test_statistics_are_those_of_the_carrier(store: Path) -> None:
    for carrier in CARRIERS:
        units = [unit_statistics([arrays_at(carrier, scene, USERS[scene]) for scene in (0, 1)], ["train"] * 2)]
        assert attributes_of(wavecity.open_store(store, carrier=carrier).attrs)["statistics"] == pytest.approx(
            merge_statistics(units)
        )
    low, high = (
        attributes_of(wavecity.open_store(store, carrier=carrier).attrs)["statistics"]["csi_rms"]
        for carrier in CARRIERS
    )
    assert low / high == pytest.approx(FREQUENCY / LOW)


def test_torch_readers_read_one_carrier_or_all(store: Path) -> None:
    fields = ("csi", "height", "paths/delay")
    alone = arrays_at(FREQUENCY, 0, USERS[0])
    for preload in (True, False):
        one = wavecity.ChannelDataset(store, "train", fields, preload=preload, carrier=FREQUENCY)
        every = wavecity.ChannelDataset(store, "train", fields, preload=preload, carrier="all")
        assert len(one) == len(every) == USERS[0] + USERS[1] - 2
        np.testing.assert_array_equal(one[3]["csi"], alone["csi"][3])
        np.testing.assert_array_equal(one[3]["paths/delay"], alone["paths/delay"][3])
        np.testing.assert_array_equal(every[3]["csi"][1], alone["csi"][3])
        assert every[3]["csi"].shape == (2, 32, 32)
        assert one.attrs["frequency_hz"] == FREQUENCY
    batches = wavecity.ShuffledChannels(store, "train", fields, batch_size=4, carrier=FREQUENCY)
    for batch in batches:
        for csi, scene, user in zip(batch["csi"], batch["scene"], batch["user"], strict=True):
            np.testing.assert_array_equal(csi, arrays_at(FREQUENCY, int(scene), USERS[scene])["csi"][user])


def test_views_are_of_one_carrier(store: Path) -> None:
    np.testing.assert_array_equal(
        stored_csi(store, carrier=LOW).values, wavecity.open_store(store, carrier=LOW).csi.values
    )
    csi = derived_csi(store, carrier=LOW)
    assert csi.attrs["frequency_hz"] == LOW
    gain = wavecity.open_store(store, "paths", carrier=LOW)["gain"].values[0, 0, 0]
    np.testing.assert_allclose(np.abs(csi.values[0, 0]), np.abs(gain), rtol=1e-5)
    assert derived_csi(store, carrier=FREQUENCY, bandwidth=1e9, subcarriers=2).sizes["subcarrier"] == 2
    with pytest.raises(InputError, match="at most 3"):
        derived_csi(store, carrier=LOW, bandwidth=1e9, subcarriers=2)


@pytest.mark.parametrize(
    "read",
    [
        wavecity.open_store,
        wavecity.ChannelDataset,
        wavecity.ShuffledChannels,
        derived_csi,
        lambda store: wavecity.open_store(store, "paths"),
    ],
)
def test_without_a_carrier_readers_say_which_there_are(read: object, store: Path) -> None:
    with pytest.raises(InputError, match=r"3.5 and 28.5 GHz.*carrier=3.5e\+09.*subset STORE --carrier"):
        read(store)


def test_an_unknown_carrier_is_refused(store: Path, toy_store: Path) -> None:
    with pytest.raises(InputError, match=r"carrier 6e\+10 Hz is not in it; it has 3.5e\+09, 2.85e\+10 Hz"):
        wavecity.open_store(store, carrier=60e9)
    with pytest.raises(InputError, match="is not in it"):
        wavecity.open_store(toy_store, carrier=60e9)
    assert wavecity.open_store(toy_store, carrier=FREQUENCY).csi.dims == ("scene", "user", "x", "y")


@pytest.mark.parametrize(
    "words", [("explore", "STORE", "--no-browser"), ("export-dataset", "STORE", "--to", "hdf5", "--out", "OUT")]
)
def test_commands_that_know_one_carrier_refuse_several(words: tuple[str, ...], store: Path, tmp_path: Path) -> None:
    places = {"STORE": store, "OUT": tmp_path / "out"}
    done = command(*(places.get(word, word) for word in words))
    assert done.returncode == 2
    assert "one carrier is needed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_subset_of_one_carrier_is_a_store_of_it(store: Path, tmp_path: Path) -> None:
    done = command("subset", store, "--out", tmp_path / "one", "--carrier", "3.5e9")
    assert done.returncode == 0, done.stderr
    data, before = wavecity.open_store(tmp_path / "one"), wavecity.open_store(store, carrier=LOW)
    np.testing.assert_array_equal(data.csi.values, before.csi.values[:, : data.sizes["user"]])
    assert data.attrs["frequency_hz"] == LOW
    assert "carrier" not in {**data.sizes, **data.attrs}
    assert validate(tmp_path / "one").ok
    both = subset(store, tmp_path / "both", scenes=["toy-0000"])
    assert wavecity.open_store(both.data, carrier="all").sizes["carrier"] == 2


def test_what_is_said_of_a_store_names_its_carriers(store: Path, tmp_path: Path) -> None:
    said = describe(store)
    assert said["carriers_hz"] == CARRIERS
    assert "3.5 and 28.5 GHz" in description_text(said)
    assert "3.5 and 28.5 GHz" in command("inspect", store).stdout
    done = command("preview", store, "--scene", "toy-0000", "--carrier", "28.5e9", "--out", tmp_path / "scene.html")
    assert done.returncode == 0, done.stderr


def test_the_card_shows_every_carrier(store: Path) -> None:
    from wavecity.dataset.card.croissant import describe as croissant
    from wavecity.dataset.card.facts import gather_facts
    from wavecity.dataset.card.page import write_card
    from wavecity.dataset.card.source import load_source

    folder = (store / "latest.zarr").resolve().parent
    facts = gather_facts(load_source(folder))
    assert ("carriers", "3.5 and 28.5 GHz") in facts["glance"]
    assert facts["statistics"].columns == ("statistic", "3.5 GHz", "28.5 GHz", "meaning")
    text = json.dumps(croissant(folder))
    assert "3.5 and 28.5 GHz" in text
    assert "axes carrier, x, y" in text
    write_card(folder)
    assert "28.5 GHz" in (folder / "card.md").read_text()


def test_the_whole_store_is_valid(tmp_path: Path) -> None:
    found = validate(make_draft(tmp_path).folder)
    assert found.ok, found.findings
    assert found.checks["friis"] == 8  # four scenes, at both carriers
    assert found.checks["carriers"] == 4


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("paths/gain", 1.2, "friis: scene toy-0000 at 28.5 GHz: LoS gain 1.58 dB above Friis"),
        ("paths/delay", 1.5, "carriers: scene toy-0000: the direct path of 7 users has another delay"),
        ("csi", 1.5, "spectrum: scene toy-0000 at 28.5 GHz"),
    ],
)
def test_each_carrier_has_its_gates(
    name: str, change: float, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import carrier_store

    def changed(frequency: float, seed: int, users: int) -> dict[str, np.ndarray]:
        arrays = arrays_at(frequency, seed, users)
        if frequency == FREQUENCY and seed == 0:
            arrays[name] = (arrays[name] * change).astype(arrays[name].dtype)
        return arrays

    monkeypatch.setattr(carrier_store, "arrays_at", changed)
    findings = validate(make_draft(tmp_path).folder).findings
    assert any(f"{found.check}: {found.where}: {found.message}".startswith(said) for found in findings), findings


def test_reflected_paths_must_be_the_same_where_none_was_cut() -> None:
    each = [arrays_at(carrier, 0, 4) for carrier in CARRIERS]
    for arrays in each:
        arrays["paths/gain"][:3, 1] = 1e-6
        arrays["paths/delay"][:3, 1] = 1e-6
        arrays["paths/interactions"][:3, 1] = 1
        arrays["paths/n_paths"][:3] = 2
    assert check_bands(stack_bands(each), 4, {}) == ""
    each[1]["paths/delay"][0, 1] = 1.1e-6
    assert check_bands(stack_bands(each), 4, {}) == "1 users have paths of other delays at another carrier"
    each[1]["paths/n_paths"][0] = 40  # the strongest of many may be others
    assert check_bands(stack_bands(each), 4, {}) == ""


def test_stacking_is_undone() -> None:
    each = [arrays_at(carrier, 1, 5) for carrier in CARRIERS]
    for index, alone in enumerate(each):
        for name, values in at_band(stack_bands(each), index).items():
            np.testing.assert_array_equal(values, alone[name])
