"""The model on channels of one's own: what their store lacks is said, not made up."""

import numpy as np
import pytest
from synthetic import two_path_csi

from wavecity.dataset import InputError
from wavecity.dataset.importing.importer import ImportSettings, import_channels
from wavecity.model.data.snapshots import check_snapshots, load_snapshots
from wavecity.model.results.names import Metric
from wavecity.model.results.records import read_records
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain

EDGE = 16


@pytest.fixture(scope="module")
def settings(tiny):
    model = {**tiny.model.model_dump(), "spectrum_size": EDGE}
    heads = {**tiny.evaluation.heads.model_dump(), "seeds": 1, "steps": 4, "finetune_steps": 0}
    evaluation = {**tiny.evaluation.model_dump(), "heads": heads, "masks": [0.7], "max_users": 20}
    content = {**tiny.model_dump(), "model": model, "evaluation": evaluation, "epochs": 1}
    return TrainingSettings.model_validate(content)


def arrays(users=60, seed=0):
    rng = np.random.default_rng(seed)
    position = np.stack((rng.uniform(-95, 95, users), rng.uniform(-190, -5, users), np.full(users, -13.5)), -1)
    return {"csi": two_path_csi(position, rng, EDGE), "user_position": position}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    np.savez(folder / "yard.npz", **arrays())
    options = ImportSettings(frequency=3.5e9, test=0.4, licence="CC-BY-4.0", attribution="Example Lab")
    import_channels([folder / "yard.npz"], str(folder / "store"), options)
    return str(folder / "store")


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """All channels of one level, to the last digit."""
    folder = tmp_path_factory.mktemp("normalised")
    given = arrays()
    given["csi"] = given["csi"] / np.sqrt((np.abs(given["csi"]) ** 2).mean((1, 2), keepdims=True))
    np.savez(folder / "yard.npz", **given)
    options = ImportSettings(frequency=3.5e9, test=0.4, normalised=True)
    import_channels([folder / "yard.npz"], str(folder / "store"), options)
    return str(folder / "store")


@pytest.fixture(scope="module")
def run(store, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    pretrain(store, settings, folder, seed=1)
    return folder


def test_a_model_is_trained_on_them_and_carries_their_licence_and_carrier(run):
    data = load_model(run).card["data"]
    assert (data["licence"], data["attribution"], data["frequency_hz"]) == ("CC-BY-4.0", "Example Lab", 3.5e9)


def test_without_a_map_nothing_is_said_of_occupancy(run, store, settings):
    result = evaluate(run, store, "reconstruction", settings, 1)
    metrics = {record.metric for record in read_records(run / result["table"], "reconstruction")}
    assert Metric.CSI_LOSS in metrics
    assert not {Metric.OCCUPANCY_PRECISION, Metric.OCCUPANCY_F1, Metric.OCCUPANCY_LOSS} & metrics
    assert result["facts"]["not possible: occupancy"].startswith("no patch of the test scenes is built")


def test_without_paths_a_user_has_no_second_antenna(run, store, settings):
    with pytest.raises(InputError, match="stores no paths"):
        evaluate(run, store, "su-mimo", settings, 1)


def test_normalised_channels_have_features_of_order_one_and_no_rates(normalised, settings, tmp_path):
    data = load_snapshots(normalised, settings.model)
    assert data.statistics.csi_rms_db_std < 1e-3
    check_snapshots(data)
    pretrain(normalised, settings, tmp_path, seed=1)
    result = evaluate(tmp_path, normalised, "localization", settings, 1)
    values = [record.value for record in read_records(tmp_path / result["table"], "localization")]
    assert np.isfinite(values).all()
    assert max(values) < 300
    assert result["facts"]["not possible: physics localiser"].startswith(str(normalised))
    with pytest.raises(InputError, match="normalised channels, so that there is no SNR"):
        evaluate(tmp_path, normalised, "mu-mimo", settings, 1)


def test_a_panel_that_does_not_face_south_is_not_mirrored(settings, tmp_path):
    np.savez(tmp_path / "yard.npz", **arrays())
    options = ImportSettings(frequency=3.5e9, azimuth=30.0)
    import_channels([tmp_path / "yard.npz"], str(tmp_path / "store"), options)
    with pytest.raises(InputError, match=r"azimuth is 30, .*augment\.mirror"):
        pretrain(str(tmp_path / "store"), settings, tmp_path / "run", seed=1)
