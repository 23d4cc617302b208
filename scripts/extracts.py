"""Plan, build and check every extract, and compare each tile with an independent reading of the raw file.

Usage: python scripts/extracts.py helsinki ../shared/osm ../shared/osm/cities --out build/extracts

Of each map all tiles are planned; four become scenes of a small store (8 x 8 antennas, some 25 users, one bounce), which is
validated and removed; maps with fewer tiles get overlapping ones. The second reading knows nodes, ways and relations
alone, not libosmium's areas: everything with a building tag that reaches into a tile must be a building or a part there,
or have an outcome with a reason. Results are kept in --out, one JSON per map, and what is there is not done again;
the table of all maps is printed at the end.
"""

import argparse
import json
import shutil
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import geopandas as gpd
import numpy as np
import osmium
import shapely
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import read_json, write_json
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.planning import plan_one_city, plan_scenes
from wavecity.flows.publishing import check_and_publish, finish
from wavecity.flows.recipe import Recipe, parse_recipe
from wavecity.flows.units import jobs_of, run_unit
from wavecity.geo.cities import MAP_SUFFIXES, cities_of, slug
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.plan import CityPlan
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile

Element = tuple[str, int]
Result = dict[str, Any]
# What tiles hold, by latitude and longitude.
Prints = dict[tuple[float, float], Footprints]
SCENES = 4
# From one tile's centre to the next, until a map has enough tiles.
STRIDES = (200, 100, 50, 25)
SOURCES = ("tag", "levels", "part", "imputed", "guess")
# Members that draw a relation of type `building` or `site`; a multipolygon's all do.
OUTLINES = ("outline", "outer", "inner", "")
# Reaching less than this (m) into a tile is rounding.
REACH = 0.01


@dataclass
class RawMap:
    """Everything with a building tag in a file, as nodes, ways and relations say it.

    Attributes
    ----------
    shapes : dict
        WGS84 lines and areas of each element, of the nodes that the file has; empty where it has none.
    """

    shapes: dict[Element, BaseGeometry] = field(default_factory=dict)


def read_raw(path: Path) -> RawMap:
    """Read a file node by node, way by way and relation by relation."""
    lines: dict[int, BaseGeometry] = {}
    found = RawMap()
    relations: dict[int, Any] = {}
    # Not every file is sorted: ways need all nodes, relations all ways.
    nodes = {
        item.id: (item.location.lon, item.location.lat) for item in osmium.FileProcessor(str(path), osmium.osm.NODE)
    }
    for item in osmium.FileProcessor(str(path), osmium.osm.WAY | osmium.osm.RELATION):
        tagged = "building" in item.tags or "building:part" in item.tags
        if item.is_way():
            refs = [node.ref for node in item.nodes]
            lines[item.id] = _line([nodes[ref] for ref in refs if ref in nodes], all(ref in nodes for ref in refs))
            if tagged:
                found.shapes["way", item.id] = lines[item.id]
        else:
            members = [(member.type, member.ref, member.role) for member in item.members]
            relations[item.id] = tagged, item.tags.get("type", ""), members
    for number, (tagged, kind, members) in relations.items():
        if tagged:
            roles = None if kind in ("multipolygon", "boundary") else OUTLINES
            ways = list(_ways_of(members, roles, relations))
            drawn = [lines[ref] for ref in ways if ref in lines]
            found.shapes["relation", number] = shapely.GeometryCollection(
                [shape.boundary if shape.area else shape for shape in drawn]
            )
    return found


def _ways_of(
    members: list[tuple[str, int, str]], roles: tuple[str, ...] | None, relations: dict[int, Any]
) -> Iterator[int]:
    """Ways that draw a relation, those of an outline that is a relation itself among them."""
    for kind, ref, role in members:
        if roles is not None and role not in roles:
            continue
        if kind == "w":
            yield ref
        elif kind == "r" and roles is not None and ref in relations:
            yield from (way for of, way, _ in relations[ref][2] if of == "w")


