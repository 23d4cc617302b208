"""What the dataset card says, as texts and tables, from the small files of a version."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from wavecity.dataset.card.source import SPLITS, Source, add_up, by_split, percent, places_of
from wavecity.dataset.distributions import HISTOGRAMS
from wavecity.dataset.files import folder_size
from wavecity.dataset.schema import SCENE_FIELDS, TRAJECTORY_AXES, array_specs

TOP_CITIES, TOP_MAPS, TOP_REASONS = 30, 20, 12
SOURCES = {
    "tag": "the height that the map states",
    "levels": "number of storeys times the recipe's storey height",
    "part": "own height or storeys of a building part",
    "imputed": "not in the map: drawn, reproducibly, from neighbours or the map's distribution",
}
STATISTICS = {
    "n_samples": "train users that are not in outage",
    "csi_rms": "RMS of |csi|",
    "csi_rms_db_mean": "mean of the users' RMS in dB",
    "csi_rms_db_std": "standard deviation of the users' RMS in dB",
    "occupied_share": "share of occupancy patches that are built",
    "height_scale": "m, a fixed scale for heights",
    "position_scale": "m, a fixed scale for positions",
}
FILES = {
    "data.zarr": "the arrays, Zarr v3; group paths holds the single paths",
    "buildings/*.parquet": "GeoParquet: footprints with height, its source and confidence, and OSM id, in scene metres",
    "statistics.json, distributions.json": "statistics for normalisation; the histograms of this page",
    "receipts/*.json": "what became of every scene, with seeds, checksums and package versions",
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


@dataclass(frozen=True)
class Table:
    """A table of the card; `numeric` columns are set to the right. `total` is an emphasised last row."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: tuple[int, ...] = ()
    total: tuple[str, ...] = ()
    note: str = ""


def gather_facts(source: Source) -> dict[str, Any]:
    """Everything that page and Markdown say, as texts and tables."""
    attributes = source.attributes
    users = _user_counts(source)
    name = source.recipe.get("name", "")
    return {
        "title": f"Wavecity channels{': ' * bool(name)}{name}",
        "summary": _summary(source),
        "fingerprint": attributes["fingerprint"],
        "glance": _glance(source, users),
        "scenes_table": _city_table(source),
        "outcomes": _outcome_tables(source),
        "user_shares": users,
        "users_table": _users_table(users),
        "distributions_table": _distribution_table(source.distributions["histograms"]),
        "heights_table": _height_table(source),
        "schema": _schema_table(source),
        "files": FILES,
        "snippets": {"xarray": USE_XARRAY, "PyTorch": USE_TORCH},
        "conventions": attributes["conventions"],
        "statistics": _statistics_table(attributes["statistics"]),
        "steps": _steps(source),
        "recipe_table": _recipe_table(source.recipe),
        "maps_table": _maps_table(source.lineage.get("maps", {})),
        "versions": source.lineage.get("versions", {}),
        "limits": _limits(source, users),
        "attribution": attributes["attribution"],
        "maps_attribution": sorted({of["licence"] for of in source.lineage.get("maps", {}).values()}),
        "many_cities": len(places_of(source)) > 1,
    }


def _summary(source: Source) -> str:
    attributes, sizes = source.attributes, source.data.sizes
    array = attributes["array"]
    held = "the channel of every antenna" + ", the spatial spectrum" * ("spectrum" in source.data)
    held += ", the strongest paths with gain, delay and angles" * (source.paths is not None)
    held += ", the wideband channel along every user's way" * (source.trajectory is not None)
    return (
        f"Ray-traced wireless channels in real cities. Each scene is a tile of {attributes['tile_size_m']:g} m × "
        f"{attributes['tile_size_m']:g} m cut from OpenStreetMap, with one base station of {array['columns']} × "
        f"{array['rows']} antennas at {attributes['frequency_hz'] / 1e9:g} GHz and up to {sizes['user']} users. It holds "
        f"{held}, the users' positions, and a height map of the buildings. The channels are simulated, not measured."
    )


