"""Inference with a pretrained model on held-out users: fixed masks, batches, no gradients; and what its [PHYSC] attends to."""

import copy
import math
from dataclasses import InitVar, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics, complex_entries, visible_antennas
from wavecity.model.data.users import Rows, ScenePatches, Users, WirelessData
from wavecity.model.multimodal.attention import SelfAttentionBlock
from wavecity.model.multimodal.inputs import Prepared, masked_on_grid, normalise, prepare
from wavecity.model.multimodal.masking import Mask, draw_decoy, masked_count, split_along_link
from wavecity.model.multimodal.network import FoundationModel, Inputs
from wavecity.model.results.names import Method
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.transformer import seeded_weights

# Stream of random numbers for the visible CSI patches.
PILOTS = 10


@dataclass(frozen=True)
class Predictions(Rows):
    """Predictions of the model for N users."""

    physc: Tensor  # float32 (N, d); the encoded [PHYSC] token
    spectrum: Tensor  # float32 (N, kx, ky); raw output of the spectrum head; monotone in power
    csi: Tensor | None  # complex64 (N, x, y); in the dataset's unit; visible entries are 0
    location: Tensor | None  # float32 (N, 2); relative to the base station, m
    # float32 (N, Q, c); probability of the masked patches' cells; not-a-number elsewhere
    occupancy: Tensor | None


@dataclass
class Predictor:
    """A model with its settings, statistics and the scenes it looks at."""

    model: FoundationModel
    settings: TrainingSettings
    statistics: Statistics
    data: InitVar[WirelessData]
    batch_size: int

    def __post_init__(self, data: WirelessData) -> None:
        self.scenes = ScenePatches(data.scenes, self.settings, self.statistics, torch.device("cpu"))

    @property
    def geometry(self) -> Geometry:
        """Sizes of the data."""
        return self.model.geometry

    @property
    def width(self) -> int:
        """Width d of [PHYSC]."""
        return self.settings.model.width

    @property
    def patch(self) -> int:
        """Edge of a CSI patch in antennas."""
        return self.settings.model.csi_patch

    @property
    def csi_patches(self) -> int:
        """Number of CSI patches of a channel."""
        return self.model.csi_patches

    @property
    def size(self) -> float:
        """Edge of a tile, m."""
        return self.scenes.size

    @property
    def sparse_antennas(self) -> float:
        """Largest number of visible antennas at which sparse Bayesian learning is compared with.

        Its cost grows with the cube. Profile `wavecity` is compared with it at any: it is its estimator without training, and
        what is learned shows against nothing else.
        """
        model = self.settings.model
        return math.inf if model.profile == "wavecity" else model.recovery_antennas

    def visible_patches(self, ratio: float, seed: int) -> Tensor:
        """Draw the CSI patches that stay visible at a mask ratio, int64 (v,), sorted.

        The same ones for every user, as with fixed pilots, and for every task of a seed.
        """
        return _draw_visible(self.model.csi_patches, masked_count(ratio, self.model.csi_patches), seed)

    def shown(self, visible: Tensor) -> Tensor:
        """Antennas of visible CSI patches int64 (v,), bool (x, y)."""
        return visible_antennas(visible, self.geometry.columns, self.geometry.rows, self.patch)

    def pilots(self, share: float, seed: int) -> Tensor:
        """Draw the visible CSI patches, at least one, that are a share of all; as `visible_patches`."""
        return pilots(self.model, share, seed)

    def physc(self, users: Users, visible: Tensor) -> Tensor:
        """Encode a batch, float32 (B, d): the [PHYSC] token, from visible CSI patches int64 (v,) and the whole scene.

        The location is hidden and nothing of the scene masked, so that no mask can reveal where a user is.
        """
        height = self.scenes.height(users.scene)
        return physc_of(self.model, self.settings, self.statistics, visible, users.csi, height)

    @torch.no_grad()
    def encode(self, users: Users, visible: Tensor) -> Tensor:
        """`physc` of any number of users, in batches and without gradients."""
        parts = torch.arange(len(users)).split(self.batch_size)
        return torch.cat([self.physc(users.at(index), visible) for index in parts])

    def with_model(self, model: FoundationModel) -> "Predictor":
        """The same predictor with another model of the same settings."""
        changed = copy.copy(self)
        changed.model = model
        return changed

    def copied(self) -> "Predictor":
        """The same with a copy of the model, whose weights may be changed."""
        return self.with_model(copy.deepcopy(self.model))

    def untrained(self, seed: int) -> "Predictor":
        """Build the same model with random weights: what the architecture gives without pretraining."""
        with seeded_weights(seed + 1):
            return self.with_model(FoundationModel(self.settings.model, self.model.geometry).eval())

    def placed(self, users: Users, visible: Tensor) -> None:
        """None: heads do not start from where the model itself puts users."""

    def physics(self, users: Users, visible: Tensor) -> None:
        """None: the model knows nothing of waves."""

    def channels(self, users: Users, visible: Tensor) -> dict[Method, Tensor]:
        """Nothing: channels that the model fills in are not searched for beams."""
        return {}

    @torch.no_grad()
    def predict(
        self,
        users: Users,
        visible: Tensor,
        *,
        location: bool = False,
        scene_ratio: float = 0.0,
        decoy: np.random.Generator | None = None,
        fill_csi: bool = True,
    ) -> Predictions:
        """Run encoder, decoder and heads on visible CSI patches int64 (v,), and on the location if it is to be seen.

        A share `scene_ratio` of the height patches is masked along the link to the user, or to a random position of
        `decoy`: needed whenever the location is to be predicted fairly. Without `fill_csi` the masked CSI is left out,
        which may cost more than all the rest.
        """
        parts = [
            self._batch(users.at(index), self.mask(users.at(index), visible, location, scene_ratio, decoy), fill_csi)
            for index in torch.arange(len(users)).split(self.batch_size)
        ]
        return Predictions.joined(parts)

    def mask(
        self, users: Users, visible: Tensor, location: bool, scene_ratio: float, decoy: np.random.Generator | None
    ) -> Mask:
        """Build the mask of a batch; arguments as for `predict`."""
        batch = len(users)
        bs = self.scenes.bs[users.scene]
        end = bs + users.position if decoy is None else draw_decoy(batch, self.scenes.size, decoy)
        count = masked_count(scene_ratio, len(self.scenes.centres))
        scene = split_along_link(self.scenes.centres, bs, end, count)
        return Mask(*split_visible(visible, self.model.csi_patches, batch), *scene, location_visible=location)

    def prepared(self, users: Users, mask: Mask) -> Prepared:
        """Normalise a batch by what the mask leaves visible."""
        return prepare(users.csi, users.position, users.scene, mask, self.scenes)

    def _batch(self, users: Users, mask: Mask, fill_csi: bool) -> Predictions:
        prepared = self.prepared(users, mask)
        outputs = self.model(prepared.inputs, mask, fill_csi)
        csi = occupancy = None
        if outputs.csi is not None:
            grid = masked_on_grid(complex_entries(outputs.csi), mask, self.settings.model, self.model.geometry)
            csi = grid * prepared.scale[:, None, None].float()
        if outputs.occupancy is not None and mask.scene_masked is not None:
            shape = (len(users), self.model.scene_patches, outputs.occupancy.shape[-1])
            occupancy = torch.full(shape, float("nan"))
            index = mask.scene_masked[..., None].expand_as(outputs.occupancy)
            occupancy.scatter_(1, index, outputs.occupancy.sigmoid())
        place = None if outputs.location is None else outputs.location * self.statistics.position_scale
        return Predictions(outputs.physc, outputs.spectrum, csi, place, occupancy)


