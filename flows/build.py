"""Recipe -> published dataset version, as plain functions: they run without Prefect, which only wraps them."""

import json
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely.errors import ShapelyError

from wavecity.dataset.bands import at_first, bands_of, stack_bands
from wavecity.dataset.base_stations import attributes_for, with_links
from wavecity.dataset.buildings import write_buildings
from wavecity.dataset.card.croissant import write_croissant
from wavecity.dataset.card.maps import without_heights
from wavecity.dataset.card.page import write_card
from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.checks.validate import Each, validate
from wavecity.dataset.draft import Draft, load_draft, open_draft
from wavecity.dataset.features import channel_checksum, scene_arrays
from wavecity.dataset.files import StorePath, make_folder, read_json, write_text
from wavecity.dataset.fingerprints import fingerprint_of, package_versions
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.metadata import STORE_SCHEMA
from wavecity.dataset.publish import Version, pointed_at, publish, versions
from wavecity.dataset.radio_maps import GROUP
from wavecity.dataset.records import Outcome, Receipt, StoreAttributes, TrajectoryAttributes
from wavecity.dataset.sharing import share_unit
from wavecity.dataset.vegetation import vegetation_attributes
from wavecity.dataset.writer import write_unit
from wavecity.flows.fingerprint import code_fingerprint, code_of
from wavecity.flows.maps import at_hand
from wavecity.flows.partial import Others, PartialPlan, join_partly, maps_of, tile_of, tile_record
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Arrays, Kept, Reuse, channels_key, load_kept, plan_reuse, scene_parts
from wavecity.geo.base_stations import BaseStation, place_others
from wavecity.geo.build import build_scene
from wavecity.geo.cities import City, cities_of, slug
from wavecity.geo.errors import CommandFailed, InputError, MapError, SceneError
from wavecity.geo.export import export_gltf, export_mitsuba
from wavecity.geo.height_file import RIGHT as HEIGHT_FILE
from wavecity.geo.plan import CityPlan, Plan, join_plans, plan_cities, plan_one, without_map
from wavecity.geo.scene import Mover, Scene
from wavecity.geo.settings import MobilitySettings
from wavecity.geo.sources import Source, is_here, open_city
from wavecity.geo.tiles import Tile
from wavecity.geo.vegetation import open_vegetation, with_vegetation
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.vegetation import constants_of

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

# Element gain of Sionna's patterns over isotropic, dB: the bound of the Friis check.
ELEMENT_GAIN = {"iso": 0.0, "dipole": 1.76, "hw_dipole": 2.15, "tr38901": 8.0}


def plan_scenes(
    recipe: Recipe, cache: Path, each: Callable[..., Iterable[CityPlan]] = map, others: Others | None = None
) -> Plan:
    """Cut the maps of all cities into tiles, each with its outcome; maps that are not there are fetched.

    A city is planned once: its outcome is kept in `cache/plans` and found again as long as map and recipe are the same.

    Parameters
    ----------
    recipe : Recipe
    cache : Path
        Folder for maps and plans.
    each : callable
        As `map`; runs `plan_one_city` for every city, possibly elsewhere.
    others : Others, optional
        Cities that are not planned, but kept as a version has them (`wavecity.flows.partial`).

    Raises
    ------
    InputError
        No map can be had, or no tile is usable.
    """
    cities, kept = cities_of(recipe.area), others.plans if others else {}
    named = [city for city in cities if city.name not in kept]
    refuse_missing_files(named, recipe)
    job = partial(plan_one_city, recipe=recipe, cache=cache)
    planned = iter(plan_cities(named, job, _at_hand(recipe, cache), each))
    plans = [kept[city.name] if city.name in kept else next(planned) for city in cities]
    plan = join_plans(plans, recipe.area, recipe.seed)
    if others:
        plan = join_partly(plan, others)
    if not plan.accepted:
        msg = f"area.source {recipe.area.source}: none of {len(plan.tiles)} tiles is usable; lower area.min_coverage"
        raise InputError(msg)
    if bare := without_heights(maps_of(plan)):
        msg = f"no height is stated by the map of {', '.join(bare)}: all are guesses by building type and footprint"
        warnings.warn(msg, stacklevel=2)
    return plan


