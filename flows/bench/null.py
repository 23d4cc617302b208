"""Units and scenes for which nothing is computed: what is left is orchestration.

A separate module, so that workers import what those of a build do, and not Prefect.
"""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.draft import Draft
from wavecity.dataset.files import array_of, open_group
from wavecity.dataset.fingerprints import array_checksum
from wavecity.dataset.records import Outcome, Receipt
from wavecity.dataset.writer import write_unit
from wavecity.flows.recipe import Recipe
from wavecity.flows.units import Job
from wavecity.geo.sources import Source


def warm_up() -> None:
    """Do nothing: a worker that runs it has imported what a unit needs."""


def null_scene(job: Job, seconds: float) -> Outcome:
    """Sleep, and return the outcome of a scene that is done."""
    time.sleep(seconds)
    tile = job.tile
    return {
        "scene_id": tile.id,
        "city": tile.city,
        "country": tile.country,
        "latitude": tile.latitude,
        "longitude": tile.longitude,
        "split": tile.split,
        "inputs": job.inputs,
        "origin": "null",
        "status": "done",
        "n_users": 1,
        "n_outage": 1,
        "n_los": 0,
    }


def null_unit(
    draft: Draft, unit: int, jobs: list[Job], sources: dict[str, Source], recipe: Recipe, seconds: float = 0.0
) -> Receipt:
    """In place of `units.run_unit`: sleep `seconds` per scene, write the unit's small arrays, leave its receipt."""
    done = draft.receipt(unit)
    if done is not None:
        return done
    outcomes = [null_scene(job, seconds) for job in jobs]
    arrays = [_arrays(draft, scene) for scene in draft.layout.scenes_of(unit)]
    return write_unit(draft, unit, arrays, outcomes, {"seed": recipe.seed})


def _arrays(draft: Draft, scene: int) -> dict[str, NDArray[Any]]:
    """Arrays of a scene: fill values, and in `csi` its number."""
    layout = draft.layout
    arrays = {spec.name: np.full(layout.shape(spec)[1:], spec.fill, spec.dtype) for spec in layout.specs()}
    # Identifies the scene when it is read back.
    arrays["csi"][...] = scene + 1
    return arrays


def wrong_units(draft: Draft, units: list[int]) -> list[int]:
    """Those of some units whose arrays are not what their receipts say, or hold other scenes than they should."""
    root = open_group(draft.data)
    wrong = []
    for unit in units:
        receipt, scenes = draft.receipt(unit), draft.layout.scenes_of(unit)
        arrays = {
            spec.name: np.asarray(array_of(root, spec.name)[scenes.start : scenes.stop])
            for spec in draft.layout.specs()
        }
        sums = {name: array_checksum(values) for name, values in arrays.items()}
        right = (arrays["csi"][:, 0, 0, 0] == np.arange(scenes.start, scenes.stop) + 1).all()
        if receipt is None or receipt["sha256"] != sums or not right:
            wrong.append(unit)
    return wrong
