"""Hybrid precoding and combining for a user of several antennas: beam pairs, SVD, rates and bounds (Appendix C.2).

Conventions are those of `wavecity.model.tasks.beams.link`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.tasks.beams import link as common

# RF chains and streams of the single-user link, at both ends.
CHAINS = 2


@dataclass(frozen=True)
class Pairs:
    """Transmit and receive beams of B single-user links, one of each for a chain; the first pair is the dominant one."""

    tx: Tensor  # int64 (B, 2); base station's beams, index kx * Ny + ky
    rx: Tensor  # int64 (B, 2); user's beams, index kx * rx_rows + ky


def su_labels(csi: Tensor, receive_shape: tuple[int, int], link: common.Link) -> Pairs:
    """Beams of two chains by greedy exhaustive search over all pairs (eqs 25-26).

    The first pair maximises eq. 25 for one chain. It is kept, and the second, of another transmit and another receive
    beam, maximises eq. 25 for two. With A = W^H H F and orthogonal beams that is det(I + c A A^H) = 1 + c |A|_F^2 + c^2
    |det A|^2, c = P / (2 sigma^2 N_t N_r).

    Channels are complex (B, R, x, y), H[r] = h_r^H for each receive antenna; `receive_shape` are columns and rows of
    the user's array, antenna r = column * rows + row. Shapes that do not fit, or one antenna at an end, raise
    ValueError.
    """
    _check_receiver(csi, receive_shape)
    antennas, elements = csi.shape[1], csi.shape[2] * csi.shape[3]
    snr = link.power / link.noise / (CHAINS * elements * antennas)
    tx, rx = [], []
    for part in common.chunks(csi):
        pairs = _beam_pairs(csi[part], receive_shape)
        power = squared(pairs)
        rx_1, tx_1 = _argmax(power)
        row = pairs.gather(1, rx_1[:, None, None].expand(-1, 1, elements))
        column = pairs.gather(2, tx_1[:, None, None].expand(-1, antennas, 1))
        corner = row.gather(2, tx_1[:, None, None])
        determinant = corner * pairs - column * row
        # Without the 1, which would swallow the gain of weak links.
        gain = snr * (squared(corner) + squared(row) + squared(column) + power) + snr**2 * squared(determinant)
        gain.scatter_(1, rx_1[:, None, None].expand(-1, 1, elements), -math.inf)
        gain.scatter_(2, tx_1[:, None, None].expand(-1, antennas, 1), -math.inf)
        rx_2, tx_2 = _argmax(gain)
        rx.append(torch.stack([rx_1, rx_2], 1))
        tx.append(torch.stack([tx_1, tx_2], 1))
    return Pairs(torch.cat(tx), torch.cat(rx))


def su_rate(csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int], link: common.Link) -> Tensor:
    """Spectral efficiency, float64 (B,) in bit/s/Hz, of two streams over the given beams (eqs 23-24 and 27-29).

    log2 det(I + R_n^-1 T T^H), T = W_BB^H H_eff F_BB, with the noise that the combiner colours, R_n = sigma^2 W_BB^H
    W_RF^H W_RF W_BB. Power is equal over the streams, the paper's SNR / N_s: it sits in F_BB. Channels and
    `receive_shape` are as for `su_labels`; a beam given twice at one end leaves one stream. Shapes that do not fit, or
    a beam outside its codebook, raise ValueError.
    """
    pairs = _checked_pairs(csi, pairs, receive_shape)
    rates = []
    for part in common.chunks(csi):
        chosen = Pairs(pairs.tx[part], pairs.rx[part])
        effective, precoder, combiner = _su_baseband(csi[part], chosen, receive_shape, link)
        received = combiner.mH @ effective @ precoder
        noise = link.noise * csi.shape[1] * combiner.mH @ common.same_beams(chosen.rx).to(combiner.dtype) @ combiner
        snr = torch.linalg.pinv(noise, hermitian=True) @ received @ received.mH
        # det(I + X) = 1 + tr X + det X of a 2 x 2 matrix.
        trace = snr.diagonal(dim1=-2, dim2=-1).sum(-1)
        determinant = snr[:, 0, 0] * snr[:, 1, 1] - snr[:, 0, 1] * snr[:, 1, 0]
        rates.append(torch.log1p((trace + determinant).real.clamp_min(0)) / math.log(2))
    return torch.cat(rates)


def su_bound(csi: Tensor, link: common.Link) -> Tensor:
    """Capacity of channels (B, R, x, y), float64 (B,) in bit/s/Hz, by water-filling over their singular values."""
    common.check_antennas(csi, "B, R")
    values = torch.cat([torch.linalg.svdvals(common.in_own_basis(csi[part])) for part in common.chunks(csi)])
    return common.water_filling(values.square() / link.noise, link.power)


def _su_baseband(
    csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int], link: common.Link
) -> tuple[Tensor, Tensor, Tensor]:
    """H_eff of eq. 27, F_BB and W_BB of eq. 29; each complex128 (B, 2, 2)."""
    elements = csi.shape[-2] * csi.shape[-1]
    effective = common.as_columns(pairs.rx, *receive_shape).mH @ common.effective_channel(csi, pairs.tx)
    scale = effective.abs().amax((-2, -1), keepdim=True).clamp_min(1e-100)
    left, _, right = torch.linalg.svd(effective / scale)
    precoder = _inverse_root(pairs.tx, elements) @ right.mH
    combiner = _inverse_root(pairs.rx, csi.shape[1]) @ left
    radiated = elements * (precoder.conj() * (common.same_beams(pairs.tx).to(precoder.dtype) @ precoder)).real.sum(
        (-2, -1)
    )
    return effective, common.to_power(radiated, link.power)[:, None, None] * precoder, combiner


def _beam_pairs(csi: Tensor, receive_shape: tuple[int, int]) -> Tensor:
    """W^H H F for the whole codebooks: complex (B, R, x, y) to complex128 (B, R, N_t), receive beam first."""
    combiners = common.dft_beams(*receive_shape).flatten(1).to(csi.device)
    return combiners.conj() @ common.beam_response(csi)


def _inverse_root(beams: Tensor, elements: int) -> Tensor:
    """Pseudo-inverse square root of F_RF^H F_RF, complex128 (C, K, K).

    A beam that m chains hold gives a block of ones of size m with the one eigenvalue m.
    """
    same = common.same_beams(beams)
    return (same / same.sum(-1, keepdim=True) ** 1.5 / math.sqrt(elements)).to(torch.complex128)


def _argmax(values: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the greatest entry of each (R, N): (B, R, N) to int64 (B,), (B,)."""
    best = values.flatten(1).argmax(1)
    return best // values.shape[2], best % values.shape[2]


def _check_receiver(csi: Tensor, receive_shape: tuple[int, int]) -> None:
    common.check_antennas(csi, "B, R")
    columns, rows = receive_shape
    if columns < 1 or rows < 1 or columns * rows != csi.shape[1]:
        raise ValueError(
            f"receive_shape {columns} x {rows} does not fit csi {tuple(csi.shape)} (B, R, x, y): R differs"
        )
    if csi.shape[1] < CHAINS or csi.shape[2] * csi.shape[3] < CHAINS:
        raise ValueError(
            f"csi {tuple(csi.shape)} (B, R, x, y) has one antenna at an end; {CHAINS} chains need {CHAINS}"
        )


def _checked_pairs(csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int]) -> Pairs:
    _check_receiver(csi, receive_shape)
    shape, elements = (len(csi), CHAINS), csi.shape[2] * csi.shape[3]
    return Pairs(
        common.checked_beams("pairs.tx", pairs.tx, shape, elements),
        common.checked_beams("pairs.rx", pairs.rx, shape, csi.shape[1]),
    )
