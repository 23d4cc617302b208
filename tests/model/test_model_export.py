"""Exported encoders give what the model gives."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from synthetic_results import check_spec

from wavecity.dataset import InputError
from wavecity.model.data.users import gather
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.names import Method
from wavecity.model.tasks.latency import SPECS, latency
from wavecity.model.training.export import DeployedEncoder, compare, export_model
from wavecity.model.training.load import load_model


@pytest.fixture(scope="module")
def run(linked):
    return linked


@pytest.fixture(scope="module")
def predictor(run, data):
    model, settings, statistics, _ = load_model(run)
    return Predictor(model, settings, statistics, data, 16)


@pytest.fixture(scope="module")
def truth(predictor, data):
    """What the tasks are evaluated with, for five users: their raw channels and maps, and [PHYSC] and spectrum."""
    users = gather(data.splits["test"], 5)
    visible = predictor.pilots(0.25, 1)
    physc = predictor.encode(users, visible)
    spectrum = predictor.predict(users, visible, fill_csi=False).spectrum.flatten(1).softmax(1).view(-1, 32, 32)
    return np.stack((users.csi.real, users.csi.imag), -1), data.scenes.height[users.scene].numpy(), physc, spectrum


def test_an_onnx_file_alone_gives_the_models_outputs(run, truth, tmp_path):
    csi, height, physc, spectrum = truth
    assert max(export_model(run, tmp_path / "encoder.onnx", 0.25).values()) < 1e-4
    onnx.checker.check_model(str(tmp_path / "encoder.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        found = session.run(None, {"csi": csi[:count], "height": height[:count]})
        np.testing.assert_allclose(found[0], physc[:count], atol=2e-5)
        np.testing.assert_allclose(found[1], spectrum[:count], atol=1e-6)


def test_a_pt2_file_alone_gives_the_models_outputs(run, truth, tmp_path):
    csi, height, physc, spectrum = truth
    export_model(run, tmp_path / "encoder.pt2", 0.25)
    module = torch.export.load(tmp_path / "encoder.pt2").module()
    for count in (1, 5):
        found = module(torch.from_numpy(csi[:count]), torch.from_numpy(height[:count]))
        np.testing.assert_allclose(found[0].detach(), physc[:count], atol=2e-5)
        np.testing.assert_allclose(found[1].detach(), spectrum[:count], atol=1e-6)


def test_hidden_patches_have_no_influence(predictor, truth):
    csi, height = (torch.from_numpy(values) for values in truth[:2])
    visible = predictor.pilots(0.25, 1)
    encoder = DeployedEncoder(predictor.model, predictor.settings, predictor.statistics, visible)
    shown = torch.zeros(64, dtype=torch.bool)
    shown[visible] = True
    where = shown.view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    changed = torch.where(where[..., None], csi, torch.full((), 7.0))
    assert torch.equal(encoder(csi, height)[0], encoder(changed, height)[0])


def test_outputs_that_differ_are_not_written(run, predictor, tmp_path, monkeypatch):
    visible = predictor.pilots(0.25, 1)
    encoder = DeployedEncoder(predictor.model, predictor.settings, predictor.statistics, visible)
    example = (torch.randn(2, 32, 32, 2), torch.rand(2, 200, 200))
    with pytest.raises(RuntimeError, match="physc is off by"):
        compare(encoder, lambda csi, height: tuple(out + 0.1 for out in encoder(csi, height)), example)
    monkeypatch.setattr("wavecity.model.training.export.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError):
        export_model(run, tmp_path / "encoder.pt2", 0.25)
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_get_one_line(run, tmp_path):
    with pytest.raises(InputError, match=r"ends in .pt2 or .onnx"):
        export_model(run, tmp_path / "encoder.txt", 0.25)


def test_latency_is_of_the_encoder_that_the_tasks_use(predictor, data, tiny):
    findings = latency(predictor, data, tiny.evaluation, 1)
    check_spec(SPECS[0], findings)
    assert [record.method for record in findings.records] == [
        Method.MODEL_PYTORCH, Method.MODEL_TORCH_EXPORT, Method.MODEL_ONNX,
    ]  # fmt: skip
    assert all(0 < record.value < 1000 and record.metric.unit == "ms" for record in findings.records)
    assert findings.facts["physc_matches_predictor"] < 1e-5
