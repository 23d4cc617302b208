"""The mixture in which the path model says where a user is: a density, regions of stated shares, a calibrated likelihood."""

import math

import numpy as np
import pytest
import torch

from wavecity.model.path_model.mixture import Mixture


def mixture_of(count, seed=0):
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(count, 5, generator=draws).log_softmax(1)
    centre = 30 * torch.randn(count, 5, 2, generator=draws)
    return Mixture(weight, centre, torch.randn(count, 5, generator=draws))


def test_the_density_of_a_mixture_integrates_to_one():
    axis = torch.arange(-150, 150, 0.5)
    points = torch.cartesian_prod(axis, axis)[None]
    assert float(mixture_of(1).log_density(points).exp().sum()) * 0.25 == pytest.approx(1, abs=0.03)


def test_a_region_holds_the_share_that_it_states():
    """Where users are drawn from the mixtures themselves."""
    mixture = mixture_of(1500)
    truth = mixture.sample(1, np.random.default_rng(1))[:, 0]
    for share in (0.5, 0.9):
        held = mixture.holds(truth, share, np.random.default_rng(2)).double().mean()
        assert float(held) == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / 1500) + 0.01)


def test_the_likelihood_is_calibrated():
    """Its best scale is that from which the users' distances were drawn."""
    rng = np.random.default_rng(0)
    truth = torch.from_numpy(rng.gamma(2.0, 3.0, 4000))[:, None, None] * torch.tensor([1.0, 0.0])
    scales = torch.linspace(1, 6, 51).log()

    def likelihood(log_scale):
        one = Mixture(torch.zeros(1, 1), torch.zeros(1, 1, 2), log_scale.view(1, 1))
        return float(one.log_density(truth.float().view(1, -1, 2)).mean())

    assert float(scales[np.argmax([likelihood(scale) for scale in scales])].exp()) == pytest.approx(3.0, abs=0.15)


def test_the_best_guess_is_where_most_of_the_mixture_is():
    centre = torch.tensor([[[0.0, 0.0], [50.0, 0.0], [50.3, 0.0], [90.0, 0.0]]])
    # The heaviest is spread wide, and two are close together.
    found = Mixture(
        torch.tensor([[0.3, 0.2, 0.2, 0.3]]).log(), centre, torch.tensor([[0.0, 0.0, 0.0, 30.0]]).clamp_max(4)
    )
    assert found.best()[0, 0] in (50.0, pytest.approx(50.3))


def test_a_mixture_is_as_unsure_as_its_components_are_apart_and_wide():
    mixture = mixture_of(4)
    best, found = mixture.best().numpy(), mixture.spread()
    weight, centre, scale = mixture.log_weight.exp().numpy(), mixture.centre.numpy(), mixture.log_scale.exp().numpy()
    for user in range(4):
        wanted = sum(
            weight[user, one] * (math.dist(centre[user, one], best[user]) + scale[user, one]) for one in range(5)
        )
        assert float(found[user]) == pytest.approx(wanted, rel=1e-5)
    sure = Mixture(torch.zeros(1, 1), torch.ones(1, 1, 2), torch.full((1, 1), math.log(0.2)))
    assert float(sure.spread()) == pytest.approx(0.2)
