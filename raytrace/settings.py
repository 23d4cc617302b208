"""What a recipe says about the radio link and the solver (units, bounds and meaning of every field)."""

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wavecity.geo.settings import Settings

# ITU-R P.2040 materials that are defined at 28.5 GHz; its *ground* materials stop at 10 GHz.
Material = Literal["concrete", "brick", "metal", "glass", "wood", "marble", "asphalt_concrete"]

# Highest frequency in Hz of ITU-R P.2040-3's models of these; those of the others go up to 100 GHz.
HIGHEST = {"brick": 40e9, "asphalt_concrete": 40e9, "marble": 60e9}

Carrier = Annotated[float, Field(gt=1e9, le=1e11)]

# Sionna's names of one polarisation, or of two at every antenna: V and H, or slanted by -45 and +45 degrees.
Polarisation = Literal["V", "H", "VH", "cross"]
# Slant of each of its ports in degrees, from vertical.
SLANTS: dict[Polarisation, tuple[float, ...]] = {"V": (0.0,), "H": (90.0,), "VH": (0.0, 90.0), "cross": (-45.0, 45.0)}


class RadioSettings(Settings):
    """Carrier, array and materials."""

    frequency: float = Field(28.5e9, gt=1e9, le=1e11, description="Carrier frequency in Hz.")
    carriers: tuple[Carrier, ...] | None = Field(
        None,
        min_length=1,
        description="Carrier frequencies in Hz in place of frequency, which is then the first of them: every channel at each "
        "carrier, with a panel whose spacing is in its wavelengths; null: one carrier.",
    )
    columns: int = Field(32, ge=1, le=256, description="Antennas of the base station's UPA along x (horizontal).")
    rows: int = Field(32, ge=1, le=256, description="Antennas of the base station's UPA along y (vertical).")
    spacing: float = Field(0.5, gt=0, le=10, description="Antenna spacing in wavelengths, both axes.")
    pattern: Literal["iso", "dipole", "hw_dipole", "tr38901"] = Field(
        "iso", description="Element pattern of the base station; users are isotropic."
    )
    polarisation: Polarisation = Field(
        "V",
        description="Of the base station's elements, as Sionna defines them; VH and cross: two ports at every antenna.",
    )
    user_polarisation: Polarisation = Field(
        "V", description="Of the users' antennas, which are upright; VH and cross: two ports."
    )
    azimuth: float = Field(
        -90.0, ge=-180, le=180, description="Boresight azimuth in degrees from east; -90 faces south."
    )
    downtilt: float = Field(0.0, ge=-90, le=90, description="Mechanical downtilt of the panel in degrees.")
    wall_material: Material = Field("concrete", description="ITU material of walls.")
    roof_material: Material = Field("concrete", description="ITU material of roofs.")
    ground_material: Material = Field("concrete", description="ITU material of the ground.")
    scattering: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Scattering coefficient S of all surfaces: a share S^2 of what they reflect is diffuse.",
    )
    scattering_pattern: Literal["lambertian", "directive", "backscattering"] = Field(
        "lambertian",
        description="Sionna's pattern of the diffuse share: a cosine, a lobe around the mirror direction, or that and a "
        "lobe back to the base station.",
    )
    scattering_alpha_r: int = Field(
        1, ge=1, le=64, description="Exponent of the lobe around the mirror direction; larger is narrower."
    )
    scattering_alpha_i: int = Field(
        1, ge=1, le=64, description="Exponent of the lobe back to the base station (backscattering)."
    )
    scattering_lambda: float = Field(
        1.0, ge=0, le=1, description="Share of the lobe around the mirror direction (backscattering)."
    )
    scattering_xpd: float = Field(
        0.0, ge=0, le=1, description="Share K_x of the scattered power that changes its polarisation."
    )

    @model_validator(mode="before")
    @classmethod
    def _first_is_the_frequency(cls, content: object) -> object:
        """Make `frequency` the first of several carriers; one alone is `frequency`."""
        if (
            not isinstance(content, dict)
            or not isinstance(carriers := content.get("carriers"), list | tuple)
            or not carriers
        ):
            return content
        return {**content, "frequency": carriers[0], "carriers": carriers if len(carriers) > 1 else None}

    @model_validator(mode="after")
    def _carriers_differ(self) -> "RadioSettings":
        """Refuse a carrier that is there twice."""
        if self.carriers and len(set(self.carriers)) < len(self.carriers):
            msg = f"carriers {list(self.carriers)}: one is there twice; leave it out"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _materials_have_models(self) -> "RadioSettings":
        """Refuse a material that ITU-R P.2040 does not describe at a carrier."""
        frequency = max(self.carriers or (self.frequency,))
        for field in ("wall_material", "roof_material", "ground_material"):
            highest = HIGHEST.get(getattr(self, field), frequency)
            if frequency > highest:
                msg = (
                    f"{field} {getattr(self, field)}: ITU-R P.2040 describes it up to {highest / 1e9:g} GHz, and frequency is "
                    f"{frequency / 1e9:g} GHz; choose concrete, glass, wood or metal"
                )
                raise ValueError(msg)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is as it was before there was a choice: one carrier, vertical polarisation."""
        content: dict[str, object] = handler(self)
        if self.carriers is None:
            content.pop("carriers", None)
        for name in ("polarisation", "user_polarisation"):
            if getattr(self, name) == "V":
                content.pop(name, None)
        return content

    @property
    def each(self) -> "tuple[RadioSettings, ...]":
        """These settings at every carrier by itself."""
        if self.carriers is None:
            return (self,)
        return tuple(self.model_copy(update={"frequency": carrier, "carriers": None}) for carrier in self.carriers)

    @property
    def ports(self) -> list[tuple[int, int]]:
        """Pairs of a user's port and one of the base station's, those of the user's first port first."""
        bs, user = len(SLANTS[self.polarisation]), len(SLANTS[self.user_polarisation])
        return list(product(range(user), range(bs)))


