"""What an encoder is given and must return, how it is found by name, and the features that heads are trained on."""

import importlib
import os
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.tokens import visible_antennas
from wavecity.model.data.users import Users, WirelessData
from wavecity.model.multimodal.inference import pilot_patches
from wavecity.model.rays.surroundings import buildings_of

if TYPE_CHECKING:
    import geopandas as gpd

# Users of a batch at most.
BATCH = 64


@dataclass(frozen=True)
class Setup:
    """Array and band of a dataset.

    Attributes
    ----------
    frequency : float
        Of the carrier, Hz.
    columns, rows : int
        Antennas along x and y.
    spacing : float
        Of neighbouring antennas, wavelengths.
    tile_size : float
        Edge of the map, m.
    """

    frequency: float
    columns: int
    rows: int
    spacing: float
    tile_size: float


@dataclass(frozen=True)
class Batch:
    """Users of one scene, and all that an encoder may know of them.

    Attributes
    ----------
    csi : complex64 (B, x, y)
        sqrt(power gain) with noise, axes as in a store; 0 at antennas that are not visible.
    visible : bool (x, y)
        Antennas that are seen, the same ones of all users.
    noise : float64 (B,)
        Mean power of the noise of an entry, on the scale of the squared magnitude of `csi`; 0 where there is none.
    height : float32 (rows, columns)
        Height map of the scene in m, row 0 = north.
    base_station : float32 (2,)
        East and north of the map's centre, m.
    setup : Setup
        Array and band.
    store : str
        Where the dataset lies, for `footprints`.
    scene : int
        Row of the store's arrays, for `footprints`.
    """

    csi: NDArray[np.complex64]
    visible: NDArray[np.bool_]
    noise: NDArray[np.float64]
    height: NDArray[np.float32]
    base_station: NDArray[np.float32]
    setup: Setup
    store: str
    scene: int

    @property
    def footprints(self) -> "gpd.GeoDataFrame":
        """Buildings of the scene, with `geometry` in m from the map's centre, `base` and `height` in m; read when asked for.

        Raises
        ------
        InputError
            The store has no buildings.
        """
        return buildings_of(self.store, self.scene)


class Encoder(Protocol):
    """Anything with a method `embed`.

    One that has `parameters()`, as modules of torch do, has its size in the results.

    Examples
    --------
    >>> class Level:
    ...     def embed(self, batch):
    ...         return 20 * np.log10(np.abs(batch.csi).max((1, 2)) + 1e-30)[:, None]
    """

    def embed(self, batch: Batch) -> Any:
        """Encode a batch: finite real numbers (B, d), NumPy or torch; d is the same for all of a task, their scale is free."""


def load_encoder(name: str) -> Encoder:
    """Import an encoder, `package.module:name`: a class or function that makes one without arguments, or the encoder.

    The working folder is searched after what is installed.

    Raises
    ------
    InputError
        It cannot be imported or made, or has no method `embed`.

    Examples
    --------
    >>> load_encoder("wavecity.model.benchmark.examples:RawCsi").embed(batch).shape
    (64, 513)
    """
    module_name, _, path = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        # Last: no file of the working folder takes the place of an installed package.
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # anything that the module does
        msg = f"encoder {name}: {module_name} cannot be imported ({_reason(error)})"
        raise InputError(msg) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"encoder {name}: {module_name} has no {path}")
        found = getattr(found, part)
    if isinstance(found, type) or (callable(found) and not hasattr(found, "embed")):
        try:
            found = found()
        except InputError:
            raise
        except Exception as error:
            msg = f"encoder {name}: it cannot be made without arguments ({_reason(error)})"
            raise InputError(msg) from error
    if not callable(getattr(found, "embed", None)):
        raise InputError(f"encoder {name}: {type(found).__name__} has no method embed(batch)")
    encoder: Encoder = found
    return encoder


def _reason(error: BaseException) -> str:
    """An error of somebody's code in a line: type, first line of the message, and where that code raised it."""
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    # The first frame is the call from here; those of the import machinery have no file.
    frames = [one for one in traceback.extract_tb(error.__traceback__)[1:] if not one.filename.startswith("<")]
    frames = [one for one in frames if f"{os.sep}importlib{os.sep}" not in one.filename]
    return f"{said}; {os.path.basename(frames[0].filename)}, line {frames[0].lineno}" if frames else said


