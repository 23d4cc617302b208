"""Beams of the paper's Appendix C, and what multi- and single-user precoding share: link, effective channel, power.

Conventions. `csi[..., x, y]` is h of the downlink y = h^H w (eq. 10), flattened in C order, so beam j = kx * Ny + ky
(eq. 14). Beams have norm sqrt(N_t) (eq. 15), not 1. Eqs 8 and 19 define H transposed to each other; here the effective
channel is always H_eff[k, l] = h_k^H a_l, a row for each user. A link's transmit power counts what the antennas
radiate, |F_RF F_BB|_F^2 <= P, with unit-power symbols. Everything is computed in double precision whatever comes in.

No function forms the codebook on its way to a label or a rate: responses to all beams are one FFT, and because beams
are orthogonal (eq. 16) F_RF^H F_RF is N_t where two chains hold the same beam and 0 elsewhere.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.data.tokens import squared

# Thermal noise at 290 K.
THERMAL_NOISE_DBM_HZ = -174.0
# Channels transformed at once: 16 MB of responses to 1024 beams.
CHUNK = 1024


@dataclass(frozen=True)
class Link:
    """Power budget of a downlink."""

    power: float  # Transmit power P, W
    noise: float  # Noise power sigma^2 at each receive antenna, W

    def __post_init__(self) -> None:
        for name, value in (("power", self.power), ("noise", self.noise)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"link {name} is {value} W; give a positive, finite number of watts")

    @classmethod
    def of(cls, power_dbm: float, bandwidth_hz: float, noise_figure_db: float) -> "Link":
        """Build a link from its engineering units; noise is thermal, -174 dBm/Hz, plus the noise figure."""
        if not bandwidth_hz > 0:
            raise ValueError(f"bandwidth is {bandwidth_hz} Hz; give a positive number")
        noise_dbm = THERMAL_NOISE_DBM_HZ + 10 * math.log10(bandwidth_hz) + noise_figure_db
        return cls(10 ** (power_dbm / 10 - 3), 10 ** (noise_dbm / 10 - 3))


def dft_beams(columns: int, rows: int) -> Tensor:
    """All DFT beams of eqs 13-15, literally: complex128 (columns * rows, columns, rows), of norm sqrt(columns * rows).

    Entry [j, n, m] = exp(-j 2 pi (kx n / columns + ky m / rows)) with j = kx * rows + ky.
    """

    def axis(count: int) -> Tensor:
        index = torch.arange(count)
        turns = torch.outer(index, index).remainder(count).double() / count
        return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)

    return torch.einsum("an,bm->abnm", axis(columns), axis(rows)).reshape(columns * rows, columns, rows)


def beam_response(csi: Tensor) -> Tensor:
    """Response h^H a_j to every beam of eq. 15: the 2-D DFT of conj(h), complex (..., x, y) to complex128 (..., x * y).

    Its power is the spectrum |F h|^2 (eq. 5) at the negated index, see
    `wavecity.model.multimodal.inference.beams_of_spectrum`.
    """
    if csi.numel() == 0:  # MKL refuses an empty batch.
        return csi.to(torch.complex128).flatten(-2)
    return torch.fft.fft2(csi.to(torch.complex128).conj()).flatten(-2)


def beam_power(csi: Tensor) -> Tensor:
    """Power |h^H a_j|^2 of every beam: complex (..., x, y) to float64 (..., x * y)."""
    return squared(beam_response(csi))


def best_beams(csi: Tensor) -> Tensor:
    """Strongest beam by exhaustive search (eq. 17), the lowest index of equals: (..., x, y) to int64 (...)."""
    flat = csi.reshape(-1, *csi.shape[-2:])
    return torch.cat([beam_power(part).argmax(-1) for part in flat.split(CHUNK)]).reshape(csi.shape[:-2])


def effective_channel(csi: Tensor, beams: Tensor) -> Tensor:
    """H_eff[r, l] = h_r^H a_l (eq. 19): complex (C, R, x, y) and int64 (C, L) to complex128 (C, R, L)."""
    index = beams[:, None, :].expand(-1, csi.shape[1], -1)
    return beam_response(csi).gather(-1, index)


def same_beams(beams: Tensor) -> Tensor:
    """Where two chains hold one beam, float64 (C, K, K): F_RF^H F_RF / N_t, by eq. 16."""
    return (beams[:, :, None] == beams[:, None, :]).double()


def as_columns(beams: Tensor, columns: int, rows: int) -> Tensor:
    """Codebook's beams as columns: (C, K) to complex128 (C, columns * rows, K)."""
    codebook = dft_beams(columns, rows).flatten(1).to(beams.device)
    return codebook[beams].transpose(1, 2)


def in_own_basis(csi: Tensor) -> Tensor:
    """Rows h_k^H in an orthonormal basis of their span, (C, K, x, y) to (C, K, min(K, N_t)): the Gram matrix stays."""
    return torch.linalg.qr(csi.to(torch.complex128).flatten(-2).transpose(1, 2), mode="r").R.mH


def to_power(radiated: Tensor, power: float) -> Tensor:
    """Amplitude that turns what is radiated into `power`; 0 where nothing is."""
    return torch.where(radiated > 0, power / radiated, 0.0).sqrt()


def water_filling(gain: Tensor, power: float) -> Tensor:
    """Greatest sum of log2(1 + p_k gain_k) with p >= 0 and sum p = power: float64 (C, K) to (C,)."""
    gain = gain.sort(-1, descending=True).values
    # Floors 1 / gain above the lowest one: of many channels the lowest would swallow a small power.
    floor = torch.where(gain > 0, 1 / gain, math.inf)
    floor = torch.where(gain > 0, floor - floor[:, :1], math.inf)
    level = (power + floor.cumsum(-1)) / torch.arange(1, gain.shape[1] + 1, device=gain.device)
    filled = (level > floor).sum(-1, keepdim=True).clamp_min(1)
    share = (level.gather(-1, filled - 1) - floor).clamp_min(0)
    return torch.where(gain > 0, torch.log1p(share * gain), 0.0).sum(-1) / math.log(2)


def chunks(csi: Tensor) -> Iterator[slice]:
    """Slices along the first axis of (C, K, x, y) with about CHUNK channels each; one, empty, where there are none."""
    step = max(CHUNK // max(csi.shape[1], 1), 1)
    return (slice(start, start + step) for start in range(0, max(len(csi), 1), step))


def check_antennas(csi: Tensor, leading: str) -> None:
    """Refuse what is not complex (..., x, y) with the two `leading` axes."""
    if csi.ndim != 4 or not csi.is_complex():
        raise ValueError(f"csi is {csi.dtype} {tuple(csi.shape)}; give a complex tensor ({leading}, x, y)")


def checked_beams(name: str, beams: Tensor, shape: tuple[int, int], codebook: int) -> Tensor:
    """Beams as int64, refused where they are of another shape or outside the codebook."""
    if beams.is_floating_point() or beams.is_complex() or tuple(beams.shape) != shape:
        raise ValueError(f"{name} is {beams.dtype} {tuple(beams.shape)}; give integers {shape}")
    beams = beams.long()
    outside = beams[(beams < 0) | (beams >= codebook)]
    if len(outside):
        raise ValueError(f"{name} holds beam {int(outside[0])}; the codebook has beams 0 to {codebook - 1}")
    return beams
