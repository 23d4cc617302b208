"""Quality gates: what is measured, what stops publication, and what an override lets pass."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from command import wavecity
from scipy.stats import ks_2samp
from toy import ATTRIBUTES, build_store, make_layout, write_synthetic_unit

from wavecity.dataset.distributions import HISTOGRAMS, unit_distributions
from wavecity.dataset.draft import load_draft, open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import latest
from wavecity.dataset.settings import GateSettings
from wavecity.flows import announce, gates, pipeline
from wavecity.flows.commands.options import gate_option
from wavecity.flows.gates import GATES, Gate, GateFailed, drift_of, measure
from wavecity.flows.recipe import load_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a version, of which one building in four has a guessed height."""
    store = tmp_path_factory.mktemp("gates") / "store"
    build_store(store, make_layout(scenes=2, unit=1, users=12))
    version = latest(store)
    assert version is not None
    assert isinstance(version.folder, Path)
    for path in (version.folder / "receipts").glob("unit-*.json"):
        receipt = json.loads(path.read_text())
        for scene in receipt["scenes"]:
            scene["heights_from"] = {"tag": 2, "levels": 1, "guess": 1}
        path.write_text(json.dumps(receipt))
    return version.folder


def by_name(found: list[Gate]) -> dict[str, Gate]:
    assert tuple(gate.name for gate in found) == GATES
    return {gate.name: gate for gate in found}


def test_shares_are_those_of_the_arrays(folder: Path) -> None:
    data = xr.open_zarr(folder / "data.zarr")
    real = np.arange(data.sizes["user"]) < data.n_users.values[:, None]
    found = by_name(measure(folder, None, GateSettings()))
    assert found["outage"].value == pytest.approx(data.outage.values[real].mean())
    assert found["quarantined"].value == pytest.approx((data.status.values != "done").mean())
    assert found["drift"].value is None
    assert {gate.verdict for gate in found.values()} == {"no limit", "not measured"}
    assert len(list(load_draft(folder).receipts())) == 2
    assert found["imputed"].value == 0.25


def test_a_limit_stops_and_its_name_lets_pass(folder: Path) -> None:
    share = by_name(measure(folder, None, GateSettings()))["outage"].value
    assert share is not None
    assert by_name(measure(folder, None, GateSettings(outage=share)))["outage"].verdict == "passed"
    limits = GateSettings(outage=share - 1e-6, imputed=0.1)
    stopped = measure(folder, folder, limits)
    assert [gate.name for gate in stopped if gate.exceeded] == ["outage", "imputed"]
    message = str(GateFailed(stopped, folder))
    assert f"share of users in outage {share:.3g} is above gates.outage" in message
    assert message.endswith("--pass-gate outage --pass-gate imputed")
    assert "\n" not in message
    passed = measure(folder, folder, limits, ("outage",))
    assert [gate.name for gate in passed if gate.exceeded] == ["imputed"]
    assert by_name(passed)["outage"].verdict == "exceeded, overridden"


def scene(rng: np.random.Generator, gain: float, los: float, height: float) -> dict[str, Any]:
    users = 400
    tall = np.zeros((20, 20), np.float32)
    tall[:10] = rng.uniform(2, height, (10, 20))
    return {
        "outage": np.zeros(users, bool),
        "los": rng.random(users) < los,
        "path_gain": rng.normal(gain, 8, users).astype(np.float32),
        "user_position": rng.uniform(0, 90, (users, 3)).astype(np.float32),
        "height": tall,
    }


@pytest.mark.parametrize(
    ("gain", "los", "height", "most"),
    [(-100, 0.3, 30, "path_gain"), (-90, 0.9, 30, "los"), (-90, 0.3, 150, "building_height")],
)
def test_drift_is_the_distance_that_scipy_finds(gain: float, los: float, height: float, most: str) -> None:
    rng = np.random.default_rng(1)
    old, new = scene(rng, -90, 0.3, 30), scene(rng, gain, los, height)
    parts = [unit_distributions([one, one], ["train", "test"]) for one in (new, old)]
    drift, name = drift_of(*parts)
    assert name == most
    expected = {
        "path_gain": ks_2samp(new["path_gain"], old["path_gain"]).statistic,
        "building_height": ks_2samp(new["height"][:10].ravel(), old["height"][:10].ravel()).statistic,
        "los": abs(new["los"].mean() - old["los"].mean()),
    }
    assert most == max(expected, key=lambda key: expected[key])
    # Between the edges of the bins of 2 dB or 2 m the distance may be larger.
    assert expected[most] - 0.06 <= drift <= expected[most] + 1e-9
    assert drift_of(parts[1], parts[1])[0] == 0


