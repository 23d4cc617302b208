"""What a recipe says about maps, panels and heights that are not as they are believed to be."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Natural, Ratio

Heights = tuple[Annotated[float, Field(gt=0, le=500)], ...]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,°%+-]*$")]


class DisturbanceSettings(Settings):
    """What is wrong; by default nothing is."""

    footprints: float = Field(
        0.0, ge=0, le=50, description="m by which every building is displaced, each in a direction of its own."
    )
    heights: Ratio = Field(0.0, description="Every height is off by a share of its own, at most so much.")
    missing: Natural = Field(0, description="Buildings that the map lacks.")
    extra: Natural = Field(0, description="Buildings that the map has too many.")
    user_height: float | None = Field(
        None, gt=0, le=500, description="Assumed height of the users in m; null: the true one."
    )
    permittivity: float | None = Field(
        None, ge=1, le=100, description="Assumed real part of the ground's relative permittivity; null: the true one."
    )
    bs_position: float = Field(
        0.0, ge=0, le=50, description="m by which the base station's place is off, in a random direction of the plan."
    )
    bs_height: float = Field(0.0, ge=-10, le=100, description="m by which it is assumed higher than it is.")
    azimuth: float = Field(0.0, ge=-45, le=45, description="Degrees by which the panel is turned, unknown to all.")
    downtilt: float = Field(0.0, ge=-45, le=45, description="Degrees by which it is tilted down, unknown to all.")
    phase: float = Field(
        0.0, ge=0, le=180, description="Standard deviation of each antenna's phase error, °; the same for all users."
    )
    gain: float = Field(
        0.0, ge=0, le=20, description="Standard deviation of each antenna's gain error, dB; the same for all users."
    )
    diffuse: Ratio = Field(
        0.0,
        description="Share of every reflected or diffracted path's power that arrives in many waves around it, 3° apart "
        "(root mean square).",
    )
    user_heights: Heights = Field(
        (), description="Heights in m, of which nobody knows which one is a user's; empty: `user_height`."
    )

    @model_validator(mode="after")
    def _one_height(self) -> "DisturbanceSettings":
        if self.user_heights and self.user_height is not None:
            raise ValueError("user_height and user_heights are both given; a height is assumed or unknown, give one")
        return self


class CaseSettings(DisturbanceSettings):
    """A case of the robustness table: what is wrong, and how much of the channel is seen."""

    snr: float | None = Field(None, description="Signal-to-noise ratio, dB; null: as in all other tables.")
    patches: Count | None = Field(None, description="CSI patches seen; null: as in all other tables.")


# From 1 m to 2 m, in steps that cost a user in line of sight no more than the level of its waves does.
FROM_1_TO_2_M: Heights = (1.0, 1.25, 1.5, 1.75, 2.0)
# The largest disturbances of a training, where a recipe says no others.
TRAINED = DisturbanceSettings(
    footprints=1.0,
    heights=0.2,
    missing=1,
    extra=1,
    user_height=1.2,
    permittivity=3.5,
    bs_position=0.5,
    bs_height=0.3,
    azimuth=0.5,
    downtilt=0.5,
    phase=5.0,
    gain=1.0,
    diffuse=0.2,
)
# Each alone, then a sum as one may have to live with.
STANDARD: dict[str, CaseSettings] = {
    "footprints 0.5 m off": CaseSettings(footprints=0.5),
    "footprints 1 m off": CaseSettings(footprints=1.0),
    "footprints 2 m off": CaseSettings(footprints=2.0),
    "heights 10 % off": CaseSettings(heights=0.1),
    "heights 30 % off": CaseSettings(heights=0.3),
    "a building missing": CaseSettings(missing=1),
    "a building too many": CaseSettings(extra=1),
    "users taken for 1.3 m high": CaseSettings(user_height=1.3),
    "users 1 to 2 m high": CaseSettings(user_heights=FROM_1_TO_2_M),
    "base station 0.5 m off": CaseSettings(bs_position=0.5),
    "base station taken for 0.5 m higher": CaseSettings(bs_height=0.5),
    "panel turned by 0.5°": CaseSettings(azimuth=0.5),
    "panel tilted by 0.5°": CaseSettings(downtilt=0.5),
    "ground of permittivity 3.5": CaseSettings(permittivity=3.5),
    "antennas off by 5° and 1 dB": CaseSettings(phase=5.0, gain=1.0),
    "a fifth of the power diffuse": CaseSettings(diffuse=0.2),
    "SNR 0 dB": CaseSettings(snr=0.0),
    "SNR 20 dB": CaseSettings(snr=20.0),
    "SNR 30 dB": CaseSettings(snr=30.0),
    "3 patches": CaseSettings(patches=3),
    "8 patches": CaseSettings(patches=8),
    "64 patches": CaseSettings(patches=64),
    "a sum of all": CaseSettings(
        footprints=0.5,
        heights=0.1,
        missing=1,
        extra=1,
        permittivity=4.5,
        bs_position=0.5,
        bs_height=0.2,
        azimuth=0.5,
        downtilt=0.5,
        phase=5.0,
        gain=1.0,
        diffuse=0.1,
        user_heights=FROM_1_TO_2_M,
    ),
}
Cases = Literal["standard"] | dict[Name, CaseSettings]
