"""Texts of the dataset card, from the small files of a version."""

from collections import Counter
from typing import TypedDict

from wavecity.dataset.bands import at_first_band, band_names, carriers_text, frequencies_of, radio_text
from wavecity.dataset.base_stations import SHARED, cells_text, stations_text
from wavecity.dataset.card.source import Source, add_up, by_split, percent, places_of
from wavecity.dataset.card.tables import (
    Table,
    all_arrays,
    city_table,
    distribution_table,
    height_table,
    map_tables,
    maps_table,
    material_table,
    outcome_tables,
    recipe_table,
    schema_table,
    statistics_table,
    users_table,
)
from wavecity.dataset.files import folder_size
from wavecity.dataset.radio_maps import radio_map_text
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.vegetation import behind_text, constants_text, crowns_text

FILES = {
    "data.zarr": "the arrays, Zarr v3; group paths holds the single paths",
    "buildings/*.parquet": "GeoParquet: footprints in WGS84 and in scene metres, height, its source and confidence, OSM id",
    "statistics.json, distributions.json": "statistics for normalisation; the histograms of this page",
    "receipts/*.json": "outcome of every scene, with seeds, checksums and package versions",
    "lineage.json, ledger.json": "maps, candidate tiles and versions; scenes that failed, with their reason",
    "manifest.json": "SHA-256 of every file",
    "croissant.json": "machine-readable description (Croissant 1.1)",
}
USE_XARRAY = """\
import xarray as xr

data = xr.open_zarr("data.zarr")  # lazy; every scene has its coordinates
train = data.isel(scene=(data["split"] == "train").values)
scene = train.isel(scene=0)
real = scene.isel(user=slice(int(scene["n_users"])))  # the rest of the user axis is padding
csi = real["csi"].values  # complex64 (user, x, y)
"""
USE_TORCH = """\
from torch.utils.data import DataLoader
from wavecity.dataset.torch_data import ChannelDataset

train = ChannelDataset("data.zarr", split="train", fields=("csi", "height", "user_position"))
for batch in DataLoader(train, batch_size=32, shuffle=True):
    csi = batch["csi"]
"""


class Facts(TypedDict):
    """Texts and tables of the card, as its templates name them."""

    title: str
    summary: str
    fingerprint: str
    glance: list[tuple[str, str]]
    scenes_table: Table
    outcomes: list[Table]
    user_shares: dict[str, Counter[str]]
    users_table: Table
    distributions_table: Table
    heights_table: Table
    materials_table: Table
    schema: Table
    files: dict[str, str]
    snippets: dict[str, str]
    conventions: dict[str, str]
    statistics: Table
    steps: list[str]
    recipe_table: Table
    maps_table: Table
    map_tables: list[Table]
    versions: dict[str, str]
    limits: list[str]
    attribution: str
    maps_attribution: list[str]
    many_cities: bool


def gather_facts(source: Source) -> Facts:
    """Everything that the page and its Markdown version say, as texts and tables."""
    attributes = source.attributes
    users = _user_counts(source)
    name = source.recipe.get("name", "")
    return {
        "title": f"Wavecity channels{': ' * bool(name)}{name}",
        "summary": _summary(source),
        "fingerprint": attributes["fingerprint"],
        "glance": _glance(source, users),
        "scenes_table": city_table(source),
        "outcomes": outcome_tables(source),
        "user_shares": users,
        "users_table": users_table(users),
        "distributions_table": distribution_table(source.distributions["histograms"]),
        "heights_table": height_table(source),
        "materials_table": material_table(source),
        "schema": schema_table(source),
        "files": FILES,
        "snippets": {"xarray": USE_XARRAY, "PyTorch": USE_TORCH},
        "conventions": attributes["conventions"],
        "statistics": statistics_table(attributes),
        "steps": _steps(source),
        "recipe_table": recipe_table(source.recipe),
        "maps_table": maps_table(source.lineage.get("maps", {})),
        "map_tables": map_tables(source.lineage.get("maps", {})),
        "versions": source.lineage.get("versions", {}),
        "limits": _limits(source, users),
        "attribution": attributes["attribution"],
        "maps_attribution": sorted({of["licence"] for of in source.lineage.get("maps", {}).values()}),
        "many_cities": len(places_of(source)) > 1,
    }


def _summary(source: Source) -> str:
    """What the dataset holds, in one paragraph."""
    attributes, sizes = source.attributes, source.data.sizes
    array = attributes["array"]
    held = "the channel of every antenna" + ", the spatial spectrum" * ("spectrum" in source.data)
    held += ", the strongest paths with gain, delay and angles" * (source.paths is not None)
    held += ", the wideband channel along every user's way" * (source.trajectory is not None)
    held += ", a radio map of the open ground" * (source.radio_map is not None)
    held += ", serving base station and SINR" * (source.base_stations is not None)
    count = attributes["base_stations"]["count"] if "base_stations" in attributes else 1
    stations = "one base station" if count == 1 else f"{count} base stations"
    return (
        f"Ray-traced wireless channels in real cities. Each scene is a tile of {attributes['tile_size_m']:g} m × "
        f"{attributes['tile_size_m']:g} m cut from OpenStreetMap, with {stations} of {array['columns']} × "
        f"{array['rows']} antennas at {radio_text(attributes)} and up to {sizes['user']} users. It "
        f"holds "
        f"{held}, the users' positions, and a height map of the buildings. The channels are simulated, not measured."
    )


