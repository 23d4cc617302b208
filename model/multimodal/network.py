"""The multi-modal masked autoencoder of "A Multi-Modal Foundational Model for Wireless Communication and Sensing" (arXiv
2602.04016), Appendix A.

    [PHYSC] | CSI patches | [SEP] | height patches | [SEP] | location      1 + 64 + 1 + 400 + 1 + 1 = 468 tokens

Only visible tokens are gathered and encoded, as in "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377).
The decoder attends to their latents and to one mask token per masked patch, and computes outputs for the masked ones alone.

Profile `wavecity` decodes directions where the paper decodes masked CSI patches: one token for each patch of the DFT's
bins, which gives the expected power there. That is the prior with which `SparseRecovery` finds the hidden antennas.

Shapes in comments: B samples, d the width, P CSI patches of p x p antennas, Q height patches of h x h cells, v visible and
m masked ones of these, N tokens.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import complex_entries, csi_patches, patchify, take, unpatchify
from wavecity.model.multimodal.attention import SelfAttentionBlock
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.sparse import SparseRecovery, enlarge
from wavecity.model.settings.training import ModelSettings
from wavecity.model.transformer import initialise, initialise_embeddings


@dataclass(frozen=True)
class Inputs:
    """Normalised patches of a batch, all of them; `Mask` says which the encoder may take."""

    csi: Tensor  # float32 (B, P, 2 * patch^2)
    level: Tensor  # float32 (B, 1); standardised level of the visible CSI
    height: Tensor | None  # float32 (B, Q, patch^2), or None
    location: Tensor | None  # float32 (B, 2), or None


@dataclass(frozen=True)
class Outputs:
    """Predictions for what was masked; None where nothing of the kind was."""

    physc: Tensor  # (B, d); the encoded [PHYSC] token: the representation used downstream
    # (B, kx, ky); raw output of the spectrum head: logits (KL form) or, through softplus, power (eq. 6).
    spectrum: Tensor
    csi: Tensor | None  # (B, m, 2 * patch^2)
    occupancy: Tensor | None  # (B, m, c); logits of the c occupancy cells of a height patch
    location: Tensor | None  # (B, 2)


class SpectrumHead(nn.Module):
    """[PHYSC] to a coarse map, refined by two convolutions into a one-channel spectrum.

    The DFT's bins are periodic in both axes, hence the circular padding. The map is interpolated before the first
    convolution: its output at a bin then depends on where between the coarse cells the bin lies.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        channels, edge = settings.spectrum_channels, settings.spectrum_map
        self.shape = (channels, edge, edge)
        self.scale = settings.spectrum_size // edge
        self.expand = nn.Linear(settings.width, channels * edge * edge)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
        self.collapse = nn.Conv2d(channels, 1, 3, padding=1, padding_mode="circular")

    def forward(self, physc: Tensor) -> Tensor:
        """(B, d) to (B, kx, ky)."""
        coarse = self.expand(physc).view(-1, *self.shape)  # (B, channels, edge, edge)
        refined = F.gelu(self.refine(enlarge(coarse, self.scale)))  # (B, channels, kx, ky)
        return self.collapse(refined).squeeze(1)  # (B, kx, ky)


