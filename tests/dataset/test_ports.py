"""Two ports at an end in one store: each pair is what a store of it alone would be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import wavecity as command
from toy import ATTRIBUTES, make_arrays, make_layout, write_buildings

import wavecity
from wavecity.dataset.bands import bands_of, port_names, stack_bands
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe, description_text
from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import publish
from wavecity.dataset.records import attributes_of
from wavecity.dataset.writer import write_unit
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import RadioSettings

RADIO = RadioSettings(user_polarisation="VH")


def arrays_of(port: str, seed: int) -> dict[str, np.ndarray]:
    """Arrays of `toy.make_arrays`; what the user's horizontal antenna receives is 20 dB weaker."""
    arrays = make_arrays(np.random.default_rng(seed), 8)
    if port == "H/V":
        for name, factor in (("csi", 0.1), ("paths/gain", 0.1), ("spectrum", 0.01)):
            arrays[name] = (arrays[name] * factor).astype(arrays[name].dtype)
        arrays["path_gain"] = (arrays["path_gain"] - 20 * ~arrays["outage"]).astype(np.float32)
    return arrays


def make_draft(store: Path, first: str = "V/V") -> Draft:
    """Two scenes, as a draft; `first` is what its first pair of ports is made of."""
    draft = open_draft(store, "0ff1ce0ff1ce0ff1ce0f", replace(make_layout(scenes=2), ports=2))
    scenes = [stack_bands([arrays_of(first, seed), arrays_of("H/V", seed)]) for seed in range(2)]
    outcome = {"city": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0, "split": "train", "n_users": 8}
    outcomes = [outcome | {"scene_id": f"toy-{n}", "status": "done", "bs_shift": 0.0, "n_outage": 1} for n in range(2)]
    write_buildings(draft.buildings_path(0), outcomes)
    write_unit(draft, 0, scenes, outcomes, {"seed": 0})
    finish_draft(draft, {**ATTRIBUTES, **bands_of(RADIO)}, {})
    seal(draft)
    return draft


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ports") / "store"
    draft = make_draft(place)
    result = validate(draft.folder)
    assert result.ok, result.findings
    assert result.checks["ports"] == 2
    publish(place, draft.folder, keep=1)
    return place


def test_names_say_which_port_of_which_end() -> None:
    assert port_names(RADIO) == ["V/V", "H/V"]
    assert port_names(RadioSettings(polarisation="cross", user_polarisation="H")) == ["H/-45", "H/+45"]
    assert bands_of(RadioSettings()) == {}
    assert bands_of(RadioSettings(polarisation="H")) == {"polarisations": "V/H"}


def test_a_pair_is_what_a_store_of_it_alone_has(store: Path) -> None:
    every = wavecity.open_store(store, port="all")
    assert every.csi.dims == ("scene", "user", "port", "x", "y")
    assert every.port.values.tolist() == ["V/V", "H/V"]
    for name in ("V/V", "H/V"):
        data, paths = wavecity.open_store(store, port=name), wavecity.open_store(store, "paths", port=name)
        np.testing.assert_array_equal(data.csi.values[1, :8], arrays_of(name, 1)["csi"])
        np.testing.assert_array_equal(paths.gain.values[1, :8], arrays_of(name, 1)["paths/gain"])
        np.testing.assert_array_equal(every.csi.sel(port=name).values, data.csi.values)
        assert "ports" not in data.attrs
    level = [
        attributes_of(wavecity.open_store(store, port=name).attrs)["statistics"]["csi_rms"] for name in ("V/V", "H/V")
    ]
    assert level[1] == pytest.approx(0.1 * level[0])


def test_torch_reads_a_pair_or_all(store: Path) -> None:
    one = wavecity.ChannelDataset(store, "train", ("csi",), port="H/V")
    np.testing.assert_array_equal(one[2]["csi"], arrays_of("H/V", 0)["csi"][2])
    batch = next(iter(wavecity.ShuffledChannels(store, "train", ("csi",), batch_size=4, port="all")))
    assert batch["csi"].shape == (4, 2, 32, 32)


def test_a_pair_must_be_named_and_be_there(store: Path, toy_store: Path) -> None:
    for read in (wavecity.open_store, wavecity.ChannelDataset):
        with pytest.raises(InputError, match=r"ports V/V and H/V.*port='V/V'.*subset STORE --port V/V"):
            read(store)
    with pytest.raises(InputError, match="port 'V/H' is not in it; it has V/V, H/V"):
        wavecity.open_store(store, port="V/H")
    with pytest.raises(InputError, match="it has one pair, V/V"):
        wavecity.open_store(toy_store, port="H/V")


def test_a_subset_of_a_pair_is_a_store_of_it(store: Path, tmp_path: Path) -> None:
    done = command("subset", store, "--out", tmp_path / "one", "--port", "H/V")
    assert done.returncode == 0, done.stderr
    data = wavecity.open_store(tmp_path / "one")
    np.testing.assert_array_equal(data.csi.values[0, :8], arrays_of("H/V", 0)["csi"])
    assert data.attrs["polarisations"] == "H/V"


def test_what_is_said_of_a_store_names_its_ports(store: Path) -> None:
    from wavecity.dataset.card.facts import gather_facts
    from wavecity.dataset.card.source import load_source

    assert "ports V/V, H/V (user/base station)" in description_text(describe(store))
    facts = gather_facts(load_source((store / "latest.zarr").resolve().parent))
    assert ("ports", "V/V, H/V (user/base station)") in facts["glance"]
    assert facts["statistics"].columns == ("statistic", "V/V", "H/V", "meaning")


def test_each_pair_has_its_gates(tmp_path: Path) -> None:
    """The gain of the direct path between equal polarisations is Friis'; between others it may be anything less."""
    findings = validate(make_draft(tmp_path, first="H/V").folder).findings
    said = {f"{found.check}: {found.where}: {found.message}" for found in findings}
    assert said == {f"friis: scene toy-{n} at V/V: LoS gain 20.00 dB below Friis" for n in range(2)}
