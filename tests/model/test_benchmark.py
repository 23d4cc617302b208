"""Anyone's encoder in the benchmark: what it is given, that heads learn from what it returns and from nothing else, errors."""

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_benchmark import protocol
from synthetic import FakeSamples, make_data

import wavecity
from wavecity.dataset import InputError
from wavecity.model.benchmark import table
from wavecity.model.benchmark.encoder import Frozen
from wavecity.model.benchmark.examples import OurRun, RandomLwm, RawCsi, SparseBayesian, ZeroFilledDft
from wavecity.model.benchmark.run import benchmark
from wavecity.model.data.users import gather
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.names import Method, Metric
from wavecity.model.tasks.localization import localization
from wavecity.model.training.load import load_model

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "benchmark.md"


@pytest.fixture(scope="module")
def small():
    """Synthetic scenes with an array of 8 x 8, and 120 users each."""
    data = make_data((("train", 3), ("validation", 1), ("test", 2)), users=120, seed=2)
    splits = {}
    for split, samples in data.splits.items():
        arrays = {**samples.arrays, "csi": np.ascontiguousarray(samples.arrays["csi"][:, :8, :8])}
        splits[split] = FakeSamples(arrays, samples.scene_index, samples.user_index)
    return replace(data, splits=splits)


class Knowing:
    """Tells users apart by the power of their noise, which is a tenth of their channel's, and returns what it knows."""

    def __init__(self, data, known):
        every = [samples.arrays for samples in data.splits.values()]
        csi = np.concatenate([arrays["csi"] for arrays in every]).astype(complex)
        self.power = (np.abs(csi) ** 2).mean((1, 2))
        self.known = known(csi, np.concatenate([arrays["user_position"] for arrays in every]))

    def embed(self, batch):
        if not batch.noise.any():
            return np.tile(self.known[:1], (len(batch.csi), 1))
        distance = np.abs(np.log(10 * batch.noise[:, None] / self.power))
        assert (distance.min(1) < 1e-5).all()
        return self.known[distance.argmin(1)]


class Constant:
    def embed(self, batch):
        return np.ones((len(batch.csi), 3))


def value(result, task, metric, method=Method.ENCODER, labels=None):
    (figure,) = [
        one
        for one in result["tasks"][task]["figures"]
        if (one["metric"], one["method"]) == (metric, method) and one["labels"] == labels
    ]
    return figure["mean"]


def best_beams(csi):
    """Strongest of the DFT beams, |h^H a_j|, literally."""
    columns, rows = csi.shape[1:]
    x = np.exp(-2j * np.pi * np.outer(np.arange(columns), np.arange(columns)) / columns)
    y = np.exp(-2j * np.pi * np.outer(np.arange(rows), np.arange(rows)) / rows)
    return np.abs(np.einsum("nxy,ax,by->nab", csi.conj(), x, y)).reshape(len(csi), -1).argmax(1)


def test_an_encoder_that_knows_the_place_has_next_to_no_error(small):
    found = benchmark(Knowing(small, lambda _, place: place[:, :2]), "", ["localization", "cross-localization"],
                      protocol=protocol(), data=small)  # fmt: skip
    mean = value(found, "localization", Metric.LOCATION_ERROR, Method.MEAN_LABELLED, 60)
    assert mean > 40
    assert value(found, "localization", Metric.LOCATION_ERROR, labels=60) < 0.12 * mean
    assert value(found, "cross-localization", Metric.CROSS_LOCATION_ERROR, labels=0) < 0.12 * mean


def test_an_encoder_that_says_nothing_has_the_error_of_the_mean(small):
    found = benchmark(
        Constant(), "", ["localization", "cross-localization", "mu-mimo"], protocol=protocol(), data=small
    )
    for labels in (10, 60):
        mean = value(found, "localization", Metric.LOCATION_ERROR, Method.MEAN_LABELLED, labels)
        assert value(found, "localization", Metric.LOCATION_ERROR, labels=labels) == pytest.approx(mean, rel=0.25)
    train, test = (small.splits[split].arrays["user_position"][:, :2].astype(float) for split in ("train", "test"))
    reference = value(found, "cross-localization", Metric.CROSS_LOCATION_ERROR, Method.MEAN_TRAINING)
    # Of the half of the users that are tested.
    assert reference == pytest.approx(np.median(np.linalg.norm(test - train.mean(0), axis=1)), rel=0.15)
    assert value(found, "cross-localization", Metric.CROSS_LOCATION_ERROR, labels=0) == pytest.approx(
        reference, rel=0.15
    )
    # One beam for all users: right for those who have it, and for no more than have the commonest one.
    _, counts = np.unique(best_beams(small.splits["test"].arrays["csi"]), return_counts=True)
    top = value(found, "mu-mimo", Metric.BEAM_TOP1, labels=0.8)
    assert 0 <= top <= 100 * counts.max() / counts.sum() + 1e-6


