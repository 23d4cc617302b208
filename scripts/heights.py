"""How far off imputed heights are: tagged heights of many cities are held out, imputed, and compared.

    python scripts/heights.py MAP.osm.pbf ... [--keep 0.5] [--regressor]

`--keep` is the share of tagged buildings that stay in the map: 0 is a city of which the map states no height. Each
building of which the map says nothing but its type and footprint gets a height by

- rule: what Wavecity builds (`wavecity.geo.heights.impute_height`),
- drawn: Wavecity's earlier rule: one of the eight nearest tagged heights, else one of the map's, else N(5, 1)
  storeys; one storey below 25 m2,
- geo2sigmap: 3.5 m times N(5, 1) storeys, clipped to 1…15,
- types: the median, over the other cities, of buildings of that type and size class (what the rule's table would be if
  this city had never been seen),
- regressor: gradient boosting (scikit-learn, which Wavecity does not depend on) on footprint, type, surroundings and
  country, trained on the other cities alone.

The figure of a city is the median absolute error in m. Maps with fewer than 50 tagged buildings are left out.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wavecity.geo.cities import nearest_country
from wavecity.geo.extract import find_helsinki
from wavecity.geo.guess import BY_AREA, SLABS
from wavecity.geo.heights import HeightStatistics, height_statistics, impute_height, nearest_heights, tagged_height
from wavecity.geo.polygons import repair
from wavecity.geo.projection import project
from wavecity.geo.reading import read_extract

STOREY = 3.5
LEAST_TAGGED = 50
Array = NDArray[np.float64]


class City:
    """Buildings of a map: footprint, type, centre and the height that the map states (nan where it states none)."""

    def __init__(self, path: Path) -> None:
        frame = read_extract(path).buildings
        frame = frame[(frame["problem"] == "") & (frame["outline_of"] == 0)]
        tags = [json.loads(text) for text in frame["tags"]]
        west, south, east, north = frame.total_bounds
        middle = (south + north) / 2, (west + east) / 2
        shapes = repair(project(frame.geometry.to_numpy(), *middle))
        kept = [
            row for row, of in enumerate(tags) if of.get("building", "no") != "no" and not shapely.is_empty(shapes[row])
        ]
        self.name = path.name.split(".")[0]
        self.country = nearest_country(*middle)
        self.tags: list[dict[str, str]] = [tags[row] for row in kept]
        self.kinds = np.array([of["building"] for of in self.tags])
        self.shapes = shapes[kept]
        self.ids = frame["osm_id"].to_numpy()[kept]
        self.areas = shapely.area(self.shapes)
        self.centres = shapely.get_coordinates(shapely.centroid(self.shapes))
        heights = [tagged_height(of, STOREY) for of in self.tags]
        self.tops = np.array([height.top if height else np.nan for height in heights])
        self.sources = np.array([height.source if height else "" for height in heights])

    @property
    def tagged(self) -> NDArray[np.int64]:
        """Rows with a stated height."""
        return np.flatnonzero(np.isfinite(self.tops))

    def surroundings(self) -> Array:
        """Features of the regressor (N, 8): footprint, its shape, shared walls, and how densely it is built around."""
        boxes = shapely.minimum_rotated_rectangle(self.shapes)
        sides = np.array([_sides(box) for box in boxes])
        tree = shapely.STRtree(self.shapes)
        walls = np.bincount(tree.query(self.shapes, "dwithin", distance=0.3)[0], minlength=len(self.shapes)) - 1
        near, other = tree.query(shapely.buffer(shapely.points(self.centres), 100.0), "intersects")
        built = np.bincount(near, weights=self.areas[other], minlength=len(self.shapes))
        count = np.bincount(near, minlength=len(self.shapes))
        shape = shapely.length(self.shapes) / np.sqrt(self.areas)
        usual = np.full(len(self.shapes), np.log(np.median(self.areas)))
        return np.column_stack([np.log(self.areas), *np.log(sides + 0.1).T, shape, walls, built, count, usual])


def _sides(box: Any) -> tuple[float, float]:
    """Shorter and longer side of a rectangle in m."""
    lengths = np.hypot(*np.diff(shapely.get_coordinates(box), axis=0)[:2].T)
    return (float(lengths.min()), float(lengths.max())) if len(lengths) == 2 else (0.0, 0.0)


def by_rule(city: City, kept: NDArray[np.int64], held: NDArray[np.int64]) -> Array:
    """Heights by Wavecity's rule."""
    statistics = HeightStatistics()
    if len(kept):
        statistics = height_statistics([city.tags[row] for row in kept], city.areas[kept].tolist())
    known = city.centres[kept], city.tops[kept], city.areas[kept], city.kinds[kept]
    found = []
    for row in held:
        near = nearest_heights(city.centres[row], city.kinds[row], *known)
        tags = {"building": str(city.kinds[row])}
        osm, area = ("way", int(city.ids[row])), float(city.areas[row])
        found.append(impute_height(tags, osm, area, near, statistics, STOREY, "neighbours", 0).top)
    return np.array(found)