def _glance(source: Source, users: dict[str, Counter[str]]) -> list[tuple[str, str]]:
    """The most important numbers."""
    attributes = source.attributes
    array, status = attributes["array"], Counter(source.coordinate("status"))
    planned = sum(status.values())
    places = places_of(source)
    countries = {country for country in source.coordinate("country") if country}
    maps = source.lineage.get("maps", {}).values()
    dates = sorted(date[:10] for date in (of.get("map_date") for of in maps) if date)
    raw = sum(value.nbytes for value in all_arrays(source).values()) + _link_bytes(source)
    quarantined = planned - status["done"]
    rows = [
        ("scenes", f"{status['done']:,}" + f" of {planned:,} planned" * bool(quarantined)),
        ("users", f"{sum(sum(counts.values()) for counts in users.values()):,}"),
        ("cities", _plural(len(places), "city", "cities") + " in " + _plural(len(countries), "country", "countries")),
        ("carriers" if "carriers" in attributes else "carrier", carriers_text(frequencies_of(attributes))),
        ("ports", ", ".join(band_names(attributes)) + " (user/base station)" if "ports" in attributes else ""),
        (
            "array",
            f"{array['columns']} × {array['rows']}, {array['spacing_wavelengths']:g} λ apart, "
            f"“{attributes['element_pattern']}” elements",
        ),
        ("trajectories", trajectory_text(attributes)),
        ("radio maps", maps_text(source)),
        *_stations(source),
        *_vegetation(source),
        ("tile", f"{attributes['tile_size_m']:g} m × {attributes['tile_size_m']:g} m"),
        ("size", f"{_bytes(folder_size(source.folder / 'data.zarr'))} stored, {_bytes(raw)} as arrays"),
        ("split by", attributes["split_by"]),
        ("maps of", dates[0] if len(set(dates)) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "unknown date"),
        ("licence", attributes["licence"]),
    ]
    return [row for row in rows if row[1]]


def trajectory_text(attributes: StoreAttributes) -> str:
    """Times and band of users that move, from the attributes of a store; empty where they do not."""
    if "trajectory" not in attributes:
        return ""
    of = attributes["trajectory"]
    return (
        f"{of['steps']:,} snapshots every {1e3 * of['interval_s']:g} ms, {of['subcarriers']:,} subcarriers every "
        f"{of['subcarrier_spacing_hz'] / 1e3:g} kHz; walkers, cyclists, vehicles"
    )


def maps_text(source: Source) -> str:
    """Grid and metrics of radio maps; empty where scenes have none."""
    if source.radio_map is None:
        return ""
    return radio_map_text(source.attributes["radio_map"], [str(name) for name in source.radio_map.data_vars])


def _stations(source: Source) -> list[tuple[str, str]]:
    """Several base stations and their cells; nothing where there is one."""
    if source.base_stations is None:
        return []
    attributes, cells = source.attributes["base_stations"], at_first_band(source.base_stations)
    served = cells_text(cells["serving"].values, cells["sinr"].values, attributes["count"])
    return [("base stations", stations_text(attributes)), ("cells", served)]


def _vegetation(source: Source) -> list[tuple[str, str]]:
    """Crowns of the scenes, and users behind them; nothing where there are none."""
    if "vegetation" not in source.attributes:
        return []
    outcomes = (outcome for receipt in source.receipts for outcome in receipt["scenes"])
    rows = [("crowns", crowns_text(source.attributes["vegetation"], outcomes))]
    if len(each := source.attributes.get("carriers", {}).get("vegetation", [])) > 1:
        of_carriers = zip(band_names(source.attributes), each, strict=True)
        rows.append(("loss in crowns", "; ".join(f"{name}: {constants_text(of)}" for name, of in of_carriers)))
    if source.paths is not None:
        first = at_first_band(source.paths[["vegetation_loss", "gain"]]).isel(path=slice(1)).compute()
        rows.append(
            ("strongest path through crowns", behind_text(first["vegetation_loss"].values, first["gain"].values))
        )
    return rows


def _link_bytes(source: Source) -> int:
    """Bytes of the links of all base stations but the first."""
    if source.base_stations is None:
        return 0
    arrays = {name: array for name, array in all_arrays(source).items() if not name.startswith("bs/")}
    links = (array for name, array in arrays.items() if array.dims[:2] == ("scene", "user") and name not in SHARED)
    return (source.attributes["base_stations"]["count"] - 1) * sum(array.nbytes for array in links)


