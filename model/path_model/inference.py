"""A trained path model on users of a store: batches, no gradients, and what its outputs mean in the store's units."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.data.users import Rows, SceneTable
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.mixture import Mixture
from wavecity.model.path_model.module import World, masked_occupancy
from wavecity.model.path_model.network import PathModel, channel_of


@dataclass(frozen=True)
class Links(Rows):
    """Users of a store, and what is known of them."""

    csi: Tensor  # complex64 (N, x, y)
    position: Tensor  # float32 (N, 2); relative to the base station, m
    scene: Tensor  # int64 (N,); rows of the store
    user: Tensor  # int64 (N,)


@dataclass(frozen=True)
class Predictions(Rows):
    """What the model says of N users."""

    physc: Tensor  # float32 (N, d)
    log_weight: Tensor  # of the mixture: (N, C), (N, C, 2), (N, C)
    centre: Tensor
    log_scale: Tensor
    spectrum: Tensor  # float32 (N, kx, ky); logarithm, up to a constant
    csi: Tensor  # complex64 (N, x, y); sqrt(power gain)
    physics: Tensor  # float32 (N, 2); where physics alone says that they are, m

    @property
    def location(self) -> Mixture:
        """Of the place relative to the base station, m."""
        return Mixture(self.log_weight, self.centre, self.log_scale)


@dataclass(frozen=True)
class PathPredictor:
    """A model, the fronts of a store's users, and the maps of its scenes."""

    model: PathModel
    cache: FrontCache
    scenes: SceneTable
    batch_size: int

    @torch.no_grad()
    def predict(self, users: Links, draw: Draw) -> Predictions:
        """Location, spectrum, CSI and [PHYSC] of users under a draw of pilots and noise."""
        self.cache.fill(users.scene.tolist(), [draw])
        parts = []
        for index in torch.arange(len(users)).split(self.batch_size):
            some = users.at(index)
            fronts = self.cache.users(some.scene, some.user, draw)
            sites, shift = self.cache.believed(self.sites(some), some.scene, draw)
            outputs = self.model(fronts, sites)
            csi = channel_of(fronts, outputs.gate, self.model.radio)
            weight, centre, scale = outputs.location
            # Relative to where the base station is.
            centre, own = centre + shift[:, None], fronts.place[:, 0] + shift
            parts.append(Predictions(outputs.physc, weight, centre, scale, outputs.spectrum, csi, own))
        return Predictions.joined(parts)

    @torch.no_grad()
    def occupancy(self, users: Links, draw: Draw, share: float) -> tuple[Tensor, Tensor]:
        """Probabilities of occupancy (N, patches, patches), and what of it was masked: the patches along the links."""
        self.cache.fill(users.scene.tolist(), [draw])
        parts = []
        for index in torch.arange(len(users)).split(self.batch_size):
            some = users.at(index)
            fronts = self.cache.users(some.scene, some.user, draw)
            occupancy = self.scenes.occupancy[some.scene].float()
            level = torch.ones(len(some))
            sites, shift = self.cache.believed(self.sites(some), some.scene, draw)
            world = World(fronts, sites, some.csi, level, some.position - shift, occupancy)
            parts.append(masked_occupancy(self.model, world, share, len(some), None))
        return torch.cat([logits for logits, _ in parts]).sigmoid(), torch.cat([hidden for _, hidden in parts])

    def sites(self, users: Links) -> Sites:
        """Maps around some users."""
        scenes, row = users.scene.unique(return_inverse=True)
        return Sites(self.scenes.height[scenes], row, self.scenes.bs[users.scene], self.scenes.size)