def plan_one_city(city: City, recipe: Recipe, cache: Path) -> CityPlan:
    """Plan of one city, from the cache if its map and the recipe have not changed."""

    def open_map(city: City) -> Source:
        source = open_city(city, recipe.area, cache)
        return source if recipe.scene.vegetation is None else open_vegetation(source, city, cache)

    def planned() -> CityPlan:
        return plan_one(city, open_map, recipe.area, recipe.scene, recipe.seed)

    if city.scenes == 0:
        return planned()
    try:
        source = open_map(city)
    except MapError as error:
        return without_map(city, error)
    path = _plan_path(city, source, recipe, cache)
    known = _known_plan(path, source)
    if known is not None:
        return known
    plan = planned()
    if plan.source is not None:
        # Without line breaks: there may be hundreds of thousands of tiles.
        write_text(path, json.dumps({"city": asdict(plan.city), "tiles": [tile_record(tile) for tile in plan.tiles]}))
    return plan


def _plan_path(city: City, source: Source, recipe: Recipe, cache: Path) -> Path:
    """Where the plan of a city lies, by everything that decides it."""
    area = recipe.area.model_dump(mode="json", exclude={"cities", "world", "scenes", "split", "overpass"})
    key = fingerprint_of(
        {
            "city": asdict(city),
            "area": area,
            "scene": recipe.scene.model_dump(mode="json"),
            "seed": recipe.seed,
            "map": source.provenance["sha256"],
            "code": code_fingerprint(),
        }
    )
    return cache / "plans" / f"{slug(city.name)}-{key[:16]}.json"


def _known_plan(path: Path, source: Source) -> CityPlan | None:
    """The plan of a city in a file, None if there is none."""
    known = read_json(path)
    if known is None:
        return None
    return CityPlan(City(**known["city"]), [tile_of(tile) for tile in known["tiles"]], source)


def _planned_before(recipe: Recipe, cache: Path) -> Plan | None:
    """The plan of a recipe, if that of every city is in the cache; nothing is fetched or planned."""
    plans = []
    for city in cities_of(recipe.area):
        if city.scenes == 0:
            plans.append(CityPlan(city, []))
            continue
        if not is_here(city, recipe.area, cache):
            return None
        try:
            source = open_city(city, recipe.area, cache)
        except MapError:
            return None
        known = _known_plan(_plan_path(city, source, recipe, cache), source)
        if known is None:
            return None
        plans.append(known)
    return join_plans(plans, recipe.area, recipe.seed)


def show_plan(
    recipe: Recipe, cache: Path, fetch: bool, progress: Callable[[Iterable[City]], Iterable[City]] = iter
) -> Plan:
    """Plan as far as maps are there: without `fetch` nothing is downloaded, and cities without a map get positions.

    Raises
    ------
    InputError
        No map can be had.
    """

    def plan_if_here(city: City) -> CityPlan:
        remote = city.source == "overpass" or "://" in city.source
        if fetch or not remote or is_here(city, recipe.area, cache):
            return plan_one_city(city, recipe, cache)
        return plan_one(city, lambda _: None, recipe.area, recipe.scene, recipe.seed)

    cities = cities_of(recipe.area)
    refuse_missing_files(cities, recipe)

    def each(job: Callable[[City], CityPlan], some: Iterable[City]) -> Iterable[CityPlan]:
        tried = iter(some)
        for _ in progress(cities):  # the bar is of all cities, whether or not they are tried
            if (city := next(tried, None)) is not None:
                yield job(city)

    return join_plans(plan_cities(cities, plan_if_here, _at_hand(recipe, cache), each), recipe.area, recipe.seed)


def refuse_missing_files(cities: list[City], recipe: Recipe) -> None:
    """Refuse a city of a recipe of several whose map is a file that is not there, unless the recipe allows that.

    Raises
    ------
    InputError
        It names the city and its file.
    """
    if len(cities_of(recipe.area)) == 1 or recipe.area.allow_missing:
        return
    for city in cities:
        path = Path(city.source).expanduser()
        if city.source in ("helsinki", "overpass") or "://" in city.source or path.exists() or not city.scenes:
            continue
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        like = get_close_matches(path.name, names, 1, 0.8)
        hint = f"did you mean {like[0]}?" if like else "correct it"
        msg = f"area.cities: {city.name}: {city.source}: no such file; {hint}, or set area.allow_missing to do without"
        raise InputError(msg)