def test_an_encoder_that_knows_the_beam_finds_it(small):
    def known(csi, _):
        return np.eye(64)[best_beams(csi)]

    found = benchmark(Knowing(small, known), "", ["mu-mimo"], protocol=protocol(), data=small)
    train, test = (set(best_beams(small.splits[split].arrays["csi"])) for split in ("train", "test"))
    beams = best_beams(small.splits["test"].arrays["csi"])
    possible = 100 * np.isin(beams, list(train & test)).mean()
    top = value(found, "mu-mimo", Metric.BEAM_TOP1, labels=0.8)
    assert possible - 15 < top <= possible + 1e-4
    bound = value(found, "mu-mimo", Metric.MU_RATE, Method.EXHAUSTIVE_SEARCH)
    assert 0.8 * bound < value(found, "mu-mimo", Metric.MU_RATE, labels=0.8)


class Watching:
    """Keeps what it is given, and spoils it."""

    def __init__(self):
        self.batches = []

    def embed(self, batch):
        kept = {name: np.array(getattr(batch, name)) for name in ("csi", "visible", "noise", "height", "base_station")}
        self.batches.append((kept, batch.scene, batch.setup))
        for name in kept:
            getattr(batch, name)[...] = False
        return np.zeros((len(kept["csi"]), 1), np.float32)


def test_an_encoder_is_given_noisy_visible_antennas_and_the_map_and_no_more(small):
    watching = Watching()
    benchmark(watching, "", ["localization"], protocol=protocol(), data=small)
    powers, ratios = [], []
    for given, scene, setup in watching.batches[1:]:
        assert 0 < len(given["csi"]) <= 64
        assert given["csi"].dtype == np.complex64
        assert given["visible"].sum() == 16  # a quarter of 64
        assert not given["csi"][:, ~given["visible"]].any()
        np.testing.assert_array_equal(given["height"], small.scenes.height[scene])
        np.testing.assert_array_equal(given["base_station"], [0, 100])
        assert (setup.columns, setup.rows, setup.tile_size) == (8, 8, 200)
        powers.append(given["noise"])
        clean = small.splits["test"].arrays["csi"][small.splits["test"].scene_index == scene].astype(complex)
        power = (np.abs(clean) ** 2).mean((1, 2))
        row = np.abs(np.log(10 * given["noise"][:, None] / power)).argmin(1)
        error = np.abs(given["csi"] - clean[row])[:, given["visible"]] ** 2
        ratios.append(error.mean(1) / given["noise"])
    assert len(np.concatenate(powers)) == 240
    assert np.concatenate(ratios).mean() == pytest.approx(1, abs=0.05)


def test_features_stand_in_the_order_of_the_users_and_in_no_unit(small):
    class Level:
        def __init__(self, scale):
            self.scale = scale

        def embed(self, batch):
            return torch.from_numpy(self.scale * np.stack([batch.noise, 0 * batch.noise + batch.scene], 1))

    users = gather(small.splits["test"])
    mixed = users.at(torch.from_numpy(np.random.default_rng(0).permutation(len(users))))
    noise = torch.arange(len(mixed)).double() + 1
    found = [
        frozen.features(mixed, frozen.pilots(0.25, 0), noise)
        for frozen in (Frozen(Level(scale), "x", small, 4) for scale in (1e-20, 1e15))
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0][:, 0] / found[0][0, 0], (noise / noise[0]).float())
    torch.testing.assert_close(found[0][:, 1] / found[0][0, 1], mixed.scene / mixed.scene[0])


def test_an_embedding_may_grow_with_the_antennas_that_a_task_shows(small):
    """Two tasks in one call give the figures of each by itself."""
    heads = {"seeds": 1, "steps": 5, "learning_rates": [0.01], "finetune_steps": 0}
    mu_mimo = {"csi": 0.5, "snr": 10.0, "cluster": 4, "ratios": [0.2]}
    settings = protocol(heads=heads, localization={"csi": 0.25, "labels": [10]}, mu_mimo=mu_mimo)
    both = benchmark(RawCsi(), "", ["localization", "mu-mimo"], protocol=settings, data=small)
    # A quarter and a half of 64 antennas, real and imaginary parts and the level.
    assert [both["tasks"][task]["width"] for task in ("localization", "mu-mimo")] == [33, 65]
    assert "| RawCsi | `RawCsi` | 33 or 65 | - |" in table.tables_of([both])
    alone = benchmark(RawCsi(), "", ["mu-mimo"], protocol=settings, data=small)
    assert alone["tasks"]["mu-mimo"]["figures"] == both["tasks"]["mu-mimo"]["figures"]


