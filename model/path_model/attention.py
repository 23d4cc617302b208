"""What [PHYSC] of the path model attends to: waves, places and cells of the map, layer by layer."""

import torch
from torch import Tensor, nn

from wavecity.model.path_model.front import Fronts
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import SCENE_TOKENS, BiasedBlock, PathModel

# Kinds of tokens, in their order.
KINDS = ("itself", "waves", "places", "map")


@torch.no_grad()
def physc_attention(model: PathModel, fronts: Fronts, sites: Sites) -> Tensor:
    """Weights with which [PHYSC] attends to the N tokens of B users, mean over the heads, by layer.

    Parameters
    ----------
    model : PathModel
    fronts : Fronts
    sites : Sites

    Returns
    -------
    float32 (layers, B, N)
        Of sum 1 over the tokens, in the order of `KINDS`; what is not there has 0.

    Examples
    --------
    >>> weights = physc_attention(predictor.model, fronts, predictor.sites(users))  # doctest: +SKIP
    >>> itself, waves, places, cells = by_kind(weights, fronts)  # doctest: +SKIP
    """
    layers: list[Tensor] = []

    def keep(block: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        assert isinstance(block, BiasedBlock)
        layers.append(_first_row(block, *arguments))

    hooks = [block.register_forward_pre_hook(keep) for block in model.blocks]
    try:
        model(fronts, sites)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers)


def by_kind(weights: Tensor, fronts: Fronts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split weights (..., N) by `KINDS`: (..., 1), (..., K), (..., C), and (..., cells, cells) with row 0 = north."""
    counts = [1, fronts.found.shape[1], fronts.place.shape[1], SCENE_TOKENS**2]
    itself, waves, places, cells = weights.split(counts, -1)
    return itself, waves, places, cells.unflatten(-1, (SCENE_TOKENS, SCENE_TOKENS))


def _first_row(block: BiasedBlock, tokens: Tensor, bias: Tensor) -> Tensor:
    """Weights of the first of tokens (B, N, d) under a bias (B, heads, N, N), mean over the heads: (B, N)."""
    query, key, _ = block.projected(tokens)
    scores = query[:, :, :1] @ key.mT / key.shape[-1] ** 0.5 + bias[:, :, :1]
    return scores.softmax(-1).mean(1)[:, 0]