def _steps(source: Source) -> list[str]:
    """How the data were made, step by step."""
    recipe, attributes = source.recipe, source.attributes
    tile = attributes["tile_size_m"]
    steps = [
        f"Building footprints of OpenStreetMap were cut into tiles of {tile:g} m; each tile was taken or rejected "
        f"for a "
        "stated reason.",
        "Heights come from the map where it has them, else they are imputed: see the table of sources.",
        "Footprints became closed meshes on flat ground. Base station and users were placed out of doors.",
    ]
    if recipe:
        solver, radio = recipe["solver"], recipe["radio"]
        kinds = ("los", "specular", "diffraction", "refraction", "diffuse")
        on = ", ".join("line of sight" if kind == "los" else kind for kind in kinds if solver[kind])
        steps.append(
            f"Sionna RT traced paths of up to {solver['max_depth']} interactions ({on}) with {solver['rays']:,} rays; "
            f"walls are {radio['wall_material']}, roofs {radio['roof_material']}, the ground "
            f"{radio['ground_material']} "
            f"(ITU-R P.2040){', save of buildings whose material is known' * bool(source.materials)}."
        )
    steps.append("The paths were summed as plane waves over the base station's array.")
    if source.base_stations is not None:
        steps.append(
            "So were the links of all other base stations, each with a panel that faces the middle of the tile."
        )
    if "vegetation" in attributes:
        steps.append(
            "Each path lost what ITU-R P.833 says over its length in crowns of the map's trees and woods; sizes that the map "
            "does not state are the recipe's."
        )
    if source.radio_map is not None:
        steps.append("Paths to the middle of every cell of a grid over the open ground were traced in the same way.")
    if source.trajectory is not None:
        steps.append(
            "Users moved along the streets and paths of the map. Their routes were traced at waypoints; between two "
            "of them each "
            "path's phase turns by its Doppler shift. Where paths begin or end, every snapshot was traced."
        )
    return steps


def _limits(source: Source, users: dict[str, Counter[str]]) -> list[str]:
    """What users of the data should know before they draw conclusions."""
    recipe, attributes = source.recipe, source.attributes
    heights, people = add_up(source.heights.values()), add_up(users.values())
    limits = [
        "Simulated: nothing here was compared with measurements of these places.",
        f"{percent(heights['imputed'] + heights['guess'], heights.total())} of the building heights are imputed or "
        "guessed, not mapped. Buildings are as complete and as recent as the map was at its date.",
        "The ground is flat, and there is nothing but buildings"
        + (
            " and the map's trees and woods, which weaken paths but do not scatter: no"
            if "vegetation" in attributes
            else ": no trees,"
        )
        + " vehicles, people or street furniture. "
        "Buildings outside the tile are missing, so none of them blocks or reflects.",
        "Plane waves over the array: no near-field curvature, no coupling of the elements.",
        (
            f"The channels are those of the carriers {carriers_text(frequencies_of(attributes))}, each with a panel whose "
            "spacing is in its wavelengths; tables and pictures are of the first"
            if "carriers" in attributes
            else f"The channels are those between two ports at {radio_text(attributes)}; pictures are of the first pair"
            if "ports" in attributes
            else f"The channel is that of one carrier, {attributes['frequency_hz'] / 1e9:g} GHz"
        )
        + ("; other bands and times can be derived from the paths." if source.paths is not None else ".")
        + " trajectory/csi has its own band." * (source.trajectory is not None),
        f"{percent(people['outage'], people.total())} of the users are in outage: the traced mechanisms found no "
        f"path above "
        "the gain floor.",
    ]
    if source.base_stations is not None:
        limits.append(
            "Numbers, distributions and statistics are of the links of base station 0. SINR assumes that all base stations "
            "transmit all the time, at one power, with one antenna."
        )
    if recipe:
        solver = recipe["solver"]
        off = [kind for kind in ("diffraction", "refraction", "diffuse") if not solver[kind]]
        if off:
            limits.append(f"Not traced: {', '.join(off).replace('diffuse', 'diffuse scattering')}.")
        if source.paths is not None:
            # Stores that older versions wrote have no `diffuse_method`.
            from_all = solver["diffuse"] and solver.get("diffuse_method") == "patches"
            limits.append(
                f"Of each user's paths the {solver['max_paths']} strongest are kept; paths/power_cut is the share of "
                "the power in the others. "
                + (
                    "csi and path_gain are made from all."
                    if from_all
                    else "csi is made from the kept ones, path_gain from all."
                )
            )
    if part := source.lineage.get("subset"):
        left_out = f", without {' and '.join(part['left_out'])}" if part["left_out"] else ""
        limits.insert(
            0,
            f"A subset: {part['scenes']:,} of the {part['of_scenes']:,} scenes of version {part['of'][:16]}{left_out}. "
            "Statistics and tables are of these alone.",
        )
    if attributes["split_by"] == "scene":
        limits.append(
            "Splits are by scene: test scenes lie in the cities of the train scenes and may be their neighbours. "
            "Results "
            "do not say how a model does in a new city."
        )
    return limits


def _user_counts(source: Source) -> dict[str, Counter[str]]:
    """Users by split, and by line of sight."""
    return {split: Counter(counts) for split, counts in by_split(source.distributions["users"])}


def _plural(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def _bytes(size: int) -> str:
    """A size for people."""
    return next(
        (f"{size / unit:.1f} {name}" for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= unit),
        f"{size / 1e3:.0f} kB",
    )