def test_our_own_runs_get_the_results_of_our_own_evaluation(linked, data, tiny):
    """The same code, users, labels, noise and seeds: the values are those that `wavecity evaluate` gives."""
    evaluation = tiny.evaluation.model_dump()
    evaluation |= {
        "heads": {**evaluation["heads"], "finetune_steps": 0},
        "physics_users": 0,
        "cross_scene": {"labels": [0]},
    }
    settings = protocol(**evaluation)
    model, trained_with, statistics, _ = load_model(linked)
    predictor = Predictor(model, trained_with, statistics, data, 64)
    records = localization(predictor, data, settings.evaluation, settings.seed).records
    found = benchmark(linked, "", ["localization"], protocol=settings, data=data)
    figures = [one for one in found["tasks"]["localization"]["figures"] if one["method"] == Method.ENCODER]
    assert {one["labels"] for one in figures} == {8, 16}
    for figure in figures:
        for seed, measured in figure["values"].items():
            (ours,) = [
                one.value
                for one in records
                if (one.metric, one.method, one.x, one.seed, one.condition.scene)
                == (Metric.LOCATION_ERROR, Method.PHYSC_MLP, figure["labels"], int(seed), None)
            ]
            assert measured == pytest.approx(ours, rel=1e-3)
    assert found["encoder"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["tasks"]["localization"]["width"] == trained_with.model.width


def test_the_pages_encoder_runs(small):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    found = benchmark(names["Strongest"](), "", ["mu-mimo"], protocol=protocol(), data=small)
    assert (found["encoder"]["name"], found["tasks"]["mu-mimo"]["width"]) == ("Strongest", 3)
    listed = PAGE.read_text(encoding="utf-8").split("field of the batch")[1].split("\n\n")[0]
    given = {one.name for one in dataclasses.fields(wavecity.Batch)} - {"store", "scene"}
    assert set(re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)) == given | {"footprints"}


@pytest.fixture(scope="module")
def batch(data):
    """Three users of a synthetic scene, a quarter of the antennas visible."""
    watching = Watching()
    frozen = Frozen(watching, "", data, 4)
    users = gather(data.splits["test"]).at(torch.arange(3))
    frozen.features(users, frozen.pilots(0.25, 0), torch.full((3,), 1e-14, dtype=torch.float64))
    given, scene, setup = watching.batches[0]
    return wavecity.Batch(**given, setup=setup, store="synthetic", scene=scene)


def test_examples_give_what_they_say(batch):
    visible = batch.csi[:, batch.visible].astype(complex)
    raw = RawCsi().embed(batch)
    rms = np.sqrt((np.abs(visible) ** 2).mean(1))
    np.testing.assert_allclose(raw[:, :256] + 1j * raw[:, 256:512], visible / rms[:, None], rtol=1e-5)
    np.testing.assert_allclose(raw[:, 512], 20 * np.log10(rms), rtol=1e-6)
    dft = ZeroFilledDft().embed(batch)
    power = np.abs(np.fft.fft2(batch.csi)).reshape(3, -1)
    np.testing.assert_allclose(dft[:, :-1], power / np.linalg.norm(power, axis=1)[:, None], rtol=1e-4, atol=1e-7)
    sbl = SparseBayesian().embed(batch)
    assert sbl.shape == dft.shape
    # Few waves: the recovered spectrum is concentrated in fewer bins than the one with gaps.
    assert (np.sort(sbl[:, :-1] ** 2)[:, -40:].sum(1) > np.sort(dft[:, :-1] ** 2)[:, -40:].sum(1)).all()


def test_the_random_transformer_has_the_interface_and_size_of_lwm(batch):
    """Tokens as its public loader makes them, in a loop; a fixed first token; one size, the same weights for a seed."""
    encoder = RandomLwm()
    assert 2.3e6 < sum(weight.numel() for weight in encoder.parameters()) < 2.6e6
    csi = batch.csi.astype(complex)
    tokens = []
    for x in range(0, 32, 4):
        for y in range(0, 32, 4):
            patch = csi[:, x : x + 4, y : y + 4]
            tokens.append(np.stack((patch.real, patch.imag), -1).reshape(3, 32))
    np.testing.assert_allclose(encoder.patches(torch.from_numpy(batch.csi)), np.stack(tokens, 1), rtol=1e-6)
    seen = []
    handle = encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        first = encoder.embed(batch)
        again = RandomLwm().embed(batch)
        other = RandomLwm(seed=1).embed(batch)
    handle.remove()
    assert tuple(seen[0].shape) == (3, 65, 32)
    assert bool((seen[0][:, 0] == 0.2).all())
    hidden = ~batch.visible.reshape(8, 4, 8, 4).any((1, 3)).ravel()
    assert bool((seen[0][:, 1:][:, torch.from_numpy(hidden)] == torch.tensor(0.1)).all())
    assert tuple(first.shape) == (3, 128)
    torch.testing.assert_close(first, again)
    assert float((first - other).abs().max()) > 0.01


def test_our_run_refuses_what_it_was_not_made_for(linked, small, data):
    with pytest.raises(InputError, match=r"8 x 8 antennas .* takes 32 x 32"):
        benchmark(linked, "", ["localization"], protocol=protocol(), data=small)
    half = OurRun(linked)
    frozen = Frozen(half, "half", data, 2)
    users = gather(data.splits["test"]).at(torch.arange(2))
    with pytest.raises(InputError, match="some are visible in part"):
        frozen.features(users, frozen.pilots(0.25, 0), torch.zeros(2))