def refuse_missing_maps(recipe: Recipe, cache: Path, only: Collection[str] = ()) -> None:
    """Refuse a recipe whose files of maps or heights are not there; takes a moment, nothing is read.

    Parameters
    ----------
    recipe : Recipe
    cache : Path
        Folder of maps.
    only : collection of str
        Names of cities to which the question is limited.

    Raises
    ------
    InputError
        It names the file.
    """
    cities = cities_of(recipe.area)
    refuse_missing_files([city for city in cities if not only or city.name in only], recipe)
    local = cities[0].source != "overpass" and "://" not in cities[0].source
    if len(cities) == 1 and local and not is_here(cities[0], recipe.area, cache):
        open_city(cities[0], recipe.area, cache)  # raises, and says what may be given
    heights = recipe.area.heights
    if heights and not Path(heights).expanduser().is_file():
        msg = f"area.heights: {heights}: no such file; {HEIGHT_FILE}"
        raise InputError(msg)


def _at_hand(recipe: Recipe, cache: Path) -> Callable[[City], bool]:
    """Whether a city's map needs no network."""
    return lambda city: is_here(city, recipe.area, cache)


def export_scene(recipe: Recipe, scene_id: str, out: Path, cache: Path) -> list[Path]:
    """Write an accepted tile's scene as Mitsuba XML with PLY meshes, and as glTF.

    Raises
    ------
    InputError
        No accepted tile has this id, or its scene cannot be made.
    """
    scene, radio = scene_of(recipe, scene_id, cache), recipe.radio
    make_folder(out)
    materials = {"wall": radio.wall_material, "roof": radio.roof_material, "ground": radio.ground_material}
    return [export_mitsuba(scene, out, materials), export_gltf(scene, out / f"{scene_id}.glb")]


def scene_of(recipe: Recipe, scene_id: str, cache: Path) -> Scene:
    """Scene of an accepted tile.

    Raises
    ------
    InputError
        No accepted tile has this id, or its scene cannot be made.
    """
    cities = [city for city in cities_of(recipe.area) if not city.name or scene_id.rsplit("-", 1)[0] == city.slug]
    plans = [plan_one_city(city, recipe, cache) for city in cities]
    tiles = [tile for plan in plans for tile in plan.tiles if tile.status == "accepted"]
    tile = next((tile for tile in tiles if tile.id == scene_id), None)
    if tile is None:
        known = f"; it has {', '.join(tile.id for tile in tiles[:5])}, ..." if tiles else ""
        problems = "".join(f"; {plan.problem}" for plan in plans if plan.problem)
        msg = f"--scene {scene_id}: recipe {recipe.name} accepts no such tile{known}{problems} (see `wavecity plan`)"
        raise InputError(msg)
    source = plans[0].source
    assert source is not None  # a tile is accepted on its map only
    try:
        scene = build_scene(tile, source, recipe.scene, recipe.users, recipe.seed, recipe.mobility)
        return with_vegetation(scene, source, recipe.scene.vegetation)
    except SceneError as error:
        msg = f"--scene {scene_id}: {error}; choose another tile"
        raise InputError(msg) from error


def dataset_fingerprint(recipe: Recipe, plan: Plan) -> str:
    """Same recipe part, map, schema, code and package versions: the same dataset.

    Scenes that a partial plan keeps of another state make another one.
    """
    content: dict[str, object] = {
        "recipe": recipe.data_parts(),
        "maps": {city: record["sha256"] for city, record in maps_of(plan).items()},
        "schema": STORE_SCHEMA,
        "versions": package_versions(),
        "code": code_of(recipe),
    }
    if isinstance(plan, PartialPlan) and plan.key:
        content["kept"] = plan.key
    return fingerprint_of(content)


def _tried_again(fingerprint: str, version: int) -> str:
    """Fingerprint of another try of a version's quarantined scenes; for version 0 that of the first one."""
    return fingerprint_of({"quarantined": fingerprint, "version": version}) if version else fingerprint


