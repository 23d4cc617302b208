"""Users located from partial channels and the map, with nothing trained."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from wavecity.model.rays.consensus import Estimate, consensus
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.waves import recover


def locate(
    csi: ArrayLike | Tensor, shown: ArrayLike | Tensor, scene: Surroundings, noise: ArrayLike | Tensor = 0.0
) -> Estimate:
    """Locate the users of one scene: recover their waves, follow them, and see where they agree.

    Parameters
    ----------
    csi : complex (B, x, y)
        In the layout of a store; entries that are not `shown` are not read.
    shown : bool (x, y)
        Antennas that are seen.
    scene : Surroundings
        See `surroundings`.
    noise : float or (B,)
        Mean power of the noise of an entry, on the scale of the squared magnitude of `csi`; 0 for none.

    Returns
    -------
    Estimate
        `position` (B, 2), east and north of the base station in m, nan where no wave comes down; `covariance` (B, 2, 2) in
        m^2; `agreeing` (B,), the share of the waves that agree; and every wave's landing points.

    Examples
    --------
    >>> import wavecity
    >>> store = "runs/quickstart/store"
    >>> data = wavecity.open_store(store)  # doctest: +SKIP
    >>> csi = data.csi.isel(scene=0, user=slice(0, 8)).values  # doctest: +SKIP
    >>> wavecity.locate(csi, np.ones((32, 32), bool), wavecity.surroundings(store, 0)).position.shape  # doctest: +SKIP
    torch.Size([8, 2])
    """
    channels = torch.as_tensor(csi)
    level = torch.as_tensor(noise, dtype=torch.float64, device=channels.device).expand(len(channels))
    waves = recover(channels, torch.as_tensor(shown, dtype=torch.bool, device=channels.device), level, scene.radio)
    return consensus(waves, scene)
