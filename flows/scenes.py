"""One scene of a recipe, by the id of its tile."""

from pathlib import Path

from wavecity.dataset.files import make_folder
from wavecity.flows.planning import plan_one_city
from wavecity.flows.recipe import Recipe
from wavecity.geo.build import build_scene
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError, SceneError
from wavecity.geo.export import export_gltf, export_mitsuba
from wavecity.geo.scene import Scene
from wavecity.geo.vegetation import with_vegetation


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
