"""The path model's training step for Lightning: a draw of pilots and noise, mirror and symmetries, four objectives."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.json_types import Json
from wavecity.model.data.snapshots import Snapshots, snapshots
from wavecity.model.data.tokens import patch_centres, squared
from wavecity.model.multimodal.losses import spectrum, spectrum_kl
from wavecity.model.multimodal.masking import masked_count, split_along_link
from wavecity.model.multimodal.module import SHARED, MaskedPretraining
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw, Fronts
from wavecity.model.path_model.maps import CELLS, Sites, evidence, masked_rasters
from wavecity.model.path_model.network import Outputs, PathModel, channel_of, turned
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.rays.radio import Radio
from wavecity.model.settings.rays import RaysSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.transformer import seeded_weights

# Share of the height patches that is masked in validation.
VALIDATED_SHARE = 0.2
# A user's error of masked CSI counts up to this share of its energy.
LARGEST_NMSE = 1.0


class Links(NamedTuple):
    """Users of a training step: single snapshots, and which of the store's users they are."""

    snapshots: Snapshots
    scene: Tensor  # int64 (B,); rows of the store
    user: Tensor  # int64 (B,)


def links(batch: dict[str, Tensor]) -> Links:
    """Batch of the loader with `scenes_once` as the path model takes it."""
    return Links(snapshots(batch), batch["scene"], batch["user"])


@dataclass(frozen=True)
class World:
    """What a batch is trained on."""

    fronts: Fronts
    sites: Sites
    csi: Tensor  # complex64 (B, x, y), of power one; at the panel as it is, which may be turned or have errors
    level: Tensor  # float32 (B,); what it was divided by
    position: Tensor  # float32 (B, 2); relative to the base station, m
    occupancy: Tensor  # float32 (B, patches, patches)

    def mirrored(self) -> "World":
        """The same world mirrored east-west, where panels face south."""
        return World(
            self.fronts.mirrored(),
            self.sites.mirrored(),
            self.csi.flip(1),
            self.level,
            self.position * self.position.new_tensor([-1.0, 1.0]),
            self.occupancy.flip(-1),
        )


class PathModule(MaskedPretraining):
    """Pretraining of the path model on the single snapshots of one dataset.

    Parameters
    ----------
    settings : TrainingSettings
    geometry : Geometry
    radio : Radio
    cache : FrontCache
        With the training draws of both splits.
    bs : (float, float)
        Base station in the frame of a scene without shift, m.
    size : float
        Edge of a tile, m.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        geometry: Geometry,
        radio: Radio,
        cache: FrontCache,
        bs: tuple[float, float],
        size: float,
        steps_per_epoch: int,
        seed: int,
        card: Json,
    ) -> None:
        super().__init__(settings, steps_per_epoch, seed, card)
        self.cache, self.bs, self.size = cache, bs, size
        with seeded_weights(seed):
            self.model: PathModel = PathModel(settings.rays.model, geometry, radio)
        self.tokens = self.model.tokens

    def setup(self, stage: str) -> None:
        """Compile the blocks in place: the names of the weights stay as they are."""
        if self.settings.compile:
            for block in self.model.blocks:
                block.compile()

    def training_step(self, batch: Links, batch_idx: int) -> Tensor:
        """Weighted sum of the four objectives."""
        terms = self.step_terms(batch, self.global_step)
        total = weighted(terms, self.settings)
        self.log_step({**terms, "total": total}, len(batch.user))
        return total

    def step_terms(self, batch: Links, step: int) -> dict[str, Tensor]:
        """Loss terms of a step of one rank's share of the batch; random numbers depend on seed and step only."""
        rays = self.settings.rays
        rng = np.random.default_rng([self.seed, SHARED, step])
        world = self.world(batch, training_draw(rays, self.seed, int(rng.integers(rays.draws)) + 1))
        mirror, share = rng.random() < 0.5, float(rng.uniform(*rays.scene_masked))
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        if rays.mirror and mirror:
            world = world.mirrored()
        return self.terms(world, share, (turns, flip))

    def validation_step(self, batch: Links, batch_idx: int) -> None:
        """The objectives with the first draw, and a fifth of the patches masked."""
        terms = self.terms(
            self.world(batch, training_draw(self.settings.rays, self.seed, 1)), VALIDATED_SHARE, (0, False)
        )
        logged = {f"validation/{name}": value for name, value in terms.items()}
        logged["validation/total"] = weighted(terms, self.settings)
        self.log_dict(logged, batch_size=len(batch.user), sync_dist=True)

    def world(self, batch: Links, draw: Draw) -> World:
        """What a batch is trained on under a draw."""
        users = batch.snapshots
        fronts = self.cache.users(batch.scene.cpu(), batch.user.cpu(), draw).to(self.device)
        bs = users.position.new_tensor(self.bs).repeat(len(users.scene), 1)
        bs[:, 0] += users.bs_shift[users.scene]
        csi = self.cache.received(users.csi, batch.scene, batch.user, draw)
        level = squared(csi.to(torch.complex128)).mean((1, 2)).sqrt().clamp_min(1e-30)
        sites, shift = self.cache.believed(Sites(users.height, users.scene, bs, self.size), batch.scene, draw)
        return World(
            fronts,
            sites,
            (csi / level[:, None, None]).to(torch.complex64),
            level.float(),
            users.position - shift,
            users.occupancy[users.scene].float(),
        )

    def terms(self, world: World, share: float, symmetry: tuple[int, bool]) -> dict[str, Tensor]:
        """Losses of all four objectives."""
        outputs = self.model(world.fronts, world.sites)
        few = max(round(self.settings.rays.occupancy_share * len(world.position)), 1)
        logits, hidden = masked_occupancy(self.model, world, share, few, symmetry)
        occupied = turned(world.occupancy[:few], *symmetry)
        return {
            "location": -outputs.location.log_density(world.position[:, None]).mean(),
            "spectrum": spectrum_kl(outputs.spectrum, spectrum(world.csi)),
            "csi": masked_nmse(outputs, world, self.model.radio).clamp_max(LARGEST_NMSE).mean(),
            "occupancy": F.binary_cross_entropy_with_logits(logits[hidden], occupied[hidden]),
        }

    def decays(self, name: str, parameter: torch.nn.Parameter) -> bool:
        """Weights of layers alone."""
        return name.endswith("weight") and parameter.ndim > 1


