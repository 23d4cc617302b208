"""Views of a store without new ray tracing: other arrays, bands and times from the stored paths.

Views are lazy (dask) xarray arrays. `wavecity.dataset.impairments`, also available from here, continues from them:
`Noise` at a given SNR, and `Observe` for partial CSI.

What no view can restore: paths are cut to the strongest `solver.max_paths` of a user (coordinate `power_cut` says what
share of the power that cost). The carrier, materials, element pattern and orientation of the panel are in the path
gains and stay as they were traced.
"""

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.files import StorePath, open_group
from wavecity.dataset.impairments import Chain, Noise, Observe, add_noise, observe
from wavecity.dataset.metadata import SCENE_INDEX
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import StoreAttributes, attributes_of, cf_attributes
from wavecity.dataset.schema import SCENE_FIELDS, Values
from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import DeparturePaths, ReceiverSettings, csi, csi_axes, subcarrier_frequencies
from wavecity.raytrace.settings import RadioSettings

__all__ = ["Chain", "Noise", "Observe", "ReceiverSettings", "add_noise", "derived_csi", "observe", "stored_csi"]

# Share of the carrier that a frequency may lie off it: path gains and the array's spacing in wavelengths are the
# carrier's. At 10 %, free-space gain alone is off by 0.8 dB.
LARGEST_OFFSET = 0.1
# Largest block of a view in bytes, unless a single user's channel is larger: several are in memory at a time.
BLOCK = 2**25
# Keys of the array's attributes, and those of a recipe.
_ORIENTATION: tuple[tuple[str, Literal["azimuth_deg", "downtilt_deg"]], ...] = (
    ("azimuth", "azimuth_deg"),
    ("downtilt", "downtilt_deg"),
)


def stored_csi(
    store: str | StorePath, bs: Links | None = None, carrier: Carrier = None, port: Port = None
) -> xr.DataArray:
    """The channels as they are stored, with the coordinates that `Noise` and `Observe` need.

    Parameters
    ----------
    store : path or URL
    bs : int or "all", optional
        Of several base stations the one whose links are meant, or all; as of `open_store`.
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Returns
    -------
    xarray.DataArray
        complex64 ([bs], scene, user, [carrier or port], x, y), lazy.

    Examples
    --------
    >>> noisy = Noise(snr_db=10.0)(stored_csi("helsinki"))
    """
    data = open_store(store, bs=bs, carrier=carrier, port=port)
    return _with_coordinates(data["csi"], data)