def parameters_of(encoder: Encoder) -> int | None:
    """Number of an encoder's weights; None for one that has none or does not say so."""
    parameters = getattr(encoder, "parameters", None)
    return sum(one.numel() for one in parameters()) if callable(parameters) else None


@dataclass
class Frozen:
    """An encoder whose features the heads of a task are trained on, and the dataset that it looks at."""

    encoder: Encoder
    name: str  # For messages
    data: WirelessData
    patch: int  # Edge of the patches that are visible or hidden as wholes, antennas
    width: int | None = field(default=None, init=False)  # Of the embedding, known from the first batch
    # Features are divided by the largest of the first batch: heads must not depend on the unit of an embedding
    scale: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.encoder, nn.Module):
            self.encoder.eval()
        columns, rows = (int(edge) for edge in next(iter(self.data.splits.values()))[0]["csi"].shape)
        for what, edge in (("columns", columns), ("rows", rows)):
            if edge % self.patch:
                raise InputError(
                    f"{self.data.name}: {edge} {what} of antennas; csi_patch {self.patch} must divide them"
                )
        attributes = self.data.attributes
        self.setup = Setup(
            frequency=float(attributes.get("frequency_hz", "nan")),
            columns=columns,
            rows=rows,
            spacing=float(attributes.get("array", {}).get("spacing_wavelengths", "nan")),
            tile_size=self.data.scenes.size,
        )

    def pilots(self, share: float, seed: int) -> Tensor:
        """Draw the visible antennas, bool (x, y): a share of all patches, the same ones as our own models see."""
        columns, rows = self.setup.columns, self.setup.rows
        visible = pilot_patches(columns * rows // self.patch**2, share, seed)
        return visible_antennas(visible, columns, rows, self.patch)

    def features(self, users: Users, shown: Tensor, noise: Tensor) -> Tensor:
        """Encode users with noisy channels, float32 (N, d).

        `shown`, bool (x, y), are the antennas that are seen; `noise`, float64 (N,), is the mean power of the noise of an
        entry.
        """
        rows, parts = [], []
        for scene in users.scene.unique().tolist():
            for index in (users.scene == scene).nonzero()[:, 0].split(BATCH):
                rows.append(index)
                parts.append(self._embed(self._batch(users.csi[index], shown, noise[index], scene)))
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _batch(self, csi: Tensor, shown: Tensor, noise: Tensor, scene: int) -> Batch:
        """Copies throughout: an encoder may change what it is given."""
        scenes = self.data.scenes
        return Batch(
            csi=torch.where(shown, csi, torch.zeros((), dtype=csi.dtype)).to(torch.complex64).numpy(),
            visible=shown.clone().numpy(),
            noise=noise.double().clone().numpy(),
            height=scenes.height[scene].float().clone().numpy(),
            base_station=scenes.bs[scene].float().clone().numpy(),
            setup=self.setup,
            store=self.data.name,
            scene=scene,
        )

    def _embed(self, batch: Batch) -> Tensor:
        try:
            with torch.no_grad():
                found = _array(self.encoder.embed(batch))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"encoder {self.name}: embed failed ({_reason(error)})") from error
        features = self._checked(found, len(batch.csi))
        if self.width is None:
            self.width = features.shape[1]
            self.scale = float(features.abs().max()) or 1.0
        return (features / self.scale).float()

    def _checked(self, values: NDArray[Any], users: int) -> Tensor:
        """What `embed` returned as float64 (B, d), refused if it is anything else."""
        said = f"encoder {self.name}: embed returned"
        if values.dtype.kind not in "fiub":
            raise InputError(f"{said} {values.dtype}, expected real numbers ({users}, d)")
        if values.ndim != 2 or len(values) != users or not values.shape[1]:
            raise InputError(f"{said} shape {values.shape}, expected ({users}, d), a row for each user of the batch")
        if self.width is not None and values.shape[1] != self.width:
            raise InputError(
                f"{said} {values.shape[1]} numbers for each user, but {self.width} before; d must not change"
            )
        wrong = int((~np.isfinite(values)).any(1).sum())
        if wrong:
            raise InputError(f"{said} values that are not finite, of {wrong} of {users} users")
        return torch.from_numpy(values.astype(np.float64))


def _array(found: Any) -> NDArray[Any]:
    """Tensors of any precision and device, arrays and lists as an array."""
    if isinstance(found, Tensor):
        found = found.detach().cpu()
        # NumPy has no bfloat16.
        return (found.double() if found.is_floating_point() else found).numpy()
    return np.asarray(found)