def draft_of(recipe: Recipe, plan: Plan, store: StorePath, retried: int = 0) -> Draft:
    """Open the draft that this recipe and map fill, with what is already there.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan
    store : StorePath
    retried : int
        Number of the version, of the same recipe and map, whose quarantined scenes are tried again; 0: none.
    """
    grid = recipe.features.radio_map
    layout = Layout(
        scenes=len(plan.accepted),
        users=recipe.users.most,
        columns=recipe.radio.columns,
        rows=recipe.radio.rows,
        paths=recipe.solver.max_paths,
        bounces=max(recipe.solver.max_depth, 1),
        height_cells=round(recipe.area.tile_size / recipe.scene.resolution),
        occupancy_patches=round(recipe.area.tile_size / recipe.scene.occupancy_patch),
        unit=recipe.store.unit,
        users_per_chunk=recipe.store.users_per_chunk,
        with_spectrum=recipe.features.spectrum,
        with_paths=recipe.features.paths,
        gain_floor=recipe.solver.gain_floor,
        steps=recipe.mobility.steps if recipe.mobility else 0,
        subcarriers=recipe.mobility.subcarriers if recipe.mobility else 0,
        with_vertices=recipe.features.interactions == "positions",
        map_metrics=tuple(grid.metrics) if grid else (),
        map_cells=grid.cells(recipe.area.tile_size) if grid else 0,
        base_stations=recipe.base_stations,
        with_vegetation=recipe.scene.vegetation is not None,
        carriers=len(recipe.radio.carriers or ()),
        ports=len(recipe.radio.ports) if len(recipe.radio.ports) > 1 else 0,
    )
    return open_draft(store, _tried_again(dataset_fingerprint(recipe, plan), retried), layout)


def published(recipe: Recipe, plan: Plan, store: StorePath) -> Version | None:
    """The version that this recipe and map would build, where there is one; it need not be the latest.

    Of several, of which the later ones tried the quarantined scenes of earlier ones again, the last.
    """
    known, fingerprint = versions(store), dataset_fingerprint(recipe, plan)
    fingerprints = {_tried_again(fingerprint, number) for number in range(known[-1].number + 1 if known else 0)}
    return next((version for version in reversed(known) if version.fingerprint in fingerprints), None)


def quarantined_of(draft: Draft) -> list[str]:
    """Ids of the quarantined scenes of a version, or of a draft with all units."""
    scenes = (scene for receipt in draft.receipts() for scene in receipt["scenes"])
    return [scene["scene_id"] for scene in scenes if scene["status"] != "done"]


def up_to_date(recipe: Recipe, store: StorePath, cache: Path) -> Version | None:
    """The latest version of a store, if it is what a build of this recipe would give.

    Answers in a moment, without planning or fetching anything; None where that would be needed to know.
    """
    pointed = pointed_at(store)
    plan = _planned_before(recipe, cache) if pointed else None
    known = published(recipe, plan, store) if plan and plan.accepted else None
    return known if known and known.folder.name == pointed else None


@dataclass(frozen=True)
class Job:
    """A tile to become a scene of the dataset: what a worker needs to know of it.

    `inputs` is the key of its inputs; `kept` the scene of an older version at the same place, `reason` why that one's
    inputs are others ("" where they are the same). An `untouched` scene is kept in any case, as it is.
    """

    tile: Tile
    inputs: str
    kept: Kept | None
    reason: str
    untouched: bool = False


def jobs_of(draft: Draft, unit: int, plan: Plan, reuse: Reuse) -> list[Job]:
    """Jobs of a unit."""
    accepted = plan.accepted  # a property, computed at every access
    tiles = [accepted[scene] for scene in draft.layout.scenes_of(unit)]
    return [
        Job(tile, reuse.inputs[tile.id], reuse.kept.get(tile.id), reuse.reasons[tile.id], tile.id in reuse.untouched)
        for tile in tiles
    ]


def sources_of(jobs: list[Job], plan: Plan) -> dict[str, Source]:
    """Maps, by city, that jobs need."""
    sources = plan.sources
    return {job.tile.city: sources[job.tile.city] for job in jobs if not job.untouched}


def reuse_of(recipe: Recipe, plan: Plan, store: StorePath) -> Reuse:
    """What the latest version of a store has of this recipe and plan."""
    if isinstance(plan, PartialPlan):
        return plan.with_kept(plan_reuse(recipe, plan.named, store, code_of(recipe)))
    return plan_reuse(recipe, plan, store, code_of(recipe))


