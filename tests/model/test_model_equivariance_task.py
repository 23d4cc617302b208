"""The equivariance task: how methods are trained, what is measured, sets out of distribution, claims, the report's section."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import FakeSamples, make_data, stored
from synthetic_results import check_spec
from synthetic_temporal import make_temporal

from wavecity.dataset import InputError
from wavecity.model.equivariance.measures import (
    MODULATED,
    OWN,
    OWN_WRAPPED,
    SEEN,
    TRAINED,
    UNSEEN,
    VEHICLES,
    shifted,
    sized,
)
from wavecity.model.equivariance.training import (
    ESTIMATION,
    FORECAST,
    Batch,
    Cell,
    Problem,
    cells_of,
    loss_of,
    nmse,
    shift_error,
    trained,
)
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Findings, Record, read_records
from wavecity.model.results.rows import frame_of
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings
from wavecity.model.settings.training import HeadSettings, TrainingSettings
from wavecity.model.tasks import equivariance as equivariance_task
from wavecity.model.tasks import evaluate as tasks
from wavecity.model.tasks.equivariance import equivariance_temporal
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.spec import spec_of
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.training.pretrain import pretrain

CSI, AZIMUTH, WRAPPED = ESTIMATION.trained, shifted("azimuth"), Method.WRAPPED


def settings_of(base, **changes):
    """Settings of seconds: two sizes, two numbers of users, two seeds, three steps."""
    budget = {"steps": 3, "batch_size": 4, "learning_rates": [3e-3], "sizes": [[8, 1], [16, 1]], "samples": [4, 9],
              "test_users": 5}  # fmt: skip
    config = {"shifts": [0.5, 1, 2], "shift_users": 4, "timings": 3, "estimation": budget, "prediction": budget}
    content = base.model_dump(mode="json")
    content["evaluation"]["equivariance"] = config | changes
    content["evaluation"]["heads"]["seeds"] = 2
    return TrainingSettings.model_validate(content)


@pytest.fixture(scope="module")
def run(linked):
    return linked


@pytest.fixture(scope="module")
def asked_for():
    """Names and splits of the sets out of distribution that were opened."""
    return []


@pytest.fixture(scope="module")
def result(run, data, tiny, asked_for):
    turned = make_data((("test", 1),) * 1 + (("train", 1),), users=7, seed=5)

    def load(store, splits):
        asked_for.append((store, splits))
        return turned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equivariance_task, "load_data", load)
        patch.setattr(equivariance_task, "dataset_version", lambda store: f"version of {store}")
        settings = settings_of(tiny, shifted={"azimuth": "stores/azimuth"})
        return evaluate(run, "synthetic", "equivariance", settings, 1, data=data)


@pytest.fixture(scope="module")
def frame(run, result):
    return frame_left(run)


def frame_left(run):
    return frame_of(read_records(run / "results" / "equivariance.parquet", "equivariance"))


@pytest.fixture(scope="module")
def moving():
    shape = {"steps": 12, "subcarriers": 8, "antennas": 4}
    return make_temporal((("train", 2), ("validation", 1), ("test", 1)), users=15, **shape)


@pytest.fixture(scope="module")
def temporal():
    return TrainingSettings.model_validate(
        {
            "backbone": "temporal",
            "temporal": {
                "model": {"width": 8, "layers": 1, "heads": 2, "mixing": 2, "reach": 1, "past": 1, "future": 1,
                          "top_k": False},
                "snapshots": 12, "delays": 4,
            },
            "evaluation": {"prediction": {"past": 8, "horizons": [1, 4]}},
            "epochs": 1, "batch_size": 8, "accelerator": "cpu", "optimiser": {"warmup_steps": 2},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def moving_run(temporal, moving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving")
    pretrain(stored(moving), temporal, folder, 1)
    return folder


@pytest.fixture(scope="module")
def moving_result(moving_run, temporal, moving):
    fewer = {"methods": ["vanilla", "wrapped"], "scaled": [], "shifts": [0.5, 1], "shift_users": 3}
    return evaluate(moving_run, "synthetic", "equivariance", settings_of(temporal, **fewer), 1, data=moving)


def errors_of(frame, metric, method, **fixed):
    here = frame[(frame["metric"] == metric) & (frame["method"] == method)]
    return here[[one.fits(**fixed) for one in here["condition"]]]["value"].to_numpy()


def test_wrapped_estimators_are_equivariant_and_others_are_not(frame):
    for precision, bound in (("float32", -50), ("float64", -100)):
        wrapped, plain = (
            errors_of(frame, Metric.EQUIVARIANCE_ERROR, name, precision=precision) for name in (OWN_WRAPPED, OWN)
        )
        # Two axes and both at once, three shifts each.
        assert len(wrapped) == len(plain) == 9
        assert wrapped.max() < bound
        assert plain.min() > -20
    for method in (Method.VANILLA, Method.AUGMENTED, Method.PENALISED):
        assert errors_of(frame, Metric.TRAINED_EQUIVARIANCE_ERROR, method).min() > -20
    assert errors_of(frame, Metric.TRAINED_EQUIVARIANCE_ERROR, WRAPPED).max() < -50
    assert errors_of(frame, Metric.SCALE_EQUIVARIANCE_ERROR, WRAPPED).max() < -50
    here = frame[frame["metric"] == Metric.TRAINED_EQUIVARIANCE_ERROR]
    grid = {(one.shift_axis, one.on_grid, x) for one, x in zip(here["condition"], here["x"], strict=True)}
    assert grid == {("all", True, 1), ("all", True, 2), ("all", False, 0.5)}


def test_wrapped_forecasters_are_equivariant_and_others_are_not(moving_run, moving_result):
    frame = frame_left(moving_run)
    for precision, bound in (("float32", -50), ("float64", -100)):
        wrapped, plain = (
            errors_of(frame, Metric.EQUIVARIANCE_ERROR, name, precision=precision) for name in (OWN_WRAPPED, OWN)
        )
        assert len(wrapped) == len(plain) == 8
        assert wrapped.max() < bound
        assert plain.max() > -20
    assert errors_of(frame, Metric.TRAINED_EQUIVARIANCE_ERROR, WRAPPED).max() < -50
    assert errors_of(frame, Metric.TRAINED_EQUIVARIANCE_ERROR, Method.VANILLA).max() > -20


def test_shifted_channels_are_as_easy_as_others_for_what_is_wrapped(frame, moving_run, moving_result):
    forecasts = frame_left(moving_run)
    for table, metrics in ((frame, ESTIMATION), (forecasts, FORECAST)):
        for metric, ours, rival in ((metrics.own, OWN_WRAPPED, OWN), (metrics.trained, WRAPPED, Method.VANILLA)):
            unseen, modulated = (
                {name: errors_of(table, metric, name, test_set=where.test_set) for name in (ours, rival)}
                for where in (UNSEEN, MODULATED)
            )
            np.testing.assert_allclose(unseen[ours], modulated[ours], rtol=0, atol=1e-3)
            assert (abs(unseen[rival] - modulated[rival]) > 1e-3).all()


def test_every_method_is_there_for_every_set_and_seed(frame, run, result):
    assert result["seeds"] == 2
    here = frame[frame["metric"] == CSI]
    assert list(here["condition"].unique()) == [SEEN, UNSEEN, MODULATED, AZIMUTH]
    for _, group in here.groupby("condition", sort=False):
        assert sorted(zip(group["method"], group["seed"], strict=True)) == sorted(
            (method, seed) for method in TRAINED.values() for seed in range(2)
        )
    scale = frame[frame["metric"] == ESTIMATION.scale]
    assert set(scale["method"]) == {Method.VANILLA, WRAPPED}
    assert set(scale["condition"]) == {
        sized(where, (width, 1)) for where in (SEEN, UNSEEN, MODULATED) for width in (8, 16)
    }
    small, large = (scale[[one == sized(UNSEEN, (width, 1)) for one in scale["condition"]]] for width in (8, 16))
    assert (set(small["x"]), set(large["x"])) == ({9}, {4, 9})
    # The largest size with the most users is one and the same training.
    for method in (Method.VANILLA, WRAPPED):
        cell = large[(large["x"] == 9) & (large["method"] == method)]["value"]
        assert cell.tolist() == errors_of(frame, CSI, method, test_set=UNSEEN.test_set).tolist()
    assert np.isfinite(frame["value"]).all()
    assert result["facts"]["wrapper_cost_percent"] == pytest.approx(
        errors_of(frame, Metric.WRAPPER_COST, OWN_WRAPPED).item(), abs=0.1
    )
    check_spec(
        spec_of("equivariance", "multimodal"), Findings(read_records(run / result["table"], ""), result["facts"])
    )


def test_a_set_out_of_distribution_is_read_from_its_store(frame, asked_for, result):
    assert asked_for == [("stores/azimuth", ("test",))]
    assert result["facts"]["sets"] == {
        "seen scenes, other users": 5, "unseen scenes": 5, "unseen scenes, modulated at random": 5,
        "unseen scenes, other azimuth": 5,
    }  # fmt: skip
    azimuth, unseen = (errors_of(frame, ESTIMATION.own, OWN, test_set=where.test_set) for where in (AZIMUTH, UNSEEN))
    assert azimuth != unseen


def test_a_set_that_cannot_be_used_is_refused_in_one_line(run, data, tiny, tmp_path, monkeypatch):
    gone = settings_of(tiny, shifted={"downtilt": str(tmp_path / "gone")})
    with pytest.raises(InputError, match=r"equivariance\.shifted\.downtilt: .*gone: no such store") as error:
        evaluate(run, "synthetic", "equivariance", gone, 1, data=data)
    assert "\n" not in str(error.value)
    samples = data.splits["test"]
    half = FakeSamples(
        samples.arrays | {"csi": samples.arrays["csi"][:, :16, :16]}, samples.scene_index, samples.user_index
    )
    small = replace(data, splits={"test": half}, name="half")
    monkeypatch.setattr(equivariance_task, "load_data", lambda *_: small)
    monkeypatch.setattr(equivariance_task, "dataset_version", lambda _: "half")
    with pytest.raises(InputError, match=r"shifted\.frequency: half: .*spectrum_size 32 must not exceed it"):
        evaluate(run, "synthetic", "equivariance", settings_of(tiny, shifted={"frequency": "half"}), 1, data=data)


def test_vehicles_are_a_set_of_their_own_and_never_trained_on(temporal, moving, monkeypatch):
    handed = {}

    def measure(problem, users, channels, config, budget, heads, seed):
        handed.update(users=users, channels=channels, problem=problem)
        return Findings([], {})

    monkeypatch.setattr(equivariance_task, "measure", measure)
    settings = settings_of(temporal).evaluation
    torch.manual_seed(0)
    model = TemporalModel(temporal.temporal.model, (12, 4, 4))
    found = equivariance_temporal(model, temporal, moving, settings, 1)
    kinds = {split: dict(zip(samples.arrays["trajectory/csi"][:, 0, 0, 0, 0].tolist(),
                             samples.arrays["trajectory/kind"].tolist(), strict=True))
             for split, samples in moving.splits.items()}  # fmt: skip
    first = {name: csi[:, 0, 0, 0].tolist() for name, csi in handed["channels"].items()}
    training = handed["users"][:, 0, 0, 0].tolist()
    assert len(training) == 9
    assert {kinds["train"][one] for one in training} <= {0, 2}
    assert {kinds["train"][one] for one in first[SEEN]} <= {0, 2}
    assert not set(training) & set(first[SEEN])
    assert {kinds["test"][one] for one in first[UNSEEN]} <= {0, 2}
    assert {kinds["test"][one] for one in first[VEHICLES]} == {1}
    assert found.facts["unseen_are"] == "cities"
    # What is drawn is a window of the trajectory, over all subcarriers and antennas.
    problem = handed["problem"]
    batch = problem.draw(moving_csi := handed["channels"][UNSEEN], np.random.default_rng(0))
    assert batch.seen.shape == (5, 8, 8, 4)
    assert batch.target.shape == (5, 4, 8, 4)
    step = batch.target[:, 1] / batch.target[:, 0]
    torch.testing.assert_close(step, (moving_csi[:, 9] / moving_csi[:, 8]), rtol=1e-3, atol=1e-3)


class Toy(Problem):
    """Channels of six entries along one axis, the last two asked for; a forecast begins at four."""

    metrics, axes, dims = ESTIMATION, ("time",), (1,)

    def __init__(self, network=None):
        self.bins, self.origin, self.network, self.drawn = (4,), (4,), network, []

    @property
    def own(self):
        return self.network()

    def draw(self, csi, rng):
        self.drawn.append(csi)
        return Batch(csi[:, :4], None, csi[:, 4:], None)

    def build(self, size):
        return self.network()

    def wrap(self, network):
        return network


class Constant(torch.nn.Module):
    """The same output whatever it sees."""

    def __init__(self, output):
        super().__init__()
        self.output, self.seen = output, []

    def forward(self, seen, visible):
        self.seen.append(seen)
        return self.output


def waves(users=3, steps=6, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(users, steps)) + 1j * rng.normal(size=(users, steps)))


def test_augmented_samples_are_modulated_and_what_is_asked_goes_on_with_the_same_shift():
    """A channel of ones: modulated, it is a wave; from the last snapshot seen to the first asked it takes one step more."""
    batch = Toy().draw(torch.ones(5, 6, dtype=torch.complex128), None)
    targets = []

    class Recorded(Batch):
        def only_asked(self, values):
            targets.append(self.target)
            return super().only_asked(values)

    recorded = Recorded(batch.seen, None, batch.target, None)
    network = Constant(torch.zeros(5, 2, dtype=torch.complex128))
    for method in ("augmented", "vanilla"):
        loss_of(network, Toy(), recorded, method, 1.0, np.random.default_rng(3))
    turned, plain = network.seen
    assert torch.equal(plain, batch.seen)
    step = turned[:, 1] / turned[:, 0]
    torch.testing.assert_close(turned, step[:, None] ** torch.arange(4))
    torch.testing.assert_close(targets[0], step[:, None] ** torch.arange(4, 6))
    # Each user has a shift of its own.
    assert len(step.angle().unique()) == 5


def test_the_penalty_is_the_distance_of_the_two_ways_over_the_energy_asked_for():
    batch, output = Toy().draw(waves(), None), waves(steps=2, seed=1)
    network = Constant(output)
    plain, penalised = (
        float(loss_of(network, Toy(), batch, method, 2.5, np.random.default_rng(7)))
        for method in ("vanilla", "penalised")
    )
    target = batch.target.numpy()
    power = (abs(target) ** 2).sum(1)
    assert plain == pytest.approx(((abs(output.numpy() - target) ** 2).sum(1) / power).mean())
    turns = np.random.default_rng(7).uniform(-0.5, 0.5, (3, 1))
    moved = output.numpy() * np.exp(2j * np.pi * turns * np.arange(4, 6))
    strayed = (abs(output.numpy() - moved) ** 2).sum(1)
    assert penalised - plain == pytest.approx(2.5 * (strayed / power).mean())


def test_an_output_that_never_moves_is_three_decibels_off_the_mark():
    """Mean over a circle of |1 - exp(j a)|^2 is 2, whatever the users' levels: 3.01 dB. Nothing is rounding."""
    batch = Toy().draw(waves(steps=6), None)
    batch = replace(batch, target=batch.target * torch.tensor([1e-9, 1.0, 1e3])[:, None])
    turns = torch.full((3, 1), 0.25, dtype=torch.float64)
    output = torch.ones(3, 2, dtype=torch.complex128)
    assert shift_error(Constant(output), Toy(), batch, turns + 0.25, output) == pytest.approx(
        10 * np.log10(2), abs=1e-9
    )
    # 4 / 4 turns and 5 / 4 turns: |1 - 1|^2 and |1 - j|^2, mean 1.
    assert shift_error(Constant(output), Toy(), batch, turns, output) == pytest.approx(0, abs=1e-9)
    assert shift_error(Constant(output), Toy(), batch, 4 * turns, output) == pytest.approx(20 * np.log10(2.0**-52))
    # A user who is asked for a million times the power has no larger a say.
    mixed = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.complex128) * batch.target
    error = shift_error(Constant(mixed), Toy(), batch, turns + 0.25, mixed)
    alone = batch.target[0].abs().square() * torch.tensor([0.0, 4.0]) / batch.target[0].abs().square().sum()
    assert error == pytest.approx(10 * np.log10(alone.sum().item()), abs=1e-6)


