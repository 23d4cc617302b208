"""What a store has of a recipe and its plan: the version, the draft that becomes it, scenes to keep of the latest one."""

from pathlib import Path

from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.files import StorePath
from wavecity.dataset.fingerprints import fingerprint_of, package_versions
from wavecity.dataset.layout import Layout
from wavecity.dataset.metadata import STORE_SCHEMA
from wavecity.dataset.publish import Version, pointed_at, versions
from wavecity.flows.fingerprint import code_of
from wavecity.flows.partial import PartialPlan, maps_of
from wavecity.flows.planning import planned_before
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Reuse, plan_reuse
from wavecity.geo.plan import Plan


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
    plan = planned_before(recipe, cache) if pointed else None
    known = published(recipe, plan, store) if plan and plan.accepted else None
    return known if known and known.folder.name == pointed else None


def reuse_of(recipe: Recipe, plan: Plan, store: StorePath) -> Reuse:
    """What the latest version of a store has of this recipe and plan."""
    if isinstance(plan, PartialPlan):
        return plan.with_kept(plan_reuse(recipe, plan.named, store, code_of(recipe)))
    return plan_reuse(recipe, plan, store, code_of(recipe))