def run_unit(draft: Draft, unit: int, jobs: list[Job], sources: dict[str, Source], recipe: Recipe) -> Receipt:
    """Build, trace and write the scenes of one unit, whose maps are in `sources` by city; runs in a worker process.

    A scene that cannot be made is quarantined with its stage, reason and traceback; the others go on.

    Returns
    -------
    dict
        The unit's receipt.
    """
    # A worker that was killed between its receipt and its answer: the unit is handed out again, but it is done.
    done = draft.receipt(unit)
    if done is not None:
        return done
    shared = _take_over(draft, unit, jobs)
    if shared is not None:
        return shared
    store = draft.folder.parent.parent
    here = {city: at_hand(source, store) for city, source in sources.items()}
    scenes: list[Arrays | None] = []
    outcomes = []
    buildings = []
    for job in jobs:
        if job.untouched:
            arrays, outcome, table = _as_it_is(job)
        else:
            arrays, outcome, table = _run_scene(job, here[job.tile.city], recipe)
        scenes.append(arrays)
        outcomes.append(outcome)
        if table is not None:
            buildings.append((table, job.tile.latitude, job.tile.longitude))
    if buildings:
        write_buildings(draft.buildings_path(unit), buildings)
    return write_unit(draft, unit, scenes, outcomes, {"seed": recipe.seed})


def _take_over(draft: Draft, unit: int, jobs: list[Job]) -> Receipt | None:
    """Share the files of a unit of the last version that has the same scenes with the same inputs; None without one."""
    kept = [job.kept for job in jobs if job.kept is not None and not job.reason]
    if len(kept) < len(jobs) or any(scene.outcome["status"] != "done" for scene in kept):
        return None
    old = load_draft(kept[0].folder)
    number = kept[0].scene // old.layout.unit
    if [scene.scene for scene in kept] != list(old.layout.scenes_of(number)):
        return None
    outcomes = [_kept_outcome(job, scene) for job, scene in zip(jobs, kept, strict=True)]
    return share_unit(draft, unit, old, number, outcomes)


def _kept_outcome(job: Job, kept: Kept) -> Outcome:
    """Outcome of a scene that is kept without a look at it."""
    if job.untouched:
        return {**kept.outcome, "origin": f"kept from {kept.version}: its city was not built again"}
    unchanged = f"kept from {kept.version}: inputs unchanged"
    return {**kept.outcome, **_outcome(job), "n_users": kept.outcome["n_users"], "origin": unchanged}


def _as_it_is(job: Job) -> "tuple[Arrays | None, Outcome, GeoDataFrame | None]":
    """Arrays, outcome and buildings of an untouched scene; only the outcome of a quarantined one.

    Raises
    ------
    CommandFailed
        Its files are damaged.
    """
    assert job.kept is not None
    outcome = _kept_outcome(job, job.kept)
    if outcome["status"] != "done":
        return None, outcome, None
    kept = load_kept(job.kept)
    if kept is None:
        msg = f"{job.kept.version}: files of {job.tile.id} are damaged, so it cannot be kept: name {job.tile.city} in cities too"
        raise CommandFailed(msg)
    arrays, table = kept
    return arrays, outcome, _named(table, job.tile)


def _outcome(job: Job) -> Outcome:
    """What is known of a scene before it is built."""
    tile = job.tile
    return {
        "scene_id": tile.id,
        "city": tile.city,
        "country": tile.country,
        "latitude": tile.latitude,
        "longitude": tile.longitude,
        "split": tile.split,
        "n_users": 0,
        "inputs": job.inputs,
    }


def _run_scene(job: Job, source: Source, recipe: Recipe) -> "tuple[Arrays | None, Outcome, GeoDataFrame | None]":
    """Arrays, outcome and buildings of a scene; of one that cannot be made only the outcome."""
    tile, outcome = job.tile, _outcome(job)
    kept = load_kept(job.kept) if job.kept else None
    if job.kept and kept and not job.reason:
        arrays, table = kept
        return arrays, {**_kept_outcome(job, job.kept), **_result(arrays, table)}, _named(table, tile)
    stage, start = "scene", time.perf_counter()
    reason = job.reason or "files of the version before are damaged"
    try:
        scene = build_scene(tile, source, recipe.scene, recipe.users, recipe.seed, recipe.mobility)
        scene = with_vegetation(scene, source, recipe.scene.vegetation)
        others = place_others(scene, source, recipe.scene)
        stage, built = "raytrace", time.perf_counter()
        key = channels_key(scene, recipe, code_of(recipe), others)
        if job.kept and kept and job.kept.outcome.get("channels") == key:
            arrays = kept[0]
            origin = f"kept from {job.kept.version}: scene unchanged ({reason})"
        else:
            arrays = _trace(scene, recipe, others) | _radio_map(scene, recipe)
            origin = f"traced: {reason}"
        _refuse_unserved(arrays, recipe)
    except InputError:
        # Wrong input is wrong for every scene: stop, with its one line.
        raise
    except (SceneError, ValueError, ArithmeticError, RuntimeError, ShapelyError) as error:
        # RuntimeError is what Dr.Jit raises; an outage of the machine (OSError, MemoryError) is not caught.
        outcome |= {
            "status": "quarantined",
            "stage": stage,
            "reason": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
            "origin": f"traced: {reason}",
        }
        return None, outcome, None
    outcome |= {
        **_result(arrays, scene.buildings),
        "bs_shift": float(scene.bs_shift),
        "mesh_checksum": scene.mesh.checksum,
        "channels": key,
        "provenance": scene.provenance,
        "origin": origin,
        "seconds_scene": round(built - start, 3),
        "seconds_raytrace": round(time.perf_counter() - built, 3),
    }
    return arrays, outcome, _named(scene.buildings, tile)


