"""`Recipe`: everything a run depends on, in one YAML file and one pydantic model."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from wavecity.dataset.files import read_json
from wavecity.dataset.settings import FeatureSettings, GateSettings, StoreSettings
from wavecity.flows.yaml_text import parse, read_text, value_of
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, MobilitySettings, Settings, UserSettings
from wavecity.geo.vegetation_settings import SceneSettings, lacks_vegetation
from wavecity.model.settings.training import TrainingSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings

RECIPES = resources.files("wavecity.flows.recipes")

# Parts that decide the bytes of the dataset; training may change without a new version. The number of versions kept
# belongs to the store, not to its content, and the tracer's memory changes no result.
DATA_PARTS = ("seed", "area", "scene", "radio", "users", "mobility", "solver", "features", "store")

# MB that the trajectories of a unit may take in a worker, which holds about three copies of them.
MOST_TRAJECTORIES = 1000
# MB of the channels and spectra of a unit. A worker needs seven times as much: 3.6 GB for 491 MB.
MOST_CHANNELS = 1000
# MB of the radio maps of a unit, of which a worker holds about three copies.
MOST_MAPS = 1000
# Metres above ground at which a base station may be given: above all buildings there are.
HIGHEST_BASE_STATION = 1000
# Of the carrier; a wider band would need materials and steering by frequency.
WIDEST_BAND = 0.1


class Recipe(Settings):
    """One run: map -> scenes -> channels -> store -> model -> report."""

    base: str | None = Field(
        None,
        description="Shipped recipe that this one changes: what is not named here is as it is there.",
        # With a choice, Prefect refuses another name before a run exists.
        json_schema_extra=lambda schema: _choose(schema, [*shipped_recipes(), None]),
    )
    # Not `[a-z0-9]...`: Prefect's command line prints a message with this pattern through rich, which takes `[a...]` for
    # markup and leaves it out.
    name: str = Field(pattern=r"^[0-9a-z][0-9a-z-]*$", description="Short name: lower case, digits, hyphens.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of every random choice.")
    area: AreaSettings = AreaSettings()
    scene: SceneSettings = SceneSettings()
    radio: RadioSettings = RadioSettings()
    users: UserSettings = UserSettings()
    mobility: MobilitySettings | None = Field(
        None, description="Users that move, with channels along their ways; null: they stand still."
    )
    solver: SolverSettings = SolverSettings()
    features: FeatureSettings = FeatureSettings()
    store: StoreSettings = StoreSettings()
    gates: GateSettings = GateSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="before")
    @classmethod
    def _on_its_base(cls, content: object) -> object:
        """Merge a recipe's content into that of its base, and that into its own."""
        while isinstance(content, dict) and content.get("base") is not None:
            if content["base"] not in shipped_recipes():
                msg = f"base is {content['base']!r}; shipped recipes: {', '.join(shipped_recipes())}"
                raise ValueError(msg)
            base = yaml.safe_load((RECIPES / f"{content['base']}.yaml").read_text(encoding="utf-8"))
            # The result has the base of its base, in the end none.
            content = _merge(base, {key: value for key, value in content.items() if key != "base"})
        return content

    @model_validator(mode="after")
    def _diffuse_has_something_to_scatter(self) -> "Recipe":
        """Refuse diffuse paths without scattering surfaces, and scattering without diffuse paths."""
        if self.solver.diffuse != (self.radio.scattering > 0):
            diffuse, scattering = str(self.solver.diffuse).lower(), self.radio.scattering
            msg = (
                f"solver.diffuse is {diffuse}, but radio.scattering is {scattering:g}: diffuse scattering needs both, "
                "and without it nothing may be scattered away"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _rasters_divide_the_tile(self) -> "Recipe":
        """Refuse rasters that do not fit into a tile."""
        for name in ("resolution", "occupancy_patch"):
            cell, size = getattr(self.scene, name), self.area.tile_size
            count = round(size / cell)
            if count < 1 or abs(count * cell - size) > 1e-6 * size:
                msg = f"scene.{name}: {cell:g} m does not divide area.tile_size, {size:g} m; choose a divisor"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _base_stations_stand_in_the_tile(self) -> "Recipe":
        """Refuse base stations outside of the tile, under the ground or above all buildings there are."""
        others = self.scene.base_stations
        half = self.area.tile_size / 2
        for x, y, z in others.positions if others else ():
            if not (max(abs(x), abs(y)) <= half and 0 < z <= HIGHEST_BASE_STATION):
                msg = (
                    f"scene.base_stations.positions: {x:g}, {y:g}, {z:g}: must lie in the tile, at most {half:g} m east "
                    f"and north of its centre either way, above the ground and at most {HIGHEST_BASE_STATION:g} m high"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _vegetation_is_in_the_maps(self) -> "Recipe":
        """Refuse vegetation of maps that hold buildings and streets alone."""
        if self.scene.vegetation is None:
            return self
        for source in {city.source or self.area.source for city in self.area.cities} or {self.area.source}:
            if lacks_vegetation(source):
                msg = f"scene.vegetation: a map from {source} holds no trees; give an .osm or .osm.pbf extract as area.source"
                raise ValueError(msg)
        return self

    @property
    def base_stations(self) -> int:
        """Number of base stations of a scene."""
        return self.scene.base_stations.count if self.scene.base_stations else 1

    @model_validator(mode="after")
    def _radio_maps_can_be_made(self) -> "Recipe":
        """Refuse radio maps that do not fit into a tile or into memory, or that cannot be traced."""
        grid = self.features.radio_map
        if grid is None:
            return self
        try:
            cells = grid.cells(self.area.tile_size)
        except ValueError as error:
            msg = f"features.radio_map.{error}"
            raise ValueError(msg) from error
        if self.solver.diffuse:
            msg = "solver.diffuse is true, but radio maps have no diffuse paths; set it to false, or features.radio_map to null"
            raise ValueError(msg)
        unit = 4 * cells**2 * len(grid.metrics) * len(self.radio.each) * self.store.unit / 1e6
        if unit > MOST_MAPS:
            msg = (
                f"radio maps of a unit would take {unit:,.0f} MB, more than {MOST_MAPS:,}: make features.radio_map.spacing "
                "larger, or store.unit or the list of metrics smaller"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ports_can_be_traced(self) -> "Recipe":
        """Refuse what is made between one pair of ports only."""
        if len(self.radio.ports) == 1:
            return self
        if self.radio.carriers:
            msg = (
                "radio.carriers: with two ports there is one carrier; set polarisation and user_polarisation to V or H"
            )
            raise ValueError(msg)
        for name, asked in {"mobility": self.mobility, "features.radio_map": self.features.radio_map}.items():
            if asked is not None:
                msg = f"radio.polarisation: {name} goes with one port at each end; set {name} to null, or polarisations to V or H"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ways_can_be_followed(self) -> "Recipe":
        """Refuse trajectories that cannot be traced or do not fit into memory."""
        if self.mobility is None:
            return self
        if self.solver.diffuse:
            msg = "solver.diffuse is true, but diffuse paths cannot be followed along a way; set it to false, or mobility to null"
            raise ValueError(msg)
        band = self.mobility.subcarriers * self.mobility.subcarrier_spacing
        carriers = self.radio.carriers or (self.radio.frequency,)
        if band > WIDEST_BAND * min(carriers):
            of = "the lowest of radio.carriers" if self.radio.carriers else "radio.frequency"
            msg = f"mobility.subcarriers x subcarrier_spacing is {band / 1e6:g} MHz, above {WIDEST_BAND:.0%} of {of}; "
            msg += "make one of them smaller"
            raise ValueError(msg)
        size = 8 * self.mobility.steps * self.mobility.subcarriers * self.radio.columns * self.radio.rows
        size *= self.base_stations * len(carriers)
        unit = size * self.users.most * self.store.unit / 1e6
        if unit > MOST_TRAJECTORIES:
            msg = (
                f"trajectories of a unit would take {unit:,.0f} MB, more than {MOST_TRAJECTORIES:,}: make store.unit, "
            )
            msg += "users.maximum, radio.rows, radio.columns, mobility.steps or mobility.subcarriers smaller"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _units_fit_into_memory(self) -> "Recipe":
        """Refuse units of more channels than a worker can hold."""
        sample = (12 if self.features.spectrum else 8) * self.radio.columns * self.radio.rows
        sample *= len(self.radio.each) * len(self.radio.ports)
        scene = sample * self.users.most * self.base_stations / 1e6
        if self.store.unit * scene > MOST_CHANNELS:
            fits = int(MOST_CHANNELS // scene)
            right = (
                f"set store.unit to {fits} or less"
                if fits
                else "make users.maximum, radio.rows or radio.columns smaller"
            )
            msg = (
                f"store.unit is {self.store.unit}: channels of as many scenes of {self.users.most:,} users and "
                f"{self.radio.columns} x {self.radio.rows} antennas take {self.store.unit * scene:,.0f} MB, more than "
                f"{MOST_CHANNELS:,}; {right}"
            )
            raise ValueError(msg)
        return self

    def data_parts(self) -> dict[str, Any]:
        """JSON-ready parts that decide the dataset."""
        parts = self.model_dump(mode="json", include=set(DATA_PARTS))
        del parts["store"]["keep"], parts["store"]["grace"], parts["solver"]["memory"]
        return parts


def _choose(schema: dict[str, Any], values: list[str | None]) -> None:
    """Make a field's JSON schema one of a choice of values."""
    del schema["anyOf"]
    schema["enum"] = values


def _merge(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """`base` with `changes`, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        section = merged.get(key)
        merged[key] = _merge(section, value) if isinstance(section, dict) and isinstance(value, dict) else value
    return merged


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Wavecity."""
    return sorted(item.name.removesuffix(".yaml") for item in RECIPES.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by its shipped name or from a YAML file.

    Parameters
    ----------
    name : str
        `quickstart`, or the path of a YAML file.
    overrides : tuple of str
        `radio.columns=16`-style changes; values are YAML.

    Raises
    ------
    InputError
        Unknown recipe, broken YAML, unknown key, value out of bounds: one line that names file, field and value.
    """
    if name in shipped_recipes():
        text, origin = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8"), f"recipe {name}"
    elif Path(name).is_file():
        text, origin = read_text(Path(name)), name
    else:
        msg = f"no recipe {name!r}: neither a file nor a shipped recipe ({', '.join(shipped_recipes())})"
        raise InputError(msg)
    content = parse(text, origin)
    if not isinstance(content, dict):
        msg = f"{origin}: a recipe is a mapping of keys to values, this is {type(content).__name__}"
        raise InputError(msg)
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, origin)


def recipe_of_run(run: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Recipe that a run folder was made with, with changes as in `load_recipe`."""
    content = read_json(run / "recipe.json")
    if content is None:
        msg = f"{run}: not a run folder (no recipe.json); name the folder given to `--out` of pretrain"
        raise InputError(msg)
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, str(run / "recipe.json"))


def parse_recipe(content: Mapping[str, object], origin: str) -> Recipe:
    """Validate a recipe's content; the first error becomes one `InputError` line."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        if field == "radio.frequency" and _several(content):
            field = "radio.carriers.0"  # which takes its place (`RadioSettings`)
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if problem["type"] == "extra_forbidden":
            text = _unknown_key(problem["loc"], problem["input"])
        elif problem["type"] == "value_error":
            text = f"{field or 'recipe'}: {problem['ctx']['error']}"
        elif problem["type"] in ("tuple_type", "list_type"):
            written = "" if isinstance(problem["input"], dict) else f", write {_as_list(problem['input'])}"
            text = f"{field} = {problem['input']!r}: a list is needed{written}"
        elif problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
            text = f"{field} = {problem['input']!r}: this is a section, set one of its keys{_example(field)}"
        else:
            text = f"{field} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        msg = f"{origin}: {text}{more}"
        raise InputError(msg) from error


def _several(content: Mapping[str, object]) -> bool:
    """Whether a recipe's content has carriers."""
    radio = content.get("radio")
    return isinstance(radio, Mapping) and bool(radio.get("carriers"))


def _apply(content: dict[str, object], override: str) -> None:
    """Make a `--set` change in a recipe's content."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        msg = f"--set {override}: write KEY=VALUE, e.g. --set solver.max_depth=4"
        raise InputError(msg)
    *parents, leaf = path.split(".")
    section = content
    for parent in parents:
        inner = section.setdefault(parent, {})
        if not isinstance(inner, dict):
            msg = f"--set {override}: {parent} is a value, not a section"
            raise InputError(msg)
        section = inner
    section[leaf] = value_of(value, Recipe, path)


def _unknown_key(location: tuple[int | str, ...], value: object) -> str:
    """Suggest a key: one whose path ends like the given one, one with a similar spelling, or those known there."""
    path = [str(part) for part in location]
    # `localization.labels` is refused at `localization`, with the rest of the path in the value.
    while isinstance(value, dict) and len(value) == 1:
        (part,) = value
        path.append(str(part))
        value = value[part]
    written = ".".join(path)
    # What stands in a list has no path of its own.
    known = [] if any(isinstance(part, int) for part in location) else _all_keys(Recipe)
    meant = [key for key in known if key.endswith(f".{written}")]
    meant = meant or [key for key in known if key.endswith(f".{path[-1]}") and set(path) <= set(key.split("."))]
    meant = meant or get_close_matches(written, known, 1, 0.85)
    if meant:
        return f"unknown key {written!r}; did you mean {' or '.join(meant[:4])}?"
    return f"unknown key {'.'.join(map(str, location))!r}; known there: {', '.join(_known_keys(location))}"


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Full paths of all sections and fields."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if (section := _section_of(field.annotation)) is not None:
            keys += _all_keys(section, f"{prefix}{name}.")
    return keys


def _section_of(annotation: object) -> type[BaseModel] | None:
    """The settings that a field holds, None for a plain value; for `MobilitySettings | None` the settings."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _as_list(value: object) -> str:
    """Write a value that should have been a list as one, `[20,30]`, without spaces: a shell would split there."""
    parts = value.split(",") if isinstance(value, str) else [value]
    return "[" + ",".join(str(part).strip() for part in parts) + "]"


def _example(section: str) -> str:
    """The first key of a section, as an example in a message."""
    key = next((key for key in _all_keys(Recipe) if key.startswith(f"{section}.")), "")
    return f", e.g. {key}" if key else ""


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the section in which a key was refused."""
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        if isinstance(part, str):  # a number is the place in a list of sections
            section = _section_of(model.model_fields[part].annotation)
            assert section is not None  # a plain value has no keys that could be refused
            model = section
    return list(model.model_fields)
