"""Noise and partial CSI against their own definitions: on the array, on samples and batches, in the torch readers."""

import numpy as np
import pytest
import xarray as xr

from wavecity.dataset import InputError
from wavecity.dataset.views import Chain, Noise, Observe, add_noise, derived_csi, observe, stored_csi


def real_users(view):
    """Channels (user, ...) of users that have one."""
    values = view.values.reshape(-1, *view.shape[2:])
    return values[values.any(axis=tuple(range(1, values.ndim)))]


@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 30.0])
def test_the_snr_of_every_user_is_the_one_asked_for(toy_store, snr_db):
    clean = stored_csi(toy_store)
    noisy = add_noise(clean, snr_db, seed=3)
    signal = real_users(clean).astype(np.complex128)
    noise = real_users(noisy) - signal
    assert len(signal) > 30
    snr = (np.abs(signal) ** 2).mean((1, 2)) / (np.abs(noise) ** 2).mean((1, 2))
    # A mean of 1024 exponential variables is off by 3 % (sigma); of all users' together, by 0.5 %.
    error = snr / 10 ** (snr_db / 10) - 1
    assert np.abs(error).max() < 5 / 32
    assert abs(error.mean()) < 0.02


def test_the_noise_is_circular_white_and_each_users_own(toy_store):
    clean = stored_csi(toy_store)
    signal = real_users(clean).astype(np.complex128)
    noise = real_users(add_noise(clean, 0.0)) - signal
    noise /= np.sqrt((np.abs(noise) ** 2).mean((1, 2), keepdims=True))
    count = noise.size
    assert abs((noise**2).mean()) < 5 / np.sqrt(count)  # real and imaginary part: same variance, uncorrelated
    for axis in (1, 2):
        assert abs((noise * np.roll(noise, 1, axis).conj()).mean()) < 5 / np.sqrt(count)
    flat = noise.reshape(len(noise), -1)
    correlation = np.abs(flat @ flat.conj().T) / 1024
    assert correlation[~np.eye(len(flat), dtype=bool)].max() < 6 / 32


def test_the_snr_counts_all_axes_of_a_user(toy_store):
    clean = derived_csi(toy_store, columns=8, rows=8, frequencies=[0.0, 1e6, 2e6, 3e6])
    noise = add_noise(clean, 20.0).values - clean.values
    power = (np.abs(clean.values[0, 0]) ** 2).mean()
    assert (np.abs(noise[0, 0]) ** 2).mean() == pytest.approx(power / 100, rel=5 / 16)


def test_a_range_of_snr_is_drawn_evenly_per_user(toy_store):
    clean = stored_csi(toy_store)
    signal, noisy = real_users(clean), real_users(add_noise(clean, (0.0, 20.0)))
    drawn = 10 * np.log10((np.abs(signal) ** 2).mean((1, 2)) / (np.abs(noisy - signal) ** 2).mean((1, 2)))
    assert drawn.min() > -1
    assert drawn.max() < 21
    assert abs(drawn.mean() - 10) < 4 * 5.8 / np.sqrt(len(drawn))
    assert drawn.std() > 3


VIEWS = [
    Noise(10.0, 5),
    Noise((0, 20), 5),
    *(Observe(0.25, name, 5) for name in ("random", "columns", "comb", "patches")),
]
VIEWS.append(Chain((Noise(10.0, 5), Observe(0.5, "rows", 5))))


@pytest.mark.parametrize("transform", VIEWS, ids=str)
def test_order_chunks_selection_and_scheduler_change_nothing(toy_store, transform):
    clean = stored_csi(toy_store)
    expected = transform(clean).compute(scheduler="synchronous")
    scenes, users = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(12)
    for other in (
        clean.chunk(scene=4, user=7, x=8, y=-1),
        clean.chunk(scene=-1, user=-1),
        clean.isel(scene=scenes, user=users),
        clean.isel(scene=[4, 1]).chunk(user=3),
        clean.isel(scene=5),
        clean.isel(scene=2, user=3),
        clean.transpose("user", "x", "scene", "y"),
        clean.load().copy(),
    ):
        found = transform(other).compute(scheduler="threads")
        assert found.dims == other.dims
        same = expected.sel(scene=other["scene"], user=other["user"]).transpose(*other.dims)
        np.testing.assert_array_equal(found.values, same.values)


@pytest.mark.parametrize("transform", VIEWS, ids=str)
def test_a_sample_gets_what_the_array_gets(toy_store, transform):
    torch = pytest.importorskip("torch")
    clean = stored_csi(toy_store).load()
    expected = transform(clean)
    for scene, number in ((4, 2), (0, 1)):
        raw = clean.values[scene, number]
        target = expected.isel(scene=scene, user=number)
        sample = {"csi": raw, "scene": scene, "user": number, "height": np.ones(3)}
        before = raw.copy()
        found = transform(sample)
        np.testing.assert_array_equal(found["csi"], target.values)
        assert found["csi"].dtype == np.complex64
        np.testing.assert_array_equal(sample["csi"], before)
        assert found["height"] is sample["height"]
        tensors = transform(
            {"csi": torch.from_numpy(before), "scene": torch.tensor(scene), "user": torch.tensor(number)}
        )
        assert tensors["csi"].dtype == torch.complex64
        np.testing.assert_array_equal(tensors["csi"].numpy(), target.values)
        if "observed" in found:
            assert tensors["observed"].dtype == torch.bool
            np.testing.assert_array_equal(tensors["observed"].numpy(), target["observed"].values)
            np.testing.assert_array_equal(found["observed"], target["observed"].values)


