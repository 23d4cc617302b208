"""Tile -> `Scene`: the function of this package that the pipeline calls for every scene."""

from dataclasses import replace
from typing import Any, get_args

from wavecity.geo.errors import SceneError
from wavecity.geo.footprints import Footprints, built_between, tile_footprints
from wavecity.geo.gates import check, limits, measure
from wavecity.geo.heights import HeightSource
from wavecity.geo.materials import materials_of
from wavecity.geo.mesh import build_mesh
from wavecity.geo.projection import local_crs
from wavecity.geo.rasters import grid_length, height_map, occupancy_grid
from wavecity.geo.scene import Mesh, Scene
from wavecity.geo.settings import MobilitySettings, SceneSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.streets import tile_streets
from wavecity.geo.tiles import Tile
from wavecity.geo.trajectories import trajectories
from wavecity.geo.users import head_room, place_base_station, place_users


def build_scene(
    tile: Tile,
    source: Source,
    scene: SceneSettings,
    users: UserSettings,
    seed: int,
    mobility: MobilitySettings | None = None,
) -> Scene:
    """Scene of an accepted tile; the same bytes for the same map, settings and seed, in any process.

    Parameters
    ----------
    tile : Tile
    source : Source
    scene : SceneSettings
    users : UserSettings
    seed : int
        The recipe's seed: imputed heights depend on it and the OSM id, users on it and the tile's id.
    mobility : MobilitySettings, optional
        Users move: they stand where their routes start, and the scene holds the routes as `tracks`.

    Raises
    ------
    SceneError
        The tile cannot become a scene: nothing built, no place for the base station, no open ground, no route for users
        that move, or a quality gate missed (see `wavecity.geo.gates`).
    InputError
        `scene.resolution` or `scene.occupancy_patch` does not divide the tile.

    Examples
    --------
    >>> source = open_source(area, cache)
    >>> tile = plan_tiles(source, area, SceneSettings(), seed=7)[0]
    >>> build_scene(tile, source, SceneSettings(), UserSettings(), seed=7).users.shape
    (412, 3)
    """
    cells = grid_length(tile.size, scene.resolution, "scene.resolution")
    patches = grid_length(tile.size, scene.occupancy_patch, "scene.occupancy_patch")
    prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, scene, seed)
    if prints.buildings.empty:
        msg = "no buildings"
        raise SceneError(msg)
    mesh = build_mesh(prints.buildings)
    if scene.materials is not None:
        mesh = replace(mesh, materials=materials_of(prints.buildings))
    heights = height_map(prints.buildings, tile.size, cells)
    position, shift = place_base_station(prints.buildings, tile.size, scene, prints.beyond)
    tracks = None
    if mobility is None:
        standing = built_between(prints, 0, head_room(users))
        positions = place_users(standing, tile.size, users, tile.id, seed, tile.split)
    else:
        streets = tile_streets(tile.latitude, tile.longitude, tile.size, source)
        tracks = trajectories(prints, streets, tile.size, mobility, users, tile.id, seed, tile.split)
        positions = tracks.position[:, 0].copy()
    gates = measure(mesh, prints.buildings, prints.union, heights, position, positions, tile.size, tile.id, users, seed)
    check(gates, limits(scene, users))
    return Scene(
        id=tile.id,
        city=tile.city,
        country=tile.country,
        latitude=tile.latitude,
        longitude=tile.longitude,
        crs=local_crs(tile.latitude, tile.longitude),
        size=tile.size,
        split=tile.split,
        mesh=mesh,
        height=heights,
        occupancy=occupancy_grid(prints.union, tile.size, patches, scene.occupancy_threshold),
        bs_position=position,
        bs_shift=shift,
        users=positions,
        buildings=prints.buildings,
        provenance=_provenance(source, prints, mesh, gates),
        tracks=tracks,
    )


def _provenance(source: Source, prints: Footprints, mesh: Mesh, gates: dict[str, Any]) -> dict[str, Any]:
    """Where a scene comes from, JSON-ready."""
    shares = prints.buildings["height_source"].value_counts(normalize=True)
    return {
        "map": source.provenance,
        "mesh_checksum": mesh.checksum,
        "height_sources": {kind: float(shares.get(kind, 0.0)) for kind in get_args(HeightSource)},
        "coverage": prints.coverage,
        "features": prints.ledger,
        "gates": gates,
    }
