"""Channels, features and radio map of a scene, by what its recipe asks for."""

from collections.abc import Sequence
from dataclasses import replace

from wavecity.dataset.bands import stack_bands
from wavecity.dataset.base_stations import with_links
from wavecity.dataset.features import scene_arrays
from wavecity.dataset.radio_maps import GROUP
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Arrays
from wavecity.geo.base_stations import BaseStation
from wavecity.geo.scene import Scene


def trace(scene: Scene, recipe: Recipe, others: Sequence[BaseStation | None] = ()) -> Arrays:
    """Channels and features of a scene, with the links of other base stations than its first."""
    first, wanted = trace_link(scene, recipe), recipe.scene.base_stations
    if wanted is None:
        return first
    links: list[Arrays | None] = []
    for other in others:
        if other is None:
            links.append(None)
            continue
        turned = recipe.model_copy(update={"radio": recipe.radio.model_copy(update={"azimuth": other.azimuth})})
        links.append(trace_link(replace(scene, bs_position=other.position), turned))
    known = [BaseStation(scene.bs_position, recipe.radio.azimuth), *others]
    stations = [None if station is None else (station.position, station.azimuth) for station in known]
    return with_links(first, links, stations, wanted, recipe.solver.gain_floor)


def trace_link(scene: Scene, recipe: Recipe) -> Arrays:
    """Channels and features of a scene's base station; the ray tracer is imported by the first one that needs it."""
    from wavecity.raytrace import backend

    backend.prepare(threads=1)
    if recipe.mobility is not None:
        from wavecity.raytrace.channels import csi
        from wavecity.raytrace.moving import simulate_moving

        each = []
        # Each carrier in a run of its own: which snapshots need tracing differs between them.
        for radio in recipe.radio.each:
            moving = simulate_moving(scene, radio, recipe.solver, recipe.mobility, recipe.seed)
            each.append(scene_arrays(scene, moving.channels, csi(moving.channels, radio), moving.csi))
        return _stacked(each)
    from wavecity.raytrace.simulate import simulate_bands

    found = simulate_bands(scene, recipe.radio, recipe.solver, recipe.seed)
    return _stacked([scene_arrays(scene, channels, csi) for channels, csi in found])


def trace_radio_map(scene: Scene, recipe: Recipe) -> Arrays:
    """Radio map of a scene at every carrier, of the base station and by the solver of its users; nothing where the recipe
    wants none.
    """
    settings = recipe.features.radio_map
    if settings is None:
        return {}
    from wavecity.raytrace.radio_map import radio_map

    each = [radio_map(scene, radio, recipe.solver, settings, recipe.seed).values for radio in recipe.radio.each]
    return _stacked([{f"{GROUP}/{name}": values for name, values in found.items()} for found in each])


def _stacked(each: Sequence[Arrays]) -> Arrays:
    """Arrays of a scene from those at each of its carriers or pairs of ports; as they are, where there is one."""
    return stack_bands(each) if len(each) > 1 else each[0]
