"""A pretrained model for use: channels, maps and positions in physical units in, embeddings out."""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import to_angle_delay, window_of
from wavecity.model.data.json_types import Json
from wavecity.model.data.tokens import Statistics
from wavecity.model.data.users import height_patches
from wavecity.model.multimodal.inference import physc_of, pilots
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.path_model.front import front
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import Outputs, PathModel
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.network import TemporalModel

# What is given in NumPy comes back in NumPy.
Values = TypeVar("Values", Tensor, NDArray[Any])


class Pretrained(NamedTuple):
    """A multi-modal model with all that its inputs need.

    Attributes
    ----------
    model : FoundationModel
        In evaluation mode.
    settings : TrainingSettings
        Those it was trained with.
    statistics : Statistics
        Scales of the inputs.
    card : dict
        Fingerprint, dataset version, seed, package versions.
    """

    model: FoundationModel
    settings: TrainingSettings
    statistics: Statistics
    card: Json

    def embed(
        self,
        csi: Values,
        height: Values | None = None,
        user_position: Values | None = None,
        *,
        share: float = 1.0,
        seed: int | None = None,
        batch_size: int = 64,
        grad: bool = False,
    ) -> Values:
        """Encode channels: the [PHYSC] token, which the downstream tasks are learnt on.

        Parameters
        ----------
        csi : complex (N, x, y)
            sqrt(power gain), axes as in a store; or (x, y) of a single user.
        height : float (rows, columns) or (N, rows, columns), optional
            Height map in m, row 0 = north: one for all users, or one for each. Without it the model sees channels alone.
        user_position : float (N, 2) or (N, 3), optional
            Relative to the base station, m. By default it is hidden, as in every downstream task; shown only together
            with a map, as in pretraining.
        share : float
            Share of the CSI patches that the model sees, at least one; the others may hold anything.
        seed : int, optional
            Draws those patches, as the evaluation does; by default the seed of the pretraining.
        batch_size : int
            Users encoded at a time.
        grad : bool
            Keep what the gradients of the weights need, to train the encoder with a head; torch only.

        Returns
        -------
        float32 (N, d), or (d,) of a single user
            NumPy or torch, as `csi`; on the CPU or the device of `csi`.

        Raises
        ------
        InputError
            A shape that the model does not take, channels that are not complex, values that are not finite.

        Examples
        --------
        >>> model = load_model("runs/quickstart-paper")
        >>> model.embed(csi, height, share=0.25).shape
        (1000, 128)
        """
        geometry, device = self.model.geometry, _device(self.model)
        channels, single = _channels(csi, ("users", geometry.columns, geometry.rows), "antennas along x and y")
        maps = None if height is None else _real(height, "height")
        places = None if user_position is None else _real(user_position, "user_position")
        edge, count = geometry.height_cells, len(channels)
        if maps is not None and tuple(maps.shape) not in ((edge, edge), (count, edge, edge)):
            raise InputError(
                f"height has shape {tuple(maps.shape)}, expected ({edge}, {edge}) or ({count}, {edge}, {edge})"
            )
        if places is not None:
            places = places[None] if single and places.ndim == 1 else places
            if tuple(places.shape) not in ((count, 2), (count, 3)):
                raise InputError(
                    f"user_position has shape {tuple(places.shape)}, expected ({count}, 2) or ({count}, 3)"
                )
            if maps is None:
                raise InputError(
                    "user_position without height: the model has seen positions only with a map; give height too"
                )
        if not 0 < share <= 1:
            raise InputError(f"share is {share:g}, expected a number above 0, at most 1")
        if grad and not isinstance(csi, Tensor):
            raise InputError("grad=True with NumPy arrays, which carry no gradient; give torch tensors")

        visible = pilots(self.model, share, self.card["seed"] if seed is None else seed).to(device)
        patch = self.settings.model.height_patch
        found = []
        for index in torch.arange(count).split(batch_size):
            patches = position = None
            if maps is not None:
                chosen = maps.expand(len(index), -1, -1) if maps.ndim == 2 else maps[index]
                patches = height_patches(chosen.to(device), patch, self.statistics)
            if places is not None:
                position = places[index, :2].to(device)
            part = channels[index].to(device)
            with torch.set_grad_enabled(grad):
                found.append(physc_of(self.model, self.settings, self.statistics, visible, part, patches, position))
        embedded = torch.cat(found)
        return _like(embedded[0] if single else embedded, csi)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a folder of `config.json`, `model.safetensors` and a model card, which `load` takes.

        Needs `wavecity[hub]`.
        """
        from wavecity.model.training import hub

        return hub.save_pretrained(self, folder)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload such a folder to the Hugging Face Hub as `owner/name`; returns the address of the commit.

        Options are those of `huggingface_hub.ModelHubMixin.push_to_hub`: `private`, `branch`, `token`, ...
        """
        from wavecity.model.training import hub

        return hub.push_to_hub(self, name, **options)


