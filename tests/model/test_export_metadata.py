"""Exported files give the embeddings of the loaded model, and say where they come from and what goes in and out."""

import json
from importlib import metadata

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import xarray as xr

from wavecity.dataset.records import attributes_of
from wavecity.model.training.export import export_model, metadata_of
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain

SHARE = 0.25


@pytest.fixture(scope="module")
def run(toy_store, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    pretrain(str(toy_store), tiny.model_copy(update={"epochs": 1}), folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """The encoder in both formats, of the run and of its checkpoint; written once."""
    folder = tmp_path_factory.mktemp("files")
    export_model(run, folder / "encoder.onnx", SHARE)
    export_model(str(run / "checkpoints" / "last.ckpt"), folder / "encoder.pt2", SHARE)
    return folder


def test_embeddings_of_the_loaded_model_are_those_of_the_files(run, files, toy_store):
    store = xr.open_zarr(toy_store / "latest.zarr").isel(scene=4)
    csi, height = store.csi.values[~store.outage.values], store.height.values
    expected = load_model(run).embed(csi, height, share=SHARE)
    parts, maps = np.stack((csi.real, csi.imag), -1), np.repeat(height[None], len(csi), 0)
    session = onnxruntime.InferenceSession(str(files / "encoder.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["physc"], {"csi": parts, "height": maps})[0], expected, atol=2e-5)
    module = torch.export.load(files / "encoder.pt2").module()
    physc = module(torch.from_numpy(parts), torch.from_numpy(maps))[0]
    np.testing.assert_allclose(physc.detach(), expected, atol=2e-5)


def check(found, run, toy_store, shapes):
    """Against the run's summary and the store's own files; `shapes` are those of the file's inputs and outputs."""
    summary = json.loads((run / "pretrain.json").read_text())
    attributes = attributes_of(xr.open_zarr(toy_store / "latest.zarr").attrs)
    version = (toy_store / "latest.zarr").resolve().parent
    assert found["version"] == metadata.version("wavecity")
    assert found["training_fingerprint"] == summary["fingerprint"]
    assert found["dataset_fingerprint"] == attributes["fingerprint"]
    assert found["dataset_manifest_sha256"] == json.loads((version / "manifest.json").read_text())["sha256"]
    assert found["seed"] == 1
    # torch.__version__ may name a build besides ("+cpu", "+cu128").
    assert found["trained_with"]["torch"] == metadata.version("torch")
    assert found["frequency_hz"] == 28.5e9
    assert found["array"] == {"columns": 32, "rows": 32, "spacing_wavelengths": 0.5}
    assert found["tile_size_m"] == 200
    assert found["normalisation"]["csi_rms_db_mean"] == attributes["statistics"]["csi_rms_db_mean"]
    assert found["normalisation"]["csi_scale"] == "visible"
    assert found["conventions"]["csi"] == attributes["conventions"]["csi"]
    assert len(found["visible_csi_patches"]) == SHARE * 64
    assert found["licence"] == "ODbL-1.0"
    assert "OpenStreetMap contributors" in found["attribution"]
    ports = {port["name"]: port for port in (*found["inputs"], *found["outputs"])}
    assert {name: port["shape"][1:] for name, port in ports.items()} == shapes
    assert (ports["csi"]["unit"], ports["height"]["unit"]) == ("sqrt(power gain)", "m")


def test_an_onnx_file_describes_itself(run, files, toy_store):
    path = files / "encoder.onnx"
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map
    texts = {"name", "version", "description", "training_fingerprint", "dataset_fingerprint"}
    texts |= {"dataset_manifest_sha256", "licence", "attribution"}
    found = {name: value if name in texts else json.loads(value) for name, value in props.items()}
    shapes = {port.name: list(port.shape[1:]) for port in (*session.get_inputs(), *session.get_outputs())}
    check(found, run, toy_store, shapes)
    model = onnx.load(path)
    assert model.producer_name == "wavecity"
    assert model.graph.input[0].doc_string == "real and imaginary part; unit sqrt(power gain)"


def test_a_pt2_file_describes_itself(run, files, toy_store):
    extra = {"metadata.json": ""}
    module = torch.export.load(files / "encoder.pt2", extra_files=extra).module()
    csi, height = torch.ones(2, 32, 32, 2), torch.zeros(2, 200, 200)
    outputs = module(csi, height)
    shapes = {"csi": [32, 32, 2], "height": [200, 200]}
    shapes |= {name: list(values.shape[1:]) for name, values in zip(("physc", "spectrum"), outputs, strict=True)}
    check(json.loads(extra["metadata.json"]), run, toy_store, shapes)


def test_a_checkpoint_of_before_says_less_but_never_no_licence(run):
    loaded = load_model(run)
    old = loaded._replace(card={name: value for name, value in loaded.card.items() if name != "data"})
    found = metadata_of(old, torch.arange(3))
    assert "frequency_hz" not in found
    assert "OpenStreetMap contributors" in found["attribution"]
