"""Encoders to compare with: raw CSI, DFT, sparse Bayesian learning, LWM's architecture with random weights, our own runs."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.benchmark.encoder import Batch
from wavecity.model.data.tokens import patchify
from wavecity.model.data.users import height_patches
from wavecity.model.multimodal.inference import physc_of
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.training.load import load
from wavecity.model.training.pretrained import Pretrained, PretrainedRays, PretrainedTemporal
from wavecity.model.transformer import seeded_weights


class RawCsi:
    """Visible entries, scaled to an RMS of one, and the level in dB: 2 v + 1 numbers of v antennas."""

    def embed(self, batch: Batch) -> NDArray[np.float64]:
        """See `wavecity.model.benchmark.encoder.Encoder`."""
        csi, level = unit_level(batch.csi[:, batch.visible])
        return np.concatenate((csi.real, csi.imag, level), 1)


class ZeroFilledDft:
    """|DFT| of the channel with zeros at hidden antennas, of norm one, and the level in dB: x * y + 1 numbers."""

    def embed(self, batch: Batch) -> NDArray[np.float64]:
        """See `wavecity.model.benchmark.encoder.Encoder`."""
        return spectrum(batch.csi, unit_level(batch.csi[:, batch.visible])[1])


class SparseBayesian:
    """As `ZeroFilledDft`, of the channel that sparse Bayesian learning recovers (Tipping, 2001)."""

    def embed(self, batch: Batch) -> NDArray[np.float64]:
        """See `wavecity.model.benchmark.encoder.Encoder`."""
        seen, level = unit_level(batch.csi[:, batch.visible])
        # Of RMS one: gains of -200 dB are lost in single precision.
        power = np.square(np.abs(batch.csi[:, batch.visible].astype(np.complex128))).mean(1)
        csi = np.zeros(batch.csi.shape, np.complex64)
        csi[:, batch.visible] = seen
        noise = torch.from_numpy(batch.noise / np.maximum(power, 1e-300)) if batch.noise.any() else None
        whole = sparse_bayesian(torch.from_numpy(csi), torch.from_numpy(batch.visible), noise)
        return spectrum(whole.numpy(), level)


def unit_level(entries: NDArray[np.complex64]) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Entries (B, v) scaled to an RMS of one for each user, and what they were scaled by in dB, (B, 1)."""
    wide = entries.astype(np.complex128)
    rms = np.sqrt(np.square(np.abs(wide)).mean(1, keepdims=True)) + 1e-15
    return wide / rms, 20 * np.log10(rms)


def spectrum(csi: NDArray[np.complexfloating], level: NDArray[np.float64]) -> NDArray[np.float64]:
    """|DFT| of channels (B, x, y), scaled to norm one, and their level (B, 1): (B, x * y + 1)."""
    values = np.abs(np.fft.fft2(csi)).reshape(len(csi), -1)
    return np.concatenate((values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-30), level), 1)


class RandomLwm(nn.Module):
    """A transformer with the interface and size of LWM 1.1 (arXiv 2411.08872), and random weights.

    Patches of 4 x 4 entries, real and imaginary parts alternating, as tokens of 32 numbers; a first token that stands for
    the whole; learned positions; 12 blocks with 8 heads, normalised after each sum; width 128, 2.4 M parameters. Channels
    are multiplied by 10^6, as LWM's loader does. The embedding is the first token.

    The weights are not LWM's, and neither is its training: what this encoder reaches, the architecture gives without any.
    """

    PATCH, WIDTH, BLOCKS, HEADS, LONGEST = 4, 128, 12, 8, 513
    # Values of the first token and of hidden patches.
    FIRST, HIDDEN = 0.2, 0.1
    SCALE = 1e6

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with seeded_weights(seed):
            self.project = nn.Linear(2 * self.PATCH**2, self.WIDTH)
            self.position = nn.Embedding(self.LONGEST, self.WIDTH)
            self.norm = nn.LayerNorm(self.WIDTH)
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(self.WIDTH, self.HEADS, 4 * self.WIDTH, dropout=0.0, batch_first=True)
                for _ in range(self.BLOCKS)
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, 1 + P, 32), the first of which stands for the whole, to embeddings (B, 1 + P, 128)."""
        state = self.norm(self.project(tokens) + self.position.weight[: tokens.shape[1]])
        for block in self.blocks:
            state = block(state)
        return state

    def embed(self, batch: Batch) -> Tensor:
        """See `wavecity.model.benchmark.encoder.Encoder`."""
        tokens = self.patches(torch.from_numpy(batch.csi) * self.SCALE)
        seen = self.patches(torch.from_numpy(batch.visible).to(torch.complex64)[None]).any(-1)
        tokens = torch.where(seen[..., None], tokens, torch.full((), self.HIDDEN))
        first = torch.full((len(tokens), 1, tokens.shape[-1]), self.FIRST)
        tokens = torch.cat((first, tokens), 1)
        if tokens.shape[1] > self.LONGEST:
            raise InputError(
                f"an array of {batch.setup.columns} x {batch.setup.rows} has more patches than LWM takes, 512"
            )
        return self(tokens)[:, 0]

    def patches(self, csi: Tensor) -> Tensor:
        """Complex (B, x, y) to (B, P, 32): patches row by row, entries too, each as real and imaginary part."""
        columns, rows = csi.shape[1:]
        padded = nn.functional.pad(csi, (0, -rows % self.PATCH, 0, -columns % self.PATCH))
        return torch.view_as_real(patchify(padded, self.PATCH)).flatten(-2)


class OurRun:
    """The encoder of a run, or of a saved model: the [PHYSC] token of the multi-modal or the path model."""

    def __init__(self, run: str | Path) -> None:
        pretrained = load(run)
        if isinstance(pretrained, PretrainedTemporal):
            raise InputError(f"{run}: a temporal model, which encodes users that move; the benchmark's stand still")
        self.pretrained: Pretrained | PretrainedRays = pretrained

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the whole model."""
        return self.pretrained.model.parameters()

    def embed(self, batch: Batch) -> Tensor:
        """See `wavecity.model.benchmark.encoder.Encoder`."""
        model, csi = self.pretrained.model, torch.from_numpy(batch.csi)
        found = (*csi.shape[1:], *batch.height.shape)
        geometry = model.geometry
        needed = (geometry.columns, geometry.rows, geometry.height_cells, geometry.height_cells)
        if found != needed:
            raise InputError(
                f"{batch.store}: {found[0]} x {found[1]} antennas and {found[2]} x {found[3]} cells; this model takes "
                f"{needed[0]} x {needed[1]} and {needed[2]} x {needed[3]}"
            )
        if isinstance(self.pretrained, PretrainedRays):
            scene = _surroundings(batch.store, batch.scene)
            visible = torch.from_numpy(batch.visible)
            return self.pretrained.embed(csi, visible, scene, torch.from_numpy(batch.height), batch.noise)
        model, settings, statistics, _ = self.pretrained
        patch = settings.model.csi_patch
        seen = patchify(torch.from_numpy(batch.visible), patch)
        if not torch.equal(seen.any(1), seen.all(1)):
            raise InputError(f"this model sees patches of {patch} x {patch} antennas, and some are visible in part")
        maps = torch.from_numpy(batch.height).expand(len(csi), -1, -1)
        patches = height_patches(maps, settings.model.height_patch, statistics)
        return physc_of(model, settings, statistics, seen.all(1).nonzero()[:, 0], csi, patches)


@lru_cache(maxsize=2)
def _surroundings(store: str, scene: int) -> Surroundings:
    """Read once for all batches of a scene."""
    return surroundings(store, scene)
