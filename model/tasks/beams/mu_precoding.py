"""Hybrid precoding for several single-antenna users: analog DFT beams, digital RZF, sum rates and bounds (Appendix C.1).

Conventions are those of `wavecity.model.tasks.beams.link`.
"""

import math

import torch
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.tasks.beams import link as common

# Singular values below this share of the greatest are rounding: two chains with one beam, or a user without a channel.
RANK = 1e-13


def mu_sum_rate(csi: Tensor, beams: Tensor, link: common.Link, alpha: float | None = None) -> Tensor:
    """Sum rate of K users with given beams and an RZF baseband precoder (eqs 11, 12, 18-21), float64 (C,), bit/s/Hz.

    Channels are complex (C, K, x, y); `beams`, int (C, K), has one for each user, who may share it. `alpha` of eq. 20
    is in the unit of |H_eff|^2; 0 is zero forcing (by pseudo-inverse where users share a beam). Its default is N_t K
    sigma^2 / P. With unit-norm beams it would be the textbook's K sigma^2 / P, which has the least mean square error;
    beams of norm sqrt(N_t) scale H_eff H_eff^H by N_t, and alpha must follow. Shapes that do not fit, a beam outside
    the codebook or a negative alpha raise ValueError.
    """
    beams = _checked_clusters(csi, beams)
    rates = []
    for part in common.chunks(csi):
        effective = common.effective_channel(csi[part], beams[part])
        rates.append(_sum_rate(effective @ _baseband(effective, beams[part], csi, link, alpha), link.noise))
    return torch.cat(rates)


def mu_bound(csi: Tensor, link: common.Link) -> Tensor:
    """Upper bound, float64 (C,) in bit/s/Hz, of the sum rate of every linear precoder, digital or hybrid: (C, K, x, y).

    Without interference SINR_k (eq. 12) can only grow, and |h_k^H w_k|^2 <= |h_k|^2 |w_k|^2 (Cauchy-Schwarz). So the
    rate is at most that of K parallel channels with gains |h_k|^2 that share P, and water-filling is the best split.
    Users with orthogonal channels reach it.
    """
    common.check_antennas(csi, "C, K")
    gain = torch.cat([squared(csi[part].to(torch.complex128)).sum((-2, -1)) for part in common.chunks(csi)])
    return common.water_filling(gain / link.noise, link.power)


def mu_digital_rate(csi: Tensor, link: common.Link, alpha: float | None = None) -> Tensor:
    """As `mu_sum_rate` by fully digital RZF, an RF chain per antenna: a reference, no bound. Alpha: K sigma^2 / P."""
    common.check_antennas(csi, "C, K")
    alpha = csi.shape[1] * link.noise / link.power if alpha is None else alpha
    rates = []
    for part in common.chunks(csi):
        # In an orthonormal basis of the users' channels the precoder keeps its form and its power.
        effective = common.in_own_basis(csi[part])
        digital = _rzf(effective, alpha)
        beta = common.to_power(squared(digital).sum((-2, -1)), link.power)
        rates.append(_sum_rate(effective @ (beta[:, None, None] * digital), link.noise))
    return torch.cat(rates)


def _baseband(effective: Tensor, beams: Tensor, csi: Tensor, link: common.Link, alpha: float | None) -> Tensor:
    """F_BB of eqs 20-21, complex128 (C, K, K)."""
    elements = csi.shape[-2] * csi.shape[-1]
    alpha = elements * beams.shape[1] * link.noise / link.power if alpha is None else alpha
    digital = _rzf(effective, alpha)
    radiated = elements * (digital.conj() * (common.same_beams(beams).to(digital.dtype) @ digital)).real.sum((-2, -1))
    return common.to_power(radiated, link.power)[:, None, None] * digital


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


def _sum_rate(received: Tensor, noise: float) -> Tensor:
    """Sum of log2(1 + SINR) (eqs 11-12) of received[k, j], stream j's amplitude at user k: (C, K, K) to (C,)."""
    power = squared(received)
    signal = power.diagonal(dim1=-2, dim2=-1)
    # Set to 0 rather than subtracted: interference may be far below the signal's rounding error.
    interference = (power - torch.diag_embed(signal)).sum(-1)
    return torch.log1p(signal / (interference + noise)).sum(-1) / math.log(2)


def _checked_clusters(csi: Tensor, beams: Tensor) -> Tensor:
    common.check_antennas(csi, "C, K")
    return common.checked_beams("beams", beams, (csi.shape[0], csi.shape[1]), csi.shape[2] * csi.shape[3])
