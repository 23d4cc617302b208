"""Localisation across scenes with planted representations, of which is known what a head can and cannot learn."""

import numpy as np
import pytest
import torch
from synthetic import make_data
from torch import nn

from wavecity.model.data.users import geometry_of
from wavecity.model.learning.heads import HeadSettings
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method
from wavecity.model.results.records import WHOLE
from wavecity.model.results.rows import frame_of
from wavecity.model.tasks.cross_scene import Source, cross_localization, make_source


class Planted(Predictor):
    """Its [PHYSC] is a function of the users instead of the encoder's."""

    def plant(self, features):
        self.features = features
        return self

    def encode(self, users, visible, scene=True):
        return self.features(users)


@pytest.fixture(scope="module")
def large():
    return make_data((("train", 3), ("validation", 1), ("test", 2)), users=80, seed=3)


@pytest.fixture(scope="module")
def mixing(tiny):
    """Columns that spread a position over the width of the representation."""
    return torch.from_numpy(np.random.default_rng(1).normal(size=(2, tiny.model.width)).astype(np.float32)) / 100


@pytest.fixture
def no_convolutions(monkeypatch):
    """The CNN takes nine tenths of the time, and is not what these tests look at."""
    monkeypatch.setattr(
        "wavecity.model.tasks.localization.LocationCnn", lambda _: nn.Sequential(nn.Flatten(), nn.Linear(2048, 2))
    )


def medians(large, tiny, features, steps=200, **cross_scene):
    """Median error over all unseen scenes by method and number of labels."""
    budget = {"seeds": 1, "steps": steps, "batch_size": 32, "learning_rates": (0.01,), "finetune_steps": 0}
    evaluation = tiny.evaluation.model_copy(
        update={
            "heads": tiny.evaluation.heads.model_copy(update=budget),
            "cross_scene": tiny.evaluation.cross_scene.model_copy(update={"labels": (0, 30), **cross_scene}),
        }
    )
    torch.manual_seed(0)
    model = FoundationModel(tiny.model, geometry_of(large, tiny.model)).eval()
    predictor = Planted(model, tiny, large.statistics, large, 64).plant(features)
    frame = frame_of(cross_localization(predictor, large, evaluation, 1).records)
    pooled = frame[[one == WHOLE for one in frame["condition"]]]
    return pooled.set_index(["method", "x"])["value"]


@pytest.mark.usefixtures("no_convolutions")
def test_what_the_representation_tells_everywhere_alike_is_known_without_labels(large, tiny, mixing):
    found = medians(large, tiny, lambda users: users.position @ mixing)
    assert found[Method.PHYSC_MLP, 0] < 10
    assert found[Method.MEAN_LABELLED, 0] > 50


@pytest.mark.usefixtures("no_convolutions")
def test_what_differs_from_scene_to_scene_takes_labels_of_that_scene(large, tiny, mixing):
    """In the test scenes (rows 4 and 5) the representation is that of a place 60 m further east."""

    def shifted(users):
        east = torch.where(users.scene >= 4, 60.0, 0.0)
        return (users.position + torch.stack((east, torch.zeros_like(east)), -1)) @ mixing

    found = medians(large, tiny, shifted, adapt_rates=(1e-3, 1e-2))
    assert 40 < found[Method.PHYSC_MLP, 0] < 80
    assert found[Method.PHYSC_MLP, 30] < 0.5 * found[Method.PHYSC_MLP, 0]


@pytest.mark.usefixtures("no_convolutions")
def test_a_representation_of_noise_does_not_tell_where_users_are(large, tiny):
    """Nothing but the representation reaches the head: it may do as well as the mean of all places, not better."""
    rng = np.random.default_rng(5)

    def noise(users):
        return torch.from_numpy(rng.normal(size=(len(users), tiny.model.width)).astype(np.float32))

    found = medians(large, tiny, noise)
    assert (found[Method.PHYSC_MLP] > 0.85 * found[Method.MEAN_LABELLED, 0]).all()


def test_fine_tuning_by_nothing_is_zero_shot(large, tiny, mixing):
    found = medians(large, tiny, lambda users: users.position @ mixing, steps=20, adapt_rates=(1e-12,))
    for method in (Method.PHYSC_MLP, Method.RAW_CNN):
        assert found[method, 30] == pytest.approx(found[method, 0], rel=1e-3)


def test_users_of_validation_scenes_choose_and_no_others(large, tiny):
    source = make_source(large, tiny.evaluation, 1)
    assert (source.train, len(source.users)) == (240, 320)
    assert set(source.users.scene[: source.train].tolist()) == {0, 1, 2}
    assert set(source.users.scene[source.train :].tolist()) == {3}
    # In random order: the first tenth is of all scenes.
    assert set(source.users.scene[:24].tolist()) == {0, 1, 2}
    # As `tuned` and `finetuned` cut labelled users.
    for train, every in ((240, 320), (1, 2), (345_000, 347_000), (6400, 8399), (17, 1000)):
        share = Source(range(every), train).held_back(HeadSettings()).held_back
        assert every - max(round(share * every), 1) == train


def test_noise_is_ten_decibels_below_a_channel(large, tiny):
    source = make_source(large, tiny.evaluation, 1)
    clean = {tuple(position[:2]): csi for position, csi in zip(
        large.splits["train"].arrays["user_position"].tolist(), large.splits["train"].arrays["csi"], strict=True
    )}  # fmt: skip
    noisy = source.users.csi[:200].numpy().astype(np.complex128)
    truth = np.stack([clean[tuple(position)] for position in source.users.position[:200].tolist()]).astype(complex)
    ratio = (np.abs(noisy - truth) ** 2).mean((1, 2)) / (np.abs(truth) ** 2).mean((1, 2))
    # 1024 antennas: each ratio is good to 3 %.
    np.testing.assert_allclose(ratio, 0.1, rtol=0.15)
    assert abs(ratio.mean() / 0.1 - 1) < 0.01