def test_errors_are_means_of_ratios_over_what_is_asked_of_users_who_are_heard():
    target, output = waves(4), waves(4, seed=2)
    target[3] = 0
    asked = torch.tensor([True, False, True, True, False, True]).expand(4, -1)
    found = nmse(output, Batch(target, None, target, asked))
    error, power = ((abs(part.numpy()[:, asked[0].numpy()]) ** 2).sum(1) for part in (output - target, target))
    assert found == pytest.approx(10 * np.log10((error[:3] / power[:3]).mean()))


class Scaled(torch.nn.Module):
    """What was seen last, times a number."""

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, seen, visible):
        return self.value * seen[:, -2:]


def test_training_takes_the_better_rate_repeats_and_gives_more_users_the_fewer_too():
    """A factor of one is best: from zero, ten steps at the larger rate come nearer."""
    csi = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 1)) * np.exp(1j * np.arange(10))[:, None])
    users = csi.expand(-1, 6).contiguous()
    budget = BudgetSettings(steps=10, batch_size=4, learning_rates=(1e-4, 5e-2))
    config, heads = EquivarianceSettings(), HeadSettings(seeds=2)
    found = {}
    for method, samples in (("vanilla", 8), ("vanilla", 8), ("vanilla", 4), ("penalised", 8)):
        problem = Toy(Scaled)
        runs = list(trained(problem, Cell(method, (8, 1), samples), users, config, budget, heads))
        assert [(one.seed, one.rate) for one in runs] == [(0, 5e-2), (1, 5e-2)]
        found.setdefault((method, samples), []).append([one.network.value.item() for one in runs])
        used = {complex(value) for drawn in problem.drawn for value in drawn[:, 0]}
        found.setdefault("used", {}).setdefault(samples, used)
    first, again = found["vanilla", 8]
    assert first == again
    assert 0.1 < first[0] < 1
    assert found["used"][4] < found["used"][8]


