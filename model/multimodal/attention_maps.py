"""Which tokens a trained encoder's [PHYSC] attends to (section 3.5, Figure 3)."""

import torch
from torch import Tensor, nn

from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import Block, FoundationModel, Inputs


@torch.no_grad()
def physc_attention(model: FoundationModel, inputs: Inputs, mask: Mask) -> Tensor:
    """Attention of [PHYSC] to every visible token, averaged over the heads, for each layer of the encoder.

    Parameters
    ----------
    model : FoundationModel
    inputs : Inputs
    mask : Mask

    Returns
    -------
    float32 (layers, B, N)
        Sums to 1 over the N visible tokens, in the order of `FoundationModel.visible_tokens`.
    """
    layers: list[Tensor] = []

    def keep(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(block, Block)
        layers.append(_first_row(block, arguments[0]))

    hooks = [block.register_forward_pre_hook(keep) for block in model.encoder]
    try:
        model.encode(inputs, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers)


def _first_row(block: Block, tokens: Tensor) -> Tensor:
    """Softmax of the first token's query with all keys, mean over the heads: (B, N, d) to (B, N)."""
    batch, count, width = tokens.shape
    query, key, _ = block.query_key_value(block.norm_1(tokens)).chunk(3, -1)
    query = query[:, :1].view(batch, 1, block.heads, -1).transpose(1, 2)
    key = key.view(batch, count, block.heads, -1).transpose(1, 2)
    scores = query @ key.transpose(-2, -1) / (width // block.heads) ** 0.5
    return scores.softmax(-1).mean(1)[:, 0]


def attention_on_scene(model: FoundationModel, inputs: Inputs, mask: Mask) -> Tensor:
    """Attention of [PHYSC] to the height patches when none of them is masked.

    Returns
    -------
    float32 (layers, B, rows, columns)
        Of each layer and sample, over its largest value.
    """
    assert mask.scene_visible is not None
    first = 1 + mask.csi_visible.shape[1] + 1
    edge = model.scene_grid
    on_scene = physc_attention(model, inputs, mask)[..., first : first + edge * edge]
    on_scene = on_scene / on_scene.amax(-1, keepdim=True)
    return on_scene.unflatten(-1, (edge, edge))
