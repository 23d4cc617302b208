"""The waves of a channel against theory: street users, noise, the Cramér-Rao bound."""

import math

import numpy as np
import pytest
import torch
from ray_channels import RADIO, cosines, plane, two_rays

from wavecity.model.data.noise import gaussian
from wavecity.model.rays.dictionary import Dictionary
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.waves import recover

EVERY = torch.ones(16, 16, dtype=torch.bool)


def test_a_street_user_is_one_wave_with_its_bounce() -> None:
    place = np.array([[20.0, -60.0, 1.5], [-35.0, -110.0, 1.5], [3.0, -25.0, 1.5], [60.0, -150.0, 1.5]])
    csi = torch.from_numpy(two_rays(place))
    waves = recover(csi, EVERY, torch.zeros(4), RADIO, waves=1)
    assert waves.bounced[:, 0].all()
    assert waves.direction[:, 0].numpy() == pytest.approx(cosines(place), abs=1e-6)
    length = np.linalg.norm(place - [0, 0, 15], axis=1)
    assert waves.gain[:, 0].abs().numpy() == pytest.approx(RADIO.wavelength / (4 * math.pi * length), rel=1e-4)
    assert waves.unexplained.max() < 1e-8
    # One wave without the bounce would be metres off: what a peak of the spectrum shows is a mixture of two.
    assert waves.channel(RADIO, 16, 16).numpy() == pytest.approx(csi.numpy(), abs=1e-4 * csi.abs().max().item())


def test_errors_are_those_of_the_cramer_rao_bound() -> None:
    draws, size = 300, 24  # with fewer antennas or more noise it may lock on to another turn of the bounce's phase
    rng = np.random.default_rng(3)
    place = np.repeat([[25.0, -70.0, 1.5]], draws, 0)
    csi = torch.from_numpy(two_rays(place, size))
    shown = torch.from_numpy(rng.random((size, size)) < 0.5)
    noise = csi.abs().square().mean((1, 2)) * 10**-2.0
    noisy = csi + noise.sqrt()[:, None, None] * gaussian(rng, tuple(csi.shape))
    waves = recover(noisy, shown, noise, RADIO, waves=1)
    error = waves.direction[:, 0].numpy() - cosines(place)

    # The bound from the channel's own derivatives, by differences: unknown are both cosines and a complex gain.
    def signal(values: np.ndarray) -> np.ndarray:
        east, down, real, imaginary = values
        ahead = math.sqrt(1 - east**2 - down**2)
        user = 13.5 / down * np.array([east, -ahead, 0]) + [0, 0, 1.5]
        return ((real + 1j * imaginary) * two_rays(user[None], size) / (RADIO.wavelength / (4 * np.pi * 13.5 / down)))[
            0
        ][shown]

    length = float(np.linalg.norm(place[0] - [0, 0, 15]))
    at = np.array([*cosines(place[:1])[0], RADIO.wavelength / (4 * math.pi * length), 0.0])
    steps = np.array([1e-7, 1e-7, 1e-9, 1e-9])
    # The direct ray's phase by its length is part of the gain: taken out, so that only what an array sees is left.
    columns = []
    for axis in range(4):
        step = np.eye(4)[axis] * steps
        turn = [np.exp(2j * np.pi * 13.5 / (at + sign * step)[1] / RADIO.wavelength) for sign in (1, -1)]
        columns.append((signal(at + step) * turn[0] - signal(at - step) * turn[1]) / (2 * steps[axis]))
    fisher = 2 / float(noise[0]) * np.real(np.conj(columns) @ np.transpose(columns))
    bound = np.linalg.inv(fisher)[:2, :2]
    normed = np.einsum("ni,ij,nj->n", error, np.linalg.inv(bound), error)
    assert normed.mean() == pytest.approx(2.0, rel=0.2)  # chi-squared with two degrees of freedom
    stated = waves.covariance[:, 0].numpy().mean(0)
    assert np.diag(stated) == pytest.approx(np.diag(bound), rel=0.25)


