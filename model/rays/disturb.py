"""What is wrong in a map, a panel or its place, put in on purpose: how much worse users are then located.

The channels of a store come from the very footprints and constants that waves are followed with. Real ones do not.
"""

import hashlib
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.settings.disturbance import DisturbanceSettings

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr

# Edge and height of a building that is not there, m.
EXTRA_EDGE, EXTRA_HEIGHT = 15.0, 12.0
# Waves around a path and the standard deviation of their directions, degrees: a cluster of 3GPP TR 38.901, 20 rays 3 degrees
# apart in azimuth of departure (table 7.5-6, UMi street canyon in line of sight).
CLUSTER, CLUSTER_SPREAD = 20, 3.0
# Users whose waves are summed at a time.
CHUNK = 32
# Assumed heights of users and permittivities that are drawn are no lower.
LOWEST_USER, VACUUM = 0.3, 1.0


class Disturbance(DisturbanceSettings):
    """What is wrong, and what it does; by default nothing is. See `DisturbanceSettings` for what there is.

    Examples
    --------
    >>> wrong = Disturbance.of(["footprints=0.5", "phase=5", "user_heights=1,1.5,2"])
    >>> wrong.phase, wrong.user_heights, wrong.needs_paths
    (5.0, (1.0, 1.5, 2.0), False)
    """

    @classmethod
    def of(cls, texts: list[str]) -> "Disturbance":
        """From texts NAME=VALUE.

        Raises
        ------
        InputError
            There is no such name, or the value is no number or out of bounds.
        """
        found: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in cls.model_fields:
                raise InputError(
                    f"disturb {text!r}: there is no {name!r}; give one of {', '.join(cls.model_fields)} as NAME=VALUE"
                )
            try:
                numbers = tuple(float(part) for part in value.split(","))
            except ValueError as error:
                raise InputError(f"disturb {text!r}: {value!r} is no number; give NAME=VALUE") from error
            found[name] = numbers if name == "user_heights" or len(numbers) > 1 else numbers[0]
        try:
            return cls(**found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"disturb {where}: {first['msg']}") from error

    @property
    def key(self) -> str:
        """Short hash of what is wrong; empty where nothing is."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12] if content else ""

    @property
    def of_map(self) -> bool:
        """Whether buildings are not where, or as high as, the map says."""
        return bool(self.footprints or self.heights or self.missing or self.extra)

    def drawn(self, rng: np.random.Generator, radio: Radio) -> "Disturbance":
        """A random part of this, each error by itself: nothing to all of it, on either side where it has two.

        Heights and permittivity are as far off the true ones of `radio` as this, or less; what is unknown stays unknown.
        """
        # As many draws whatever is wrong.
        names = tuple(DisturbanceSettings.model_fields)
        part = dict(zip(names, rng.uniform(0, 1, len(names)).tolist(), strict=True))
        found: dict[str, Any] = {"user_heights": self.user_heights}
        for name in ("footprints", "heights", "bs_position", "phase", "gain", "diffuse"):
            found[name] = getattr(self, name) * part[name]
        for name in ("bs_height", "azimuth", "downtilt"):
            found[name] = getattr(self, name) * (2 * part[name] - 1)
        for name in ("missing", "extra"):
            found[name] = int(part[name] * (getattr(self, name) + 1))
        for name, true, least in (
            ("user_height", radio.user_height, LOWEST_USER),
            ("permittivity", radio.permittivity.real, VACUUM),
        ):
            assumed = getattr(self, name)
            if assumed is not None:
                found[name] = max(true + (assumed - true) * (2 * part[name] - 1), least)
        return Disturbance(**found)

    def surroundings(
        self, store: str, scene: int, rng: np.random.Generator
    ) -> tuple[Surroundings, NDArray[np.float64]]:
        """`surroundings` with this wrong in them, and where the base station is believed to be from where it is, float (2,).

        Places that users are located at are relative to where it is believed to be.

        Raises
        ------
        InputError
            Users are assumed as high as the base station.
        """
        true = surroundings(store, scene, lambda table: self.map(table, rng))
        angle = rng.uniform(0, 2 * math.pi)
        shift = self.bs_position * np.array([math.cos(angle), math.sin(angle)])
        walls, (west, south, east, north) = true.walls, true.box
        moved = replace(walls, start=walls.start - torch.from_numpy(shift), end=walls.end - torch.from_numpy(shift))
        radio = replace(true.radio, bs_height=true.radio.bs_height + self.bs_height)
        if self.user_height is not None:
            radio = replace(radio, user_height=self.user_height)
        if self.permittivity is not None:
            radio = replace(radio, permittivity=complex(self.permittivity, radio.permittivity.imag))
        if max((radio.user_height, *self.user_heights)) >= radio.bs_height:
            raise InputError(
                f"users are assumed up to {max((radio.user_height, *self.user_heights)):g} m high, the base station at "
                f"{radio.bs_height:g} m; no wave comes down, give user_height or user_heights below it"
            )
        box = (west - shift[0], south - shift[1], east - shift[0], north - shift[1])
        return Surroundings(moved, radio, box, self.user_heights), shift

    def map(self, buildings: "gpd.GeoDataFrame", rng: np.random.Generator) -> "gpd.GeoDataFrame":
        """A scene's buildings with this wrong in them: `geometry` in m, `base` and `height` above the ground."""
        from shapely import box
        from shapely.affinity import translate

        # As many draws whatever is wrong, so that single disturbances are those of their sum.
        angle, factor = rng.uniform(0, 2 * math.pi, len(buildings)), rng.uniform(-1, 1, len(buildings))
        order, places = (
            rng.permutation(len(buildings)),
            rng.uniform(-100, 100 - EXTRA_EDGE, (max(self.extra, 1), 2)),
        )
        table = buildings.assign(
            geometry=[
                translate(shape, self.footprints * math.cos(a), self.footprints * math.sin(a))
                for shape, a in zip(buildings.geometry, angle, strict=True)
            ],
            height=np.maximum(buildings["height"] * (1 + self.heights * factor), buildings["base"] + 0.1),
        )
        table = table.iloc[np.sort(order[self.missing :])]
        if self.extra and len(table):
            more = table.iloc[[0] * self.extra].assign(
                geometry=[box(x, y, x + EXTRA_EDGE, y + EXTRA_EDGE) for x, y in places],
                base=0.0,
                height=EXTRA_HEIGHT,
            )
            import pandas as pd

            table = pd.concat([table, more])
        return table

    @property
    def needs_paths(self) -> bool:
        """Whether channels follow from the store's paths only: the panel looks elsewhere, or paths are diffuse."""
        return bool(self.azimuth or self.downtilt or self.diffuse)

    def channels(
        self, csi: Tensor, paths: "xr.Dataset | None", rng: np.random.Generator, spacing: float = 0.5
    ) -> Tensor:
        """Channels of users of one scene with this wrong in them.

        Parameters
        ----------
        csi : complex (B, x, y)
            True ones, of a panel that faces south.
        paths : xarray.Dataset or None
            `gain`, `aod_zenith`, `aod_azimuth` and `interactions` of the users, (user, path, ...); read only where it
            `needs_paths`.
        rng : Generator
        spacing : float
            Of the antennas, wavelengths.

        Returns
        -------
        complex64 (B, x, y)
            Users without a path keep zeros.
        """
        if self.needs_paths:
            if paths is None:
                raise ValueError("azimuth, downtilt and diffuse need the paths of the users")
            zenith, azimuth = (paths[f"aod_{name}"].values.astype(float) for name in ("zenith", "azimuth"))
            # A panel radiates ahead only.
            gain = paths["gain"].values * (np.sin(zenith) * np.sin(azimuth) < 0)
            touched = (paths["interactions"].values != 0).any(-1)
            size = (csi.shape[1], csi.shape[2])
            users = range(0, len(csi), CHUNK)
            csi = torch.cat(
                [
                    self.turned(
                        *self._diffused(gain[rows], zenith[rows], azimuth[rows], touched[rows], rng), size, spacing
                    )
                    for rows in (slice(start, start + CHUNK) for start in users)
                ]
            )
        return self.antennas(csi, rng)

    def _diffused(
        self,
        gain: NDArray[np.complex128],
        zenith: NDArray[np.float64],
        azimuth: NDArray[np.float64],
        touched: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.float64]]:
        """Paths (B, P) and, of those that met something (`touched`), the waves around them: three of (B, P + P * CLUSTER)."""
        if not self.diffuse:
            return gain, zenith, azimuth
        shape = (*gain.shape, CLUSTER)
        amplitude = np.abs(gain) * touched * math.sqrt(self.diffuse / CLUSTER)
        around = amplitude[..., None] * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)
        # Laplace distributed, as in TR 38.901: its standard deviation is sqrt(2) times its scale.
        turn, tilt = rng.laplace(0, math.radians(CLUSTER_SPREAD) / math.sqrt(2), (2, *shape))
        kept = gain * np.where(touched, math.sqrt(1 - self.diffuse), 1.0)
        return (
            np.concatenate((kept, around.reshape(len(gain), -1)), 1),
            np.concatenate((zenith, (zenith[..., None] + tilt).reshape(len(gain), -1)), 1),
            np.concatenate((azimuth, (azimuth[..., None] + turn).reshape(len(gain), -1)), 1),
        )

    def turned(
        self,
        gain: NDArray[np.complex128],
        zenith: NDArray[np.float64],
        azimuth: NDArray[np.float64],
        size: tuple[int, int],
        spacing: float = 0.5,
    ) -> Tensor:
        """Channels complex64 (B, x, y) of paths (B, P) at a panel facing south that is turned and tilted by this.

        Angles are those of departure, radians; antennas are `spacing` wavelengths apart.
        """
        turn, tilt = math.radians(self.azimuth), math.radians(self.downtilt)
        side = np.array([math.cos(turn), math.sin(turn), 0.0])
        ahead = np.array([math.sin(turn), -math.cos(turn), 0.0])
        down = -math.sin(tilt) * ahead - np.array([0.0, 0.0, math.cos(tilt)])
        away = np.stack((np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)), -1)
        waves = [
            np.exp(2j * math.pi * spacing * (away @ axis)[..., None] * (np.arange(count) - (count - 1) / 2))
            for axis, count in zip((side, down), size, strict=True)
        ]
        return torch.from_numpy(np.einsum("bp,bpx,bpy->bxy", gain, *waves)).to(torch.complex64)

    def antennas(self, csi: Tensor, rng: np.random.Generator) -> Tensor:
        """Channels complex (B, x, y) at antennas with errors of phase and gain."""
        phase, gain = rng.standard_normal((2, *csi.shape[1:]))
        error = 10 ** (self.gain * gain / 20) * np.exp(1j * np.radians(self.phase) * phase)
        return csi * torch.from_numpy(error).to(csi.dtype)


# Nothing is wrong.
NOTHING = Disturbance()
