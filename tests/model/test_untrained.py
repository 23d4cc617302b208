"""Methods that know nothing of other users, as tasks run them: sparse Bayesian learning and the physics localiser."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_data

from wavecity.dataset.reader import open_store
from wavecity.model.data.users import Users, WirelessData, gather, load_data
from wavecity.model.tasks import sites
from wavecity.model.tasks.beams.receivers import seen_at
from wavecity.model.tasks.untrained import physics_places


@pytest.fixture(scope="module")
def helsinki(helsinki_store) -> tuple[WirelessData, Users]:
    """A dataset, and users of its one scene in line of sight with direct paths at a panel of 32 x 32."""
    store = str(helsinki_store)
    split = str(open_store(store)["split"].values[0])
    data = load_data(store, (split,))
    users = gather(data.splits[split])
    users = users.at(users.los.nonzero()[:12, 0])
    away = torch.cat((users.position, torch.full((12, 1), -13.5)), 1).double()
    length = away.norm(dim=1)
    east, down = away[:, 0] / length, 13.5 / length
    index = torch.arange(32, dtype=torch.float64) - 15.5
    phase = math.pi * (east[:, None, None] * index[:, None] + down[:, None, None] * index)
    gain = 299_792_458 / 28.5e9 / (4 * math.pi * length)
    return data, replace(users, csi=torch.polar(gain[:, None, None].expand_as(phase), phase).to(torch.complex64))


def quarter() -> torch.Tensor:
    patches = torch.from_numpy(np.random.default_rng(2).permutation(64) < 16).view(8, 8)
    return patches.repeat_interleave(4, 0).repeat_interleave(4, 1)


def test_users_of_a_store_with_footprints_are_placed_without_labels(helsinki):
    data, users = helsinki
    places, why = physics_places(data, users, quarter(), 0.0, 12)
    assert why == ""
    assert places is not None
    assert (places - users.position).norm(dim=1).median() < 0.1


def test_a_user_without_a_wave_is_put_in_the_middle_of_the_tile(helsinki):
    data, users = helsinki
    silent = replace(users, csi=torch.zeros_like(users.csi)).at(torch.arange(1))
    places, _ = physics_places(data, silent, quarter(), 0.0, 12)
    station = data.scenes.bs[silent.scene[0]]
    assert places is not None
    torch.testing.assert_close(places, -station[None])


def test_where_it_cannot_be_run_one_line_says_why(helsinki):
    data, users = helsinki
    places, why = physics_places(data, users, quarter(), 0.0, 11)
    assert places is None
    assert why == "12 tested users of a scene are more than training.evaluation.physics_users 11"
    synthetic = make_data((("train", 1), ("test", 1)), users=4)
    places, why = physics_places(synthetic, gather(synthetic.splits["test"]), quarter(), 0.0, 12)
    assert places is None
    assert why.startswith("synthetic: no such store")
    assert "\n" not in why


def test_the_localiser_is_told_the_noise_that_was_added():
    data = make_data((("train", 1), ("test", 1)), users=40)
    site = sites.make_site(data, 1, 40, 0.5, 10.0, seed=3)
    clean = gather(data.splits["test"]).csi
    # In the site's order: the nearest clean channel is the user's own.
    own = clean[torch.cdist(*(torch.view_as_real(c).flatten(1) for c in (site.users.csi, clean))).argmin(1)]
    measured = (site.users.csi - own).abs().square().mean((1, 2))
    np.testing.assert_allclose(site.noise, measured, rtol=0.15)


def test_what_precoding_sees_has_the_noise_it_says():
    csi = gather(make_data((("train", 1), ("test", 1)), users=6).splits["test"]).csi
    seen, noise = seen_at(csi, None, 1, 0)
    assert seen is csi
    assert not noise.any()
    (first, noise), (second, _) = (seen_at(csi, 6.0, 1, part) for part in (0, 1))
    added = (first - csi).abs().square().mean((1, 2))
    np.testing.assert_allclose(added, noise, rtol=0.15)
    np.testing.assert_allclose(csi.abs().square().mean((1, 2)) / noise, 10**0.6, rtol=1e-4)
    assert not torch.equal(first, second)