def _line(points: list[tuple[float, float]], whole: bool) -> BaseGeometry:
    """Area of a simple closed ring, else its line or point."""
    if len(points) < 2:
        return shapely.Point(points[0]) if points else shapely.GeometryCollection()
    if whole and points[0] == points[-1] and len(points) > 3:
        area = shapely.Polygon(points)
        if area.is_valid:
            return area
    return shapely.LineString(points)


def examine(path: Path, folder: Path) -> Result:
    """Plan one map, and compare its tiles with a second reading.

    Parameters
    ----------
    path : Path
        Extract.
    folder : Path
        Scratch, removed by the caller.
    """
    result: Result = {"file": path.name, "kB": round(path.stat().st_size / 1000)}
    found: Prints = {}

    def remembered(latitude: float, longitude: float, *rest: Any) -> Footprints:
        found[latitude, longitude] = tile_footprints(latitude, longitude, *rest)
        return found[latitude, longitude]

    start = time.process_time()
    # What the plan finds in each tile is what is compared.
    with mock.patch("wavecity.geo.tiles.tile_footprints", remembered):
        plan = plan_all(path, STRIDES[0], folder)
    result["plan_seconds"] = round(time.process_time() - start, 2)
    source = plan.source
    if source is None:
        return result | {"problem": plan.problem}
    tiles = [tile for tile in plan.tiles if tile.status == "accepted"]
    result |= {
        "country": plan.city.country,
        "map": {key: source.provenance[key] for key in ("counts", "losses", "repairs", "unread_heights")},
        "candidates": len(plan.tiles),
        "tiles": len(tiles),
        "rejected": dict(plan.reasons()),
    }
    return result | compare(read_raw(path), source, plan.tiles, found)


def recipe_of(path: Path, stride: int, scenes: int) -> Recipe:
    """Small recipe of one map."""
    return parse_recipe(
        {
            "name": "extract",
            "seed": 7,
            "area": {
                "cities": [{"name": path.name.split(".")[0], "source": str(path), "scenes": scenes}],
                "stride": stride,
                "split": {"by": "scene", "validation": 0, "test": 0},
            },
            "users": {"minimum": 20, "maximum": 30},
            "radio": {"columns": 8, "rows": 8},
            "solver": {"rays": 10_000, "max_depth": 1, "max_paths": 4},
            "features": {"spectrum": False},
            "store": {"unit": 2, "grace": 0},
        },
        "extracts",
    )


def plan_all(path: Path, stride: int, folder: Path, scenes: int = 1_000_000) -> CityPlan:
    """Plan of a map, its reading included."""
    recipe = recipe_of(path, stride, scenes)
    return plan_one_city(cities_of(recipe.area)[0], recipe, folder / "maps")


def compare(raw: RawMap, source: Source, tiles: list[Tile], found: Prints) -> Result:
    """What a second reading of the file has in each tile, against the outcomes of ours; and heights by source."""
    known = source.buildings((-180.0, -90.0, 180.0, 90.0))
    have = set(zip(known["osm_type"], known["osm_id"].tolist(), strict=True))
    shapes = np.array([*raw.shapes.values(), None], dtype=object)[:-1]
    elements = list(raw.shapes)
    nowhere = {element for element, shape in raw.shapes.items() if shape.is_empty}
    tree = shapely.STRtree(shapes)
    heights: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    missing: dict[str, list[str]] = defaultdict(list)
    for tile in tiles:
        prints = found.get((tile.latitude, tile.longitude))
        if prints is None:  # nobody looked at it
            continue
        explained = set(zip(prints.outcomes["osm_type"], prints.outcomes["osm_id"].tolist(), strict=True))
        used = prints.outcomes[prints.outcomes["outcome"] == "used"]
        built = set(zip(prints.buildings["osm_type"], prints.buildings["osm_id"].tolist(), strict=True))
        for row in _within(tile, shapes, tree):
            if elements[row] not in explained:
                missing[tile.id].append("/".join(map(str, elements[row])))
        for element in set(zip(used["osm_type"], used["osm_id"].tolist(), strict=True)) ^ built:
            missing[tile.id].append(f"{element[0]}/{element[1]}: built, or said to be, but not both")
        if tile.status == "accepted":
            outcomes.update(prints.ledger)
            once = prints.buildings.drop_duplicates(["osm_type", "osm_id"])
            heights.update(once["height_source"])
    lost = source.provenance["losses"]
    return {
        "raw": len(raw.shapes),
        "raw_without_nodes": len(nowhere),
        "absent": sorted("/".join(map(str, element)) for element in raw.shapes.keys() - nowhere - have),
        "uncounted": len(nowhere - have) - (source.provenance["counts"]["tagged"] - len(have & raw.shapes.keys())),
        "lost": sum(lost.values()),
        "heights": {kind: heights[kind] for kind in SOURCES},
        "outcomes": dict(outcomes.most_common()),
        "unexplained": dict(missing),
    }