def derived_csi(
    store: str | StorePath,
    *,
    columns: int | None = None,
    rows: int | None = None,
    spacing: float | None = None,
    receiver: ReceiverSettings | None = None,
    times: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    subcarriers: int | None = None,
    bandwidth: float | None = None,
    normalize_delays: bool = False,
    bs: Links | None = None,
    carrier: float | None = None,
    port: Port = None,
) -> xr.DataArray:
    """Channels of any array, band and time from the stored paths, by `wavecity.raytrace.channels.csi`.

    Plane waves over the panel, all frequencies with the carrier's steering vectors (no beam squint: at the ends of 32
    antennas a path 60 degrees off boresight is 0.3 rad off, 200 MHz from 28.5 GHz). Stored delays are float32, exact to
    2^-24 of themselves; the carrier phase is in the gains. So 200 MHz off the carrier a path of 1 us is exact to 8e-5
    rad.

    Parameters
    ----------
    store : path or URL
        With path arrays (`features.paths`).
    columns, rows : int, optional
        Size of the base station's array; the store's unless given.
    spacing : float, optional
        Antenna spacing in wavelengths; the store's unless given.
    receiver : ReceiverSettings, optional
        Antenna panel of the users; adds dimension `rx`.
    times : float (T,), optional
        Seconds, 1-D; adds dimension `time`. Paths turn by their Doppler phase.
    frequencies : float (F,), optional
        Hz from the carrier, 1-D; adds dimension `subcarrier`.
    subcarriers, bandwidth : int and float, optional
        Instead of `frequencies`: this many OFDM subcarriers, `bandwidth / subcarriers` Hz apart, around the carrier.
    normalize_delays : bool
        Count delays from each user's first path, as Sionna's `Paths.cfr` does by default.
    bs : int or "all", optional
        Of several base stations the one whose links are meant, each with its own panel's azimuth, or all (dimension `bs`);
        as of `open_store`.
    carrier : float, optional
        Of a store with several: the one with this frequency in Hz.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Returns
    -------
    xarray.DataArray
        complex64 ([bs], scene, user, [rx], [time], [subcarrier], x, y), sqrt(power gain); a dask chunk is a stored one of
        paths, or some of its users. Coordinates `scene` (ids), `scene_number` and `user` (numbers in the store),
        `rx_column`, `rx_row`, `time` (s), `frequency` (of `subcarrier`, Hz from the carrier), the store's of each scene,
        and `power_cut`. Padding and users in outage are 0.

    Raises
    ------
    InputError
        A store without paths, a size below 1, frequencies not finite or further than 10 % off the carrier, ...

    Examples
    --------
    >>> wide = derived_csi("helsinki", columns=8, rows=8, subcarriers=64, bandwidth=100e6)
    >>> scene = wide.isel(scene=0).compute()
    """
    data, paths = open_store(store, bs=bs, carrier=carrier, port=port), _open_paths(store, bs, carrier, port)
    radio = radio_of_panel(store, attributes_of(data.attrs), {"columns": columns, "rows": rows, "spacing": spacing})
    if "bs_azimuth" in data.coords:
        # Instead of the panel the directions are turned: only what lies between them counts.
        faces = data["bs_azimuth"]
        turn = xr.DataArray(np.deg2rad(np.nan_to_num(radio.azimuth - faces.values)).astype(np.float32), dims=faces.dims)
        turned = (paths["aod_azimuth"] + turn).transpose(*paths["aod_azimuth"].dims)
        paths = paths.assign(aod_azimuth=turned)
    frequencies = band_offsets(frequencies, subcarriers, bandwidth, radio.frequency)
    axes = csi_axes(receiver, times, frequencies)
    asked = (("rx", receiver), ("time", times), ("subcarrier", frequencies))
    dims = [name for name, value in asked if value is not None]
    sizes = {**dict(zip(dims, axes.shape, strict=True)), "x": radio.columns, "y": radio.rows}

    paths = _in_blocks(paths, BLOCK // (8 * math.prod(sizes.values())))
    names = path_fields(receiver, times, frequencies, normalize_delays)

    def channel(*arrays: Values) -> NDArray[np.complex64]:
        table = cast(DeparturePaths, SimpleNamespace(**dict(zip(names, arrays, strict=True))))
        return csi(
            table,
            radio,
            receiver=receiver,
            times=times,
            frequencies=frequencies,
            normalize_delays=normalize_delays,
        )

    result: xr.DataArray = xr.apply_ufunc(
        channel,
        *(paths[name] for name in names),
        input_core_dims=[["path"]] * len(names),
        output_core_dims=[list(sizes)],
        dask="parallelized",
        output_dtypes=[np.complex64],
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    result = _with_coordinates(result.rename("csi"), data).assign_coords(power_cut=paths["power_cut"])
    if times is not None:
        result = result.assign_coords(time=("time", axes.times, {"units": "s"}))
    if frequencies is not None:
        of_axis = {"units": "Hz", "long_name": "offset from the carrier"}
        result = result.assign_coords(frequency=("subcarrier", axes.frequencies, of_axis))
    if receiver is not None:
        # The order of `csi`: antenna (column, row) is at column * rows + row.
        column, row = np.divmod(np.arange(receiver.columns * receiver.rows), receiver.rows)
        result = result.assign_coords(rx_column=("rx", column), rx_row=("rx", row))
    attributes = {
        "units": "1",
        "long_name": "channel of every antenna, sqrt(power gain), from the stored paths",
        "frequency_hz": radio.frequency,
        "array": {"columns": radio.columns, "rows": radio.rows, "spacing_wavelengths": radio.spacing},
        **({"receiver": receiver.model_dump(mode="json")} if receiver is not None else {}),
        "delays": "from each user's first path" if normalize_delays else "absolute",
    }
    return result.assign_attrs(cf_attributes(attributes))


def path_fields(
    receiver: ReceiverSettings | None,
    times: ArrayLike | None,
    frequencies: ArrayLike | None,
    normalize_delays: bool,
) -> list[str]:
    """Path arrays that `wavecity.raytrace.channels.csi` reads for these arguments."""
    names = ["gain", "aod_zenith", "aod_azimuth"]
    names += ["aoa_zenith", "aoa_azimuth"] if receiver is not None else []
    names += ["doppler"] if times is not None else []
    return names + (["delay"] if frequencies is not None or normalize_delays else [])


def _open_paths(store: str | StorePath, bs: Links | None, carrier: float | None, port: Port) -> xr.Dataset:
    """Open the stored paths."""
    if "paths" not in open_group(resolve(store)):
        msg = f"{store}: stores no paths, so nothing can be derived; build it with features.paths: true"
        raise InputError(msg)
    return open_store(store, "paths", bs=bs, carrier=carrier, port=port)


def _in_blocks(paths: xr.Dataset, users: int) -> xr.Dataset:
    """Split stored chunks where one has more than so many users."""
    scenes_stored, users_stored = (paths["gain"].chunksizes[dim][0] for dim in ("scene", "user"))
    here = min(users_stored, max(users, 1))
    chunks = {"scene": min(scenes_stored, max(users // here, 1)), "user": here}
    return paths if chunks == {"scene": scenes_stored, "user": users_stored} else paths.chunk(chunks)


def radio_of_panel(
    store: str | StorePath,
    attributes: StoreAttributes,
    changes: Mapping[str, float | None],
    asked_by: str = "derived_csi",
) -> RadioSettings:
    """The panel of the store's recipe with another size or spacing."""
    array = attributes["array"]
    stored = {
        "frequency": attributes["frequency_hz"],
        "columns": array["columns"],
        "rows": array["rows"],
        "spacing": array["spacing_wavelengths"],
        # A store that is not of a recipe says the orientation in the array's attributes, or has the default one.
        **{name: array[key] for name, key in _ORIENTATION if key in array},
        **attributes.get("recipe", {}).get("radio", {}),
    }
    try:
        return RadioSettings(**stored | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        origin = asked_by if changes.get(name) is not None else f"{store}: recipe.radio"
        msg = f"{origin}: {name} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise InputError(msg) from error


def band_offsets(
    frequencies: ArrayLike | None, subcarriers: int | None, bandwidth: float | None, carrier: float
) -> NDArray[np.float64] | None:
    """Offsets from the carrier in Hz, checked; None at the carrier alone."""
    if frequencies is None and subcarriers is None and bandwidth is None:
        return None
    if frequencies is None:
        if subcarriers is None or bandwidth is None:
            msg = f"derived_csi: subcarriers {subcarriers}, bandwidth {bandwidth}: give both, or frequencies"
            raise InputError(msg)
        if subcarriers < 1 or not (np.isfinite(bandwidth) and bandwidth > 0):
            msg = f"derived_csi: subcarriers {subcarriers}, bandwidth {bandwidth}: must be at least 1, and above 0 Hz"
            raise InputError(msg)
        frequencies = subcarrier_frequencies(subcarriers, bandwidth / subcarriers)
    elif subcarriers is not None or bandwidth is not None:
        msg = "derived_csi: give frequencies, or subcarriers and bandwidth, not both"
        raise InputError(msg)
    values = np.asarray(frequencies, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        msg = f"derived_csi: frequencies of shape {values.shape}: a 1-D array of finite Hz from the carrier is needed"
        raise InputError(msg)
    furthest = np.abs(values).max()
    if furthest > LARGEST_OFFSET * carrier:
        msg = (
            f"derived_csi: frequency {furthest:g} Hz off the carrier: at most {LARGEST_OFFSET * carrier:g} Hz "
            f"({LARGEST_OFFSET:.0%} of {carrier:g}), for the paths were traced at the carrier"
        )
        raise InputError(msg)
    return values


def _with_coordinates(csi: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
    """Number scenes and users, so that a selection keeps their identity, and add the store's values of each scene."""
    numbers = {
        name: (dim, np.arange(data.sizes[dim]), {"long_name": f"number of the {dim} in the store"})
        for name, dim in (("scene_number", "scene"), ("user", "user"))
    }
    fields = [field.name for field in [*SCENE_FIELDS, SCENE_INDEX] if field.name in data.variables]
    named: xr.DataArray = csi.assign_coords({**numbers, **{name: data[name].variable.load() for name in fields}})
    return named
