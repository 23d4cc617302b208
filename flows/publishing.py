"""From a draft with all units to a published version: attributes, lineage and card, validation, publication."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from wavecity.dataset.bands import bands_of
from wavecity.dataset.base_stations import attributes_for
from wavecity.dataset.card.croissant import write_croissant
from wavecity.dataset.card.page import write_card
from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.checks.validate import Each, validate
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import StorePath
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import Version, publish
from wavecity.dataset.records import StoreAttributes, TrajectoryAttributes
from wavecity.dataset.vegetation import vegetation_attributes
from wavecity.flows.fingerprint import code_of
from wavecity.flows.partial import PartialPlan, maps_of
from wavecity.flows.plan_records import city_record, tile_record
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import scene_parts
from wavecity.geo.plan import Plan
from wavecity.geo.scene import Mover
from wavecity.geo.settings import MobilitySettings
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.vegetation import constants_of

# Element gain of Sionna's patterns over isotropic, dB: the bound of the Friis check.
ELEMENT_GAIN = {"iso": 0.0, "dipole": 1.76, "hw_dipole": 2.15, "tr38901": 8.0}


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
        each = [vegetation_attributes(*constants_of(plants, one.frequency)) for one in radio.each]
        attributes["vegetation"] = each[0]
        if radio.carriers:
            attributes["carriers"]["vegetation"] = each
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
