"""SU-MIMO of the path model: beam pairs from what it makes of a user's antennas."""

from dataclasses import replace

import numpy as np
import pytest
import street
import torch
from synthetic_results import check_spec

from wavecity.dataset import InputError
from wavecity.model.data.users import load_data, with_antennas
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.path_model.front import front
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.path_model.network import PathModel
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.results.names import Method, Metric
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.beams.receivers import receivers
from wavecity.model.tasks.beams.su_mimo import SPECS
from wavecity.model.tasks.beams.su_precoding import su_labels
from wavecity.model.transformer import seeded_weights

FREE = {Method.MODEL_FILLED_CSI, Method.WAVES, Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.SBL_BEAM}
LABELLED = {Method.PHYSC_PROBE, Method.RAW_PROBE, Method.DFT_PROBE, Method.PHYSC_FINE_TUNED, Method.TWIN}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(street.build(str(tmp_path_factory.mktemp("street") / "store")))


@pytest.fixture(scope="module")
def predictor(data, tmp_path_factory):
    from wavecity.model.data.users import geometry_of

    settings = street.settings_of()
    cache = FrontCache(data.name, 4, tmp_path_factory.mktemp("cache"))
    with seeded_weights(0):
        model = PathModel(settings.rays.model, geometry_of(data, settings.model), cache.radio).eval()
    return PathPredictor(model, cache, data.scenes, 8)


def settings_of(**su: object) -> EvaluationSettings:
    heads = {"seeds": 1, "steps": 5, "learning_rates": [1e-2], "finetune_steps": 2, "finetune_rates": [1e-3]}
    return EvaluationSettings.model_validate({"heads": heads, "su_mimo": {"ratios": [1.0], "rows": 1, **su}})


def test_every_method_is_measured_and_none_is_above_the_bound(predictor, data):
    found = SPECS[1].run(predictor, data, settings_of(csi=0.75, snr=20.0), 0)
    check_spec(SPECS[1], found)
    for metric in (Metric.RECEIVE_TOP2, Metric.TRANSMIT_TOP2, Metric.BEAM_PAIR, Metric.SU_RATE):
        here = [record for record in found.records if record.metric is metric]
        search = {Method.EXHAUSTIVE_SEARCH} if metric is Metric.SU_RATE else set()
        assert {record.method for record in here if np.isnan(record.x)} == FREE | search
        assert {record.method for record in here if record.x == 1.0} == LABELLED
        assert all(np.isfinite(record.value) for record in here)
    rates = [record.value for record in found.records if record.metric is Metric.SU_RATE]
    assert max(rates) <= found.facts["fully_digital_bound"]
    assert found.facts["csi_patches_seen"] == 3


def test_all_of_a_single_wave_gives_the_labels(predictor, data):
    """All antennas, no noise, one path a user: whoever looks finds the beam that a search over the channel finds."""
    found = SPECS[1].run(predictor, data, settings_of(csi=1.0), 0)
    values = {(record.metric, record.method): record.value for record in found.records}
    best = values[Metric.SU_RATE, Method.EXHAUSTIVE_SEARCH]
    assert values[Metric.BEAM_PAIR, Method.ZERO_FILLED_BEAM] == 100
    for method in (Method.WAVES, Method.MODEL_FILLED_CSI):
        assert values[Metric.SU_RATE, method] > 0.95 * best
    # Untrained gates are all the same: the model fills in what the waves make up.
    assert values[Metric.SU_RATE, Method.MODEL_FILLED_CSI] == pytest.approx(
        values[Metric.SU_RATE, Method.WAVES], rel=1e-3
    )


def test_antennas_are_seen_one_by_one_in_the_order_of_the_users(predictor, data):
    users, csi = receivers(data, "train", 100, 2, 1)
    shown, noise = torch.ones(8, 8, dtype=torch.bool), torch.full((len(users),), 1e-16, dtype=torch.float64)
    antennas = with_antennas(replace(users, noise=noise), csi)
    seen = PathEncoder.of(predictor, data).channels(antennas, torch.arange(4))[Method.WAVES]
    assert len(seen) == 2 * len(users) == 2 * len(csi)
    assert len(users.scene.unique()) == 2
    for user in (0, len(users) - 1):
        scene = surroundings(data.name, int(users.scene[user]))
        alone = front(csi[user], shown, noise[:1].expand(2), scene)
        gain = seen[2 * user : 2 * user + 2]
        waves = torch.as_tensor(alone.found.sum(1) > 0)
        assert waves.all()
        # The channel that its own waves make up is nearly the antenna's own.
        error = (gain - csi[user]).abs().square().sum((1, 2)) / csi[user].abs().square().sum((1, 2))
        assert float(error.max()) < 0.01
    best = su_labels(csi, (2, 1), _link())
    assert torch.equal(su_labels(seen.unflatten(0, (-1, 2)), (2, 1), _link()).tx[:, 0], best.tx[:, 0])


def _link():
    from wavecity.model.tasks.beams.receivers import link_of

    return link_of(EvaluationSettings().su_mimo.link)


def test_too_few_labels_are_named(predictor, data):
    with pytest.raises(InputError, match=r"su_mimo\.ratios: the largest, 0\.1, gives 2 labels of 16 training users"):
        SPECS[1].run(predictor, data, settings_of(ratios=[0.1]), 0)
