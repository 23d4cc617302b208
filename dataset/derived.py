"""`DerivedCsi`: channels of another array, band or time as a transform of the torch readers, without new ray tracing."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from wavecity.dataset.bands import Port
from wavecity.dataset.files import StorePath
from wavecity.dataset.impairments import Sample, like
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.schema import Values
from wavecity.dataset.views import band_offsets, path_fields, radio_of_panel
from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import DeparturePaths, ReceiverSettings, csi, csi_axes


class DerivedCsi:
    """The channel of any array, band and time from the paths of a sample or batch.

    What `derived_csi` is for xarray, and equal to it. A reader needs the path arrays in `fields` among its own; in their
    place the sample gets `csi`. In a `Chain`, `Noise` and `Observe` come after it.

    Parameters
    ----------
    store : path or URL
        With path arrays (`features.paths`): says what the carrier and the panel are.
    columns, rows : int, optional
        Size of the base station's array; the store's unless given.
    spacing : float, optional
        Antenna spacing in wavelengths; the store's unless given.
    receiver : ReceiverSettings, optional
        Antenna panel of the users; adds axis `rx`.
    times : float (T,), optional
        Seconds; adds axis `time`.
    frequencies : float (F,), optional
        Hz from the carrier; adds axis `subcarrier`.
    subcarriers, bandwidth : int and float, optional
        Instead of `frequencies`: this many OFDM subcarriers, `bandwidth / subcarriers` Hz apart, around the carrier.
    normalize_delays : bool
        Count delays from each user's first path.
    keep_paths : bool
        Whether the path arrays stay in the sample.
    carrier : float, optional
        Of a store with several: the one that the reader reads, in Hz.
    port : str, optional
        Of a store with several pairs of ports: the one that the reader reads, or `all`.

    Attributes
    ----------
    fields : tuple of str
        Path arrays that it reads, for `fields=` of a reader.
    shape : tuple of int
        Of a user's `csi`: ([rx], [time], [subcarrier], x, y).

    Raises
    ------
    InputError
        A store without paths, a size below 1, frequencies not finite or further than 10 % off the carrier; when called,
        a sample without the path arrays.

    Examples
    --------
    >>> wide = DerivedCsi("helsinki", columns=8, rows=8, subcarriers=64, bandwidth=100e6)
    >>> train = ShuffledChannels("helsinki", "train", fields=(*wide.fields, "height"), transform=wide)
    >>> next(iter(train))["csi"].shape
    torch.Size([256, 64, 8, 8])
    """

    def __init__(
        self,
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
        keep_paths: bool = False,
        carrier: float | None = None,
        port: Port = None,
    ) -> None:
        open_store(store, "paths", carrier=carrier, port=port)  # refuses a store without them
        attributes = attributes_of(open_store(store, carrier=carrier, port=port).attrs)
        self.radio = radio_of_panel(store, attributes, {"columns": columns, "rows": rows, "spacing": spacing})
        self.receiver = receiver
        self.times = None if times is None else np.asarray(times, np.float64)
        self.frequencies = band_offsets(frequencies, subcarriers, bandwidth, self.radio.frequency)
        self.normalize_delays = normalize_delays
        self.keep_paths = keep_paths
        names = path_fields(receiver, self.times, self.frequencies, normalize_delays)
        self.fields = tuple(f"paths/{name}" for name in names)
        axes = csi_axes(receiver, self.times, self.frequencies)
        self.shape = (*axes.shape, self.radio.columns, self.radio.rows)

    def __call__(self, sample: Sample) -> Sample:
        """A copy of a sample, or of a batch, with the channel as `csi`: complex64 ([batch], ...), torch if the paths are."""
        missing = [name for name in self.fields if name not in sample] if isinstance(sample, Mapping) else self.fields
        if missing:
            msg = f"sample: has no {', '.join(missing)}; give the reader fields=({', '.join(map(repr, self.fields))}, ...)"
            raise InputError(msg)
        arrays = {name.removeprefix("paths/"): np.asarray(sample[name]) for name in self.fields}
        if "bs" in sample:
            arrays["aod_azimuth"] = self._turned(sample, arrays["aod_azimuth"])
        values = csi(
            cast(DeparturePaths, SimpleNamespace(**arrays)),
            self.radio,
            receiver=self.receiver,
            times=self.times,
            frequencies=self.frequencies,
            normalize_delays=self.normalize_delays,
        )
        kept = {name: value for name, value in sample.items() if self.keep_paths or name not in self.fields}
        return {**kept, "csi": like(sample["paths/gain"], values)}

    def _turned(self, sample: Sample, azimuth: Values) -> Values:
        """Azimuths of departure from a panel that faces where that of the sample's base station does."""
        if "bs/azimuth" not in sample:
            msg = "sample: has no bs/azimuth, where its base station faces; give the reader fields=('bs/azimuth', ...) as well"
            raise InputError(msg)
        faces = np.asarray(sample["bs/azimuth"], np.float64)
        if "scene_row" in sample:
            faces = faces[np.asarray(sample["scene_row"])]
        turn = np.deg2rad(self.radio.azimuth - faces)
        # The same for all paths, and for all pairs of ports.
        return np.asarray(azimuth + turn.reshape(turn.shape + (1,) * (azimuth.ndim - turn.ndim)), np.float32)

    def __repr__(self) -> str:
        radio = self.radio
        text = f"{radio.columns} x {radio.rows} antennas {radio.spacing:g} wavelengths apart"
        if self.frequencies is not None:
            text += (
                f", {len(self.frequencies)} subcarriers from {self.frequencies[0]:+g} to {self.frequencies[-1]:+g} Hz"
            )
        if self.times is not None:
            text += f", {len(self.times)} times"
        if self.receiver is not None:
            text += f", {self.receiver.columns} x {self.receiver.rows} receive antennas"
        return f"DerivedCsi({text})"
