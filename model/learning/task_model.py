"""What downstream tasks need of a pretrained model, whichever it is."""

from typing import Protocol

from torch import Tensor, nn

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics
from wavecity.model.data.users import Users
from wavecity.model.multimodal.inference import Predictions
from wavecity.model.results.names import Method


class TaskModel(Protocol):
    """A pretrained model that sees some CSI patches of users, the same ones for all, and the scene.

    `multimodal.inference.Predictor` and `path_model.encoder.PathEncoder` are such. Users come with the channels that are seen,
    noise included, and its power.
    """

    @property
    def model(self) -> nn.Module:
        """The network."""

    @property
    def statistics(self) -> Statistics:
        """Scales of levels."""

    @property
    def geometry(self) -> Geometry:
        """Sizes of the data."""

    @property
    def width(self) -> int:
        """Width d of [PHYSC]."""

    @property
    def patch(self) -> int:
        """Edge of a CSI patch in antennas."""

    @property
    def csi_patches(self) -> int:
        """Number of CSI patches of a channel."""

    @property
    def size(self) -> float:
        """Edge of a tile, m."""

    @property
    def sparse_antennas(self) -> float:
        """Largest number of visible antennas at which sparse Bayesian learning is compared with."""

    def pilots(self, share: float, seed: int) -> Tensor:
        """Draw the visible CSI patches, int64 (v,), sorted: a share of all, at least one."""

    def shown(self, visible: Tensor) -> Tensor:
        """Antennas of visible CSI patches int64 (v,), bool (x, y)."""

    def physc(self, users: Users, visible: Tensor) -> Tensor:
        """[PHYSC] of a batch, float32 (B, d), with gradients."""

    def encode(self, users: Users, visible: Tensor) -> Tensor:
        """[PHYSC] of any number of users, without gradients."""

    def predict(self, users: Users, visible: Tensor, *, fill_csi: bool = True) -> Predictions:
        """What the model says of any number of users, without gradients."""

    def placed(self, users: Users, visible: Tensor) -> Tensor | None:
        """[PHYSC], where the model itself puts users, and how unsure it is of that, in m, float32 (N, d + 3).

        None if heads are not to start from that.
        """

    def physics(self, users: Users, visible: Tensor) -> Tensor | None:
        """Where the physics localiser puts users, float32 (N, 2) in m, if the model has it at hand."""

    def channels(self, users: Users, visible: Tensor) -> dict[Method, Tensor]:
        """Whole channels complex64 (N, x, y) that the model itself, or what it is shown, makes up."""

    def copied(self) -> "TaskModel":
        """The same with a copy of the network, whose weights may be changed."""

    def untrained(self, seed: int) -> "TaskModel":
        """The same with random weights."""
