"""Users located from partial channels and the map, with nothing trained."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.rays.consensus import Estimate, consensus
from wavecity.model.rays.heights import likeliest
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.waves import recover


def locate(
    csi: ArrayLike | Tensor, shown: ArrayLike | Tensor, scene: Surroundings, noise: ArrayLike | Tensor = 0.0
) -> Estimate:
    """Locate the users of one scene: recover their waves, follow them, and see where they agree.

    Parameters
    ----------
    csi : complex (B, x, y)
        In the layout and on the scale of a store, whose magnitude is the root of the power gain: levels are compared with
        Friis' formula. Entries that are not `shown` are not read.
    shown : bool (x, y)
        Antennas that are seen. A regular grid of every second one would leave directions ambiguous.
    scene : Surroundings
        See `surroundings`. With `heights`, waves are recovered and followed for each, and each user's likeliest is taken.
    noise : float or (B,)
        Mean power of the noise of an entry, on the scale of the squared magnitude of `csi`; 0 for none.

    Returns
    -------
    Estimate
        `position` (B, 2), east and north of the base station in m, nan where no wave comes down; `covariance` (B, 2, 2) in
        m^2; `agreeing` (B,), the share of the waves that agree; `height` (B,), the user's in m; and every wave's landing
        points.

    Raises
    ------
    InputError
        Shapes or values that do not go together.

    Examples
    --------
    >>> import wavecity
    >>> store = "runs/quickstart/store"
    >>> data = wavecity.open_store(store)  # doctest: +SKIP
    >>> csi = data.csi.isel(scene=0, user=slice(0, 8)).values  # doctest: +SKIP
    >>> wavecity.locate(csi, np.ones((32, 32), bool), wavecity.surroundings(store, 0)).position.shape  # doctest: +SKIP
    torch.Size([8, 2])
    """
    channels = csi if isinstance(csi, Tensor) else torch.from_numpy(np.array(csi))
    if channels.ndim != 3 or not channels.is_complex() or not len(channels):
        msg = f"csi is {channels.dtype} {tuple(channels.shape)}; give at least one channel, complex (users, x, y)"
        raise InputError(msg)
    device = channels.device
    mask = torch.as_tensor(shown if isinstance(shown, Tensor) else np.array(shown), dtype=torch.bool, device=device)
    if mask.shape != channels.shape[1:] or not mask.any():
        msg = f"shown is {tuple(mask.shape)} with {int(mask.sum())} antennas; give bool {tuple(channels.shape[1:])} with some"
        raise InputError(msg)
    if not channels[:, mask].isfinite().all():
        raise InputError("csi has values that are not finite at antennas that are shown; leave these users out")
    level = torch.as_tensor(noise if isinstance(noise, Tensor) else np.array(noise), dtype=torch.float64, device=device)
    if level.shape not in ((), (len(channels),)) or not (level.isfinite() & (level >= 0)).all():
        msg = f"noise is {tuple(level.shape)}; give one power of 0 or more, or one for each of {len(channels)} users"
        raise InputError(msg)
    level = level.expand(len(channels))
    if not scene.heights:
        return consensus(recover(channels, mask, level, scene.radio), scene)
    assumed = [scene.at_height(height) for height in scene.heights]
    waves = [recover(channels, mask, level, one.radio) for one in assumed]
    found = [consensus(part, one) for part, one in zip(waves, assumed, strict=True)]
    unexplained, score = (
        torch.stack([getattr(one, name) for one in parts]) for name, parts in (("unexplained", waves), ("score", found))
    )
    best = likeliest(unexplained, score, channels[:, mask], level)
    users = torch.arange(len(channels), device=device)
    return Estimate.joined(found).at(best * len(channels) + users)