class PretrainedTemporal(NamedTuple):
    """A temporal model with all that its inputs need.

    Attributes
    ----------
    model : TemporalModel
        In evaluation mode.
    settings : TrainingSettings
        Those it was trained with.
    card : dict
        Fingerprint, grid, trajectory (snapshots, subcarriers and their spacing), dataset version, seed, package versions.
    """

    model: TemporalModel
    settings: TrainingSettings
    card: Json

    @torch.no_grad()
    def embed(self, csi: Values, *, pooled: bool = True, batch_size: int = 16) -> Values:
        """Encode channels that move: the mean over the embeddings of all tokens, or those themselves.

        Parameters
        ----------
        csi : complex (N, time, subcarrier, x) or (N, time, subcarrier, x, 1)
            sqrt(power gain) of a linear array, as `trajectory/csi` of a store; any number of snapshots. Subcarriers and
            interval must be those of the training.
        pooled : bool
            False keeps the tokens.
        batch_size : int
            Users encoded at a time.

        Returns
        -------
        float32 (N, d), or (N, time, angle, delay, d)
            NumPy or torch, as `csi`. Tokens are patches of bins of angle and delay.

        Raises
        ------
        InputError
            A shape that the model does not take, channels that are not complex, values that are not finite.

        Examples
        --------
        >>> load_temporal_model("runs/temporal").embed(csi).shape  # of channels (N, time, subcarrier, x)
        (1000, 32)
        """
        antennas = self.model.grid[1]
        subcarriers = self.card["trajectory"]["subcarriers"]
        if csi.ndim == 5 and csi.shape[-1] == 1:
            csi = csi[..., 0]
        expected = ("users", "snapshots", subcarriers, antennas)
        channels, _ = _channels(csi, expected, "subcarriers and antennas", single=False)
        temporal, device = self.settings.temporal, _device(self.model)
        found = []
        for part in channels.split(batch_size):
            moved = part.to(device)
            tokens = to_angle_delay(moved, temporal.delays, window_of(moved, temporal))
            states = self.model.represent(tokens)
            found.append(states.mean((1, 2, 3)) if pooled else states)
        return _like(torch.cat(found), csi)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a folder of `config.json`, `model.safetensors` and a model card, which `load` takes.

        Needs `wavecity[hub]`.
        """
        from wavecity.model.training import hub

        return hub.save_pretrained(self, folder)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload such a folder to the Hugging Face Hub as `owner/name`; returns the address of the commit.

        Options are those of `huggingface_hub.ModelHubMixin.push_to_hub`: `private`, `branch`, `token`, ...
        """
        from wavecity.model.training import hub

        return hub.push_to_hub(self, name, **options)


