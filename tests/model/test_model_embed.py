"""A loaded model takes channels, maps and positions as they are, and gives what the evaluation gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from synthetic import stored
from synthetic_temporal import make_temporal, users_of

import wavecity
from wavecity.dataset import InputError
from wavecity.model.data.users import gather, load_data
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.inputs import prepare
from wavecity.model.multimodal.masking import Mask
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.load import load_model, load_temporal_model
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.pretrained import PretrainedTemporal


@pytest.fixture(scope="module")
def run(toy_store, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("used")
    pretrain(str(toy_store), tiny.model_copy(update={"epochs": 1}), folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def loaded(run):
    return load_model(run)


@pytest.fixture(scope="module")
def predictor(loaded, toy_store):
    """What the tasks of the evaluation encode users with."""
    return Predictor(loaded.model, loaded.settings, loaded.statistics, load_data(str(toy_store)), 4)


@pytest.fixture(scope="module")
def users(toy_store):
    """Test users of the store as plain xarray reads them: channels, a map for each, positions."""
    store = xr.open_zarr(toy_store / "latest.zarr")
    arrays = []
    for scene in np.flatnonzero(store.split.values == "test"):
        here = store.isel(scene=scene)
        heard = np.flatnonzero(~here.outage.values)
        height = np.repeat(here.height.values[None], len(heard), 0)
        arrays.append((here.csi.values[heard], height, here.user_position.values[heard]))
    return tuple(np.concatenate(parts) for parts in zip(*arrays, strict=True))


@pytest.fixture(scope="module")
def gathered(predictor, toy_store):
    return gather(load_data(str(toy_store)).splits["test"])


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
def test_embeddings_are_those_of_the_evaluation(loaded, predictor, users, gathered, share):
    csi, height, _ = users
    visible = predictor.pilots(share, 1)
    found = loaded.embed(csi, height, share=share, batch_size=7)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, predictor.encode(gathered, visible), atol=1e-5)
    bare = loaded.embed(csi, share=share)
    hidden = [patch for patch in range(loaded.model.csi_patches) if patch not in visible]
    split = [
        torch.as_tensor(part).expand(len(gathered), -1) for part in (visible, torch.tensor(hidden, dtype=torch.long))
    ]
    mask = Mask(*split, None, None, location_visible=False)
    inputs = prepare(gathered.csi, gathered.position, gathered.scene, mask, predictor.scenes).inputs
    with torch.no_grad():
        np.testing.assert_allclose(bare, loaded.model.encode(inputs, mask)[:, 0], atol=1e-5)
    assert np.abs(bare - found).max() > 1e-3


def test_the_seed_draws_the_patches_of_an_evaluation_with_that_seed(loaded, predictor, users, gathered):
    found = loaded.embed(users[0], users[1], share=0.25, seed=9)
    np.testing.assert_allclose(found, predictor.encode(gathered, predictor.pilots(0.25, 9)), atol=1e-5)
    assert np.abs(found - loaded.embed(users[0], users[1], share=0.25)).max() > 1e-3


def test_a_position_that_is_shown_counts_as_in_the_model(loaded, predictor, users, gathered):
    csi, height, position = users
    shown = predictor.predict(gathered, predictor.pilots(1.0, 1), location=True, fill_csi=False).physc
    np.testing.assert_allclose(loaded.embed(csi, height, position), shown, atol=1e-5)
    np.testing.assert_allclose(loaded.embed(csi, height, position[:, :2]), shown, atol=1e-5)


def test_torch_in_torch_out_one_map_for_all_and_a_single_user(loaded, users):
    csi, height, position = users
    same = [index for index in range(len(csi)) if (height[index] == height[0]).all()]
    expected = loaded.embed(csi[same], height[same])
    tensor = loaded.embed(torch.from_numpy(csi[same]), torch.from_numpy(height[0]))
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    np.testing.assert_allclose(tensor, expected, atol=1e-5)
    np.testing.assert_allclose(loaded.embed(csi[same[0]], height[0]), expected[0], atol=1e-5)
    assert loaded.embed(csi[0], height[0], position[0]).shape == (16,)
    # Double precision, as NumPy computes by default.
    np.testing.assert_allclose(loaded.embed(csi[same].astype(complex), height[0].astype(float)), expected, atol=1e-5)


@pytest.mark.parametrize("name", [".", "checkpoints", "checkpoints/last.ckpt"])
def test_a_run_its_folder_of_checkpoints_or_the_file_by_string_or_path(run, loaded, users, name):
    expected = loaded.embed(users[0], users[1])
    for place in (run / name, str(run / name)):
        np.testing.assert_array_equal(load_model(place).embed(users[0], users[1]), expected)


CSI = np.ones((3, 32, 32), np.complex64)
MAP = np.zeros((200, 200), np.float32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((CSI[:, :16],), r"csi has shape \(3, 16, 32\), this model takes \(users, 32, 32\)"),
        ((CSI[None],), r"csi has shape \(1, 3, 32, 32\)"),
        ((CSI[:0],), r"csi has shape \(0, 32, 32\)"),
        ((CSI.real,), "csi is float32, expected complex"),
        ((CSI * np.nan,), "csi is not finite"),
        ((np.full((3, 32, 32), None),), "an array of object"),
        ((CSI, MAP[:100]), r"height has shape \(100, 200\), expected \(200, 200\) or \(3, 200, 200\)"),
        ((CSI, np.stack([MAP] * 2)), r"height has shape \(2, 200, 200\)"),
        ((CSI, MAP + np.nan), "height must hold finite"),
        ((CSI, MAP, np.zeros((2, 3))), r"user_position has shape \(2, 3\), expected \(3, 2\) or \(3, 3\)"),
        ((CSI, None, np.zeros((3, 3))), "user_position without height"),
    ],
)
def test_what_does_not_fit_gets_one_line(loaded, arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        loaded.embed(*arguments)
    assert "\n" not in str(caught.value)


def test_gradients_reach_the_encoder_where_asked_for(run, users):
    loaded = load_model(run)
    csi, height = torch.from_numpy(users[0]), torch.from_numpy(users[1])
    features = loaded.embed(csi, height, grad=True)
    torch.testing.assert_close(features.detach(), loaded.embed(csi, height))
    features.square().mean().backward()
    assert float(loaded.model.embed_csi.weight.grad.abs().max()) > 0
    with pytest.raises(InputError, match="give torch tensors"):
        loaded.embed(*users[:2], grad=True)


def test_a_share_of_nothing_is_refused(loaded):
    with pytest.raises(InputError, match="share is 0, expected"):
        loaded.embed(CSI, share=0)


WAVES = {"steps": 8, "subcarriers": 8, "antennas": 6}


@pytest.fixture(scope="module")
def moving(tmp_path_factory) -> tuple[Path, torch.Tensor]:
    data = make_temporal(users=8, **WAVES)
    settings = TrainingSettings.model_validate(
        {
            "backbone": "temporal",
            "temporal": {"model": {"width": 8, "layers": 1, "heads": 2, "top_k": False}, "snapshots": 6, "delays": 4},
            "epochs": 1,
            "batch_size": 8,
            "accelerator": "cpu",
            "threads": 1,
        }
    )
    folder = tmp_path_factory.mktemp("moving")
    pretrain(stored(data), settings, folder, seed=3)
    return folder, users_of(data, "test").csi


def test_channels_that_move_are_embedded_as_the_temporal_model_sees_them(moving):
    run, csi = moving
    model = wavecity.load(str(run))
    assert isinstance(model, PretrainedTemporal)
    # Angle and delay by NumPy; the window of delays with the most energy, circular.
    bins = np.fft.ifft(np.fft.fft(csi.numpy(), axis=3, norm="ortho"), axis=2, norm="ortho").swapaxes(2, 3)
    energy = (np.abs(bins) ** 2).sum((1, 2))
    kept = []
    for user, power in zip(bins, energy, strict=True):
        first = max(range(8), key=lambda start: sum(power[(start + step) % 8] for step in range(4)))
        kept.append(user[..., [(first + step) % 8 for step in range(4)]])
    tokens = torch.from_numpy(np.stack(kept)).to(torch.complex64)
    with torch.no_grad():
        expected = model.model.represent(tokens)
    states = model.embed(csi.numpy(), pooled=False)
    assert states.shape == (16, 8, 6, 4, 8)
    np.testing.assert_allclose(states, expected, atol=1e-4)
    np.testing.assert_allclose(model.embed(csi), expected.mean((1, 2, 3)), atol=1e-4)
    np.testing.assert_array_equal(model.embed(csi[..., None]), model.embed(csi))
    # In any unit, and for another number of snapshots.
    np.testing.assert_allclose(model.embed(csi * 1e4), model.embed(csi), atol=1e-4)
    assert model.embed(csi[:, :3]).shape == (16, 8)


def test_channels_that_do_not_fit_the_temporal_model_get_one_line(moving):
    model, csi = load_temporal_model(moving[0]), moving[1]
    with pytest.raises(InputError, match=r"csi has shape \(16, 8, 7, 6\), this model takes \(users, snapshots, 8, 6\)"):
        model.embed(csi[:, :, :7])
    with pytest.raises(InputError, match=r"csi has shape \(8, 8, 6\)"):
        model.embed(csi[0])
    with pytest.raises(InputError, match="expected complex"):
        model.embed(csi.real)