def _glance(source: Source, users: dict[str, Counter[str]]) -> list[tuple[str, str]]:
    attributes = source.attributes
    array, status = attributes["array"], Counter(source.coordinate("status"))
    planned = sum(status.values())
    places = places_of(source)
    countries = {country for country in source.coordinate("country") if country}
    dates = sorted(of["map_date"][:10] for of in source.lineage.get("maps", {}).values() if of.get("map_date"))
    raw = sum(value.nbytes for value in _all_arrays(source).values())
    quarantined = planned - status["done"]
    rows = [
        ("scenes", f"{status['done']:,}" + f" of {planned:,} planned" * bool(quarantined)),
        ("users", f"{sum(sum(counts.values()) for counts in users.values()):,}"),
        ("cities", _plural(len(places), "city", "cities") + " in " + _plural(len(countries), "country", "countries")),
        ("carrier", f"{attributes['frequency_hz'] / 1e9:g} GHz"),
        (
            "array",
            f"{array['columns']} × {array['rows']}, {array['spacing_wavelengths']:g} λ apart, "
            f"“{attributes['element_pattern']}” elements",
        ),
        ("trajectories", trajectory_text(attributes)),
        ("tile", f"{attributes['tile_size_m']:g} m × {attributes['tile_size_m']:g} m"),
        ("size", f"{_bytes(folder_size(source.folder / 'data.zarr'))} stored, {_bytes(raw)} as arrays"),
        ("split by", attributes["split_by"]),
        ("maps of", dates[0] if len(set(dates)) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "unknown date"),
        ("licence", attributes["licence"]),
    ]
    return [row for row in rows if row[1]]


def trajectory_text(attributes: dict[str, Any]) -> str:
    """Times and band of users that move, from the attributes of a store; empty where they do not."""
    if "trajectory" not in attributes:
        return ""
    of = attributes["trajectory"]
    return (
        f"{of['steps']:,} snapshots every {1e3 * of['interval_s']:g} ms, {of['subcarriers']:,} subcarriers every "
        f"{of['subcarrier_spacing_hz'] / 1e3:g} kHz; walkers, cyclists, vehicles"
    )


def _city_table(source: Source) -> Table:
    """Scenes by city and split, with users, line of sight and imputed heights; the largest cities and the total."""
    by_city: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for scene in source.scenes:
        counts = by_city[scene["city"], scene.get("country", "")]
        counts["scenes"] += 1
        counts[scene["split"]] += 1
        counts["done"] += scene["status"] == "done"
        counts["users"] += scene["n_users"]
    ordered = sorted(by_city.items(), key=lambda item: (-item[1]["scenes"], item[0]))

    def row(name: str, country: str, counts: Counter[str], heights: Counter[str]) -> tuple[str, ...]:
        numbers = [f"{counts[key]:,}" for key in (*SPLITS, "done", "users")]
        return name, country, *numbers, f"{heights.total():,}", percent(heights["imputed"], heights.total())

    rows = [row(city, country, counts, source.heights[city]) for (city, country), counts in ordered[:TOP_CITIES]]
    if rest := ordered[TOP_CITIES:]:
        others = add_up(counts for _, counts in rest)
        theirs = add_up(source.heights[city] for (city, _), _ in rest)
        rows.append(row(f"{len(rest)} more cities", "", others, theirs))
    total = row("all", "", add_up(by_city.values()), add_up(source.heights.values()))
    columns = ("city", "country", *SPLITS, "scenes done", "users", "buildings", "heights imputed")
    return Table(columns, rows, tuple(range(2, 9)), total if len(by_city) > 1 else ())


def _outcome_tables(source: Source) -> list[Table]:
    status = Counter(source.coordinate("status"))
    planned = Table(
        ("planned scenes", "number"), [(name, f"{count:,}") for name, count in sorted(status.items())], (1,)
    )
    tables = [planned]
    if source.ledger:
        # Reasons that differ in their numbers alone are one reason.
        reasons: Counter[tuple[str, ...]] = Counter(
            (entry["stage"], re.sub(r"\d[\d.]*", "…", entry["reason"])) for entry in source.ledger
        )
        tables.append(_top(("stage", "why quarantined", "scenes"), reasons))
    rejected: Counter[tuple[str, ...]] = Counter()
    for city in source.lineage.get("cities", []):
        rejected.update({(reason,): count for reason, count in city["rejected"].items()})
    if rejected:
        tables.append(_top(("why a candidate tile is no scene", "tiles"), rejected))
    short = [city for city in source.lineage.get("cities", []) if city["scenes"] < city["wanted"]]
    if short:
        lacking: Counter[tuple[str, ...]] = Counter(
            {(c["name"], c["problem"]): c["wanted"] - c["scenes"] for c in short}
        )
        tables.append(_top(("city that is short", "problem", "scenes lacking"), lacking))
    return tables


