"""Equations 2 to 7 of the paper (arXiv 2602.04016), in their literal form and in a form that trains.

Every function averages over the batch what the equation defines for one sample.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.settings.training import LossSettings

# Under the square roots: their slope at 0 is infinite.
EPSILON = 1e-12


def spectrum(csi: Tensor) -> Tensor:
    """Spatial spectrum S = |F h|^2 (eq. 5): unnormalised 2-D DFT, not shifted, complex (..., x, y) to (..., kx, ky)."""
    return squared(torch.fft.fft2(csi))


def coarse_spectrum(full: Tensor, size: int) -> Tensor:
    """Spectrum as the model predicts it: pooled to size x size bins and of mean 1, (B, kx, ky) to (B, size, size)."""
    pooled = F.adaptive_avg_pool2d(full.unsqueeze(1), size).squeeze(1)
    return pooled / pooled.mean((-2, -1), keepdim=True).clamp_min(torch.finfo(pooled.dtype).tiny)


def csi_literal(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 2 as printed: RMSE of magnitude and of unwrapped phase over masked entries, complex (B, M) each.

    A phase error of 2 pi - d counts as such although it is only d, and the angle's slope at 0 is infinite.
    """
    magnitude = predicted.abs() - target.abs()
    phase = _angle(predicted) - _angle(target)
    return ((magnitude.square() + phase.square()).mean(-1) + EPSILON).sqrt().mean()


def csi_wrapped(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 2 with the phase error as the angle of H_hat conj(H), within (-pi, pi]; shapes of `csi_literal`."""
    magnitude = predicted.abs() - target.abs()
    phase = _angle(predicted * target.conj())
    return ((magnitude.square() + phase.square()).mean(-1) + EPSILON).sqrt().mean()


def csi_nmse(predicted: Tensor, target: Tensor) -> Tensor:
    """Normalised squared error of the complex entries, sum |H_hat - H|^2 / sum |H|^2; shapes of `csi_literal`."""
    error = (predicted - target).abs().square().sum(-1)
    return (error / target.abs().square().sum(-1).clamp_min(EPSILON)).mean()


def _angle(value: Tensor) -> Tensor:
    """Angle whose slope at exactly 0 is 0 instead of not-a-number."""
    zero = value == 0
    return torch.atan2(value.imag.masked_fill(zero, 0.0), value.real.masked_fill(zero, 1.0))


def location_rmse(predicted: Tensor, target: Tensor) -> Tensor:
    """Eq. 3: distance between predicted and true position, (B, 2) each, in the unit of the inputs."""
    return ((predicted - target).square().sum(-1) + EPSILON).sqrt().mean()


def occupancy_bce(logits: Tensor, occupied: Tensor, positive_weight: float = 1.0) -> Tensor:
    """Eq. 4: binary cross-entropy of logits (B, M, c) over the c cells of masked patches; weight 1 is the equation."""
    weight = torch.tensor(positive_weight, dtype=logits.dtype, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits, occupied.to(logits.dtype), pos_weight=weight)


def spectrum_rmse(predicted: Tensor, target: Tensor, alpha: float, epsilon: float) -> Tensor:
    """Eq. 6: alpha RMSE(S) + (1 - alpha) RMSE(log(S + epsilon)), of non-negative (B, kx, ky)."""
    linear = (predicted - target).square().mean((-2, -1))
    logarithmic = ((predicted + epsilon).log() - (target + epsilon).log()).square().mean((-2, -1))
    return (alpha * (linear + EPSILON).sqrt() + (1 - alpha) * (logarithmic + EPSILON).sqrt()).mean()


def spectrum_kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL divergence of the predicted (from its log) from the true spectrum (B, kx, ky), as distributions over bins."""
    true = target.flatten(1)
    true = true / true.sum(-1, keepdim=True).clamp_min(torch.finfo(true.dtype).tiny)
    return F.kl_div(logits.flatten(1).log_softmax(-1), true, reduction="batchmean")


CSI_FORMS = {"nmse": csi_nmse, "wrapped": csi_wrapped, "literal": csi_literal}


def spectrum_loss(raw: Tensor, target: Tensor, settings: LossSettings) -> Tensor:
    """Eq. 6 or its KL form, from the head's raw output (B, kx, ky) and the true spectrum of mean 1."""
    if settings.spectrum_form == "kl":
        return spectrum_kl(raw, target)
    return spectrum_rmse(F.softplus(raw), target, settings.alpha, settings.epsilon)


def total(terms: dict[str, Tensor], settings: LossSettings) -> Tensor:
    """Eq. 7: weighted sum of the terms that a step has (csi, location, occupancy, spectrum)."""
    weighted = [getattr(settings, name) * value for name, value in terms.items()]
    return torch.stack(weighted).sum()
