"""What is masked: Table 1, the three objectives, the interleaved stages, and scene masks along the link (Appendix B.4 of
arXiv 2602.04016).

All randomness comes from one NumPy generator keyed by (seed, step), so a resumed run draws what an uninterrupted one
would have drawn, and several processes together what one would have drawn (`RankDraws`). Every sample of a step masks
the same *number* of patches at its own positions: the visible tokens are gathered into dense batches, and the encoder
never receives a masked one.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.settings.training import MaskingSettings

Objective = Literal["csi", "scene", "all"]
OBJECTIVES: tuple[Objective, ...] = ("csi", "scene", "all")


@dataclass(frozen=True)
class Plan:
    """What one step masks."""

    objective: Objective  # Mostly CSI, mostly scene, moderate on all modalities
    stage: int  # Row of Table 1
    csi_ratio: float  # Shares of masked patches
    scene_ratio: float
    hide_location: bool  # The location token is masked, and scene masks follow a decoy
    csi_only: bool = False  # Neither scene nor location enters the model


@dataclass(frozen=True)
class Mask:
    """Positions of visible and masked tokens, int64, same counts for every sample of the batch."""

    csi_visible: Tensor  # (B, v), (B, m)
    csi_masked: Tensor
    scene_visible: Tensor | None  # (B, v), (B, m), or None when the scene does not enter the model
    scene_masked: Tensor | None
    location_visible: bool

    def to(self, device: torch.device) -> "Mask":
        """Move all positions to a device."""
        moved = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RankDraws:
    """A generator whose arrays are one rank's rows of what a single process would draw for the whole batch.

    `rng` is the same on all ranks; rows `rank`, `rank + world`, ... are this rank's, as `ShuffledChannels(shared=True)`
    deals them.
    """

    rng: np.random.Generator
    rank: int
    world: int

    def random(self, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform in [0, 1); the first number of `size` counts this rank's samples."""
        return self.rng.random(self._whole(size))[self.rank :: self.world]

    def uniform(self, low: float, high: float, size: tuple[int, ...]) -> NDArray[np.float64]:
        """Uniform in [low, high); the first number of `size` counts this rank's samples."""
        return self.rng.uniform(low, high, self._whole(size))[self.rank :: self.world]

    def _whole(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (size[0] * self.world, *size[1:])


Draws = np.random.Generator | RankDraws


def stage_2_probability(settings: MaskingSettings, epoch: int, epochs: int) -> float:
    """Probability of stage 2: moves linearly from the first epoch to the last."""
    progress = epoch / max(epochs - 1, 1)
    return settings.stage_2_start + min(progress, 1.0) * (settings.stage_2_end - settings.stage_2_start)


def draw_plan(settings: MaskingSettings, epoch: int, epochs: int, rng: np.random.Generator) -> Plan:
    """Draw objective, stage and ratios of a step (Table 1); the stage's probability depends on epoch over epochs.

    An objective that is mostly about one modality leaves the other unmasked [ours].
    """
    stage = 2 if rng.random() < stage_2_probability(settings, epoch, epochs) else 1
    objective = OBJECTIVES[rng.choice(3, p=np.asarray(settings.objectives) / sum(settings.objectives))]
    row = settings.stage_2 if stage == 2 else settings.stage_1
    if objective == "scene":
        return Plan(objective, stage, 0.0, float(rng.uniform(*row.height_large)), hide_location=False)
    csi_only = bool(rng.random() < settings.csi_only)
    if objective == "csi":
        extreme = stage == 2 and rng.random() < settings.extreme_share
        ratio = settings.extreme_ratio if extreme else float(rng.uniform(*row.csi_large))
        return Plan(objective, stage, ratio, 0.0, hide_location=csi_only, csi_only=csi_only)
    hide = csi_only or (stage == 2 and bool(rng.random() < settings.location_hidden))
    ratio, scene_ratio = float(rng.uniform(*row.csi_moderate)), float(rng.uniform(*row.height_moderate))
    return Plan(objective, stage, ratio, 0.0 if csi_only else scene_ratio, hide_location=hide, csi_only=csi_only)


def masked_count(ratio: float, patches: int) -> int:
    """Patches masked at a ratio: the nearest number, at least 1 when the ratio is not 0, and one always stays."""
    return 0 if ratio == 0 else min(max(round(ratio * patches), 1), patches - 1)


def split_random(batch: int, patches: int, masked: int, rng: Draws) -> tuple[Tensor, Tensor]:
    """Mask patches uniformly at random, each sample its own: visible and masked ones, int64 (B, n), sorted."""
    order = torch.from_numpy(rng.random((batch, patches)).argsort(1))
    return order[:, masked:].sort(1).values, order[:, :masked].sort(1).values


def segment_distance(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Distance in m, (B, P), of points (P, 2) to segments from start to end, (B, 2) each."""
    along = end - start
    offset = points[None] - start[:, None]
    length = along.square().sum(-1, keepdim=True).clamp_min(1e-12)
    share = ((offset * along[:, None]).sum(-1) / length).clamp(0, 1)
    return (offset - share[..., None] * along[:, None]).norm(dim=-1)


def split_along_link(centres: Tensor, bs: Tensor, user: Tensor, masked: int) -> tuple[Tensor, Tensor]:
    """Mask the scene patches nearest to the BS-user segment, growing until the number is met (Appendix B.2.1).

    Of centres (P, 2), and ends (B, 2) in the scene's frame, m, the visible and the masked ones, int64 (B, n), sorted.
    Give a decoy, not the user, whenever the location is hidden: the mask itself would reveal where the user is.
    """
    order = segment_distance(centres, bs, user).argsort(dim=1, stable=True)
    return order[:, masked:].sort(1).values, order[:, :masked].sort(1).values


def draw_decoy(batch: int, size: float, rng: Draws) -> Tensor:
    """Draw positions that have nothing to do with the users: uniform over the tile, float32 (B, 2), m."""
    return torch.from_numpy(rng.uniform(-size / 2, size / 2, (batch, 2)).astype(np.float32))


def draw_mask(plan: Plan, csi_patches: int, centres: Tensor, bs: Tensor, user: Tensor, size: float, rng: Draws) -> Mask:
    """Turn a plan into positions for a batch; centres (P, 2) and ends of links (B, 2) in the scene's frame, m."""
    batch = len(user)
    csi = split_random(batch, csi_patches, masked_count(plan.csi_ratio, csi_patches), rng)
    if plan.csi_only:
        return Mask(*csi, None, None, location_visible=False)
    end = draw_decoy(batch, size, rng).to(user) if plan.hide_location else user
    scene = split_along_link(centres, bs, end, masked_count(plan.scene_ratio, len(centres)))
    return Mask(*csi, *scene, location_visible=not plan.hide_location)
