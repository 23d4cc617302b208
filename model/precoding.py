"""Hybrid precoding of the paper's Appendix C: analog DFT beams, digital RZF or SVD, sum rates and their bounds.

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

# Thermal noise at 290 K.
THERMAL_NOISE_DBM_HZ = -174.0
# RF chains and streams of the single-user link, at both ends.
CHAINS = 2
# Channels transformed at once: 16 MB of responses to 1024 beams.
CHUNK = 1024
# Singular values below this share of the greatest are rounding: two chains with one beam, or a user without a channel.
RANK = 1e-13


@dataclass(frozen=True)
class Link:
    """Power budget of a downlink.

    Attributes
    ----------
    power : float
        Transmit power P, W.
    noise : float
        Noise power sigma^2 at each receive antenna, W.
    """

    power: float
    noise: float

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
    """All DFT beams of eqs 13-15, literally.

    Returns
    -------
    complex128 (columns * rows, columns, rows)
        Entry [j, n, m] = exp(-j 2 pi (kx n / columns + ky m / rows)) with j = kx * rows + ky; norm sqrt(columns * rows).
    """

    def axis(count: int) -> Tensor:
        index = torch.arange(count)
        turns = torch.outer(index, index).remainder(count).double() / count
        return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)

    return torch.einsum("an,bm->abnm", axis(columns), axis(rows)).reshape(columns * rows, columns, rows)


def beam_response(csi: Tensor) -> Tensor:
    """Response h^H a_j to every beam of eq. 15: the 2-D DFT of conj(h).

    Its power is the spectrum |F h|^2 (eq. 5) at the negated index, see `model.inference.beams_of_spectrum`.

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    complex128 (..., x * y)
    """
    if csi.numel() == 0:  # MKL refuses an empty batch.
        return csi.to(torch.complex128).flatten(-2)
    return torch.fft.fft2(csi.to(torch.complex128).conj()).flatten(-2)


def beam_power(csi: Tensor) -> Tensor:
    """Power |h^H a_j|^2 of every beam: complex (..., x, y) to float64 (..., x * y)."""
    return _power(beam_response(csi))


def best_beams(csi: Tensor) -> Tensor:
    """Strongest beam of each channel by exhaustive search (eq. 17); the lowest index of equals.

    Parameters
    ----------
    csi : complex (..., x, y)
        For clusters (C, K, x, y).

    Returns
    -------
    int64 (...)
    """
    flat = csi.reshape(-1, *csi.shape[-2:])
    return torch.cat([beam_power(part).argmax(-1) for part in flat.split(CHUNK)]).reshape(csi.shape[:-2])


def mu_sum_rate(csi: Tensor, beams: Tensor, link: Link, alpha: float | None = None) -> Tensor:
    """Sum rate of K users with the given beams and an RZF baseband precoder (eqs 11, 12 and 18-21).

    Parameters
    ----------
    csi : complex (C, K, x, y)
    beams : int (C, K)
        One for each user; users may share one.
    link : Link
    alpha : float, optional
        Regularisation of eq. 20, in the unit of |H_eff|^2; 0 is zero forcing (by pseudo-inverse where users share a
        beam). Default: N_t K sigma^2 / P. With unit-norm beams it would be the textbook's K sigma^2 / P, which has the
        least mean square error; beams of norm sqrt(N_t) scale H_eff H_eff^H by N_t, and alpha must follow.

    Returns
    -------
    float64 (C,)
        bit/s/Hz.

    Raises
    ------
    ValueError
        Shapes that do not fit, a beam outside the codebook, a negative alpha.
    """
    beams = _checked_clusters(csi, beams)
    rates = []
    for part in _chunks(csi):
        effective = _effective(csi[part], beams[part])
        rates.append(_sum_rate(effective @ _baseband(effective, beams[part], csi, link, alpha), link.noise))
    return torch.cat(rates)


def mu_precoder(csi: Tensor, beams: Tensor, link: Link, alpha: float | None = None) -> tuple[Tensor, Tensor]:
    """Precoder behind `mu_sum_rate`, which takes the same arguments.

    Returns
    -------
    analog : complex128 (C, N_t, K)
        F_RF, eq. 18.
    digital : complex128 (C, K, K)
        F_BB, eq. 20, with beta such that |F_RF F_BB|_F^2 = P (eq. 21); all 0 where no user has a channel.
    """
    beams = _checked_clusters(csi, beams)
    digital = torch.cat(
        [_baseband(_effective(csi[part], beams[part]), beams[part], csi, link, alpha) for part in _chunks(csi)]
    )
    return _columns(beams, csi.shape[-2], csi.shape[-1]), digital


def mu_bound(csi: Tensor, link: Link) -> Tensor:
    """Upper bound of the sum rate of every linear precoder, digital or hybrid.

    Without interference SINR_k (eq. 12) can only grow, and |h_k^H w_k|^2 <= |h_k|^2 |w_k|^2 (Cauchy-Schwarz). So the
    rate is at most that of K parallel channels with gains |h_k|^2 that share P, and water-filling is the best split.
    Users with orthogonal channels reach it.

    Parameters
    ----------
    csi : complex (C, K, x, y)
    link : Link

    Returns
    -------
    float64 (C,)
        bit/s/Hz.
    """
    _check_antennas(csi, "C, K")
    gain = torch.cat([_power(csi[part].to(torch.complex128)).sum((-2, -1)) for part in _chunks(csi)])
    return _water_filling(gain / link.noise, link.power)


def mu_digital_rate(csi: Tensor, link: Link, alpha: float | None = None) -> Tensor:
    """Sum rate of a fully digital RZF precoder, one RF chain for each antenna: for reference, not a bound.

    Parameters
    ----------
    csi : complex (C, K, x, y)
    link : Link
    alpha : float, optional
        Default: K sigma^2 / P.

    Returns
    -------
    float64 (C,)
        bit/s/Hz.
    """
    _check_antennas(csi, "C, K")
    alpha = csi.shape[1] * link.noise / link.power if alpha is None else alpha
    rates = []
    for part in _chunks(csi):
        # In an orthonormal basis of the users' channels the precoder keeps its form and its power.
        effective = _in_own_basis(csi[part])
        digital = _rzf(effective, alpha)
        beta = _to_power(_power(digital).sum((-2, -1)), link.power)
        rates.append(_sum_rate(effective @ (beta[:, None, None] * digital), link.noise))
    return torch.cat(rates)


@dataclass(frozen=True)
class Pairs:
    """Transmit and receive beams of B single-user links, one of each for a chain; the first pair is the dominant one.

    Attributes
    ----------
    tx : int64 (B, 2)
        Base station's beams, index kx * Ny + ky.
    rx : int64 (B, 2)
        User's beams, index kx * rx_rows + ky.
    """

    tx: Tensor
    rx: Tensor


def su_labels(csi: Tensor, receive_shape: tuple[int, int], link: Link) -> Pairs:
    """Beams of two chains by greedy exhaustive search over all pairs (eqs 25-26).

    The first pair maximises eq. 25 for one chain. It is kept, and the second, of another transmit and another receive
    beam, maximises eq. 25 for two. With A = W^H H F and orthogonal beams that is det(I + c A A^H) =
    1 + c |A|_F^2 + c^2 |det A|^2, c = P / (2 sigma^2 N_t N_r).

    Parameters
    ----------
    csi : complex (B, R, x, y)
        One channel for each receive antenna: H[r] = h_r^H.
    receive_shape : (int, int)
        Columns and rows of the user's array, R = columns * rows; antenna r = column * rows + row.
    link : Link

    Returns
    -------
    Pairs

    Raises
    ------
    ValueError
        Shapes that do not fit, fewer than two antennas at an end.
    """
    _check_receiver(csi, receive_shape)
    antennas, elements = csi.shape[1], csi.shape[2] * csi.shape[3]
    snr = link.power / link.noise / (CHAINS * elements * antennas)
    tx, rx = [], []
    for part in _chunks(csi):
        pairs = _beam_pairs(csi[part], receive_shape)
        power = _power(pairs)
        rx_1, tx_1 = _argmax(power)
        row = pairs.gather(1, rx_1[:, None, None].expand(-1, 1, elements))
        column = pairs.gather(2, tx_1[:, None, None].expand(-1, antennas, 1))
        corner = row.gather(2, tx_1[:, None, None])
        determinant = corner * pairs - column * row
        # Without the 1, which would swallow the gain of weak links.
        gain = snr * (_power(corner) + _power(row) + _power(column) + power) + snr**2 * _power(determinant)
        gain.scatter_(1, rx_1[:, None, None].expand(-1, 1, elements), -math.inf)
        gain.scatter_(2, tx_1[:, None, None].expand(-1, antennas, 1), -math.inf)
        rx_2, tx_2 = _argmax(gain)
        rx.append(torch.stack([rx_1, rx_2], 1))
        tx.append(torch.stack([tx_1, tx_2], 1))
    return Pairs(torch.cat(tx), torch.cat(rx))


def su_rate(csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int], link: Link) -> Tensor:
    """Spectral efficiency of two streams over the given beams (eqs 23-24 and 27-29).

    log2 det(I + R_n^-1 T T^H), T = W_BB^H H_eff F_BB, with the noise that the combiner colours,
    R_n = sigma^2 W_BB^H W_RF^H W_RF W_BB. Power is equal over the streams, the paper's SNR / N_s: it sits in F_BB.

    Parameters
    ----------
    csi : complex (B, R, x, y)
    pairs : Pairs
        A beam given twice at one end leaves one stream.
    receive_shape : (int, int)
        As for `su_labels`.
    link : Link

    Returns
    -------
    float64 (B,)
        bit/s/Hz.

    Raises
    ------
    ValueError
        Shapes that do not fit, a beam outside its codebook.
    """
    pairs = _checked_pairs(csi, pairs, receive_shape)
    rates = []
    for part in _chunks(csi):
        chosen = Pairs(pairs.tx[part], pairs.rx[part])
        effective, precoder, combiner = _su_baseband(csi[part], chosen, receive_shape, link)
        received = combiner.mH @ effective @ precoder
        noise = link.noise * csi.shape[1] * combiner.mH @ _same(chosen.rx).to(combiner.dtype) @ combiner
        snr = torch.linalg.pinv(noise, hermitian=True) @ received @ received.mH
        # det(I + X) = 1 + tr X + det X of a 2 x 2 matrix.
        trace = snr.diagonal(dim1=-2, dim2=-1).sum(-1)
        determinant = snr[:, 0, 0] * snr[:, 1, 1] - snr[:, 0, 1] * snr[:, 1, 0]
        rates.append(torch.log1p((trace + determinant).real.clamp_min(0)) / math.log(2))
    return torch.cat(rates)


def su_precoder(
    csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int], link: Link
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Precoder and combiner behind `su_rate`, which takes the same arguments.

    Returns
    -------
    F_RF : complex128 (B, N_t, 2)
    F_BB : complex128 (B, 2, 2)
        Eq. 29, (F_RF^H F_RF)^(-1/2) V, scaled to |F_RF F_BB|_F^2 = P.
    W_RF : complex128 (B, R, 2)
    W_BB : complex128 (B, 2, 2)
        Eq. 29, (W_RF^H W_RF)^(-1/2) U.
    """
    pairs = _checked_pairs(csi, pairs, receive_shape)
    parts = [
        _su_baseband(csi[part], Pairs(pairs.tx[part], pairs.rx[part]), receive_shape, link)[1:] for part in _chunks(csi)
    ]
    precoder, combiner = (torch.cat(values) for values in zip(*parts, strict=True))
    return _columns(pairs.tx, *csi.shape[-2:]), precoder, _columns(pairs.rx, *receive_shape), combiner


