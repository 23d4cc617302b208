"""`wavecity bench train`: every side trains the same, and the figures are there; how fast it was is not tested."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from wavecity.flows.bench import train as bench
from wavecity.flows.bench.train_reference import FullLengthModel, PlainLoop
from wavecity.flows.recipe import load_recipe
from wavecity.geo.errors import InputError
from wavecity.model.data.users import ScenePatches, gather, load_data
from wavecity.model.multimodal.inputs import loss_terms, prepare
from wavecity.model.multimodal.masking import Plan, draw_mask
from wavecity.model.settings.training import ModelSettings
from wavecity.model.training.backbones import Multimodal

TINY = ModelSettings(width=16, encoder_layers=2, decoder_layers=2, heads=2, height_patch=20, spectrum_channels=4)
PLANS = (
    Plan("csi", 2, 0.7, 0.0, hide_location=False),
    Plan("csi", 2, 0.94, 0.0, hide_location=True, csi_only=True),
    Plan("scene", 1, 0.0, 0.1, hide_location=False),
    Plan("all", 2, 0.6, 0.2, hide_location=True),
)


@pytest.fixture(scope="module")
def data(toy_store):
    return load_data(str(toy_store), ("train", "validation"))


@pytest.fixture
def settings():
    training = load_recipe("quickstart-paper").training.model_copy(update={"model": TINY})
    return bench.bench_settings(training, bench.Options(batch=4, threads=1))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("source", ["encoded", "decoded"])
def test_full_length_attention_with_masks_is_the_same_model(toy_store, data, settings, plan, source):
    """Only what is needed is computed by ours, everything by the other; outputs, losses and slopes agree."""
    settings = settings.model_copy(update={"model": TINY.model_copy(update={"spectrum_from": source})})
    users = gather(data.splits["train"], 5)
    scenes = ScenePatches(data.scenes, settings, data.statistics, torch.device("cpu"))
    bs = scenes.bs[users.scene]
    mask = draw_mask(plan, 64, scenes.centres, bs, bs + users.position, scenes.size, np.random.default_rng(0))
    prepared = prepare(users.csi, users.position, users.scene, mask, scenes)
    occupied = None if plan.csi_only else scenes.occupancy(users.scene)
    whole = Multimodal.load(str(toy_store), settings)
    ours = bench.make_module("plain", whole).model
    full = bench.make_module("full_length", whole).model
    assert isinstance(full, FullLengthModel)
    assert not isinstance(ours, FullLengthModel)
    found = []
    for model in (ours, full):
        outputs = model(prepared.inputs, mask)
        terms = loss_terms(outputs, prepared, mask, occupied, settings.losses)
        torch.stack(list(terms.values())).sum().backward()
        found.append((outputs, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    for name in ("physc", "spectrum", "csi", "occupancy", "location"):
        one, other = (getattr(outputs, name) for outputs, _ in found)
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4, msg=name)
    for name, grad in found[1][1].items():
        expected = found[0][1].get(name, torch.zeros_like(grad))
        torch.testing.assert_close(grad, expected, atol=1e-4, rtol=1e-3, msg=name)
    assert found[0][1].keys() <= found[1][1].keys()


def test_all_sides_train_the_same(toy_store, settings, tmp_path):
    data = Multimodal.load(str(toy_store), settings)
    loops = {
        side: PlainLoop(bench.make_module(side, data), bench.batches_of(data)) for side in ("plain", "full_length")
    }
    turns = bench.Turns(loops, 3)
    module = bench.make_module("lightning", data)
    before = module.model.embed_csi.weight.detach().clone()
    bench.train(module, data, 3, tmp_path, turns)
    assert {side: len(values) for side, values in turns.seconds.items()} == dict.fromkeys(bench.SIDES, 3)
    assert not torch.equal(module.model.embed_csi.weight, before)
    np.testing.assert_allclose(loops["plain"].losses, turns.losses, rtol=1e-5)
    np.testing.assert_allclose(loops["full_length"].losses, turns.losses, rtol=1e-4)
    for name, value in module.model.named_parameters():
        theirs = loops["plain"].module.model.get_parameter(name)
        if name.endswith("query_key_value.bias"):
            # A key's bias changes no attention: its gradient is rounding, which Adam scales up.
            theirs, value = (torch.cat((bias[: len(bias) // 3], bias[-len(bias) // 3 :])) for bias in (theirs, value))
        torch.testing.assert_close(theirs, value, atol=1e-6, rtol=1e-4)


def test_figures_of_a_toy_store(toy_store, capsys, monkeypatch):
    monkeypatch.setattr(bench, "WARM", 1)
    monkeypatch.setattr(bench, "MEMORY_STEPS", 1)
    # Processes of their own are tested in tests/model; here they would take most of the time.
    monkeypatch.setattr(bench, "apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(bench, "processes_rate", lambda data, processes, *_: 10.0 * processes)
    options = bench.Options(data=str(toy_store), recipe="quickstart-paper", steps=2, batch=4, threads=1)
    figures = json.loads(json.dumps(bench.run(options)))
    printed = capsys.readouterr().out
    assert not [name for name, value in figures.items() if isinstance(value, list | dict)]
    assert abs(figures["parameters"] - 0.5e6) < 0.02e6
    assert figures["tokens"] == 168
    assert figures["steps"] == 2
    assert figures["samples_per_second"] > 0
    assert figures["lightning_overhead"] > -1
    assert 0 < figures["loading_share"] < 1
    assert figures["largest_loss_difference"] < 1e-4
    assert figures["largest_loss_difference_full_length"] < 1e-3
    assert figures["scaling_2_processes"] == 2
    for side in bench.SIDES:
        assert figures[f"peak_memory_mb_{side}"] > 50
        assert side in printed


def test_medians_of_the_ratios_and_rates_of_the_sums(monkeypatch):
    monkeypatch.setattr(bench, "WARM", 1)
    seconds = {"lightning": [9, 1.1, 2.04, 4.4], "plain": [9, 1, 2, 4], "full_length": [9, 2, 6, 16]}
    figures = bench.summary(seconds, [9, 0.1, 0.2, 0.4], batch=7)
    assert figures["samples_per_second_plain"] == pytest.approx(3)
    assert figures["lightning_overhead"] == pytest.approx(0.1)
    assert (figures["lightning_overhead_low"], figures["lightning_overhead_high"]) == pytest.approx((0.02, 0.1))
    assert figures["lightning_overhead_total"] == pytest.approx(7.54 / 7 - 1)
    assert figures["speedup_over_full_length"] == pytest.approx(3)
    assert figures["loading_share"] == pytest.approx(0.1)


def test_the_interval_of_a_median_holds_it_in_19_of_20_cases():
    rng = np.random.default_rng(0)
    assert bench.median_interval(np.array([3.0, 1.0, 2.0])) == (1.0, 3.0)
    inside = []
    for _ in range(2000):
        low, high = bench.median_interval(rng.exponential(size=37))
        inside.append(low <= np.log(2) <= high)
    assert 0.94 < np.mean(inside) < 0.985


@pytest.mark.heavy
def test_the_store_that_is_built_trains_in_processes_of_their_own(tmp_path, settings):
    store = bench.build_store(tmp_path / "store", 8)
    data = Multimodal.load(str(store), settings)
    assert data.data.geometry.columns == 32
    assert bench.apart(bench.measure_memory, "plain", str(store), settings) > 50
    assert bench.processes_rate(data, 2, 6, tmp_path / "two") > 0


@pytest.mark.parametrize(
    ("changes", "words"), [({"data": "nowhere"}, "nowhere: no such store"), ({"recipe": "mine"}, "mine")]
)
def test_wrong_input_is_one_line(changes, words):
    with pytest.raises(InputError) as error:
        bench.run(replace(bench.Options(), **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
