"""What is wrong in a map, a panel or its place, put in on purpose: how much worse users are then located.

The channels of a store come from the very footprints and constants that waves are followed with. Real ones do not.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.rays.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    import geopandas as gpd

# Edge and height of a building that is not there, m.
EXTRA_EDGE, EXTRA_HEIGHT = 15.0, 12.0


@dataclass(frozen=True)
class Disturbance:
    """What is wrong; by default nothing is.

    Attributes
    ----------
    footprints : float
        m by which every building is displaced, each in a direction of its own.
    heights : float
        Every height is off by a share of its own, at most so much.
    missing, extra : float
        Buildings that the map lacks, and that it has too many.
    user_height, permittivity : float or None
        Assumed height of users in m, and real part of the ground's relative permittivity.
    bs_position, bs_height : float
        m by which the base station's place is off, in a random direction of the plan, and upwards.
    azimuth, downtilt : float
        Degrees by which the panel is turned towards the north-east, and tilted down, without anybody's knowing it.
    phase, gain : float
        Standard deviation of every antenna's error in degrees, and dB; the same for all users.

    Examples
    --------
    >>> Disturbance.of(["footprints=0.5", "phase=5"])
    Disturbance(footprints=0.5, heights=0.0, missing=0.0, extra=0.0, user_height=None, permittivity=None, bs_position=0.0, \
bs_height=0.0, azimuth=0.0, downtilt=0.0, phase=5.0, gain=0.0)
    """

    footprints: float = 0.0
    heights: float = 0.0
    missing: float = 0.0
    extra: float = 0.0
    user_height: float | None = None
    permittivity: float | None = None
    bs_position: float = 0.0
    bs_height: float = 0.0
    azimuth: float = 0.0
    downtilt: float = 0.0
    phase: float = 0.0
    gain: float = 0.0

    @classmethod
    def of(cls, texts: list[str]) -> "Disturbance":
        """From texts NAME=VALUE.

        Raises
        ------
        InputError
            There is no such name, or the value is no number.
        """
        names = [field.name for field in fields(cls)]
        found: dict[str, float] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in names:
                raise InputError(
                    f"disturb {text!r}: there is no {name!r}; give one of {', '.join(names)} as NAME=VALUE"
                )
            try:
                found[name] = float(value)
            except ValueError as error:
                raise InputError(f"disturb {text!r}: {value!r} is no number; give NAME=VALUE") from error
        return cls(**found)

    def surroundings(
        self, store: str, scene: int, rng: np.random.Generator
    ) -> tuple[Surroundings, NDArray[np.float64]]:
        """`surroundings` with this wrong in them, and where the base station is believed to be from where it is, float (2,).

        Places that users are located at are relative to where it is believed to be.
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
        box = (west - shift[0], south - shift[1], east - shift[0], north - shift[1])
        return Surroundings(moved, radio, box), shift

    def map(self, buildings: "gpd.GeoDataFrame", rng: np.random.Generator) -> "gpd.GeoDataFrame":
        """A scene's buildings with this wrong in them: `geometry` in m, `base` and `height` above the ground."""
        from shapely import box
        from shapely.affinity import translate

        # As many draws whatever is wrong, so that single disturbances are those of their sum.
        angle, factor = rng.uniform(0, 2 * math.pi, len(buildings)), rng.uniform(-1, 1, len(buildings))
        order, places = (
            rng.permutation(len(buildings)),
            rng.uniform(-100, 100 - EXTRA_EDGE, (max(int(self.extra), 1), 2)),
        )
        table = buildings.assign(
            geometry=[
                translate(shape, self.footprints * math.cos(a), self.footprints * math.sin(a))
                for shape, a in zip(buildings.geometry, angle, strict=True)
            ],
            height=np.maximum(buildings["height"] * (1 + self.heights * factor), buildings["base"] + 0.1),
        )
        table = table.iloc[np.sort(order[int(self.missing) :])]
        if int(self.extra) and len(table):
            more = table.iloc[[0] * int(self.extra)].assign(
                geometry=[box(x, y, x + EXTRA_EDGE, y + EXTRA_EDGE) for x, y in places],
                base=0.0,
                height=EXTRA_HEIGHT,
            )
            import pandas as pd

            table = pd.concat([table, more])
        return table

    @property
    def turns(self) -> bool:
        """Whether the panel looks elsewhere, so that channels follow from paths only: see `turned`."""
        return bool(self.azimuth or self.downtilt)

    def turned(
        self,
        gain: NDArray[np.complex128],
        zenith: NDArray[np.float64],
        azimuth: NDArray[np.float64],
        size: tuple[int, int],
    ) -> Tensor:
        """Channels complex64 (B, x, y) of paths (B, P) at a panel facing south that is turned and tilted by this.

        Angles are those of departure, radians; antennas are half a wavelength apart.
        """
        turn, tilt = math.radians(self.azimuth), math.radians(self.downtilt)
        side = np.array([math.cos(turn), math.sin(turn), 0.0])
        ahead = np.array([math.sin(turn), -math.cos(turn), 0.0])
        down = -math.sin(tilt) * ahead - np.array([0.0, 0.0, math.cos(tilt)])
        away = np.stack((np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)), -1)
        waves = [
            np.exp(1j * math.pi * (away @ axis)[..., None] * (np.arange(count) - (count - 1) / 2))
            for axis, count in zip((side, down), size, strict=True)
        ]
        return torch.from_numpy(np.einsum("bp,bpx,bpy->bxy", gain, *waves)).to(torch.complex64)

    def antennas(self, csi: Tensor, rng: np.random.Generator) -> Tensor:
        """Channels complex (B, x, y) at antennas with errors of phase and gain."""
        phase, gain = rng.standard_normal((2, *csi.shape[1:]))
        error = 10 ** (self.gain * gain / 20) * np.exp(1j * np.radians(self.phase) * phase)
        return csi * torch.from_numpy(error).to(csi.dtype)
