"""The other sides of `wavecity bench train`: a plain loop, and the model with full-length attention and masks."""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.snapshots import Snapshots
from wavecity.model.data.tokens import take
from wavecity.model.multimodal import losses
from wavecity.model.multimodal.attention import SelfAttentionBlock
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.multimodal.network import FoundationModel, Inputs, Outputs


class PlainLoop:
    """The textbook loop, on the batches, masks and random numbers that Lightning trains on.

    Parameters
    ----------
    module : PretrainModule
        Model, losses and optimiser; no trainer.
    batches : iterator of Snapshots

    Attributes
    ----------
    loading : list of float
        Seconds of each step until its batch was there.
    losses : list of float
        Eq. 7 of each step.
    """

    def __init__(self, module: PretrainModule, batches: Iterator[Snapshots]) -> None:
        self.module = module
        self.loading: list[float] = []
        self.losses: list[float] = []
        parts = module.configure_optimizers()
        self._optimiser = parts["optimizer"]
        schedule = parts["lr_scheduler"]
        assert isinstance(schedule, dict)
        self._scheduler = schedule["scheduler"]
        self._batches = batches

    def step(self) -> float:
        """Train one step; returns its seconds."""
        start = time.perf_counter()
        batch = next(self._batches)
        self.loading.append(time.perf_counter() - start)
        terms = self.module.step_terms(batch, len(self.losses))
        total = losses.total(terms, self.module.settings.losses)
        self._optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        if isinstance(self.module.model, FullLengthModel):
            self._forget_zero_slopes()
        clip = self.module.settings.optimiser.gradient_clip
        if clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self._optimiser.step()
        self._scheduler.step()
        self.losses.append(float(total.detach()))
        return time.perf_counter() - start

    def _forget_zero_slopes(self) -> None:
        """Where ours leaves a weight out of a step, full length gives slope 0; AdamW would still move and decay it."""
        for parameter in self.module.parameters():
            if parameter.grad is not None and not parameter.grad.any():
                parameter.grad = None


class FullLengthModel(FoundationModel):
    """The same model without savings: all tokens go through all blocks, and masks hide tokens from attention.

    Weights and outputs are those of `FoundationModel` (its paper's profile); only the work differs.
    """

    def forward(self, inputs: Inputs, mask: Mask, fill_csi: bool = True) -> Outputs:
        """Predict everything that `mask` hides, and the spectrum."""
        batch = len(inputs.csi)
        csi_seen = _seen(mask.csi_visible, batch, self.csi_patches)
        with_scene = mask.scene_visible is not None
        scene_seen = torch.zeros(batch, self.scene_patches, dtype=torch.bool)
        if mask.scene_visible is not None:
            scene_seen = _seen(mask.scene_visible, batch, self.scene_patches)
        always = torch.ones(batch, 1, dtype=torch.bool)
        seen = torch.cat((always, csi_seen, always, scene_seen, always & with_scene, always & mask.location_visible), 1)

        tokens = self._all_tokens(inputs)
        for block in self.encoder:
            tokens = masked_block(block, tokens, seen)
        latents = self.encoder_norm(tokens)

        decoded = self._with_mask_tokens(latents, seen)
        # Without a scene its tokens take no part; the location is decoded all the same.
        present = torch.cat(
            (
                always,
                always.expand_as(csi_seen),
                always,
                (always & with_scene).expand(-1, self.scene_patches + 1),
                always,
            ),
            1,
        )
        for block in self.decoder:
            decoded = masked_block(block, decoded, present)
        decoded = self.decoder_norm(decoded)
        physc, csi, _, scene, _, location = decoded.split([1, self.csi_patches, 1, self.scene_patches, 1, 1], 1)
        whole_csi, whole_scene = self.csi_head(csi), self.occupancy_head(scene)
        summary = physc[:, 0] if self.settings.spectrum_from == "decoded" else latents[:, 0]
        masked_scene = mask.scene_masked if mask.scene_masked is not None and mask.scene_masked.shape[1] else None
        return Outputs(
            physc=latents[:, 0],
            spectrum=self.spectrum_head(summary),
            csi=take(whole_csi, mask.csi_masked) if mask.csi_masked.shape[1] and fill_csi else None,
            occupancy=None if masked_scene is None else take(whole_scene, masked_scene),
            location=None if mask.location_visible else self.location_head(location[:, 0]),
        )

    def _all_tokens(self, inputs: Inputs) -> Tensor:
        """Every token embedded, (B, 468, d) at the paper's size."""
        batch, positions = len(inputs.csi), self.encoder_positions
        height = inputs.height
        if height is None:
            height = torch.zeros(batch, self.scene_patches, self.settings.height_patch**2)
        assert inputs.location is not None
        return torch.cat(
            (
                self.physc.expand(batch, 1, -1),
                self.embed_csi(inputs.csi) + positions.csi + positions.modality[0],
                (self.separators[0] + self.embed_level(inputs.level)).unsqueeze(1),
                self.embed_height(height) + positions.scene + positions.modality[1],
                self.separators[1].expand(batch, 1, -1),
                (self.embed_location(inputs.location) + positions.modality[2]).unsqueeze(1),
            ),
            1,
        )

    def _with_mask_tokens(self, latents: Tensor, seen: Tensor) -> Tensor:
        """Latents where seen, mask tokens elsewhere, and the decoder's positions."""
        batch, positions = len(latents), self.decoder_positions
        nothing = torch.zeros(1, latents.shape[-1])
        csi, scene = self.csi_patches, self.scene_patches
        places = (
            nothing,
            positions.csi + positions.modality[0],
            nothing,
            positions.scene + positions.modality[1],
            nothing,
            positions.modality[2:],
        )
        hidden = (nothing, self.mask_tokens[:1].expand(csi, -1), nothing, self.mask_tokens[1:2].expand(scene, -1), nothing,
                  self.mask_tokens[2:])  # fmt: skip
        tokens = torch.where(seen[..., None], latents, torch.cat(hidden).expand(batch, -1, -1))
        return tokens + torch.cat(places)


def masked_block(block: nn.Module, tokens: Tensor, attended: Tensor) -> Tensor:
    """A `SelfAttentionBlock` over all tokens (B, N, d), in which only those `attended` (B, N) are keys."""
    assert isinstance(block, SelfAttentionBlock)
    query, key, value = block.projected(tokens)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attended[:, None, None])
    return block.added(tokens, mixed)


def _seen(visible: Tensor, batch: int, patches: int) -> Tensor:
    """Mask (B, patches) that is true at the indices `visible` (B, n)."""
    return torch.zeros(batch, patches, dtype=torch.bool).scatter(1, visible, True)
