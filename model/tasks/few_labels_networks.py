"""The path model trained as a whole on few labelled users: from its pretrained weights, or from scratch."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.users import Rows
from wavecity.model.learning.selection import TrainAt, Trained, first_held_back, train_seeds, train_selected
from wavecity.model.multimodal.inference import beams_of_spectrum
from wavecity.model.path_model.front import Fronts
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import Outputs, PathModel
from wavecity.model.settings.training import HeadSettings
from wavecity.model.transformer import seeded_weights

# Held-back users that are looked at, and how often; streams of random numbers.
LOOKED_AT, LOOK = 256, 25
BATCHES = 51


@dataclass(frozen=True)
class Shown(Rows):
    """What the network is given of N users, with the maps of all scenes."""

    index: Tensor  # int64 (N,)
    fronts: Fronts
    scene: Tensor  # int64 (N,); rows of the maps
    bs: Tensor  # float32 (N, 2)

    def at(self, index: Tensor) -> "Shown":
        """Pick some of them."""
        return Shown(self.index[index], self.fronts.at(index), self.scene[index], self.bs[index])


class PathWithHead(nn.Module):
    """A path model, and a linear layer on its [PHYSC] for what it says nothing of itself."""

    def __init__(self, model: PathModel, outputs: int) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.settings.width, outputs)

    def forward(self, fronts: Fronts, sites: Sites) -> tuple[Outputs, Tensor]:
        """What the model says, and the head's outputs (B, outputs)."""
        outputs = self.model(fronts, sites)
        return outputs, self.head(outputs.physc)


# From what the network says of users, and their labels, to a loss; or to predictions (N, ...).
NetworkLoss = Callable[[Outputs, Tensor, Tensor], Tensor]
Says = Callable[[Outputs, Tensor], Tensor]


def place_loss(outputs: Outputs, _: Tensor, truth: Tensor) -> Tensor:
    """Negative log-likelihood of true places (B, 2) in the model's own mixture."""
    return -outputs.location.log_density(truth[:, None]).mean()


def place_of(outputs: Outputs, _: Tensor) -> Tensor:
    """Where the model's own mixture puts users, (B, 2)."""
    return outputs.location.best()


def beam_loss(outputs: Outputs, _: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of the model's own spectrum to the best beams, int64 (B,)."""
    return F.cross_entropy(beams_of_spectrum(outputs.spectrum), truth)


def beams_of(outputs: Outputs, _: Tensor) -> Tensor:
    """Scores (B, beams) of the model's own spectrum."""
    return beams_of_spectrum(outputs.spectrum)


@dataclass(frozen=True)
class Whole:
    """How networks are trained on users of a store."""

    predictor: PathPredictor
    settings: HeadSettings

    def shown(self, fronts: Fronts, scene: Tensor) -> Shown:
        """What the network is given of users in scenes int64 (N,)."""
        return Shown(torch.arange(len(scene)), fronts, scene, self.predictor.scenes.bs[scene])

    def sites(self, users: Shown) -> Sites:
        """Maps around some users."""
        rows, index = users.scene.unique(return_inverse=True)
        return Sites(self.predictor.scenes.height[rows], index, users.bs, self.predictor.scenes.size)

    def trained(
        self,
        pretrained: bool,
        users: Shown,
        label: Tensor,
        labelled: Callable[[int], Tensor],
        loss: NetworkLoss,
    ) -> Iterator[Trained[PathWithHead]]:
        """Train once per seed, at the rate that the first seed's held-back labels favour.

        From the pretrained weights, or from random ones: all else is the same. `labelled` gives for a seed the labelled users
        in random order, the last `held_back` of which choose rate and step; the start counts as a step.
        """

        def prepare(seed: int) -> TrainAt[PathWithHead]:
            index = labelled(seed)
            stop = first_held_back(len(index), self.settings.held_back)
            known, held_back = index[:stop], index[stop:][:LOOKED_AT]
            with seeded_weights(seed):
                model = self.predictor.model
                fresh = copy.deepcopy(model) if pretrained else PathModel(model.settings, model.geometry, model.radio)
                start = PathWithHead(fresh, 1)

            def of(network: PathWithHead, some: Tensor) -> Tensor:
                part = users.at(some)
                outputs, logits = network(part.fronts, self.sites(part))
                return loss(outputs, logits, label[some])

            def train_at(rate: float) -> tuple[float, PathWithHead]:
                network = copy.deepcopy(start)
                rng = np.random.default_rng([seed, BATCHES])

                def batch_loss() -> Tensor:
                    drawn = torch.from_numpy(rng.permutation(len(known))[: self.settings.finetune_batch])
                    return of(network, known[drawn])

                @torch.no_grad()
                def held_back_loss() -> float:
                    network.eval()
                    parts = held_back.split(self.predictor.batch_size)
                    return sum(float(of(network, part)) * len(part) for part in parts) / max(len(held_back), 1)

                steps = self.settings.finetune_steps
                return train_selected(network, batch_loss, held_back_loss, rate, steps, LOOK), network

            return train_at

        return train_seeds(self.settings.seeds, self.settings.finetune_rates, prepare)

    @torch.no_grad()
    def says(self, network: PathWithHead, users: Shown, says: Says) -> Tensor:
        """Predictions for any number of users."""
        parts = [users.at(index) for index in torch.arange(len(users.index)).split(self.predictor.batch_size)]
        return torch.cat([says(*network(part.fronts, self.sites(part))) for part in parts])
