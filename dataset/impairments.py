"""Noise at a given SNR and partial CSI: for whole arrays (xarray, lazy), samples and batches.

`Noise` and `Observe` are called with a `DataArray` of `dataset.views`, or with a sample or batch of the torch readers,
as whose `transform=` they serve. A user's noise and mask depend on seed, scene and user alone: they are the same in
both, in any order, batch, process and chunk.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, get_args, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wavecity.dataset.schema import Values
from wavecity.geo.errors import InputError
from wavecity.geo.seeding import generator

# A sample or batch of a reader: arrays by name, NumPy's or torch's.
Sample: TypeAlias = dict[str, Any]
# What transforms take and give back: channels as an array, or a sample.
Channels = TypeVar("Channels", xr.DataArray, Sample)

Pattern = Literal["random", "columns", "rows", "comb", "patches"]


def add_noise(csi: xr.DataArray, snr_db: float | tuple[float, float], seed: int = 0) -> xr.DataArray:
    """Add complex white Gaussian noise to channels; see `Noise`.

    Examples
    --------
    >>> noisy = add_noise(stored_csi("helsinki"), snr_db=10.0)
    """
    return Noise(snr_db, seed)(csi)


def observe(
    csi: xr.DataArray, share: float = 0.25, pattern: Pattern = "random", seed: int = 0, patch: int = 4
) -> tuple[xr.DataArray, xr.DataArray]:
    """Keep part of the antennas: the channels with all others 0, and the mask; see `Observe`.

    Examples
    --------
    >>> partial, mask = observe(stored_csi("helsinki"), share=0.25, pattern="comb")
    """
    chosen = Observe(share, pattern, seed, patch)
    mask = chosen.mask(csi)
    return chosen.apply(csi, mask), mask


@dataclass(frozen=True)
class Noise:
    """Complex white Gaussian noise at a given SNR of every user.

    The SNR is the mean of |h|^2 over all of a user's channel (base station antennas, and receive antennas, times and
    subcarriers where there are) over the variance of the noise of one entry. A user in outage has no signal, so no
    noise either. Other arrays of the sample (`spectrum`, ...) stay those of the clean one.

    Call it with an `xarray.DataArray` that has coordinates `scene_number` and `user` (`stored_csi`, `derived_csi`),
    which it leaves lazy; or with a sample, a dict of `csi` ((..., x, y), NumPy or torch), `scene` and `user`, or a batch of
    them, whose first axis is the same in all three. Of these it returns a copy with another `csi`. The same seed, scene
    and user have the same noise, for the same shape and NumPy's streams.

    Attributes
    ----------
    snr_db : float or (float, float)
        dB; of a pair, every user draws its own evenly between the two.
    seed : int

    Examples
    --------
    >>> noisy = Noise(snr_db=(0, 20), seed=1)(stored_csi("helsinki"))
    >>> train = ChannelDataset("helsinki", split="train", transform=Noise(10.0))
    """

    snr_db: float | tuple[float, float]
    seed: int = 0

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        ends = np.atleast_1d(np.asarray(self.snr_db, np.float64))
        if ends.shape not in ((1,), (2,)) or not np.isfinite(ends).all() or ends[0] > ends[-1]:
            msg = f"snr_db {self.snr_db}: must be a finite number of dB, or two of them, the lower first"
            raise InputError(msg)

    @overload
    def __call__(self, csi: xr.DataArray) -> xr.DataArray: ...

    @overload
    def __call__(self, csi: Sample) -> Sample: ...

    def __call__(self, csi: xr.DataArray | Sample) -> xr.DataArray | Sample:
        """Noisy channels of an array, or a copy of a sample or batch with them."""
        if isinstance(csi, Mapping):
            clean, scene, user = _of_sample(csi)
            return {
                **csi,
                "csi": like(csi["csi"], _each_user(self._user, clean.ndim - scene.ndim)(clean, scene, user)),
            }
        scenes, users = _numbers(csi)
        core = [dim for dim in csi.dims if dim not in ("scene", "user")]
        noisy: xr.DataArray = xr.apply_ufunc(
            _each_user(self._user, len(core)),
            # A user's noise is drawn at once.
            csi.copy(data=csi.variable.chunk(dict.fromkeys(core, -1)).data) if csi.chunks is not None else csi,
            scenes,
            users,
            input_core_dims=[core, [], []],
            output_core_dims=[core],
            dask="parallelized",
            output_dtypes=[np.complex64],
            keep_attrs="override",
        )
        return noisy.transpose(*csi.dims).assign_attrs(snr_db=self.snr_db, noise_seed=self.seed)

    def _user(self, clean: Values, scene: int, user: int) -> NDArray[np.complex64]:
        """Noisy channel of one user."""
        random = generator(self.seed, "noise", scene, user)
        ends = np.atleast_1d(np.asarray(self.snr_db, np.float64))
        snr = random.uniform(ends[0], ends[-1])
        power = np.mean(np.square(clean.real, dtype=np.float64) + np.square(clean.imag, dtype=np.float64))
        # Half of the variance is in the real part, half in the imaginary one.
        scale = math.sqrt(power / 10 ** (snr / 10) / 2)
        parts = random.standard_normal((*clean.shape, 2)) * scale
        return (clean + parts.view(np.complex128)[..., 0]).astype(np.complex64)


@dataclass(frozen=True)
class Observe:
    """Part of the base station's antennas, chosen for each user; the channel at all others becomes 0.

    The mask is one of antennas (x, y): the same for all receive antennas, times and subcarriers. Call it as `Noise`:
    with an array it returns one with the mask as coordinate `observed`; with a sample or batch, a copy with the mask in
    `observed` (bool ([batch], x, y), torch if `csi` is).

    Attributes
    ----------
    share : float
        Share of antennas kept, above 0 up to 1; rounded to whole antennas, columns, rows or patches, one at least.
    pattern : str
        `random` antennas; random whole `columns` (x) or `rows` (y); a `comb`, every 1/share-th column, from a random
        one on; or random square `patches`.
    seed : int
    patch : int
        Edge of a patch in antennas; divides the array's columns and rows.

    Examples
    --------
    >>> partial = Observe(share=0.25, pattern="columns")(stored_csi("helsinki"))
    >>> partial.coords["observed"].dtype
    dtype('bool')
    """

    share: float = 0.25
    pattern: Pattern = "random"
    seed: int = 0
    patch: int = 4

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        if not (np.isfinite(self.share) and 0 < self.share <= 1):
            msg = f"share {self.share}: must be above 0 and at most 1"
            raise InputError(msg)
        if self.pattern not in get_args(Pattern):
            msg = f"pattern {self.pattern!r}: must be one of {', '.join(get_args(Pattern))}"
            raise InputError(msg)
        if self.patch < 1:
            msg = f"patch {self.patch}: must be at least 1"
            raise InputError(msg)
        if self.pattern == "comb" and not math.isclose(1 / self.share, round(1 / self.share), rel_tol=1e-3):
            msg = f"share {self.share}: a comb keeps 1/2, 1/3, 1/4, ... of the columns; choose one of these"
            raise InputError(msg)

    @overload
    def __call__(self, csi: xr.DataArray) -> xr.DataArray: ...

    @overload
    def __call__(self, csi: Sample) -> Sample: ...

    def __call__(self, csi: xr.DataArray | Sample) -> xr.DataArray | Sample:
        """Partial channels and mask of an array, or a copy of a sample or batch with them."""
        if isinstance(csi, Mapping):
            whole, scene, user = _of_sample(csi)
            chosen = self._masks(whole.shape[-2:], scene, user)
            # One mask per sample, whatever lies between its users and its antennas.
            between = (1,) * (whole.ndim - chosen.ndim)
            kept = np.where(chosen.reshape(*scene.shape, *between, *whole.shape[-2:]), whole, 0).astype(np.complex64)
            return {**csi, "csi": like(csi["csi"], kept), "observed": like(csi["csi"], chosen)}
        mask = self.mask(csi)
        return self.apply(csi, mask).assign_coords(observed=mask)

    def mask(self, csi: xr.DataArray) -> xr.DataArray:
        """The mask alone: bool (scene, user, x, y), lazy where `csi` is."""
        scene, user = _numbers(csi)
        shape = (csi.sizes["x"], csi.sizes["y"])
        self._check_shape(shape)
        mask: xr.DataArray = xr.apply_ufunc(
            partial(self._masks, shape),
            scene,
            user,
            output_core_dims=[["x", "y"]],
            dask="parallelized",
            output_dtypes=[bool],
            dask_gufunc_kwargs={"output_sizes": dict(zip("xy", shape, strict=True))},
        )
        attributes = {"units": "1", "long_name": f"antenna observed, {self.pattern}", "seed": self.seed}
        same = {name: csi[name].variable for name in ("scene", "scene_number", "user") if name in csi.coords}
        return mask.rename("observed").assign_coords(same).assign_attrs(attributes)

    def apply(self, csi: xr.DataArray, mask: xr.DataArray) -> xr.DataArray:
        """Set the channel to 0 where the mask is false."""
        kept: xr.DataArray = csi.where(mask, np.complex64(0)).transpose(*csi.dims)
        return kept.assign_attrs(csi.attrs)

    def _check_shape(self, shape: tuple[int, int]) -> None:
        """Refuse an array that patches do not divide."""
        if self.pattern == "patches" and (shape[0] % self.patch or shape[1] % self.patch):
            msg = f"patch {self.patch}: does not divide an array of {shape[0]} x {shape[1]} antennas"
            raise InputError(msg)

    def _masks(self, shape: tuple[int, ...], scene: NDArray[np.int64], user: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks (..., x, y) of users."""
        scene, user = np.broadcast_arrays(scene, user)
        pairs = zip(scene.ravel().tolist(), user.ravel().tolist(), strict=True)
        masks = [self._user(shape, *pair) for pair in pairs]
        return np.array(masks, bool).reshape(*scene.shape, *shape)

    def _user(self, shape: tuple[int, ...], scene: int, user: int) -> NDArray[np.bool_]:
        """Mask (x, y) of one user."""
        columns, rows = shape
        self._check_shape((columns, rows))
        random = generator(self.seed, "mask", scene, user)

        def some(count: int) -> NDArray[np.bool_]:
            kept = np.zeros(count, bool)
            kept[random.permutation(count)[: max(round(self.share * count), 1)]] = True
            return kept

        mask = np.zeros((columns, rows), bool)
        if self.pattern == "random":
            mask[:] = some(columns * rows).reshape(columns, rows)
        elif self.pattern == "columns":
            mask[some(columns)] = True
        elif self.pattern == "rows":
            mask[:, some(rows)] = True
        elif self.pattern == "comb":
            step = min(round(1 / self.share), columns)
            mask[random.integers(step) :: step] = True
        else:
            grid = some(columns // self.patch * (rows // self.patch)).reshape(columns // self.patch, -1)
            mask[:] = grid.repeat(self.patch, 0).repeat(self.patch, 1)
        return mask


@dataclass(frozen=True)
class Chain:
    """Several transforms as one, in their order; for arrays, samples and batches.

    `Noise` belongs before `Observe`: after it, the zeros would count as signal and get noise.

    Examples
    --------
    >>> transform = Chain([Noise(10.0), Observe(0.25)])
    >>> train = ChannelDataset("helsinki", split="train", transform=transform)
    """

    transforms: Sequence[Callable[[Any], Any]]

    def __call__(self, csi: Channels) -> Channels:
        """Apply all."""
        for transform in self.transforms:
            csi = transform(csi)
        return csi


def _check_seed(seed: int) -> None:
    """Refuse a seed that is not a whole number from 0 on."""
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        msg = f"seed {seed!r}: must be a whole number from 0 on"
        raise InputError(msg)


def _numbers(csi: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Numbers (scene,) and (user,) of what `csi` holds, each a scalar where it holds one; chunked as it is."""
    numbers = []
    # Arrays of one's own may number their scenes in `scene` itself.
    for name in ("scene_number" if "scene_number" in csi.coords else "scene", "user"):
        if name not in csi.coords or csi[name].dtype.kind not in "iu":
            msg = (
                f"csi: has no coordinate {name!r} of whole numbers, so its random numbers are not known; take it from "
            )
            msg += "stored_csi(store)"
            raise InputError(msg)
        number = xr.DataArray(csi[name].values, dims=csi[name].dims)
        # The chunks of the channels themselves: those of coordinates may differ.
        chunks = {dim: csi.variable.chunksizes[dim] for dim in number.dims if csi.chunks is not None}
        numbers.append(number.chunk(chunks) if chunks else number)
    return numbers[0], numbers[1]


def _each_user(
    function: Callable[[Values, int, int], NDArray[np.complex64]], core: int
) -> Callable[..., NDArray[np.complex64]]:
    """Turn a function of one user into one of many: the last `core` axes are a user's."""

    def many(csi: Values, scene: NDArray[np.int64], user: NDArray[np.int64]) -> NDArray[np.complex64]:
        lead = csi.shape[: csi.ndim - core]
        scenes, users = np.broadcast_to(scene, lead), np.broadcast_to(user, lead)
        result = np.empty(csi.shape, np.complex64)
        for index in np.ndindex(lead):
            result[index] = function(csi[index], int(scenes[index]), int(users[index]))
        return result

    return many


def _of_sample(sample: Sample) -> tuple[Values, NDArray[np.int64], NDArray[np.int64]]:
    """Channels, scene and user of a sample or a batch."""
    for name in ("csi", "scene", "user"):
        if name not in sample:
            msg = (
                f"sample: has no {name!r}, it has {', '.join(map(str, sample))}; read the field csi of a dataset's "
                "reader"
            )
            raise InputError(msg)
    csi, scene, user = (np.asarray(sample[name]) for name in ("csi", "scene", "user"))
    return csi, scene, user


def like(original: Any, values: Values) -> Any:
    """`values` in the kind of array that `original` is: torch tensors without importing torch, else NumPy."""
    if isinstance(original, np.ndarray) or not hasattr(original, "new_tensor"):
        return values
    tensor = original.new_tensor(values)
    return tensor.bool() if values.dtype == bool else tensor
