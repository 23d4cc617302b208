"""Tables of the dataset card."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from wavecity.dataset.bands import DIMS, statistics_of
from wavecity.dataset.base_stations import base_station_specs
from wavecity.dataset.card.maps import Field, totals
from wavecity.dataset.card.source import SPLITS, Source, add_up, by_split, percent
from wavecity.dataset.distributions import HISTOGRAMS, Histogram, SplitCounts
from wavecity.dataset.materials import SOURCES as MATERIAL_SOURCES
from wavecity.dataset.metadata import SCENE_INDEX
from wavecity.dataset.radio_maps import RADIO_MAP_AXES, radio_map_specs
from wavecity.dataset.records import MapRecord, StoreAttributes
from wavecity.dataset.schema import SCENE_FIELDS, TRAJECTORY_AXES, array_specs
from wavecity.dataset.vegetation import vegetation_specs
from wavecity.raytrace.radio_map_settings import METRICS

TOP_CITIES, TOP_MAPS, TOP_REASONS = 30, 20, 12
SOURCES = {
    "tag": "the height that the map states",
    "levels": "number of storeys times the recipe's storey height",
    "part": "own height or storeys of a building part",
    "external": "not in the map: that of the footprints of another file (area.heights)",
    "imputed": "not in the map: that of like neighbours, else by type and footprint, scaled to the map's heights",
    "guess": "the map states no height at all: by type and footprint alone",
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


@dataclass(frozen=True)
class Table:
    """A table of the card; `numeric` columns are set to the right. `total` is an emphasised last row."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: tuple[int, ...] = ()
    total: tuple[str, ...] = ()
    note: str = ""


def city_table(source: Source) -> Table:
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
        return (
            name,
            country,
            *numbers,
            f"{heights.total():,}",
            percent(heights["imputed"] + heights["guess"], heights.total()),
        )

    rows = [row(city, country, counts, source.heights[city]) for (city, country), counts in ordered[:TOP_CITIES]]
    if rest := ordered[TOP_CITIES:]:
        others = add_up(counts for _, counts in rest)
        theirs = add_up(source.heights[city] for (city, _), _ in rest)
        rows.append(row(f"{len(rest)} more cities", "", others, theirs))
    total = row("all", "", add_up(by_city.values()), add_up(source.heights.values()))
    columns = ("city", "country", *SPLITS, "scenes done", "users", "buildings", "heights imputed")
    return Table(columns, rows, tuple(range(2, 9)), total if len(by_city) > 1 else ())


def outcome_tables(source: Source) -> list[Table]:
    """Planned scenes by status; why scenes were quarantined, tiles rejected, and cities lack scenes."""
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


def users_table(users: dict[str, Counter[str]]) -> Table:
    """Users by line of sight and split."""
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


def distribution_table(histograms: Mapping[str, Histogram]) -> Table:
    """Mean, range and median of each distribution by split."""
    rows = []
    for histogram in (histograms[name] for name in HISTOGRAMS):
        unit = "" if histogram["unit"] == "1" else f", {histogram['unit']}"
        for split, of in by_split(histogram["splits"]):
            if of["n"]:
                numbers = [of["sum"] / of["n"], of["min"], of["max"]]
                texts = [f"{value:,.4g}" for value in numbers]
                rows.append((f"{histogram['long_name']}{unit}", split, f"{of['n']:,}", *texts, _median(histogram, of)))
    return Table(("quantity", "split", "values", "mean", "lowest", "highest", "median lies in"), rows, (2, 3, 4, 5, 6))


def _median(histogram: Histogram, of: SplitCounts) -> str:
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


def height_table(source: Source) -> Table:
    """Buildings by the source of their height."""
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


def material_table(source: Source) -> Table:
    """Buildings by material of walls and roofs and by its source, and those with windows; no rows without such materials."""
    radio = source.recipe.get("radio", {})
    buildings = add_up(source.heights.values()).total()

    def row(surface: str, material: str, kind: str) -> tuple[str, ...]:
        count = source.materials[surface, material, kind]
        meaning = MATERIAL_SOURCES.get(kind, "by building type (ASHRAE 90.1-2019, table G3.1.1-1)")
        named = material or str(radio.get(f"{surface}_material", "that of the recipe"))
        return surface, named, meaning, f"{count:,}", percent(count, buildings)

    rows = [row(*key) for key in sorted(source.materials, key=lambda key: (key[0] == "window", key[0] == "roof", *key))]
    note = "Walls with windows reflect as the mean of wall and glass, weighted by area."
    return Table(("surface", "material", "source", "buildings", "share"), rows, (3, 4), note=note)