def _within(tile: Tile, shapes: Any, tree: shapely.STRtree) -> list[int]:
    """Rows of the shapes that reach into a tile."""
    turn = Transformer.from_crs(
        "EPSG:4326", f"+proj=aeqd +lat_0={tile.latitude} +lon_0={tile.longitude} +datum=WGS84", always_xy=True
    )
    half = tile.size / 2
    lon, lat = turn.transform([-2 * half, 2 * half], [-2 * half, 2 * half], direction="INVERSE")
    near = tree.query(shapely.box(lon[0], lat[0], lon[1], lat[1]))
    local = shapely.transform(shapes[near], lambda xy: np.column_stack(turn.transform(xy[:, 0], xy[:, 1])))
    square = shapely.box(REACH - half, REACH - half, half - REACH, half - REACH)
    return sorted(near[shapely.intersects(local, square)].tolist())


def build_store(path: Path, folder: Path) -> Result:
    """Build a few scenes of a map, validate the store, and compare its tables of buildings with its receipts."""
    stride = next((stride for stride in STRIDES if plan_all(path, stride, folder, SCENES).found >= SCENES), STRIDES[-1])
    recipe = recipe_of(path, stride, SCENES)
    start = time.perf_counter()
    try:
        plan = plan_scenes(recipe, folder / "maps")
        draft = draft_of(recipe, plan, folder / "store")
        reuse = reuse_of(recipe, plan, folder / "store")
        for unit in draft.missing():
            run_unit(draft, unit, jobs_of(draft, unit, plan, reuse), plan.sources, recipe)
        finish(draft, recipe, plan)
        version = check_and_publish(draft, recipe, folder / "store")
    except (InputError, MapError) as error:
        return {"stride": stride, "build_problem": str(error)}
    except CheckFailed as error:
        return {"stride": stride, "findings": str(error)}
    scenes = [scene for receipt in load_draft(version.folder).receipts() for scene in receipt["scenes"]]
    done = [scene for scene in scenes if scene["status"] == "done"]
    tables = [gpd.read_parquet(file) for file in sorted((version.folder / "buildings").iterdir())]
    stated = sum(scene["provenance"]["features"].get("used", 0) for scene in done)
    stored = sum(len(table.drop_duplicates(["scene_id", "osm_type", "osm_id"])) for table in tables)
    return {
        "stride": stride,
        "scenes": len(done),
        "quarantined": [f"{scene['scene_id']}: {scene['reason']}" for scene in scenes if scene["status"] != "done"],
        "buildings_stored": stored,
        "buildings_stated": stated,
        "build_seconds": round(time.perf_counter() - start, 1),
    }


def find_maps(names: list[str]) -> list[Path]:
    """Files by name, all of a folder, or the packaged one."""
    found = []
    for name in names:
        path = find_helsinki() if name == "helsinki" else Path(name)
        inside = (
            sorted(file for file in path.iterdir() if file.name.endswith(MAP_SUFFIXES)) if path.is_dir() else [path]
        )
        found += inside
    return found


