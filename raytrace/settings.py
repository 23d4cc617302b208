"""What a recipe says about the radio link and the solver (units, bounds and meaning of every field)."""

from typing import Literal

from pydantic import Field

from geo.settings import Settings

# ITU-R P.2040 materials that are defined at 28.5 GHz; its *ground* materials stop at 10 GHz.
Material = Literal["concrete", "brick", "metal", "glass", "wood", "marble", "asphalt_concrete"]


class RadioSettings(Settings):
    """Carrier, array and materials."""

    frequency: float = Field(28.5e9, gt=1e9, le=1e11, description="Carrier frequency in Hz.")
    columns: int = Field(32, ge=1, le=256, description="Antennas of the base station's UPA along x (horizontal).")
    rows: int = Field(32, ge=1, le=256, description="Antennas of the base station's UPA along y (vertical).")
    spacing: float = Field(0.5, gt=0, le=10, description="Antenna spacing in wavelengths, both axes.")
    pattern: Literal["iso", "dipole", "hw_dipole", "tr38901"] = Field(
        "iso", description="Element pattern of the base station (vertical polarisation); users are isotropic."
    )
    azimuth: float = Field(
        -90.0, ge=-180, le=180, description="Boresight azimuth in degrees from east; -90 faces south."
    )
    downtilt: float = Field(0.0, ge=-90, le=90, description="Mechanical downtilt of the panel in degrees.")
    wall_material: Material = Field("concrete", description="ITU material of walls.")
    roof_material: Material = Field("concrete", description="ITU material of roofs.")
    ground_material: Material = Field("concrete", description="ITU material of the ground.")


class SolverSettings(Settings):
    """Ray tracing."""

    max_depth: int = Field(3, ge=0, le=8, description="Largest number of reflections of a path.")
    rays: int = Field(1_000_000, ge=1000, le=100_000_000, description="Rays shot from the base station to find chains.")
    los: bool = Field(True, description="Trace the line of sight.")
    specular: bool = Field(True, description="Trace specular reflection.")
    diffraction: bool = Field(False, description="Trace first-order diffraction at building edges.")
    max_paths: int = Field(32, ge=1, le=1024, description="Strongest paths kept for a user; the power cut is recorded.")
    gain_floor: float = Field(
        -200.0,
        ge=-400,
        le=-60,
        description="Path gain in dB below which a user counts as in outage (and what it gets).",
    )