class PretrainedRays(NamedTuple):
    """A path model with all that its inputs need.

    Attributes
    ----------
    model : PathModel
        In evaluation mode.
    settings : TrainingSettings
        Those it was trained with.
    card : dict
        Fingerprint, radio constants, dataset version, seed, package versions.
    """

    model: PathModel
    settings: TrainingSettings
    card: Json

    @torch.no_grad()
    def predict(
        self,
        csi: Tensor | NDArray[Any],
        shown: Tensor | NDArray[Any],
        scene: Surroundings,
        height: Tensor | NDArray[Any],
        noise: float | Tensor | NDArray[Any] = 0.0,
    ) -> Outputs:
        """Location, spectrum and [PHYSC] of the users of one scene, from partial channels and the map.

        Parameters
        ----------
        csi : complex (N, x, y)
            sqrt(power gain), axes as in a store; only entries where `shown` are read.
        shown : bool (x, y)
            Antennas that are seen.
        scene : Surroundings
            See `wavecity.surroundings`; of the radio constants that the model was trained with.
        height : float (rows, columns)
            Height map in m, row 0 = north.
        noise : float or (N,)
            Mean power of the noise of an entry, on the scale of the squared magnitude of `csi`; 0 for none.

        Raises
        ------
        InputError
            A shape that the model does not take, values that are not finite, a scene of another radio.
        """
        geometry = self.model.geometry
        channels, _ = _channels(csi, ("users", geometry.columns, geometry.rows), "antennas along x and y", single=False)
        mask, maps = torch.as_tensor(shown, dtype=torch.bool), _real(height, "height")
        edge = geometry.height_cells
        for name, found, wanted in (
            ("shown", tuple(mask.shape), tuple(channels.shape[1:])),
            ("height", tuple(maps.shape), (edge, edge)),
        ):
            if found != wanted:
                raise InputError(f"{name} has shape {found}, expected {wanted}")
        if not mask.any():
            raise InputError("shown has no antenna; show some")
        if scene.radio != self.model.radio:
            raise InputError(f"the scene's radio is {scene.radio}, the model was trained with {self.model.radio}")
        west, south, east, _ = scene.box
        size = east - west
        bs = torch.tensor([[-west - size / 2, -south - size / 2]], dtype=torch.float32).expand(len(channels), -1)
        sites = Sites(maps[None], torch.zeros(len(channels), dtype=torch.int64), bs, size)
        levels = torch.as_tensor(noise, dtype=torch.float64).expand(len(channels))
        fronts = front(channels, mask, levels, scene)
        return self.model(fronts, sites)

    def embed(
        self,
        csi: Values,
        shown: Tensor | NDArray[Any],
        scene: Surroundings,
        height: Tensor | NDArray[Any],
        noise: float | Tensor | NDArray[Any] = 0.0,
    ) -> Values:
        """Encode channels: the [PHYSC] token, float32 (N, d); arguments as for `predict`."""
        return _like(self.predict(csi, shown, scene, height, noise).physc, csi)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a folder of `config.json`, `model.safetensors` and a model card, which `load` takes.

        Needs `wavecity[hub]`.
        """
        from wavecity.model.training import hub

        return hub.save_pretrained(self, folder)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload such a folder to the Hugging Face Hub as `owner/name`; returns the address of the commit.

        Options are those of `huggingface_hub.ModelHubMixin.push_to_hub`: `private`, `branch`, `token`, ...
        """
        from wavecity.model.training import hub

        return hub.push_to_hub(self, name, **options)


def _channels(csi: object, expected: tuple[str | int, ...], what: str, single: bool = True) -> tuple[Tensor, bool]:
    """Channels (N, ...) as complex64, and whether they were given without the axis of users."""
    values = _tensor(csi)
    sizes = tuple(values.shape)
    alone = single and len(sizes) == len(expected) - 1
    found = ("users", *sizes) if alone else sizes
    fits = len(found) == len(expected) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(found, expected, strict=True)
    )
    if not fits or not all(sizes):
        raise InputError(f"csi has shape {sizes}, this model takes ({', '.join(map(str, expected))}): {what}")
    if not values.is_complex():
        raise InputError(
            f"csi is {str(values.dtype).removeprefix('torch.')}, expected complex numbers, sqrt(power gain)"
        )
    values = values.to(torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(values)).all()):
        raise InputError("csi is not finite; leave such users out")
    return values[None] if alone else values, alone


def _real(values: object, name: str) -> Tensor:
    found = _tensor(values)
    if found.is_complex() or not bool(torch.isfinite(found).all()):
        raise InputError(f"{name} must hold finite real numbers in m")
    return found.float()


def _tensor(values: object) -> Tensor:
    """Torch tensors as they are, anything else through NumPy."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.array(values)
    if array.dtype.kind not in "biufc":
        raise InputError(f"an array of {array.dtype} was given, expected numbers")
    return torch.from_numpy(array)


def _like(found: Tensor, given: Any) -> Any:
    return found.to(given.device) if isinstance(given, Tensor) else found.cpu().numpy()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
