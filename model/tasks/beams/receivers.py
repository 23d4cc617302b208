"""Receivers of the precoding tasks: their channels, with several antennas where asked for, and what is seen of them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.data.noise import add_noise, gaussian, noise_power
from wavecity.model.data.tokens import csi_patches, level, take, visible_rms
from wavecity.model.data.users import Users, WirelessData, collate, dataset_version, evenly
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.results.records import Facts
from wavecity.model.settings.training import LinkSettings
from wavecity.model.tasks.beams.link import Link, beam_power

# Channels transformed at a time.
CHUNK = 1024
# Stream of random numbers.
NOISE = 42


def receivers(data: WirelessData, split: str, limit: int, columns: int, rows: int) -> tuple[Users, Tensor]:
    """Users evenly spread over a split, and their channels at a panel of R antennas, complex64 (N, R, x, y).

    The panel is that of `wavecity.dataset.views`: isotropic elements half a wavelength apart, upright, boresight east,
    the same way for every user, and centred on the position whose single-antenna channel is stored; antenna (column,
    row) is at column * rows + row. Users in outage are left out. A store without paths is refused, or one that was
    published anew since.
    """
    samples = data.splits[split]
    picked = evenly(len(samples), limit).numpy()
    users = collate(samples.__getitems__([int(index) for index in picked]))
    csi = torch.from_numpy(panel_channels(data, samples.scene_index[picked], samples.user_index[picked], columns, rows))
    kept = torch.nonzero((csi != 0).flatten(1).any(1))[:, 0]
    return users.at(kept), csi[kept]


def panel_channels(
    data: WirelessData, scene: NDArray[np.int64], user: NDArray[np.int64], columns: int, rows: int
) -> NDArray[np.complex64]:
    """Channels (N, R, x, y) of users (N,) of a store, from its paths."""
    # xarray and dask are only needed here.
    from wavecity.dataset.views import ReceiverSettings, derived_csi

    if (version := dataset_version(data.name)) != data.version:
        msg = f"{data.name}: version {version[:12]} was published since {data.version[:12]} was opened; evaluate again"
        raise InputError(msg)
    view = derived_csi(data.name, receiver=ReceiverSettings(columns=columns, rows=rows))
    csi = np.empty((len(scene), *view.shape[2:]), np.complex64)
    for row in np.unique(scene):
        here = np.flatnonzero(scene == row)
        csi[here] = view.isel(scene=row, user=user[here]).values
    return csi


def in_chunks(function: Callable[[Tensor], Tensor], csi: Tensor) -> Tensor:
    """Apply a function to some channels at a time: what it needs meanwhile stays small."""
    return torch.cat([function(part) for part in csi.split(CHUNK)])


def raw_entries(predictor: TaskModel, csi: Tensor, visible: Tensor) -> Tensor:
    """Baseline's features of channels (N, x, y): visible entries of RMS 1, and their level as the model is given it.

    Of patches int64 (v,), float32 (N, 2 * entries + 1): 97 numbers for 3 patches of 16 antennas.
    """

    def entries(part: Tensor) -> Tensor:
        patches, index = csi_patches(part, predictor.patch), visible.expand(len(part), -1)
        rms = visible_rms(patches, index)
        scaled = (take(patches, index).flatten(1).double() / rms[:, None]).float()
        return torch.cat((scaled, level(rms, predictor.statistics)), 1)

    return in_chunks(entries, csi)


def with_channel(users: Users) -> Users:
    """Those that are not in outage."""
    return users.at(torch.nonzero((users.csi != 0).flatten(1).any(1))[:, 0])


def seen_at(csi: Tensor, snr: float | None, seed: int, part: int) -> tuple[Tensor, Tensor]:
    """Channels complex64 (N, ...) as the methods see them, and the mean power of the noise of an entry, float64 (N,).

    At `snr` dB, or without noise. Parts have other noise.
    """
    if snr is None:
        return csi, torch.zeros(len(csi), dtype=torch.float64)
    rng = np.random.default_rng([seed, NOISE, part])
    noisy = torch.cat([add_noise(chunk, snr, gaussian(rng, tuple(chunk.shape))) for chunk in csi.split(CHUNK)])
    return noisy, noise_power(csi, snr)


def check_level(data: WirelessData) -> None:
    """Refuse normalised channels without gains, whose level means nothing: no rate follows from a power budget."""
    if data.attributes.get("imported", {}).get("level") == "normalised":
        msg = f"{data.name}: normalised channels, so that there is no SNR and no rate; import them with path_gain"
        raise InputError(msg)


def link_of(settings: LinkSettings) -> Link:
    """Powers of a recipe's link."""
    return Link.of(settings.power_dbm, settings.bandwidth, settings.noise_figure)


def link_facts(settings: LinkSettings, csi: Tensor) -> Facts:
    """Power budget, and percentiles over channels (N, x, y) of the SNR of the strongest beam at one antenna."""
    link, antennas = link_of(settings), csi.shape[1] * csi.shape[2]
    strongest = in_chunks(lambda part: beam_power(part).amax(1), csi) * link.power / (antennas * link.noise)
    percentiles = np.percentile(10 * np.log10(strongest.numpy()), (5, 50, 95))
    return {
        "link": settings.model_dump(mode="json"),
        "snr_of_best_beam_db": {f"percentile_{p}": float(v) for p, v in zip((5, 50, 95), percentiles, strict=True)},
    }
