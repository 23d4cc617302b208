"""Sum-rates of beams without a label, and the calibration of stated regions."""

import numpy as np
import pytest
import torch

from wavecity.model.path_model.mixture import Mixture
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE
from wavecity.model.settings.training import MuMimoSettings
from wavecity.model.tasks.zero_shot_rates import calibration, clusters, sum_rates


def test_clusters_stand_in_one_scene_and_share_no_user() -> None:
    scene = torch.tensor([3, 3, 5, 3, 5, 3, 3, 7, 5])
    users = clusters(scene, 2, seed=1)
    assert len(users) == len(users.unique()) == 6  # one user of 3 and of 5 is left over, and the only one of 7
    assert (scene[users].view(-1, 2)[:, 0] == scene[users].view(-1, 2)[:, 1]).all()
    assert clusters(scene, 6, seed=1).tolist() == []
    assert users.tolist() == clusters(scene, 2, seed=1).tolist()


def test_the_best_beams_of_single_users_give_shannons_rate() -> None:
    rng = np.random.default_rng(0)
    csi = torch.from_numpy(1e-5 * (rng.normal(size=(6, 4, 4)) + 1j * rng.normal(size=(6, 4, 4)))).to(torch.complex64)
    config = MuMimoSettings(cluster=1)
    worst = -torch.arange(16.0).expand(6, -1)  # always the first beam
    records = sum_rates(csi, torch.zeros(6, dtype=torch.int64), {Method.MODEL_SPECTRUM_BEAM: worst}, WHOLE, config, 0)
    rates = {record.method: record.value for record in records}
    assert {record.metric for record in records} == {Metric.MU_RATE}
    assert {record.n for record in records} == {6}

    # One user: all power into one beam of unit energy, noise -174 dBm/Hz over the bandwidth and the noise figure.
    link = config.link
    power = 10 ** (link.power_dbm / 10 - 3)
    noise = 10 ** ((-174 + link.noise_figure) / 10 - 3) * link.bandwidth
    beams = np.abs(np.fft.ifft2(csi.numpy(), norm="ortho").reshape(6, -1)) ** 2
    for method, gain in ((Method.MODEL_SPECTRUM_BEAM, beams[:, 0]), (Method.EXHAUSTIVE_SEARCH, beams.max(1))):
        assert rates[method] == pytest.approx(np.log2(1 + power * gain / noise).mean(), rel=1e-4)
    assert sum_rates(csi, torch.arange(6), {}, WHOLE, MuMimoSettings(cluster=2), 0) == []


def test_regions_of_a_true_mixture_hold_what_they_state_and_sure_users_err_less() -> None:
    rng = np.random.default_rng(2)
    scale = torch.from_numpy(rng.uniform(-2, 2, (1500, 1))).float()
    mixture = Mixture(torch.zeros(1500, 1), torch.zeros(1500, 1, 2), scale)
    position = mixture.sample(1, rng)[:, 0]
    groups = {"all": torch.ones(1500, dtype=torch.bool), "nobody": torch.zeros(1500, dtype=torch.bool)}
    facts = calibration(mixture, position, groups, seed=0)
    within, medians = facts["users_within_stated_regions"], facts["median_error_by_confidence"]
    assert set(within) == set(medians) == {"all"}
    for stated, held in within["all"].items():
        assert held == pytest.approx(float(stated), abs=4)
    # The median radius of this density is 1.68 scales.
    order = np.sort(scale[:, 0].numpy())
    assert medians["all"]["surer half"] == pytest.approx(1.68 * np.exp(np.median(order[:750])), rel=0.2)
    assert medians["all"]["least sure fifth"] == pytest.approx(1.68 * np.exp(np.median(order[1200:])), rel=0.2)
    wrong = calibration(Mixture(mixture.log_weight, mixture.centre, scale - 1), position, groups, seed=0)
    assert wrong["users_within_stated_regions"]["all"]["90"] < 70