@pytest.mark.parametrize("transform", VIEWS, ids=str)
@pytest.mark.parametrize("wide", [False, True])
def test_a_batch_gets_what_its_samples_get(toy_store, transform, wide):
    torch = pytest.importorskip("torch")
    bands = {"columns": 32, "rows": 32, "frequencies": [0.0, 1e6]}
    clean = derived_csi(toy_store, **bands).load() if wide else stored_csi(toy_store).load()
    scene, number = np.array([4, 0, 4, 1]), np.array([2, 1, 0, 7])
    batch = {"csi": clean.values[scene, number], "scene": scene, "user": number}
    found = transform(batch)
    tensors = transform({name: torch.from_numpy(values) for name, values in batch.items()})
    for row in range(4):
        one = transform({name: values[row] for name, values in batch.items()})
        for name in {"csi", "observed"} & set(one):
            np.testing.assert_array_equal(found[name][row], one[name])
            np.testing.assert_array_equal(tensors[name][row].numpy(), one[name])


def test_the_torch_readers_take_them(toy_store):
    torch_data = pytest.importorskip("wavecity.dataset.torch_data")
    torch_batches = pytest.importorskip("wavecity.dataset.torch_batches")
    view = Chain((Noise(10.0, 5), Observe(0.25, "patches", 5)))
    expected = view(stored_csi(toy_store)).load()
    for sample in torch_data.ChannelDataset(toy_store, fields=("csi",), transform=view):
        target = expected.isel(scene=sample["scene"], user=sample["user"])
        np.testing.assert_array_equal(sample["csi"].numpy(), target.values)
        np.testing.assert_array_equal(sample["observed"].numpy(), target["observed"].values)
    for batch in torch_batches.ShuffledChannels(toy_store, fields=("csi",), batch_size=7, transform=view):
        pairs = (xr.DataArray(batch[name].numpy(), dims="sample") for name in ("scene", "user"))
        target = expected.isel(dict(zip(("scene", "user"), pairs, strict=True)))
        np.testing.assert_array_equal(batch["csi"].numpy(), target.values)
        np.testing.assert_array_equal(batch["observed"].numpy(), target["observed"].values)


def test_seed_scene_and_user_each_change_the_noise(toy_store):
    sample = {"csi": np.ones((4, 4), np.complex64), "scene": 1, "user": 2}
    base = Noise(0.0, 1)(sample)["csi"]
    for other in (Noise(0.0, 2)(sample), Noise(0.0, 1)({**sample, "scene": 2}), Noise(0.0, 1)({**sample, "user": 1})):
        assert (other["csi"] != base).all()


@pytest.mark.parametrize(
    ("pattern", "share", "kept"),
    [
        ("random", 0.25, 256),
        ("random", 0.3, 307),
        ("random", 1e-6, 1),
        ("random", 1.0, 1024),
        ("columns", 0.25, 256),
        ("rows", 0.1, 96),
        ("comb", 0.25, 256),
        ("comb", 1 / 32, 32),
        ("patches", 0.25, 256),
    ],
)
def test_masks_keep_their_share_in_their_pattern(toy_store, pattern, share, kept):
    clean = stored_csi(toy_store)
    partial, mask = observe(clean, share, pattern, seed=2)
    assert mask.dims == clean.dims
    values = mask.values
    assert (values.sum((2, 3)) == kept).all()
    np.testing.assert_array_equal(partial.values, np.where(values, clean.values, 0))
    if pattern in ("columns", "comb"):
        assert (values == values[..., :1]).all()
    if pattern == "rows":
        assert (values == values[..., :1, :]).all()
    if pattern == "comb":
        chosen = values[..., 0]
        np.testing.assert_array_equal(chosen, np.roll(chosen, round(1 / share), -1))
    if pattern == "patches":
        blocks = values.reshape(6, 12, 8, 4, 8, 4)
        assert (blocks.all((3, 5)) == blocks.any((3, 5))).all()
    if 0 < share < 1 and share > 0.01:
        # 72 users: every antenna is chosen by about the same share of them.
        often = values.mean((0, 1))
        assert np.abs(often - kept / 1024).max() < 6 * np.sqrt(share * (1 - share) / 72)


def test_a_mask_is_of_antennas_whatever_else_a_channel_has(toy_store):
    wide = derived_csi(toy_store, columns=8, rows=8, frequencies=[0.0, 1e6])
    partial, mask = observe(wide, 0.5, "random")
    assert mask.dims == ("scene", "user", "x", "y")
    assert partial.dims == wide.dims
    hidden = ~mask.values[:, :, None]
    assert not (partial.values * hidden).any()
    assert (partial.values != 0).sum() == (wide.values != 0).sum() / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda csi: Noise(float("nan")), "snr_db nan"),
        (lambda csi: Noise(float("inf")), "snr_db inf"),
        (lambda csi: Noise((20.0, 0.0)), "lower first"),
        (lambda csi: Noise(10.0, seed=-1), "seed -1"),
        (lambda csi: Observe(0.0), "share 0.0"),
        (lambda csi: Observe(1.5), "share 1.5"),
        (lambda csi: Observe(0.5, "checkers"), "'checkers'.*random, columns"),
        (lambda csi: Observe(0.4, "comb"), "share 0.4"),
        (lambda csi: Observe(patch=0), "patch 0"),
        (lambda csi: Observe(pattern="patches", patch=5)(csi), "patch 5.*32 x 32"),
        (lambda csi: Noise(10.0)(csi.drop_vars("scene_number")), "no coordinate 'scene'"),
        (lambda csi: Noise(10.0)({"csi": np.ones((2, 2)), "user": 1}), "no 'scene'"),
    ],
)
def test_wrong_noise_and_masks_give_one_line(toy_store, make, message):
    with pytest.raises(InputError, match=message) as caught:
        make(stored_csi(toy_store))
    assert "\n" not in str(caught.value)