class SolverSettings(Settings):
    """Ray tracing."""

    max_depth: int = Field(3, ge=0, le=8, description="Largest number of interactions of a path.")
    rays: int = Field(1_000_000, ge=1000, le=100_000_000, description="Rays shot from the base station to find chains.")
    los: bool = Field(True, description="Trace the line of sight.")
    specular: bool = Field(True, description="Trace specular reflection.")
    diffraction: bool = Field(False, description="Trace first-order diffraction at building edges.")
    refraction: bool = Field(False, description="Trace paths through walls (10 cm thick, without a bend).")
    diffuse: bool = Field(
        False,
        description="Trace diffuse scattering; needs radio.scattering above 0.",
    )
    diffuse_method: Literal["patches", "rays"] = Field(
        "patches",
        description="patches: a path from each patch of the surfaces that the base station sees, first order, and csi is "
        "made from all paths; rays: Sionna's own, slow solver, also before and after other interactions.",
    )
    diffuse_rays: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Rays of diffuse_method rays; each can reach every user at every bounce.",
    )
    memory: int = Field(
        512,
        ge=128,
        le=1_000_000,
        description="Working memory of one worker's tracer in MB, in addition to the program's own 350 MB; changes no "
        "result.",
    )
    tolerance: float = Field(
        40.0,
        ge=0,
        le=200,
        description="dB, with diffraction: what is not tested of a user's paths lies together this far below its power, and "
        "each below its max_paths strongest paths; 0 tests all (exhaustive).",
    )
    max_paths: int = Field(32, ge=1, le=1024, description="Strongest paths kept for a user; the power cut is recorded.")
    gain_floor: float = Field(
        -200.0,
        ge=-400,
        le=-60,
        description="Path gain in dB below which a user counts as in outage (and what it gets).",
    )