def _refuse_unserved(arrays: Arrays, recipe: Recipe) -> None:
    """Refuse a scene with hardly any user that a path reaches, where the recipe says so."""
    heard = arrays["bs/serving"] >= 0 if "bs/serving" in arrays else ~at_first(arrays["outage"])
    served = float(np.mean(heard))
    if recipe.scene.unserved == "refuse" and served < recipe.scene.min_served:
        msg = f"{served:.0%} of the users are served, below scene.min_served {recipe.scene.min_served:.0%}"
        raise SceneError(msg)


def _result(arrays: Arrays, buildings: "GeoDataFrame") -> Outcome:
    """The part of an outcome that follows from the arrays and buildings."""
    return {
        "status": "done",
        "n_users": len(arrays["csi"]),
        "n_outage": int(at_first(arrays["outage"]).sum()),
        "n_los": int(arrays["los"].sum()),
        "channel_checksum": channel_checksum(arrays),
        "heights_from": {kind: int(count) for kind, count in sorted(buildings["height_source"].value_counts().items())},
    }


def _trace(scene: Scene, recipe: Recipe, others: Sequence[BaseStation | None] = ()) -> Arrays:
    """Channels and features of a scene, with the links of other base stations than its first."""
    first, wanted = _trace_link(scene, recipe), recipe.scene.base_stations
    if wanted is None:
        return first
    links: list[Arrays | None] = []
    for other in others:
        if other is None:
            links.append(None)
            continue
        turned = recipe.model_copy(update={"radio": recipe.radio.model_copy(update={"azimuth": other.azimuth})})
        links.append(_trace_link(replace(scene, bs_position=other.position), turned))
    known = [BaseStation(scene.bs_position, recipe.radio.azimuth), *others]
    stations = [None if station is None else (station.position, station.azimuth) for station in known]
    return with_links(first, links, stations, wanted, recipe.solver.gain_floor)


def _trace_link(scene: Scene, recipe: Recipe) -> Arrays:
    """Channels and features of a scene's base station; the ray tracer is imported by the first one that needs it."""
    from wavecity.raytrace import backend

    backend.prepare(threads=1)
    if recipe.mobility is not None:
        from wavecity.raytrace.channels import csi
        from wavecity.raytrace.moving import simulate_moving

        moving = simulate_moving(scene, recipe.radio, recipe.solver, recipe.mobility, recipe.seed)
        return scene_arrays(scene, moving.channels, csi(moving.channels, recipe.radio), moving.csi)
    from wavecity.raytrace.simulate import simulate_bands

    found = simulate_bands(scene, recipe.radio, recipe.solver, recipe.seed)
    each = [scene_arrays(scene, channels, csi) for channels, csi in found]
    return stack_bands(each) if len(each) > 1 else each[0]


def _radio_map(scene: Scene, recipe: Recipe) -> Arrays:
    """Radio map of a scene, of the base station and by the solver of its users; nothing where the recipe wants none."""
    settings = recipe.features.radio_map
    if settings is None:
        return {}
    from wavecity.raytrace.radio_map import radio_map

    found = radio_map(scene, recipe.radio, recipe.solver, settings, recipe.seed)
    return {f"{GROUP}/{name}": values for name, values in found.values.items()}


def _named(buildings: "GeoDataFrame", tile: Tile) -> "GeoDataFrame":
    """The table of a scene's buildings with the id of the scene."""
    return buildings.assign(scene_id=tile.id)