def physc_of(
    model: FoundationModel,
    settings: TrainingSettings,
    statistics: Statistics,
    visible: Tensor,
    csi: Tensor,
    height: Tensor | None,
    position: Tensor | None = None,
) -> Tensor:
    """Encode a batch, float32 (B, d): the [PHYSC] token; of map and location nothing is masked.

    `visible`, int64 (v,), are the CSI patches seen of complex64 (B, x, y). `height`, (B, Q, patch^2) of
    `height_patches`, shows the map, `position`, (B, 2) in m relative to the base station, the location; None hides it.
    """
    whole = None if height is None else torch.arange(height.shape[1], device=csi.device).expand(len(csi), -1)
    csi_split = split_visible(visible, model.csi_patches, len(csi))
    mask = Mask(*csi_split, whole, None, location_visible=position is not None)
    return model.encode(normalise(csi, height, position, mask, settings, statistics).inputs, mask)[:, 0]


def split_visible(visible: Tensor, patches: int, batch: int) -> tuple[Tensor, Tensor]:
    """The same visible patches, int64 (v,), and all others for every sample: int64 (B, v), (B, patches - v)."""
    hidden = torch.ones(patches, dtype=torch.bool, device=visible.device)
    hidden[visible] = False
    return visible.expand(batch, -1), hidden.nonzero()[:, 0].expand(batch, -1)


def pilots(model: FoundationModel, share: float, seed: int) -> Tensor:
    """Visible CSI patches, int64 (v,), sorted: a share of all, at least one."""
    return pilot_patches(model.csi_patches, share, seed)


def pilot_patches(patches: int, share: float, seed: int) -> Tensor:
    """Draw a share of so many patches, at least one, int64 (v,), sorted."""
    return _draw_visible(patches, patches - max(round(share * patches), 1), seed)


def _draw_visible(patches: int, masked: int, seed: int) -> Tensor:
    order = torch.from_numpy(np.random.default_rng([seed, PILOTS, masked]).permutation(patches))
    return order[masked:].sort().values


def top_k_hits(scores: Tensor, label: Tensor, k: int) -> float:
    """Share of users whose label, int64 (N,), is among the k highest finite scores (N, classes)."""
    best = scores.topk(min(k, scores.shape[1]), dim=1)
    return float(((best.indices == label[:, None]) & best.values.isfinite()).any(1).float().mean())


def beams_of_spectrum(spectrum: Tensor) -> Tensor:
    """Scores (N, kx * ky) of the DFT beams, in the order j = kx * Ny + ky (eq. 14), from a spectrum (N, kx, ky).

    A beam's index is the bin's, negated (see wavecity.dataset.features.beam_gain).
    """
    return spectrum.flip((-2, -1)).roll((1, 1), (-2, -1)).flatten(1)


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