def test_all_methods_meet_at_the_largest_size_with_the_most_users():
    config = EquivarianceSettings()
    budget = BudgetSettings(sizes=((8, 1), (16, 2)), samples=(10, 50, 200))
    cells = cells_of(config, budget, 120)
    large = (16, 2)
    assert cells[:4] == [Cell(method, large, 120) for method in ("vanilla", "augmented", "penalised", "wrapped")]
    assert cells[4:7] == [Cell("vanilla", (8, 1), 120), Cell("vanilla", large, 10), Cell("vanilla", large, 50)]
    assert len(cells) == 10
    # Fewer users than asked for: no cell twice.
    assert len(set(cells_of(config, budget, 40))) == len(cells_of(config, budget, 40)) == 8
    assert cells_of(config.model_copy(update={"methods": (), "scaled": ()}), budget, 120) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ["vanilla"], "scaled": ["wrapped"]}, "must be among its methods"),
        ({"shifts": [1, 1]}, "each value once"),
        ({"estimation": {"samples": [5, 3]}}, "must ascend"),
        ({"estimation": {"sizes": [[32, 1], [8, 1]]}}, "from small to large"),
        ({"shifted": {"Speeds (all)": "store"}}, "shifted"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        EquivarianceSettings.model_validate(change)


def test_a_width_that_the_heads_do_not_divide_is_refused_in_one_line(run, data, tiny):
    budget = {"estimation": {"sizes": [[9, 1]]}}
    with pytest.raises(InputError, match=r"estimation\.sizes: width 9 must be a multiple of training\.model\.heads 2"):
        evaluate(run, "synthetic", "equivariance", settings_of(tiny, **budget), 1, data=data)


def test_results_depend_on_their_own_settings_only(run, data, tiny, tmp_path, monkeypatch):
    """Of other tasks on nothing of equivariance, and of equivariance on nothing of the others."""
    made = []

    def measured(predictor, wireless, settings, seed):
        made.append(settings)
        return Findings([Record(Metric.LATENCY, Method.MODEL, 1.0, 0, 1)])

    found = {name: spec_of(name, "multimodal") for name in ("latency", "equivariance")}
    monkeypatch.setattr(tasks, "spec_of", lambda name, _: replace(found[name], run=measured))
    copied = shutil.copytree(run, tmp_path / "run")
    base = settings_of(tiny)
    other = settings_of(tiny, mask=0.8)
    masks = base.model_copy(update={"evaluation": base.evaluation.model_copy(update={"masks": (0.5,)})})
    local = base.evaluation.localization.model_copy(update={"csi": 0.5})
    seen = base.model_copy(update={"evaluation": base.evaluation.model_copy(update={"localization": local})})
    # Each line: first settings, and whether the second ones make results anew.
    for task, second, anew in (("latency", other, 0), ("equivariance", other, 1), ("equivariance", masks, 0),
                               ("latency", masks, 0), ("latency", seen, 1)):  # fmt: skip
        evaluate(copied, "synthetic", task, base, 1, data=data)
        made.clear()
        evaluate(copied, "synthetic", task, second, 1, data=data)
        assert len(made) == anew, (task, anew)


def test_it_runs_only_where_it_is_asked_for_with_either_model():
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.run_checks import tasks_of

    for backbone, usual in (("multimodal", "reconstruction"), ("temporal", "prediction")):
        model = f"training.backbone={backbone}"
        assert "equivariance" not in tasks_of(load_recipe("quickstart-paper", (model,)))
        asked = f"training.evaluation.tasks=[equivariance, {usual}]"
        assert tasks_of(load_recipe("quickstart-paper", (model, asked))) == ["equivariance", usual]
