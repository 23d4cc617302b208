"""Which of several heights a user is likely at, where nobody knows it."""

import torch
from torch import Tensor


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
    left = unexplained * (wide.real.square() + wide.imag.square()).sum(1)  # (H, B)
    # What the best of them leaves is noise, and waves that are too weak to be found.
    variance = torch.maximum(noise.double(), left.amin(0) / visible.shape[1]).clamp_min(1e-300)
    return (score - left / variance).argmax(0)
