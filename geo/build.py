"""A tile becomes a `Scene`: the one function of this package that the pipeline calls for every scene."""

from typing import Any

import numpy as np
import shapely

from geo.errors import SceneError
from geo.footprints import Footprints, tile_footprints
from geo.mesh import build_mesh, check_mesh
from geo.projection import local_crs
from geo.rasters import cell_centres, grid_length, height_map, occupancy_grid
from geo.scene import Mesh, Scene, Surface
from geo.seeding import generator
from geo.settings import SceneSettings, UserSettings
from geo.sources import Source
from geo.tiles import Tile
from geo.users import place_base_station, place_users

# Cells of the height map that are compared with the mesh in every build.
SAMPLED_CELLS = 400


def build_scene(tile: Tile, source: Source, scene: SceneSettings, users: UserSettings, seed: int) -> Scene:
    """Scene of an accepted tile; the same bytes for the same map, settings and seed, in whatever process.

    Parameters
    ----------
    tile : Tile
    source : Source
    scene : SceneSettings
    users : UserSettings
    seed : int
        The recipe's seed: imputed heights depend on it and the OSM id, users on it and the tile's id.

    Raises
    ------
    SceneError
        The tile cannot become a scene: nothing built, an open mesh, no place for the base station, no open ground.
    InputError
        `scene.resolution` or `scene.occupancy_patch` does not divide the tile.
    """
    cells = grid_length(tile.size, scene.resolution, "scene.resolution")
    patches = grid_length(tile.size, scene.occupancy_patch, "scene.occupancy_patch")
    prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, scene, seed)
    if prints.buildings.empty:
        msg = "no buildings"
        raise SceneError(msg)
    mesh = build_mesh(prints.buildings)
    heights = height_map(prints.buildings, tile.size, cells)
    position, shift = place_base_station(prints.buildings, tile.size, scene)
    positions = place_users(prints.union, tile.size, users, tile.id, seed)
    gates = {
        **check_mesh(mesh, prints.buildings),
        "height_map_agreement": height_map_agreement(mesh, heights, tile, seed),
        "bs_clearance": float(shapely.distance(prints.union, shapely.Point(position[:2]))),
        "user_clearance": float(shapely.distance(prints.union, shapely.points(positions[:, :2].astype(float))).min()),
    }
    if gates["height_map_agreement"] < 1:
        msg = f"height map and mesh agree on {100 * gates['height_map_agreement']:.1f} % of the sampled cells only"
        raise SceneError(msg)
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
    )


def height_map_agreement(mesh: Mesh, heights: np.ndarray[Any, Any], tile: Tile, seed: int) -> float:
    """Share of sampled cells where a ray cast down on the mesh's roofs meets the height of the map (within 1 cm).

    Cells whose centre lies within 1 cm of a roof's edge are left out: there the answer is a matter of rounding.
    """
    count = len(heights)
    rng = generator(seed, tile.id, "gates")
    cells = rng.choice(count * count, size=min(SAMPLED_CELLS, count * count), replace=False)
    x, y = cell_centres(tile.size, count)
    points = np.column_stack([x[cells % count], y[cells // count]])
    roofs = mesh.vertices[mesh.faces[mesh.surface == Surface.ROOF]]
    a, b, c = (roofs[None, :, k, :2] for k in range(3))

    def beside(start: np.ndarray[Any, Any], end: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Signed distance of every point from the line through every edge; positive on the inside."""
        edge = end - start
        offset = points[:, None, :] - start
        return (edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]) / np.hypot(edge[..., 0], edge[..., 1])

    distance = np.minimum(np.minimum(beside(a, b), beside(b, c)), beside(c, a))
    top = np.where(distance >= 0, roofs[None, :, 0, 2], 0.0).max(axis=1)
    clear = (np.abs(distance) > 0.01).all(axis=1)
    agree = np.abs(top - heights.ravel()[cells]) < 0.01
    return float(agree[clear].mean()) if clear.any() else 1.0


def _provenance(source: Source, prints: Footprints, mesh: Mesh, gates: dict[str, Any]) -> dict[str, Any]:
    shares = prints.buildings["height_source"].value_counts(normalize=True)
    return {
        "map": source.provenance,
        "mesh_checksum": mesh.checksum,
        "height_sources": {kind: float(shares.get(kind, 0.0)) for kind in ("tag", "levels", "part", "imputed")},
        "coverage": prints.coverage,
        "features": prints.ledger,
        "gates": gates,
    }
