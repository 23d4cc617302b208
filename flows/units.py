"""One unit of a build, as a worker computes it: its scenes built, traced and written, or kept from the latest version."""

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from shapely.errors import ShapelyError

from wavecity.dataset.bands import at_first
from wavecity.dataset.buildings import write_buildings
from wavecity.dataset.draft import Draft, load_draft
from wavecity.dataset.features import channel_checksum
from wavecity.dataset.records import Outcome, Receipt
from wavecity.dataset.sharing import share_unit
from wavecity.dataset.writer import write_unit
from wavecity.flows.fingerprint import code_of
from wavecity.flows.maps import at_hand
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Arrays, Kept, Reuse, channels_key, load_kept
from wavecity.flows.tracing import trace, trace_radio_map
from wavecity.geo.base_stations import place_others
from wavecity.geo.build import build_scene
from wavecity.geo.errors import CommandFailed, InputError, SceneError
from wavecity.geo.plan import Plan
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile
from wavecity.geo.vegetation import with_vegetation

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


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
            arrays = trace(scene, recipe, others) | trace_radio_map(scene, recipe)
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
    heard = arrays["bs/serving"] >= 0 if "bs/serving" in arrays else ~arrays["outage"]
    served = float(np.mean(at_first(heard)))
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


def _named(buildings: "GeoDataFrame", tile: Tile) -> "GeoDataFrame":
    """The table of a scene's buildings with the id of the scene."""
    return buildings.assign(scene_id=tile.id)
