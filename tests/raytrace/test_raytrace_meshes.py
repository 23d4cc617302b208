"""Scenes of several meshes: how their faces are numbered, and edges between faces of two of them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from raytrace_helpers import box, mesh_of
from shapely import Polygon, affinity

from wavecity.raytrace.device import mi, rt
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.stock import at_no_edge
from wavecity.raytrace.world import World, world_of

# A block of 20 m by 20 m, cut along its diagonal; not along the axes, so that float32 decides on which side of its own
# faces a point of an edge lies.
CORNERS = [tuple(corner) for corner in np.array(affinity.rotate(box(130.3, 57.7, 20, 20), 27.0).exterior.coords)[:4]]
SOUTH, NORTH = Polygon([CORNERS[0], CORNERS[1], CORNERS[2]]), Polygon([CORNERS[0], CORNERS[2], CORNERS[3]])
SOURCE = np.array([90.0, 20.0, 5.0])
# All around: some of them in the shadow of the corner at which both halves end.
TURN = np.linspace(0, 2 * np.pi, 200, endpoint=False)
RECEIVERS = np.column_stack([130 + 40 * np.cos(TURN), 57 + 40 * np.sin(TURN), 4 + np.sin(7 * TURN)])


def scene_of(*parts: tuple[Polygon, int]) -> Any:
    """Prisms of 10 m, each a mesh of its own whose list of faces begins with another one."""
    material = rt.ITURadioMaterial("walls", "concrete", 0.1)
    shapes = {}
    for number, (footprint, first) in enumerate(parts):
        mesh = mesh_of([(footprint, 10.0)])
        shape = mi.Mesh(f"part-{number}", len(mesh.vertices), len(mesh.faces))
        values = mi.traverse(shape)
        values["vertex_positions"] = mesh.vertices.astype(np.float32).ravel()
        values["faces"] = np.roll(mesh.faces, -first, axis=0).astype(np.uint32).ravel()
        values.update()
        shape.set_bsdf(material)
        shapes[f"part-{number}"] = shape
    scene = rt.Scene(mi.load_dict({"type": "scene", **shapes}))
    scene.frequency = 28e9
    return scene


def corner(world: World) -> int:
    """Number of the upright edge at the first corner."""
    upright = np.abs(world.surfaces.edge_direction[:, 2]) > 0.9
    (edge,) = np.flatnonzero(upright & (np.abs(world.surfaces.edge_origin[:, :2] - CORNERS[0]) < 1e-4).all(axis=1))
    return int(edge)


def paths_by_place(paths: Paths) -> Paths:
    """Paths of each receiver by the place of their vertex."""
    return paths.select(np.lexsort((*paths.vertices[:, 0].round(2).T, paths.receiver)))


def diffracted(world: World) -> Paths:
    return ChainSolver(1, 1000, diffraction=True, los=False, specular=False)(world, SOURCE, RECEIVERS)


def test_edge_between_two_faces_of_the_same_number() -> None:
    """Sionna takes a wedge whose faces have one number for a free edge, whichever meshes they belong to."""
    world = world_of(scene_of((SOUTH, 0), (NORTH, 0)))
    faces = world.surfaces.edge_faces[corner(world)]
    shift = np.ptp(world.primitive[faces].astype(int))
    assert shift > 0
    # Roll the faces of either half so that they have one number.
    for parts in (((SOUTH, shift), (NORTH, 0)), ((SOUTH, 0), (NORTH, shift))):
        world = world_of(scene_of(*parts))
        faces = world.surfaces.edge_faces[corner(world)]
        if len(set(world.primitive[faces])) == 1:
            break
    assert len(set(world.primitive[faces])) == 1
    assert len(set(world.shape[faces])) == 2
    found = diffracted(world)
    whole = diffracted(world_of(scene_of((Polygon(CORNERS), 0))))
    assert len(found) == len(whole) > 100
    np.testing.assert_array_equal(found.receiver, whole.receiver)
    found, whole = paths_by_place(found), paths_by_place(whole)
    np.testing.assert_allclose(found.vertices, whole.vertices, atol=1e-4)
    np.testing.assert_allclose(found.coefficient, whole.coefficient, rtol=1e-2)


def test_order_of_meshes_does_not_matter() -> None:
    """Mitsuba's order is that in which its threads have loaded them."""
    scene = scene_of((SOUTH, 0), (NORTH, 2), (Polygon([(-40, 0), (-30, 0), (-30, 30)]), 0))
    turned = SimpleNamespace(mi_scene=SimpleNamespace(shapes=lambda: scene.mi_scene.shapes()[::-1]))
    one, other = world_of(scene), world_of(turned)
    for field in ("vertices", "faces", "plane_of_face", "edge_origin", "edge_faces"):
        np.testing.assert_array_equal(getattr(one.surfaces, field), getattr(other.surfaces, field))
    np.testing.assert_array_equal(one.shape, other.shape)
    np.testing.assert_array_equal(one.primitive, other.primitive)


@pytest.mark.parametrize(("beyond", "stray"), [(-0.01, False), (0.0, False), (0.001, False), (0.01, True)])
def test_paths_beyond_the_end_of_an_edge_are_at_none(beyond: float, stray: bool) -> None:
    """Where the roof of a lower neighbour ends an edge, a path a centimetre below it diffracts at nothing."""
    world = world_of(scene_of((SOUTH, 0), (NORTH, 0)))
    edge = corner(world)
    surfaces = world.surfaces
    point = surfaces.edge_origin[edge] + (surfaces.edge_length[edge] + beyond) * surfaces.edge_direction[edge]
    # Not at the ends of the edges of the roof or the floor, which meet there.
    kept = np.arange(surfaces.edges) == edge
    alone = SimpleNamespace(
        surfaces=SimpleNamespace(
            edge_origin=surfaces.edge_origin[kept],
            edge_direction=surfaces.edge_direction[kept],
            edge_length=surfaces.edge_length[kept],
        )
    )
    table = {"types": np.array([[8, 0]]), "vertices": np.array([[point, np.zeros(3)]])}
    assert at_no_edge(table, alone).tolist() == [stray]  # type: ignore[arg-type]
