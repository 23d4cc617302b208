"""Which of several heights a user is likely at, where nobody knows it."""

import torch
from torch import Tensor

from wavecity.model.rays.waves import FLOOR


def likeliest(unexplained: Tensor, score: Tensor, visible: Tensor, noise: Tensor) -> Tensor:
    """The likeliest of H assumed heights of each of B users.

    A wave and its bounce off the ground are apart by an angle that grows with the user's height, so that a wrong height leaves
    more of the channel unexplained; and waves that are followed to a wrong height agree less on a place.

    Parameters
    ----------
    unexplained : float64 (H, B)
        Share of the visible power that is in no wave; see `recover`.
    score : float64 (H, B)
        How well waves agree; see `consensus`.
    visible : complex (B, M)
        Entries of the antennas that are seen.
    noise : float64 (B,)
        Its mean power at an entry; 0 for none.

    Returns
    -------
    int64 (B,)
        The first of equals.

    Examples
    --------
    >>> share = torch.tensor([[0.2], [0.1]], dtype=torch.float64)
    >>> likeliest(share, torch.zeros(2, 1), torch.ones(1, 100, dtype=torch.complex64), torch.full((1,), 0.1)).tolist()
    [1]
    """
    wide = visible.to(torch.complex128)
    power = (wide.real.square() + wide.imag.square()).mean(1)
    left = unexplained * power * visible.shape[1]  # (H, B)
    # What the best of them leaves is noise, rounding, and waves that are too weak to be found.
    least = torch.maximum(noise.double(), FLOOR * power).clamp_min(1e-300)
    variance = torch.maximum(least, left.amin(0) / visible.shape[1])
    return (score - left / variance).argmax(0)