def test_noise_is_not_taken_for_a_third_wave() -> None:
    rng = np.random.default_rng(5)
    place = np.array([[20.0, -60.0, 1.5], [-50.0, -80.0, 1.5]])
    csi = torch.from_numpy(two_rays(place, 32)[:1] + 0.3 * two_rays(place, 32)[1:])
    noise = csi.abs().square().mean((1, 2)) / 100
    noisy = (csi + noise.sqrt()[:, None, None] * gaussian(rng, (12, 32, 32))).to(torch.complex64)
    every = torch.ones(32, 32, dtype=torch.bool)
    waves = recover(noisy, every, noise.expand(12), RADIO)
    assert (waves.found.sum(1) == 2).float().mean() > 0.9
    assert (waves.direction[:, :2] - torch.from_numpy(cosines(place))).abs().median() < 1e-3
    # Alone or among others, and with an empty channel between them.
    alone = recover(noisy[3:4], every, noise, RADIO)
    torch.testing.assert_close(alone.direction[:, :2], waves.direction[3:4, :2], rtol=0, atol=1e-7)
    silent = recover(torch.zeros(2, 32, 32, dtype=torch.complex64), every, torch.zeros(2), RADIO)
    assert not silent.found.any()


def test_the_waves_of_a_channel_are_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(8)
    place = np.array(
        [[20.0, -60.0, 1.5], [-50.0, -80.0, 1.5], [5.0, -40.0, 1.5], [70.0, -120.0, 1.5], [-30.0, -150.0, 1.5]]
    )
    one_by_one = two_rays(place)
    csi = torch.from_numpy(np.stack([one_by_one[:count].sum(0) for count in (1, 2, 5, 3)]))
    noise = csi.abs().square().mean((1, 2)) / 100
    noisy = csi + noise.sqrt()[:, None, None] * gaussian(rng, tuple(csi.shape))
    together = recover(noisy, EVERY, noise, RADIO)
    assert len(set(together.found.sum(1).tolist())) > 1
    for index in range(4):
        alone = recover(noisy[index : index + 1], EVERY, noise[index : index + 1], RADIO)
        torch.testing.assert_close(alone.direction[0], together.direction[index], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frequency", "bs_height", "user_height"),
    [(28.5e9, 15.0, 8.0), (100e9, 15.0, 1.5), (28.5e9, 50.0, 4.0), (3.5e9, 15.0, 1.5)],
)
def test_other_carriers_and_heights(frequency: float, bs_height: float, user_height: float) -> None:
    radio = Radio(frequency, 0.5, bs_height, user_height, 5.24 - 0.4j)
    down = torch.tensor([0.09, 0.17, 0.31], dtype=torch.float64)
    direction = torch.stack((torch.tensor([0.3, -0.2, 0.05], dtype=torch.float64), down), -1)
    ratio, shrunk, steeper = radio.ground_bounce(down)
    bounced = torch.stack((direction[:, 0] * shrunk, steeper), -1)
    csi = plane(direction.numpy(), 32) + ratio.numpy()[:, None, None] * plane(bounced.numpy(), 32)
    waves = recover(torch.from_numpy(csi), torch.ones(32, 32, dtype=torch.bool), torch.full((3,), 1e-3), radio, waves=1)
    assert waves.direction[:, 0].numpy() == pytest.approx(direction.numpy(), abs=1e-4)


@pytest.mark.parametrize("rows", [8, 9])
def test_products_of_waves_with_panels_are_sums_over_antennas(rows: int) -> None:
    rng = np.random.default_rng(6)
    dictionary = Dictionary(torch.from_numpy(rng.random((6, rows)) < 0.6), RADIO)
    panels = rng.normal(size=(2, 3, 6, rows)) + 1j * rng.normal(size=(2, 3, 6, rows))
    x, y = np.arange(6) - 2.5, np.arange(rows) - (rows - 1) / 2
    down = rng.uniform(-0.5, 0.9, (2, 5))
    for count in (1, 5):
        east = rng.uniform(-0.5, 0.5, (2, count))
        found = dictionary._correlate(*(torch.from_numpy(part) for part in (panels, east, down)))
        wave_x = np.exp(-1j * np.pi * x * np.broadcast_to(east, (2, 5))[..., None])
        wave_y = np.exp(-1j * np.pi * y * down[..., None])
        assert found.numpy() == pytest.approx(np.einsum("bpxy,bcx,bcy->bpc", panels, wave_x, wave_y), abs=1e-4)
    direction = torch.from_numpy(rng.uniform([-0.5, 0.1], [0.5, 0.6], (2, 4, 2)))
    bounced = torch.from_numpy(rng.random((2, 4)) < 0.5)
    torch.testing.assert_close(dictionary.pairs(direction, bounced), dictionary.atoms(direction, bounced)[0])
