"""Heads and fine-tuning: the same budget and the same choice of rates for every method."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from wavecity.model.data.users import gather, with_antennas
from wavecity.model.learning.finetune import EncoderWithHead, finetuned
from wavecity.model.learning.heads import (
    LocationCnn,
    LocationHead,
    Standardiser,
    apply,
    classifier,
    distance,
    fit,
    inverse_frequency,
    tuned,
)
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.settings.training import HeadSettings


@pytest.fixture(scope="module")
def predictor(data, tiny):
    from wavecity.model.data.users import geometry_of

    torch.manual_seed(0)
    model = FoundationModel(tiny.model, geometry_of(data, tiny.model)).eval()
    return Predictor(model, tiny, data.statistics, data, 16)


def squares(output, label):
    return (output - label).square().mean()


def linear_problem(count=80):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32))
    return features, features @ torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


def test_heads_have_the_papers_shapes():
    head, cnn = LocationHead(128, 200.0), LocationCnn(200.0)
    assert [layer.out_features for layer in head.layers if isinstance(layer, nn.Linear)] == [64, 64, 2]
    assert head(torch.randn(3, 128)).abs().max() <= 200
    assert [layer.out_channels for layer in cnn.layers if isinstance(layer, nn.Conv2d)] == [16, 32, 64]
    assert cnn(torch.randn(3, 2, 32, 32)).shape == (3, 2)
    assert [tuple(p.shape) for p in classifier(5, (32, 16), 7).parameters() if p.ndim == 2] == [
        (32, 5), (16, 32), (7, 16),
    ]  # fmt: skip
    assert len(classifier(5, (), 7)) == 1


def test_a_linear_head_finds_least_squares():
    features, labels = linear_problem()
    noisy = labels + 0.1 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
    head = nn.Linear(3, 2)
    settings = HeadSettings(steps=400, batch_size=60)
    fit(head, squares, (features[:60], noisy[:60]), (features[60:], noisy[60:]), 0.03, 5, settings)
    design = np.column_stack([features[:60], np.ones(60)])
    solution = np.linalg.lstsq(design, noisy[:60].numpy(), rcond=None)[0]
    np.testing.assert_allclose(head.weight.detach().numpy().T, solution[:3], atol=0.05)


def test_training_that_only_makes_it_worse_is_undone():
    features, labels = linear_problem()
    head = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 2.0, 1.0]]))
    before = head.weight.clone()
    wrong = -labels
    settings = HeadSettings(steps=50, batch_size=60)
    assert fit(head, squares, (features[:60], wrong[:60]), (features[60:], labels[60:]), 0.1, 0, settings) < 1e-6
    assert torch.equal(head.weight, before)


def test_the_held_back_labels_of_the_first_seed_choose_the_rate():
    features, labels = linear_problem()
    settings = HeadSettings(seeds=3, steps=60, batch_size=64, learning_rates=(1e-5, 0.05), held_back=0.25)
    asked = []

    def draw(seed):
        asked.append(seed)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(80))
        return features[order], labels[order]

    found = list(tuned(lambda: nn.Linear(3, 2), lambda _: squares, draw, settings))
    assert asked == [0, 1, 2]
    assert [(seed, rate) for seed, _, rate in found] == [(0, 0.05), (1, 0.05), (2, 0.05)]
    again = list(tuned(lambda: nn.Linear(3, 2), lambda _: squares, draw, settings))
    for (_, first, _), (_, second, _) in zip(found, again, strict=True):
        assert torch.equal(first.weight, second.weight)
    assert not torch.equal(found[0][1].weight, found[1][1].weight)


def test_weights_of_classes():
    label = torch.tensor([0] * 16 + [1] * 4 + [3])
    weight = inverse_frequency(label, 5)
    assert weight[2] == weight[4] == 0
    assert float(weight[1] / weight[0]) == pytest.approx(2)
    assert float(weight[3] / weight[0]) == pytest.approx(4)
    assert float(weight[label].mean()) == pytest.approx(1)


def test_features_are_standardised_and_images_are_not():
    rows = torch.from_numpy(np.random.default_rng(1).normal(3, 5, (50, 4)).astype(np.float32))
    scaled = Standardiser.of(rows)(rows)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0, correction=0), 1, atol=1e-5)
    image = torch.randn(3, 2, 4, 4)
    assert torch.equal(Standardiser.of(image)(image), image)


def test_antennas_of_a_user_are_encoded_one_by_one_and_joined(predictor, data):
    users = gather(data.splits["test"], 4)
    csi = torch.stack([users.csi, 2 * users.csi, users.csi.conj()], 1)
    visible = predictor.pilots(0.25, 0)
    together = EncoderWithHead(predictor, nn.Identity(), visible)(users, csi).detach()
    assert with_antennas(users, csi).scene.tolist() == [scene for scene in users.scene.tolist() for _ in range(3)]
    apart = [predictor.encode(replace(users, csi=csi[:, r]), visible) for r in range(3)]
    np.testing.assert_allclose(together, torch.cat(apart, 1), atol=1e-5)


def test_fine_tuning_changes_a_copy_and_lowers_the_loss(predictor, data):
    # Every user twice: those held back are among those trained on, so what is learnt shows in their loss.
    users = gather(data.splits["test"], 20).at(torch.arange(40) % 20)
    visible = predictor.pilots(0.25, 0)
    before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
    settings = HeadSettings(
        seeds=2, steps=5, held_back=0.25, finetune_steps=60, finetune_batch=16, finetune_rates=(1e-3,)
    )

    def build():
        return LocationHead(predictor.settings.model.width, 200.0)

    def draw(_):
        return users, users.csi[:, None], users.position

    found = list(finetuned(lambda _: predictor, build, lambda _: distance, draw, visible, settings))
    assert [(seed, rate) for seed, _, rate in found] == [(0, 1e-3), (1, 1e-3)]
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, before[name])
    _, model, _ = found[0]
    assert any(not torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    places = model.outputs(users, users.csi[:, None])
    mean = users.position.mean(0).expand(len(users), -1)
    assert distance(places, users.position) < 0.8 * distance(mean, users.position)


def test_fine_tuning_starts_from_the_trained_head_and_cannot_make_it_worse(predictor, data):
    """A rate that ruins the encoder leaves what the head alone gives on the features as they are."""
    users = gather(data.splits["test"], 40)
    visible = predictor.pilots(0.25, 0)
    settings = HeadSettings(seeds=1, steps=40, batch_size=16, learning_rates=(1e-3, 1e-2), held_back=0.25,
                            finetune_steps=3, finetune_batch=16, finetune_rates=(1.0,))  # fmt: skip

    def build():
        return LocationHead(predictor.settings.model.width, 200.0)

    def draw(_):
        return users, users.csi[:, None], users.position

    _, model, rate = next(finetuned(lambda _: predictor, build, lambda _: distance, draw, visible, settings))
    assert rate == 1.0
    features = predictor.encode(users, visible)
    features = Standardiser.of(features[:30])(features)
    _, head, _ = next(tuned(build, lambda _: distance, lambda _: (features, users.position), settings))
    np.testing.assert_allclose(model.outputs(users, users.csi[:, None]), apply(head, features), atol=1e-3)


def test_the_twin_from_scratch_starts_from_other_weights_of_the_same_shape(predictor):
    one, two = predictor.untrained(0).model, predictor.untrained(1).model
    shapes = {name: value.shape for name, value in predictor.model.state_dict().items()}
    assert {name: value.shape for name, value in one.state_dict().items()} == shapes
    assert not torch.equal(one.embed_csi.weight, two.embed_csi.weight)
    assert not torch.equal(one.embed_csi.weight, predictor.model.embed_csi.weight)
    assert torch.equal(one.embed_csi.weight, predictor.untrained(0).model.embed_csi.weight)