def drawn(city: City, kept: NDArray[np.int64], held: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Heights by the earlier rule."""
    found = []
    for row in held:
        distance = np.hypot(*(city.centres[kept] - city.centres[row]).T)
        order = np.argsort(distance, kind="stable")[:8]
        near = kept[order[distance[order] <= 150]]
        if city.areas[row] <= 25:
            found.append(STOREY)
        elif len(near):
            found.append(rng.choice(city.tops[near]))
        else:
            found.append(rng.choice(city.tops[kept]) if len(kept) else geo2sigmap(1, rng)[0])
    return np.array(found)


def geo2sigmap(n: int, rng: np.random.Generator) -> Array:
    """Heights by Geo2SigMap's rule."""
    return STOREY * np.clip(rng.normal(5.0, 1.0, n), 1, 15)


def by_types(city: City, held: NDArray[np.int64], others: list[City]) -> Array:
    """Heights by the medians of type and size class, each of the other cities counted once."""
    classes: dict[tuple[str, int], list[float]] = defaultdict(list)
    for other in others:
        of_city: dict[tuple[str, int], list[float]] = defaultdict(list)
        for row in other.tagged:
            size = _size(other.areas[row])
            for kind in {str(other.kinds[row]), "any"}:
                of_city[kind, size].append(other.tops[row])
        for key, tops in of_city.items():
            classes[key].append(float(np.median(tops)))
    found = []
    for row in held:
        size = _size(city.areas[row])
        medians = classes.get((str(city.kinds[row]), size), [])
        # A type that hardly any other city has in this size says less than all buildings of the size.
        found.append(float(np.median(medians if len(medians) >= 3 else classes["any", size])))
    return np.array(found)


def _size(area: float) -> int:
    """Size class of a footprint."""
    return next(number for number, (largest, _) in enumerate(BY_AREA) if area <= largest)


def by_regressor(city: City, held: NDArray[np.int64], others: list[City], features: dict[str, Array]) -> Array:
    """Heights by gradient boosting trained on the other cities, each with the same weight."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    kinds = sorted({str(kind) for other in others for kind in other.kinds[other.tagged]})[:250]
    countries = sorted({other.country for other in others})

    def table(of: City, rows: NDArray[np.int64]) -> Array:
        kind = np.array([kinds.index(str(k)) if str(k) in kinds else -1 for k in of.kinds[rows]], dtype=float)
        country = countries.index(of.country) if of.country in countries else -1
        return np.column_stack([features[of.name][rows], np.where(kind < 0, np.nan, kind), np.full(len(rows), country)])

    x = np.concatenate([table(other, other.tagged) for other in others])
    y = np.concatenate([np.log(other.tops[other.tagged]) for other in others])
    weight = np.concatenate([np.full(len(other.tagged), 1000 / len(other.tagged)) for other in others])
    n = x.shape[1]
    model = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=80, max_leaf_nodes=12, min_samples_leaf=30, random_state=0,
        categorical_features=[n - 2],
    )  # fmt: skip
    model.fit(x, y, sample_weight=weight)
    return np.exp(model.predict(table(city, held)))


def compare(cities: list[City], keep: float, regressor: bool) -> None:
    """Print the tables: by city, by source of the stated height, by type."""
    rng = np.random.default_rng(0)
    features = {city.name: city.surroundings() for city in cities} if regressor else {}
    errors: dict[str, list[Array]] = defaultdict(list)
    facts: dict[str, list[Any]] = defaultdict(list)
    for city in cities:
        is_kept = rng.random(len(city.tagged)) < keep
        kept, held = city.tagged[is_kept], city.tagged[~is_kept]
        others = [other for other in cities if other.name != city.name]
        found = {
            "rule": by_rule(city, kept, held),
            "drawn": drawn(city, kept, held, rng),
            "geo2sigmap": geo2sigmap(len(held), rng),
            "types": by_types(city, held, others),
        }
        if regressor:
            found["regressor"] = by_regressor(city, held, others, features)
        for name, tops in found.items():
            errors[name].append(np.abs(tops - city.tops[held]))
        facts["city"].append(np.full(len(held), city.name))
        facts["source"].append(city.sources[held])
        facts["type"].append(np.where(np.isin(city.kinds[held], list(SLABS)), "roof", city.kinds[held]))
    methods = list(errors)
    off = {name: np.concatenate(parts) for name, parts in errors.items()}
    print(f"\nkept: {keep:.0%} of the tagged heights; median absolute error in m")
    of_city = np.concatenate(facts["city"])
    medians = {name: [float(np.median(part)) for part in errors[name]] for name in methods}
    _print("all cities: median of theirs", len(cities), [float(np.median(medians[name])) for name in methods], methods)
    _print("all cities: mean of theirs", len(cities), [float(np.mean(medians[name])) for name in methods], methods)
    _print("all buildings", len(of_city), [float(np.median(off[name])) for name in methods], methods)
    for fact in ("source", "type", "city"):
        values = np.concatenate(facts[fact])
        for value in sorted(set(values.tolist()), key=lambda value: -int((values == value).sum())):
            rows = values == value
            if rows.sum() >= 20:
                _print(
                    f"{fact} {value}", int(rows.sum()), [float(np.median(off[name][rows])) for name in methods], methods
                )


def _print(label: str, n: int, numbers: list[float], methods: list[str]) -> None:
    """One row of a Markdown table; with its head before the first."""
    if label.endswith("median of theirs"):
        print(f"| held out | n | {' | '.join(methods)} |")
        print("|---|---|" + "---|" * len(methods))
    print(f"| {label} | {n:,} | {' | '.join(f'{number:.1f}' for number in numbers)} |", flush=True)


def main() -> None:
    """Read the maps of the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("maps", nargs="+", type=Path, help="extracts; `helsinki` is the packaged one")
    parser.add_argument(
        "--keep", type=float, action="append", help="share of tagged heights that stay (default 0, 0.5)"
    )
    parser.add_argument("--regressor", action="store_true", help="compare with scikit-learn, too")
    chosen = parser.parse_args()
    cities = [City(find_helsinki() if str(path) == "helsinki" else path) for path in chosen.maps]
    cities = [city for city in cities if len(city.tagged) >= LEAST_TAGGED]
    print(f"{len(cities)} maps with {sum(len(city.tagged) for city in cities):,} tagged buildings")
    for keep in chosen.keep or [0.0, 0.5]:
        compare(cities, keep, chosen.regressor)


if __name__ == "__main__":
    main()