def _users_table(users: dict[str, Counter[str]]) -> Table:
    labels = {"los": "line of sight", "nlos": "paths, but no line of sight", "outage": "outage"}

    def row(name: str, counts: Counter[str]) -> tuple[str, ...]:
        return (
            name,
            *(f"{counts[key]:,} ({percent(counts[key], counts.total())})" for key in labels),
            f"{counts.total():,}",
        )

    rows = [row(split, counts) for split, counts in users.items()]
    total = row("all", add_up(users.values())) if len(users) > 1 else ()
    return Table(("split", *labels.values(), "users"), rows, (1, 2, 3, 4), total)


def _distribution_table(histograms: dict[str, Any]) -> Table:
    rows = []
    for histogram in (histograms[name] for name in HISTOGRAMS):
        unit = "" if histogram["unit"] == "1" else f", {histogram['unit']}"
        for split, of in by_split(histogram["splits"]):
            if of["n"]:
                numbers = [of["sum"] / of["n"], of["min"], of["max"]]
                texts = [f"{value:,.4g}" for value in numbers]
                rows.append((f"{histogram['long_name']}{unit}", split, f"{of['n']:,}", *texts, _median(histogram, of)))
    return Table(("quantity", "split", "values", "mean", "lowest", "highest", "median lies in"), rows, (2, 3, 4, 5, 6))


def _median(histogram: dict[str, Any], of: dict[str, Any]) -> str:
    """The bin that holds the median."""
    edges = np.linspace(histogram["low"], histogram["high"], histogram["bins"] + 1)
    place = int(np.searchsorted(np.cumsum([of["below"], *of["counts"], of["above"]]), (of["n"] + 1) / 2))
    if place == 0:
        return f"below {edges[0]:g}"
    if place > histogram["bins"]:
        return f"above {edges[-1]:g}"
    low, high = edges[place - 1], edges[place]
    # Bins of whole numbers are one number wide, and centred on it.
    return f"{low + 0.5:g}" if low % 1 == 0.5 and high - low == 1 else f"{low:g} to {high:g}"


def _height_table(source: Source) -> Table:
    total = add_up(source.heights.values())
    rows = [
        (
            kind,
            SOURCES.get(kind, ""),
            f"{total[kind]:,}",
            percent(total[kind], total.total()),
            f"{source.confidence[kind] / total[kind]:.2f}" if total[kind] else "",
        )
        for kind in [*SOURCES, *sorted(total.keys() - SOURCES.keys())]
    ]
    note = (
        "Shares are of the buildings of all scenes; one on the edge of two tiles counts in both. Confidence is a rank, "
        "not a probability."
    )
    return Table(("source", "meaning", "buildings", "share", "mean confidence"), rows, (2, 3, 4), note=note)


def _schema_table(source: Source) -> Table:
    meanings = {field.name: field.long_name for field in SCENE_FIELDS}
    rows = []
    for name, array in _all_arrays(source).items():
        sizes = " × ".join(f"{size:,}" for size in array.shape)
        kind = "string" if array.dtype.kind in "UTO" else str(array.dtype)
        rows.append(
            (
                name,
                ", ".join(map(str, array.dims)),
                sizes,
                kind,
                array.attrs.get("units", ""),
                meanings.get(name) or array.attrs["long_name"],
            )
        )
    return Table(("array", "dimensions", "shape", "dtype", "unit", "meaning"), rows)


def _statistics_table(statistics: dict[str, Any]) -> Table:
    rows = [
        (name, f"{value:,}" if isinstance(value, int) else f"{value:.6g}", STATISTICS.get(name, ""))
        for name, value in statistics.items()
    ]
    return Table(("statistic", "value", "meaning"), rows, (1,))


def _steps(source: Source) -> list[str]:
    recipe, tile = source.recipe, source.attributes["tile_size_m"]
    steps = [
        f"Building footprints of OpenStreetMap were cut into tiles of {tile:g} m; each tile was taken or rejected for a "
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
            f"walls are {radio['wall_material']}, roofs {radio['roof_material']}, the ground {radio['ground_material']} "
            "(ITU-R P.2040)."
        )
    steps.append("The paths were summed as plane waves over the base station's array.")
    if source.trajectory is not None:
        steps.append(
            "Users moved along the streets and paths of the map. Their ways were traced at waypoints; between two of them each "
            "path's phase turns by its Doppler shift. Where paths begin or end, every snapshot was traced."
        )
    return steps