def training_draw(settings: RaysSettings, seed: int, number: int) -> Draw:
    """One of the draws that a training takes, of those numbered from 1."""
    seed = seed if settings.draw_seed is None else settings.draw_seed
    if not settings.disturbed_share:
        return Draw(seed, number=number)
    wrong = Disturbance(**settings.disturbance.model_dump())
    return Draw(seed, number=number, wrong=wrong, share=settings.disturbed_share)


def weighted(terms: dict[str, Tensor], settings: TrainingSettings) -> Tensor:
    """Sum of the objectives with their weights."""
    return torch.stack([getattr(settings.rays.losses, name) * value for name, value in terms.items()]).sum()


def masked_nmse(outputs: Outputs, world: World, radio: Radio) -> Tensor:
    """Squared error over energy at the hidden antennas, (B,); over all of them where none is hidden."""
    filled = channel_of(world.fronts, outputs.gate, radio) / world.level[:, None, None]
    hidden = ~world.fronts.shown
    hidden = torch.where(hidden.any((1, 2), keepdim=True), hidden, True).float()
    error = (squared(filled - world.csi) * hidden).sum((1, 2))
    return error / (squared(world.csi) * hidden).sum((1, 2)).clamp_min(1e-6)


def masked_occupancy(
    model: PathModel, world: World, share: float, users: int, symmetry: tuple[int, bool] | None
) -> tuple[Tensor, Tensor]:
    """Logits (U, patches, patches) of the first users' occupancy, and what of it was masked: the patches along the link.

    With one of the eight symmetries both are turned by it; with None the logits are averaged over all of them.
    """
    patches = model.geometry.occupancy_patches
    sites, user = world.sites, world.position[:users]
    some = replace(sites, row=sites.row[:users], bs=sites.bs[:users])
    middles = patch_centres(patches, patches, sites.size).to(user)
    count = masked_count(share, patches * patches)
    _, masked = split_along_link(middles, some.bs, some.bs + user, count)
    index = torch.arange(users, device=user.device)
    drawn = evidence(world.fronts.at(index), user, some, CELLS * patches, model.radio.drop)
    maps = torch.cat((masked_rasters(some, masked, patches), drawn), 1)
    hidden = torch.zeros(users, patches * patches, dtype=torch.bool, device=user.device).scatter(1, masked, True)
    hidden = hidden.view(-1, patches, patches)
    if symmetry is None:
        return model.occupancy.symmetric(maps), hidden
    return model.occupancy(turned(maps, *symmetry)), turned(hidden, *symmetry)