def test_values_outside_the_bins_count(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    old = scene(rng, -90, 0.5, 30)
    for shift in (-300.0, 300.0):
        new = {**old, "path_gain": old["path_gain"] + np.float32(shift)}
        drift, _ = drift_of(unit_distributions([new], ["train"]), unit_distributions([old], ["train"]))
        assert drift == pytest.approx(1.0)
    assert HISTOGRAMS["path_gain"].low == -200


def test_the_pipeline_shows_the_gates_and_stops(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[Gate] = []
    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(pipeline, "measure_gates", gates.measure)
    monkeypatch.setattr(pipeline.artifacts, "show_gates", lambda found, recipe: shown.extend(found))
    monkeypatch.setattr(announce, "emit_event", lambda name, **content: events.append((name, content)))
    monkeypatch.setattr(pipeline, "get_run_logger", lambda: logging.getLogger("build"))
    draft, recipe = load_draft(folder), load_recipe("quickstart", ("gates.outage=0",))
    with pytest.raises(GateFailed, match=r"above gates\.outage 0; the draft stays"):
        pipeline._refuse_by_gates(draft, recipe, folder.parent.parent, ())
    assert [gate.name for gate in shown] == list(GATES)
    (event,) = events
    assert event[0] == "wavecity.gate.failed"
    assert event[1]["payload"]["gates"] == ["outage"]
    pipeline._refuse_by_gates(draft, recipe, folder.parent.parent, ("outage",))
    assert "gate outage is overridden" in caplog.text
    assert len(events) == 1


def test_gates_make_no_other_dataset_and_are_named_alike() -> None:
    plain, limited = load_recipe("quickstart"), load_recipe("quickstart", ("gates.drift=0.1",))
    assert plain.data_parts() == limited.data_parts()
    assert set(GateSettings.model_fields) == set(GATES)

    def command() -> None:
        pass

    (option,) = gate_option(command).__click_params__  # type: ignore[attr-defined]
    assert tuple(option.type.choices) == GATES


@pytest.mark.parametrize("value", ["2", "-0.1", "often"])
def test_wrong_limits_are_refused(tmp_path: Path, value: str) -> None:
    refused = wavecity("build", "quickstart", "--out", tmp_path / "store", "--set", f"gates.outage={value}")
    assert refused.returncode == 2
    assert "gates.outage" in refused.stderr


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A store whose one draft was validated by hand; its recipe allows no outage."""
    store = tmp_path / "store"
    draft = open_draft(store, "0123456789abcdef0123", make_layout(scenes=2, unit=1, users=12))
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    recipe = load_recipe("quickstart", ("gates.outage=0", "store.keep=1")).model_dump(mode="json")
    finish_draft(draft, {**ATTRIBUTES, "recipe": recipe}, {"map": {"name": "toy"}})  # type: ignore[typeddict-item]
    seal(draft)
    assert wavecity("validate", draft.folder, "--workers", 1).returncode == 0
    return store


def test_publishing_by_hand_does_not_get_round_the_gates(stopped: Path) -> None:
    refused = wavecity("publish", stopped)
    assert refused.returncode == 1
    assert "not published: share of users in outage" in refused.stderr
    assert refused.stderr.strip().endswith("--pass-gate outage")
    assert not (stopped / "versions").exists()
    other = wavecity("publish", stopped, "--pass-gate", "imputed")
    assert other.returncode == 1
    named = wavecity("publish", stopped, "--pass-gate", "outage")
    assert named.returncode == 0, named.stderr
    assert "gate outage is overridden: share of users in outage" in named.stdout
    assert latest(stopped) is not None