def su_bound(csi: Tensor, link: Link) -> Tensor:
    """Capacity of the link's channel H by water-filling over its singular values: no linear processing does better.

    Parameters
    ----------
    csi : complex (B, R, x, y)
    link : Link

    Returns
    -------
    float64 (B,)
        bit/s/Hz.
    """
    _check_antennas(csi, "B, R")
    values = torch.cat([torch.linalg.svdvals(_in_own_basis(csi[part])) for part in _chunks(csi)])
    return _water_filling(values.square() / link.noise, link.power)


def _power(values: Tensor) -> Tensor:
    return values.real.square() + values.imag.square()


def _argmax(values: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the greatest entry of each (R, N): (B, R, N) to int64 (B,), (B,)."""
    best = values.flatten(1).argmax(1)
    return best // values.shape[2], best % values.shape[2]


def _same(beams: Tensor) -> Tensor:
    """Where two chains hold one beam, float64 (C, K, K): F_RF^H F_RF / N_t, by eq. 16."""
    return (beams[:, :, None] == beams[:, None, :]).double()


def _inverse_root(beams: Tensor, elements: int) -> Tensor:
    """Pseudo-inverse square root of F_RF^H F_RF, complex128 (C, K, K).

    A beam that m chains hold gives a block of ones of size m with the one eigenvalue m.
    """
    same = _same(beams)
    return (same / same.sum(-1, keepdim=True) ** 1.5 / math.sqrt(elements)).to(torch.complex128)


def _columns(beams: Tensor, columns: int, rows: int) -> Tensor:
    """Codebook's beams as columns: (C, K) to complex128 (C, columns * rows, K)."""
    codebook = dft_beams(columns, rows).flatten(1).to(beams.device)
    return codebook[beams].transpose(1, 2)


def _effective(csi: Tensor, beams: Tensor) -> Tensor:
    """H_eff[r, l] = h_r^H a_l (eq. 19): complex (C, R, x, y) and int64 (C, L) to complex128 (C, R, L)."""
    index = beams[:, None, :].expand(-1, csi.shape[1], -1)
    return beam_response(csi).gather(-1, index)


def _baseband(effective: Tensor, beams: Tensor, csi: Tensor, link: Link, alpha: float | None) -> Tensor:
    """F_BB of eqs 20-21, complex128 (C, K, K)."""
    elements = csi.shape[-2] * csi.shape[-1]
    alpha = elements * beams.shape[1] * link.noise / link.power if alpha is None else alpha
    digital = _rzf(effective, alpha)
    radiated = elements * (digital.conj() * (_same(beams).to(digital.dtype) @ digital)).real.sum((-2, -1))
    return _to_power(radiated, link.power)[:, None, None] * digital


def _rzf(effective: Tensor, alpha: float) -> Tensor:
    """H^H (H H^H + alpha I)^-1 up to a factor, which beta takes in: (C, K, L) to (C, L, K).

    By singular values s / (s^2 + alpha), so that neither a shared beam nor users of very unequal strength square the
    condition number.
    """
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha is {alpha}; the regularisation of eq. 20 is 0 or positive")
    scale = effective.abs().amax((-2, -1)).clamp_min(1e-100)
    left, values, right = torch.linalg.svd(effective / scale[:, None, None], full_matrices=False)
    weight = values / (values.square() + (alpha / scale.square())[:, None])
    weight = torch.where(values > RANK * values[:, :1], weight, 0.0)
    return right.mH * weight[:, None, :] @ left.mH


def _to_power(radiated: Tensor, power: float) -> Tensor:
    """Amplitude that turns what is radiated into `power`; 0 where nothing is."""
    return torch.where(radiated > 0, power / radiated, 0.0).sqrt()


def _sum_rate(received: Tensor, noise: float) -> Tensor:
    """Sum of log2(1 + SINR) (eqs 11-12) of received[k, j], stream j's amplitude at user k: (C, K, K) to (C,)."""
    power = _power(received)
    signal = power.diagonal(dim1=-2, dim2=-1)
    # Set to 0 rather than subtracted: interference may be far below the signal's rounding error.
    interference = (power - torch.diag_embed(signal)).sum(-1)
    return torch.log1p(signal / (interference + noise)).sum(-1) / math.log(2)


def _su_baseband(
    csi: Tensor, pairs: Pairs, receive_shape: tuple[int, int], link: Link
) -> tuple[Tensor, Tensor, Tensor]:
    """H_eff of eq. 27, F_BB and W_BB of eq. 29; each complex128 (B, 2, 2)."""
    elements = csi.shape[-2] * csi.shape[-1]
    effective = _columns(pairs.rx, *receive_shape).mH @ _effective(csi, pairs.tx)
    scale = effective.abs().amax((-2, -1), keepdim=True).clamp_min(1e-100)
    left, _, right = torch.linalg.svd(effective / scale)
    precoder = _inverse_root(pairs.tx, elements) @ right.mH
    combiner = _inverse_root(pairs.rx, csi.shape[1]) @ left
    radiated = elements * (precoder.conj() * (_same(pairs.tx).to(precoder.dtype) @ precoder)).real.sum((-2, -1))
    return effective, _to_power(radiated, link.power)[:, None, None] * precoder, combiner


def _beam_pairs(csi: Tensor, receive_shape: tuple[int, int]) -> Tensor:
    """W^H H F for the whole codebooks: complex (B, R, x, y) to complex128 (B, R, N_t), receive beam first."""
    combiners = dft_beams(*receive_shape).flatten(1).to(csi.device)
    return combiners.conj() @ beam_response(csi)


def _in_own_basis(csi: Tensor) -> Tensor:
    """Matrix of rows h_k^H in an orthonormal basis of their span: (C, K, x, y) to complex128 (C, K, min(K, N_t)).

    Singular values and Gram matrix stay.
    """
    return torch.linalg.qr(csi.to(torch.complex128).flatten(-2).transpose(1, 2), mode="r").R.mH


def _water_filling(gain: Tensor, power: float) -> Tensor:
    """Greatest sum of log2(1 + p_k gain_k) with p >= 0 and sum p = power: float64 (C, K) to (C,)."""
    gain = gain.sort(-1, descending=True).values
    # Floors 1 / gain above the lowest one: of many channels the lowest would swallow a small power.
    floor = torch.where(gain > 0, 1 / gain, math.inf)
    floor = torch.where(gain > 0, floor - floor[:, :1], math.inf)
    level = (power + floor.cumsum(-1)) / torch.arange(1, gain.shape[1] + 1, device=gain.device)
    filled = (level > floor).sum(-1, keepdim=True).clamp_min(1)
    share = (level.gather(-1, filled - 1) - floor).clamp_min(0)
    return torch.where(gain > 0, torch.log1p(share * gain), 0.0).sum(-1) / math.log(2)


def _chunks(csi: Tensor) -> Iterator[slice]:
    """Slices along the first axis of (C, K, x, y) with about CHUNK channels each; one, empty, where there are none."""
    step = max(CHUNK // max(csi.shape[1], 1), 1)
    return (slice(start, start + step) for start in range(0, max(len(csi), 1), step))


def _check_antennas(csi: Tensor, leading: str) -> None:
    if csi.ndim != 4 or not csi.is_complex():
        raise ValueError(f"csi is {csi.dtype} {tuple(csi.shape)}; give a complex tensor ({leading}, x, y)")


def _checked_beams(name: str, beams: Tensor, shape: tuple[int, int], codebook: int) -> Tensor:
    if beams.is_floating_point() or beams.is_complex() or tuple(beams.shape) != shape:
        raise ValueError(f"{name} is {beams.dtype} {tuple(beams.shape)}; give integers {shape}")
    beams = beams.long()
    outside = beams[(beams < 0) | (beams >= codebook)]
    if len(outside):
        raise ValueError(f"{name} holds beam {int(outside[0])}; the codebook has beams 0 to {codebook - 1}")
    return beams


def _checked_clusters(csi: Tensor, beams: Tensor) -> Tensor:
    _check_antennas(csi, "C, K")
    return _checked_beams("beams", beams, (csi.shape[0], csi.shape[1]), csi.shape[2] * csi.shape[3])


def _check_receiver(csi: Tensor, receive_shape: tuple[int, int]) -> None:
    _check_antennas(csi, "B, R")
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
        _checked_beams("pairs.tx", pairs.tx, shape, elements),
        _checked_beams("pairs.rx", pairs.rx, shape, csi.shape[1]),
    )