def finish(draft: Draft, recipe: Recipe, plan: Plan) -> None:
    """Write coordinates, attributes, statistics, ledger, lineage and card of a draft with all units, and seal it."""
    radio: RadioSettings = recipe.radio
    attributes: StoreAttributes = {
        "frequency_hz": radio.frequency,
        "element_pattern": radio.pattern,
        "element_gain_max_db": ELEMENT_GAIN[radio.pattern],
        "los_traced": recipe.solver.los,
        "polarisation_matched": radio.downtilt == 0
        # Of two ports each pair says for itself whether it is.
        and (len(radio.ports) > 1 or radio.polarisation == radio.user_polarisation),
        "array": {"columns": radio.columns, "rows": radio.rows, "spacing_wavelengths": radio.spacing},
        "bs_position_m": [0.0, recipe.area.tile_size / 2, recipe.scene.bs_height],
        "tile_size_m": recipe.area.tile_size,
        "occupancy_threshold": recipe.scene.occupancy_threshold,
        "split_by": recipe.area.split.by,
        "recipe": recipe.model_dump(mode="json"),
    }
    attributes.update(bands_of(radio))
    if recipe.mobility is not None:
        attributes["trajectory"] = trajectory_attributes(recipe.mobility)
    if (grid := recipe.features.radio_map) is not None:
        attributes["radio_map"] = {"spacing_m": grid.spacing, "receiver_height_m": grid.height}
    if recipe.scene.base_stations is not None:
        attributes["base_stations"] = attributes_for(recipe.scene.base_stations)
    if (plants := recipe.scene.vegetation) is not None:
        attributes["vegetation"] = vegetation_attributes(*constants_of(plants, radio.frequency))
    scenes = [scene for receipt in draft.receipts() for scene in receipt["scenes"]]
    kept = plan.others.records if isinstance(plan, PartialPlan) else {}
    lineage: dict[str, object] = {
        "fingerprint": draft.fingerprint,
        "maps": maps_of(plan),
        "cities": [kept.get(city.city.name) or city_record(city) for city in plan.cities],
        "tiles": [tile_record(tile) for tile in plan.tiles],
        "inputs": scene_parts(recipe, code_of(recipe)),
        "origins": dict(sorted(Counter(scene["origin"] for scene in scenes).items())),
    }
    if isinstance(plan, PartialPlan) and plan.kept:
        lineage["kept"] = plan.kept
    finish_draft(draft, attributes, lineage)
    write_card(draft.folder)
    write_croissant(draft.folder)
    seal(draft)


def trajectory_attributes(mobility: MobilitySettings) -> TrajectoryAttributes:
    """What readers need to know of users that move, JSON-ready; `fastest_mps` by `wavecity.geo.scene.Mover`."""
    fastest = {
        Mover.WALKER: mobility.walker_speed[1],
        Mover.VEHICLE: mobility.vehicle_speed[1],
        Mover.CYCLIST: mobility.cyclist_speed[1],
    }
    return {
        "interval_s": mobility.interval,
        "steps": mobility.steps,
        "subcarriers": mobility.subcarriers,
        "subcarrier_spacing_hz": mobility.subcarrier_spacing,
        "kinds": {str(int(mover)): mover.name.lower() for mover in Mover},
        "fastest_mps": [fastest[mover] for mover in Mover],
    }


def plan_record(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """A plan, JSON-ready."""
    return {
        "cities": [city_record(city) for city in plan.cities],
        "tiles": [tile_record(tile) for tile in plan.tiles if tile.reason != "not needed"],
    }


def city_record(plan: CityPlan) -> dict[str, object]:
    """Scenes wanted from a city and found, JSON-ready."""
    return {
        "name": plan.city.name,
        "country": plan.city.country,
        "state": plan.state,
        "wanted": plan.city.scenes,
        "scenes": sum(tile.status == "accepted" for tile in plan.tiles),
        "candidates": len(plan.tiles),
        "rejected": dict(plan.reasons()),
        "problem": plan.problem,
    }


def check_and_publish(
    draft: Draft,
    recipe: Recipe,
    store: StorePath,
    progress: Callable[[Any], Any] = iter,
    each: Each = map,
    point: bool = True,
) -> Version:
    """Validate a finished draft and publish it; `each` runs the checks of the units, `point` as for `publish`.

    Raises
    ------
    CheckFailed
        A check found something; the draft stays where it is, the published version is untouched.
    """
    validation = validate(draft.folder, progress, each)
    if not validation.ok:
        raise CheckFailed(validation)
    return publish(store, draft.folder, recipe.store.keep, recipe.store.grace, point)