def _recipe_table(recipe: dict[str, Any]) -> Table:
    """Every setting that decides the data; the list of cities is in the table of scenes."""
    rows = []
    for part, content in recipe.items():
        if part in ("name", "training"):
            continue
        for key, value in _leaves(part, content):
            if key == "area.cities":
                value = f"{len(value)} cities"
            rows.append((key, str(value)))
    return Table(("setting", "value"), rows)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif value is not None:
        yield name, value


def _maps_table(maps: dict[str, Any]) -> Table:
    rows = [
        (
            city,
            of["file"],
            (of.get("map_date") or "unknown")[:10],
            f"{of['counts'].get('buildings', 0):,}",
            of["sha256"],
        )
        for city, of in sorted(maps.items())[:TOP_MAPS]
    ]
    left = len(maps) - len(rows)
    note = f"And {left} more maps, see lineage.json." if left else ""
    return Table(("city", "map", "newest edit", "buildings", "SHA-256"), rows, (3,), note=note)


def _limits(source: Source, users: dict[str, Counter[str]]) -> list[str]:
    recipe, attributes = source.recipe, source.attributes
    heights, people = add_up(source.heights.values()), add_up(users.values())
    limits = [
        "Simulated: nothing here was compared with measurements of these places.",
        f"{percent(heights['imputed'], heights.total())} of the building heights are imputed, not mapped. Buildings are "
        "as complete and as recent as the map was at its date.",
        "The ground is flat, and there is nothing but buildings: no trees, vehicles, people or street furniture. "
        "Buildings outside the tile are missing, so none of them blocks or reflects.",
        "Plane waves over the array: no near-field curvature, no coupling of the elements.",
        f"The channel is that of one carrier, {attributes['frequency_hz'] / 1e9:g} GHz"
        + ("; other bands and times can be derived from the paths." if source.paths is not None else ".")
        + " trajectory/csi has its own band." * (source.trajectory is not None),
        f"{percent(people['outage'], people.total())} of the users are in outage: the traced mechanisms found no path above "
        "the gain floor.",
    ]
    if recipe:
        solver = recipe["solver"]
        off = [kind for kind in ("diffraction", "refraction", "diffuse") if not solver[kind]]
        if off:
            limits.append(f"Not traced: {', '.join(off).replace('diffuse', 'diffuse scattering')}.")
        if source.paths is not None:
            limits.append(
                f"Of each user's paths the {solver['max_paths']} strongest are kept; paths/power_cut is the share of the "
                "power in the others. csi is made from the kept ones, path_gain from all."
            )
    if attributes["split_by"] == "scene":
        limits.append(
            "Splits are by scene: test scenes lie in the cities of the train scenes and may be their neighbours. Results "
            "do not say how a model does in a new city."
        )
    return limits


def _user_counts(source: Source) -> dict[str, Counter[str]]:
    return {split: Counter(counts) for split, counts in by_split(source.distributions["users"])}


def _all_arrays(source: Source) -> dict[str, xr.DataArray]:
    """Arrays of users and scenes, those of the single paths, and the scene coordinates."""
    arrays = {str(name): array for name, array in source.data.data_vars.items()}
    if source.paths is not None:
        arrays |= {f"paths/{name}": array for name, array in source.paths.data_vars.items()}
    if source.trajectory is not None:
        arrays |= {f"trajectory/{name}": array for name, array in source.trajectory.data_vars.items()}
        axes = {f"trajectory/{axis.name}": source.trajectory[axis.name] for axis in TRAJECTORY_AXES}
    else:
        axes = {}
    order = [spec.name for spec in array_specs(trajectory=True)]
    arrays = dict(sorted(arrays.items(), key=lambda item: order.index(item[0])))
    return arrays | axes | {field.name: source.data[field.name] for field in SCENE_FIELDS}


def _top(columns: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Table:
    """The most frequent, the rest in one row, and the total."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(*key, f"{count:,}") for key, count in ordered[:TOP_REASONS]]
    blank = ("",) * (len(columns) - 2)
    if rest := ordered[TOP_REASONS:]:
        rows.append((f"{len(rest)} others", *blank, f"{sum(count for _, count in rest):,}"))
    total = ("all", *blank, f"{counts.total():,}") if len(ordered) > 1 else ()
    return Table(columns, rows, (len(columns) - 1,), total)


def _plural(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _bytes(size: int) -> str:
    return next(
        (f"{size / unit:.1f} {name}" for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if size >= unit),
        f"{size / 1e3:.0f} kB",
    )