def print_table(results: list[Result]) -> None:
    """Tables in Markdown: one row per map, the reasons of rejection, and what became of the features."""
    print(
        "| map | buildings | parts | lost | tag | levels | part | imputed | guess | tiles | candidates | too few | "
        "coverage | other | scenes | unexplained | plan, CPU s |"
    )
    print("|---|" + "---:|" * 16)
    total: Counter[str] = Counter()
    for of in results:
        name = slug(of["file"].split(".")[0])
        if "problem" in of:
            print(f"| {name} | {of['problem']} |")
            continue
        counts, rejected = of["map"]["counts"], Counter(of["rejected"])
        low = sum(count for reason, count in rejected.items() if reason.startswith("coverage"))
        few = rejected["too few buildings"] + rejected["no buildings"]
        numbers = {
            "buildings": counts["buildings"],
            "parts": counts["parts"],
            "lost": counts["lost"],
            **{kind: of["heights"][kind] for kind in SOURCES},
            "tiles": of["tiles"],
            "candidates": of["candidates"],
            "few": few,
            "coverage": low,
            "other": rejected.total() - few - low,
            "scenes": of.get("scenes", 0),
            "unexplained": len(of["absent"]) + sum(map(len, of["unexplained"].values())),
        }
        total.update(numbers)
        total["centiseconds"] += round(100 * of["plan_seconds"])
        print(f"| {name} | {' | '.join(f'{number:,}' for number in numbers.values())} | {of['plan_seconds']:.1f} |")
    seconds = total.pop("centiseconds") / 100
    print(f"| all {len(results)} | {' | '.join(f'{number:,}' for number in total.values())} | {seconds:.1f} |")
    sound = [of for of in results if "problem" not in of]
    for title, parts in (
        ("rejected tiles", [of["rejected"] for of in sound]),
        ("features of the accepted tiles", [of["outcomes"] for of in sound]),
        ("buildings that maps do not show whole", [of["map"]["losses"] for of in sound]),
        ("repaired buildings", [of["map"]["repairs"] for of in sound]),
    ):
        counts_of: Counter[str] = Counter()
        for part in parts:
            counts_of.update(part)
        print(f"\n{title}: " + ", ".join(f"{name} {count:,}" for name, count in counts_of.most_common()))


def main() -> None:
    """Examine the maps of the command line, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="+", help="extracts or folders of them; `helsinki` is the packaged one")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--stores", type=Path, help="folder in which the stores are kept, e.g. for previews")
    parser.add_argument("--plan-only", action="store_true", help="plan and compare, build nothing")
    parser.add_argument("--again", action="store_true", help="also maps that have a result")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    maps = find_maps(chosen.maps)
    files = {path: chosen.out / f"{path.name.split('.')[0]}.json" for path in maps}
    for number, (path, file) in enumerate(files.items(), 1):
        result = {} if chosen.again else read_json(file) or {}
        for part, done in ((examine, "file"), (build_store, "stride")):
            if done in result or "problem" in result or (part is build_store and chosen.plan_only):
                continue
            start = time.perf_counter()
            result |= attempt(part, path, chosen.out / "scratch", chosen.stores)
            write_json(file, result)
            note = f"{part.__name__} {time.perf_counter() - start:.0f} s, {verdict(result)}"
            print(f"{number}/{len(maps)} {path.name}: {note}", flush=True)
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files.values()]
    print_table(results)


def attempt(part: Callable[[Path, Path], Result], path: Path, scratch: Path, stores: Path | None) -> Result:
    """What a part finds out about a map; a crash is a result, too, for the next map may be sound."""
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        result = part(path, scratch)
        if stores and (scratch / "store").is_dir():
            kept = stores / path.name.split(".")[0]
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(scratch / "store", kept, symlinks=True)
        return result
    except Exception:
        return {"file": path.name, "problem": traceback.format_exc()}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def verdict(result: Result) -> str:
    """What was found wrong with a map, in a line."""
    wrong = [
        f"{key} {str(result[key])[:300]}"
        for key in ("problem", "absent", "uncounted", "unexplained", "build_problem", "findings", "quarantined")
        if result.get(key)
    ]
    if result.get("buildings_stored") != result.get("buildings_stated"):
        wrong.append(f"{result['buildings_stored']} buildings stored, {result['buildings_stated']} stated")
    return "; ".join(wrong) or "all well"


if __name__ == "__main__":
    main()