class DirectionPrior(nn.Module):
    """Queries of the decoder for the channel's directions, and the prior power that their outputs mean.

    Token k stands for the k-th patch of the DFT's bins, as many bins as a CSI patch has antennas, and starts from the
    zero-filled spectrum there: the angular picture of what is visible. Columns and rows are antennas along x and y, and
    bins along kx and ky.
    """

    def __init__(self, settings: ModelSettings, columns: int, rows: int) -> None:
        super().__init__()
        self.bins = (columns, rows)
        self.patch = settings.csi_patch
        self.oversampling = settings.recovery_oversampling
        self.embed = nn.Linear(self.patch**2, settings.width)
        self.positions = nn.Parameter(torch.empty(columns * rows // self.patch**2, settings.width))
        self.head = nn.Linear(settings.width, self.patch**2)
        initialise_embeddings(self.positions)

    def queries(self, zero_filled: Tensor) -> Tensor:
        """Tokens (B, P, d) from the spectrum (B, kx, ky) of the visible antennas over all directions."""
        spectrum = F.avg_pool2d(zero_filled.unsqueeze(1), self.oversampling).squeeze(1)  # (B, x, y) bins of the DFT
        # A floor of -30 dB: below lies the window's leakage.
        patches = patchify((spectrum + 1e-3).log(), self.patch)  # (B, P, p * p)
        return self.embed(patches) + self.positions  # (B, P, d)

    def forward(self, decoded: Tensor) -> Tensor:
        """Log of the prior power (B, kx, ky) of all directions from decoded tokens (B, P, d)."""
        bins = unpatchify(self.head(decoded).float(), self.patch, *self.bins)  # (B, x, y)
        return enlarge(bins.unsqueeze(1), self.oversampling).squeeze(1)  # (B, kx, ky)


class Positions(nn.Module):
    """Learned position and modality embeddings; encoder and decoder have their own."""

    def __init__(self, csi: int, scene: int, width: int) -> None:
        super().__init__()
        self.csi = nn.Parameter(torch.empty(csi, width))
        self.scene = nn.Parameter(torch.empty(scene, width))
        self.modality = nn.Parameter(torch.empty(3, width))
        initialise_embeddings(self.csi, self.scene, self.modality)

    def at_csi(self, index: Tensor) -> Tensor:
        """Embeddings of CSI patches, int64 (B, n) to (B, n, d)."""
        return F.embedding(index, self.csi) + self.modality[0]

    def at_scene(self, index: Tensor) -> Tensor:
        """Embeddings of height patches, int64 (B, n) to (B, n, d)."""
        return F.embedding(index, self.scene) + self.modality[1]


class FoundationModel(nn.Module):
    """Encoder, decoder and heads, for a dataset whose geometry the patches divide."""

    def __init__(self, settings: ModelSettings, geometry: Geometry) -> None:
        super().__init__()
        width, patch = settings.width, settings.csi_patch
        self.settings = settings
        self.geometry = geometry
        self.csi_patches = (geometry.columns // patch) * (geometry.rows // patch)
        self.scene_grid = geometry.height_cells // settings.height_patch
        self.scene_patches = self.scene_grid**2
        # Edge, in occupancy cells, of a height patch: 1 at the paper's size.
        self.occupancy_patch = geometry.occupancy_patches // self.scene_grid

        self.embed_csi = nn.Linear(2 * patch**2, width)
        self.embed_level = nn.Linear(1, width)
        self.embed_height = nn.Linear(settings.height_patch**2, width)
        self.embed_location = nn.Linear(2, width)
        self.physc = nn.Parameter(torch.empty(width))
        self.separators = nn.Parameter(torch.empty(2, width))
        self.encoder_positions = Positions(self.csi_patches, self.scene_patches, width)
        self.encoder = self._blocks(settings.encoder_layers)
        self.encoder_norm = nn.LayerNorm(width)

        self.mask_tokens = nn.Parameter(torch.empty(3, width))
        self.decoder_positions = Positions(self.csi_patches, self.scene_patches, width)
        self.decoder = self._blocks(settings.decoder_layers)
        self.decoder_norm = nn.LayerNorm(width)
        if settings.profile == "paper":
            self.csi_head = nn.Linear(width, 2 * patch**2)
        else:
            self.prior = DirectionPrior(settings, geometry.columns, geometry.rows)
            self.recovery = SparseRecovery(
                geometry.columns, geometry.rows, settings.recovery_oversampling, settings.recovery_steps
            )
        self.location_head = nn.Linear(width, 2)
        self.occupancy_head = nn.Linear(width, self.occupancy_patch**2)
        self.spectrum_head = SpectrumHead(settings)
        initialise(self, self.physc, self.separators, self.mask_tokens)
        if settings.profile == "wavecity":
            # Flat at first: training starts from plain sparse Bayesian learning.
            nn.init.zeros_(self.prior.head.weight)

    def _blocks(self, layers: int) -> nn.ModuleList:
        settings = self.settings
        return nn.ModuleList(
            SelfAttentionBlock(settings.width, settings.heads, settings.mlp_ratio) for _ in range(layers)
        )

    @property
    def tokens(self) -> int:
        """Tokens when nothing is masked: [PHYSC], CSI, height, location and two separators."""
        return 1 + self.csi_patches + self.scene_patches + 1 + 2

    def visible_tokens(self, inputs: Inputs, mask: Mask) -> Tensor:
        """Embed what is visible, (B, N, d): [PHYSC] first, then CSI, then scene and location if they take part."""
        batch = inputs.csi.shape[0]  # len() would fix the batch size of an exported model
        patches = take(inputs.csi, mask.csi_visible)  # (B, v, 2 * p * p)
        csi = self.embed_csi(patches) + self.encoder_positions.at_csi(mask.csi_visible)  # (B, v, d)
        # The separator that closes the CSI carries its level: a feature, not another token.
        level = self.separators[0] + self.embed_level(inputs.level)  # (B, d)
        parts = [self.physc.expand(batch, 1, -1), csi, level.unsqueeze(1)]
        if mask.scene_visible is not None and inputs.height is not None:
            height = self.embed_height(take(inputs.height, mask.scene_visible))  # (B, v, d)
            parts.append(height + self.encoder_positions.at_scene(mask.scene_visible))
            parts.append(self.separators[1].expand(batch, 1, -1))  # (B, 1, d)
        if mask.location_visible and inputs.location is not None:
            location = self.embed_location(inputs.location) + self.encoder_positions.modality[2]  # (B, d)
            parts.append(location.unsqueeze(1))
        return torch.cat(parts, 1)  # (B, N, d)

    def encode(self, inputs: Inputs, mask: Mask) -> Tensor:
        """Latents of the visible tokens, (B, N, d); the first is the encoded [PHYSC]."""
        tokens = self.visible_tokens(inputs, mask)
        for block in self.encoder:
            tokens = block(tokens)
        return self.encoder_norm(tokens)

    def forward(self, inputs: Inputs, mask: Mask, fill_csi: bool = True) -> Outputs:
        """Predict all that `mask` hides, and the spectrum; `fill_csi` costs profile `wavecity` more than all the rest."""
        latents = self.encode(inputs, mask)  # (B, N, d)
        physc = latents[:, 0]  # (B, d)
        csi_queries = self._csi_queries(inputs, mask)  # (B, m, d), or (B, P, d) directions
        csi_masked = csi_queries.shape[1]
        scene_masked = 0 if mask.scene_masked is None else mask.scene_masked.shape[1]
        location_masked = int(not mask.location_visible)
        from_decoded = self.settings.spectrum_from == "decoded"
        wanted = csi_masked + scene_masked + location_masked + int(from_decoded)
        if not wanted:
            return Outputs(physc, self.spectrum_head(physc), None, None, None)

        decoded = self._decode(latents, csi_queries, mask, wanted)  # (B, wanted, d)
        sizes = [int(from_decoded), csi_masked, scene_masked, location_masked]
        summary, csi, scene, location = decoded.split(sizes, 1)
        return Outputs(
            physc=physc,
            spectrum=self.spectrum_head(summary[:, 0] if from_decoded else physc),  # (B, kx, ky)
            csi=self._masked_csi(csi, inputs, mask) if csi_masked and fill_csi else None,  # (B, m, 2 * p * p)
            occupancy=self.occupancy_head(scene) if scene_masked else None,  # (B, m, c)
            location=self.location_head(location[:, 0]) if location_masked else None,  # (B, 2)
        )

    def _csi_queries(self, inputs: Inputs, mask: Mask) -> Tensor:
        """Tokens (B, n, d) that the decoder fills in for the CSI: masked patches, or directions; none if all is seen."""
        if self.settings.profile == "paper" or not mask.csi_masked.shape[1]:
            return self.mask_tokens[0] + self.decoder_positions.at_csi(mask.csi_masked)
        return self.mask_tokens[0] + self.prior.queries(
            self.recovery.zero_filled(*self._visible_antennas(inputs, mask))
        )

    def _masked_csi(self, decoded: Tensor, inputs: Inputs, mask: Mask) -> Tensor | None:
        """Masked patches (B, m, 2 * patch^2) from the decoded tokens of `_csi_queries`."""
        if self.settings.profile == "paper":
            return self.csi_head(decoded)
        visible, antennas = self._visible_antennas(inputs, mask)  # (B, M) each
        if self.training and antennas.shape[1] > self.settings.recovery_antennas:
            return None
        whole = self.recovery(visible, antennas, self.prior(decoded))  # (B, x, y)
        return take(csi_patches(whole, self.settings.csi_patch), mask.csi_masked)

    def _visible_antennas(self, inputs: Inputs, mask: Mask) -> tuple[Tensor, Tensor]:
        """Visible entries of the channel, complex64 (B, M), and which antennas x * rows + y they are, int64 (B, M)."""
        columns, rows = self.geometry.columns, self.geometry.rows
        grid = torch.arange(columns * rows, device=inputs.csi.device).view(columns, rows)
        antennas = patchify(grid, self.settings.csi_patch)[mask.csi_visible]  # (B, v, p * p)
        return complex_entries(take(inputs.csi, mask.csi_visible)).flatten(1), antennas.flatten(1)

    def _decode(self, latents: Tensor, csi_queries: Tensor, mask: Mask, wanted: int) -> Tensor:
        """Outputs of the last `wanted` tokens, (B, wanted, d): [PHYSC] if it is decoded, CSI, scene, location."""
        batch, positions = len(latents), self.decoder_positions
        csi_end = 1 + mask.csi_visible.shape[1]
        parts = [latents[:, 1:csi_end] + positions.at_csi(mask.csi_visible)]  # (B, v, d)
        rest = latents[:, csi_end:]
        if mask.scene_visible is not None:
            scene_end = 1 + mask.scene_visible.shape[1]
            parts += [rest[:, :1], rest[:, 1:scene_end] + positions.at_scene(mask.scene_visible)]
            rest = rest[:, scene_end:]
        if mask.location_visible:
            parts += [rest[:, :-1], rest[:, -1:] + positions.modality[2]]
        else:
            parts.append(rest)
        # [PHYSC] comes after what is visible, so that the wanted outputs are the last ones.
        parts.append(latents[:, :1])
        if csi_queries.shape[1]:
            parts.append(csi_queries)
        if mask.scene_masked is not None and mask.scene_masked.shape[1]:
            parts.append(self.mask_tokens[1] + positions.at_scene(mask.scene_masked))
        if not mask.location_visible:
            parts.append((self.mask_tokens[2] + positions.modality[2]).expand(batch, 1, -1))
        tokens = torch.cat(parts, 1)  # (B, visible + wanted, d)
        for block in self.decoder[:-1]:
            tokens = block(tokens)
        return self.decoder_norm(self.decoder[-1](tokens, last=wanted))  # (B, wanted, d)


def count_parameters(model: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
