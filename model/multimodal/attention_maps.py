"""Which tokens a trained encoder's [PHYSC] attends to (section 3.5 and Figure 3 of arXiv 2602.04016)."""

import torch
from torch import Tensor, nn

from wavecity.model.multimodal.attention import SelfAttentionBlock
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import FoundationModel, Inputs


@torch.no_grad()
def physc_attention(model: FoundationModel, inputs: Inputs, mask: Mask) -> Tensor:
    """Attention of [PHYSC] to the N visible tokens, mean over the heads, of each encoder layer: float32 (layers, B, N).

    Sums to 1 over the tokens, in the order of `FoundationModel.visible_tokens`.
    """
    layers: list[Tensor] = []

    def keep(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(block, SelfAttentionBlock)
        layers.append(block.first_row(arguments[0]))

    hooks = [block.register_forward_pre_hook(keep) for block in model.encoder]
    try:
        model.encode(inputs, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers)


def attention_on_scene(model: FoundationModel, inputs: Inputs, mask: Mask) -> Tensor:
    """Attention of [PHYSC] to the height patches when none is masked, over its largest: (layers, B, rows, columns)."""
    assert mask.scene_visible is not None
    first = 1 + mask.csi_visible.shape[1] + 1
    edge = model.scene_grid
    on_scene = physc_attention(model, inputs, mask)[..., first : first + edge * edge]
    on_scene = on_scene / on_scene.amax(-1, keepdim=True)
    return on_scene.unflatten(-1, (edge, edge))
