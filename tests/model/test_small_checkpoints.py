"""Checkpoints in half precision: half the size, the same model within what half precision holds, nothing of this machine."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command import wavecity as command
from synthetic import stored

import wavecity
from wavecity.dataset import InputError
from wavecity.model.training import checkpoint
from wavecity.model.training.small import write_small


def test_a_small_checkpoint_is_the_same_model(linked, data, tmp_path):
    out = tmp_path / "release" / "small.ckpt"
    ended = command("export-model", linked, "--out", out)
    assert ended.returncode == 0, ended.stderr
    whole, small = wavecity.load(linked), wavecity.load(out)
    weights = sum(value.numel() for value in whole.model.state_dict().values())
    assert out.stat().st_size < 2 * weights + 100_000
    assert all(value.dtype == torch.float32 for value in small.model.parameters())
    samples = data.splits["test"].arrays["csi"][:5]
    height = data.scenes.height[-1].numpy()
    found, right = small.embed(samples, height), whole.embed(samples, height)
    assert np.sqrt(np.square(found - right).mean()) < 0.01 * np.sqrt(np.square(right).mean())
    assert small.card["precision"] == "float16"
    assert str(stored(data)) not in json.dumps(small.card)


def test_weights_that_do_not_fit_are_refused(linked, tmp_path):
    state = torch.load(linked / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(name for name, value in state["state_dict"].items() if value.is_floating_point())
    state["state_dict"][name].view(-1)[0] = 1e6
    torch.save(state, tmp_path / "loud.ckpt")
    with pytest.raises(
        InputError, match=f"{name.removeprefix('model.')} has values that float16 cannot hold, up to 1e\\+06"
    ):
        write_small(tmp_path / "loud.ckpt", tmp_path / "small.ckpt")
    assert not (tmp_path / "small.ckpt").exists()


def test_a_name_means_a_shipped_checkpoint_unless_a_folder_has_it(linked, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    monkeypatch.chdir(tmp_path)
    write_small(linked, tmp_path / "tiny-one.ckpt")
    card = wavecity.load("tiny-one").card
    assert card["fingerprint"] == wavecity.load(linked).card["fingerprint"]
    (tmp_path / "tiny-one").mkdir()
    with pytest.raises(InputError, match="no readable checkpoint"):
        wavecity.load("tiny-one")


def test_what_comes_with_the_package_is_loaded_by_its_name(tmp_path, monkeypatch):
    """A file for each kind of encoder, small, of open data, without a trace of where it was trained; none needs a network."""
    monkeypatch.chdir(tmp_path)
    assert {"small", "small-wavecity", "small-rays"} <= set(checkpoint.shipped())
    for name, path in checkpoint.shipped().items():
        assert path.stat().st_size < 3e6
        model = wavecity.load(name)
        assert model.card["precision"] == "float16"
        assert model.card["data"]["licence"] == "ODbL-1.0"
        assert "OpenStreetMap" in model.card["data"]["attribution"]
        assert not re.search(r"(?<![\w.])/(tmp|home|root|work)/", json.dumps(model.card))
    model = wavecity.load("small")
    rng = np.random.default_rng(0)
    samples = (1e-5 * (rng.standard_normal((3, 32, 32)) + 1j * rng.standard_normal((3, 32, 32)))).astype(np.complex64)
    features = model.embed(samples, np.zeros((200, 200), np.float32))
    assert features.shape == (3, model.settings.model.width)
    assert np.isfinite(features).all()


def test_the_page_lists_what_comes_with_the_package():
    page = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "models.md").read_text(encoding="utf-8")
    listed = re.findall(r'^\| `wavecity\.load\("([\w-]+)"\)` \|', page, re.MULTILINE)
    assert sorted(listed) == sorted(checkpoint.shipped())