def schema_table(source: Source) -> Table:
    """Every array with dimensions, shape, dtype, unit and meaning."""
    meanings = {field.name: field.long_name for field in SCENE_FIELDS}
    rows = []
    for name, array in all_arrays(source).items():
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


def statistics_table(attributes: StoreAttributes) -> Table:
    """Statistics for normalisation, at every carrier or pair of ports where there are several."""
    bands = statistics_of(attributes)
    each = list(bands.values())
    rows = [
        (
            name,
            *(f"{of[name]:,}" if isinstance(of[name], int) else f"{of[name]:.6g}" for of in each),
            STATISTICS.get(name, ""),
        )
        for name in attributes["statistics"]
    ]
    return Table(("statistic", *bands, "meaning"), rows, tuple(range(1, len(each) + 1)))


def recipe_table(recipe: Mapping[str, object]) -> Table:
    """Every setting that decides the data; the list of cities is in the table of scenes."""
    rows = []
    for part, content in recipe.items():
        if part in ("name", "training"):
            continue
        for key, value in _leaves(part, content):
            if key == "area.cities" and isinstance(value, list):
                value = f"{len(value)} cities"
            rows.append((key, str(value)))
    return Table(("setting", "value"), rows)


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Settings below a name, one by one; those that are not set are left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif value is not None:
        yield name, value


def maps_table(maps: Mapping[str, MapRecord]) -> Table:
    """The maps, with date and checksum."""
    rows = [
        (
            city,
            of["file"],
            (of.get("map_date") or "unknown")[:10],
            f"{of['counts'].get('buildings', 0):,}",
            f"{of['counts'].get('lost', 0):,}",
            of["sha256"],
        )
        for city, of in sorted(maps.items())[:TOP_MAPS]
    ]
    left = len(maps) - len(rows)
    note = f"And {left} more maps, see lineage.json." if left else ""
    return Table(("city", "map", "newest edit", "buildings", "lost", "SHA-256"), rows, (3, 4), note=note)


def map_tables(maps: Mapping[str, MapRecord]) -> list[Table]:
    """What the maps lacked, what was repaired, and which height tags were not read; only what there is."""
    heads: dict[Field, tuple[str, str]] = {
        "losses": ("buildings that the maps do not show whole", "not built"),
        "repairs": ("buildings whose rings were repaired", "built"),
        "unread_heights": ("height tags that could not be read", "number"),
    }
    tables = []
    for field, columns in heads.items():
        if counts := totals(maps.values(), field):
            tables.append(_top(columns, Counter({(name,): count for name, count in counts.items()})))
    return tables


def all_arrays(source: Source) -> dict[str, xr.DataArray]:
    """Arrays of users and scenes, those of the groups, and the coordinates."""
    arrays = {str(name): array for name, array in source.data.data_vars.items()}
    if source.paths is not None:
        arrays |= {f"paths/{name}": array for name, array in source.paths.data_vars.items()}
    axes: dict[str, xr.DataArray] = {}
    if source.trajectory is not None:
        arrays |= {f"trajectory/{name}": array for name, array in source.trajectory.data_vars.items()}
        axes |= {f"trajectory/{axis.name}": source.trajectory[axis.name] for axis in TRAJECTORY_AXES}
    if source.radio_map is not None:
        arrays |= {f"radio_map/{name}": array for name, array in source.radio_map.data_vars.items()}
        axes |= {f"radio_map/{axis.name}": source.radio_map[axis.name] for axis in RADIO_MAP_AXES}
    if source.base_stations is not None:
        # The links of other base stations are the same arrays again, below `bs/1`, `bs/2`, ...
        arrays |= {f"bs/{name}": array for name, array in source.base_stations.data_vars.items()}
    specs = array_specs(trajectory=True, vertices=True) + vegetation_specs(True)
    specs = [*specs, *base_station_specs(specs, 2), *radio_map_specs(tuple(METRICS))]
    order = [spec.name for spec in specs]
    arrays = dict(sorted(arrays.items(), key=lambda item: order.index(item[0])))
    axes |= {dim: source.data[dim] for dim in DIMS if dim in source.data.dims}
    return arrays | axes | {field.name: source.data[field.name] for field in [*SCENE_FIELDS, SCENE_INDEX]}


def _top(columns: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Table:
    """The most frequent, the rest in one row, and the total."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(*key, f"{count:,}") for key, count in ordered[:TOP_REASONS]]
    blank = ("",) * (len(columns) - 2)
    if rest := ordered[TOP_REASONS:]:
        rows.append((f"{len(rest)} others", *blank, f"{sum(count for _, count in rest):,}"))
    total = ("all", *blank, f"{counts.total():,}") if len(ordered) > 1 else ()
    return Table(columns, rows, (len(columns) - 1,), total)
