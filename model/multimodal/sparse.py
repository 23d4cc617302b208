"""Masked CSI by sparse Bayesian learning over directions, unrolled, with a prior that the model decodes.

Profile `wavecity`, beyond the paper of `wavecity.model.multimodal.network`. A channel is a sum of few plane waves, so its
covariance is D P D^H: D the oversampled 2-D DFT, P the power of each direction. The visible antennas v determine P by
MacKay's fixed-point iteration (as in M. Tipping, "Sparse Bayesian Learning and the Relevance Vector Machine", JMLR 1, 2001),

    P_k <- mean_k^2 / (1 - variance_k / P_k) = P_k |a_k^H R^-1 h_v|^2 / (a_k^H R^-1 a_k),   R = D_v P D_v^H + s I,

with the posterior mean and variance of direction k; the hidden antennas follow as the conditional mean

    h = D P D_v^H R^-1 h_v .

The covariance depends on differences of positions only, so D is never formed: everything but one solve of the size
of h_v is a fast Fourier transform.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.tokens import squared

# Noise over power, for each visible antenna: at half the least, float32 fails on some channels with 700 antennas.
NOISE, LEAST_NOISE = 1.5e-6, 1e-6
# Largest share of the visible power that known noise may have: a channel of noise alone has a finite ratio too.
MOST_NOISE = 0.95
# A step divides the power of a direction by at most this; what is taken for nothing may come back.
LARGEST_CUT = 1e3
# Channels that are filled in at a time, for memory.
CHUNK = 32


class SparseRecovery(nn.Module):
    """Channels from their visible antennas and a prior over directions, `oversampling` per bin of the DFT and axis.

    Untrained and with a flat prior it is plain sparse Bayesian learning. Training learns three numbers per step (how
    far it goes, how much the prior holds it, the noise) and how much of the zero-filled spectrum it starts from.
    """

    def __init__(self, columns: int, rows: int, oversampling: int, steps: int) -> None:
        super().__init__()
        self.array = (columns, rows)
        self.directions = (oversampling * columns, oversampling * rows)
        # Exponent of the zero-filled spectrum that the iteration starts from.
        self.start = nn.Parameter(torch.ones(1))
        self.pace = nn.Parameter(torch.ones(steps))
        self.trust = nn.Parameter(torch.zeros(steps))
        self.noise = nn.Parameter(torch.full((steps + 1,), math.log(NOISE)))

    def zero_filled(self, visible: Tensor, antennas: Tensor) -> Tensor:
        """Spectrum (B, kx, ky) of mean 1 of visible antennas: complex64 (B, M), indices x * rows + y int64 (B, M)."""
        power = squared(self._analyse(visible, antennas))
        return power / power.mean((-2, -1), keepdim=True).clamp_min(1e-30)

    def forward(self, visible: Tensor, antennas: Tensor, prior: Tensor, known: Tensor | None = None) -> Tensor:
        """Whole channels, complex64 (B, x, y), proportional to the visible ones (see `zero_filled`), phase included.

        `prior`, float32 (B, kx, ky), is the logarithm of the power that each direction is expected to have, up to a
        constant. `known`, float (B,), is the power of the noise over that of the channel, instead of what was learned.
        """
        columns, rows = self.array
        dtype = visible.dtype
        if not self.training:
            # The iteration amplifies the rounding of float32 to some -45 dB of the channel; in training that is cheaper.
            visible, prior = visible.to(torch.complex128), prior.double()
        scale = squared(visible).mean(1, keepdim=True).sqrt().clamp_min(1e-30)  # (B, 1)
        visible = visible / scale  # (B, M)
        lag = self._lags(antennas)  # (B, M, M)
        start = (self.zero_filled(visible, antennas) + 1 / LARGEST_CUT).log()  # (B, kx, ky)
        log_power = self.start * start + prior  # (B, kx, ky)
        for pace, trust, noise in zip(self.pace, self.trust, self.noise, strict=False):
            power = self._normalised(log_power)  # (B, kx, ky)
            inverse = self._inverse(power, lag, noise, known)  # (B, M, M)
            weights = (inverse @ visible[..., None])[..., 0]  # (B, M)
            gain = squared(self._analyse(weights, antennas)) / self._quadratic(inverse, lag)  # (B, kx, ky)
            log_power = power.log() + pace * (gain + 1 / LARGEST_CUT).log() + trust * prior
        power = self._normalised(log_power)
        weights = (self._inverse(power, lag, self.noise[-1], known) @ visible[..., None])[..., 0]
        whole = torch.fft.ifft2(power * self._analyse(weights, antennas), norm="forward")  # (B, kx, ky)
        return (whole[:, :columns, :rows] * scale[..., None]).to(dtype)

    def _normalised(self, log_power: Tensor) -> Tensor:
        """Powers of sum 1, the mean power of `visible` after its scaling."""
        return log_power.flatten(1).softmax(-1).view_as(log_power).clamp_min(1e-12)

    def _analyse(self, values: Tensor, antennas: Tensor) -> Tensor:
        """D_v^H values: complex (B, M) to (B, kx, ky)."""
        columns, rows = self.array
        grid = torch.zeros(len(values), columns * rows, dtype=values.dtype, device=values.device)
        grid = grid.scatter(1, antennas, values).view(-1, columns, rows)
        return torch.fft.fft2(grid, s=self.directions)

    def _lags(self, antennas: Tensor) -> Tensor:
        """Where, in the transform of the powers, the covariance of each pair of antennas lies: (B, M, M)."""
        x, y = antennas // self.array[1], antennas % self.array[1]
        lag_x = (x[:, :, None] - x[:, None, :]) % self.directions[0]
        lag_y = (y[:, :, None] - y[:, None, :]) % self.directions[1]
        return lag_x * self.directions[1] + lag_y

    def _inverse(self, power: Tensor, lag: Tensor, noise: Tensor, known: Tensor | None) -> Tensor:
        """R^-1, complex (B, M, M), in the precision of `power`; the noise is the learned one where none is `known`."""
        correlation = torch.fft.ifft2(power + 0j, norm="forward").flatten(1)
        covariance = correlation.gather(1, lag.flatten(1)).view_as(lag)
        count = lag.shape[-1]
        level = count * noise.exp().clamp_min(LEAST_NOISE)
        if known is not None:
            level = torch.maximum(known.to(power.dtype), level)[:, None, None]
        identity = torch.eye(count, dtype=covariance.dtype, device=covariance.device)
        return torch.cholesky_inverse(torch.linalg.cholesky(covariance + level * identity))

    def _quadratic(self, inverse: Tensor, lag: Tensor) -> Tensor:
        """a^H inverse a for the response a of every direction, real (B, kx, ky)."""
        size = self.directions[0] * self.directions[1]
        sums = torch.zeros(len(inverse), size, dtype=inverse.dtype, device=inverse.device)
        sums = sums.scatter_add(1, lag.flatten(1), inverse.flatten(1)).view(-1, *self.directions)
        return torch.fft.fft2(sums).real.clamp_min(torch.finfo(torch.float32).eps)


@torch.no_grad()
def sparse_bayesian(
    csi: Tensor, shown: Tensor, noise: Tensor | None = None, steps: int = 10, oversampling: int = 4
) -> Tensor:
    """Fill in channels complex64 (B, x, y) from antennas `shown`, bool (x, y): the recovery, flat prior, untrained.

    `noise`, float (B,), is the known mean power of the noise of an entry, on the scale of the squared magnitude of `csi`.
    """
    columns, rows = shown.shape
    recovery = SparseRecovery(columns, rows, oversampling, steps)
    antennas = shown.flatten().nonzero()[:, 0]
    parts = []
    levels = csi.real.new_zeros(len(csi), dtype=torch.float64) if noise is None else noise.double()
    for visible, level in zip(csi[:, shown].split(CHUNK), levels.split(CHUNK), strict=True):
        prior = torch.zeros(len(visible), *recovery.directions)
        share = (level / squared(visible.to(torch.complex128)).mean(1).clamp_min(1e-300)).clamp_max(MOST_NOISE)
        known = None if noise is None else share / (1 - share)
        parts.append(recovery(visible, antennas.expand(len(visible), -1), prior, known))
    return torch.cat(parts)


def enlarge(maps: Tensor, scale: int) -> Tensor:
    """Interpolate periodic maps, (B, c, kx, ky) to `scale` times as many bins along either axis."""
    if scale == 1:
        return maps
    # One cell of circular margin makes the interpolation periodic; it is cut off again.
    padded = F.pad(maps, (1, 1, 1, 1), mode="circular")
    fine = F.interpolate(padded, scale_factor=scale, mode="bilinear")
    return fine[..., scale:-scale, scale:-scale]
