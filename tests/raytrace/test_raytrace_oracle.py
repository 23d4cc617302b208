"""Every specular path to depth 2, enumerated: all ordered sequences of planes, image method and occlusion in NumPy."""

import itertools

import numpy as np
import pytest
from raytrace_helpers import BLOCKS, L_SHAPE, SOURCE, blocked, box, hits, mesh_of, users_around, world_of

from wavecity.raytrace.solver import ChainSolver

# Beside the usual blocks: a narrow courtyard entrance, and a block that touches another at a different height.
NARROW = [(L_SHAPE, 25.0), (box(-25, -25, 22, 18), 9.0), (box(30, 40, 30, 12, 33), 14.0), (box(45, 10, 10, 20), 30.0)]

# A slab in the air, which sends down what walls reflect upwards.
SLAB = [*BLOCKS, (box(0, 60, 70, 40), 22.0, 20.0)]


def planes_of(triangles: np.ndarray) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Normal, offset and triangles of each plane."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    offsets = (normals * triangles[:, 0]).sum(axis=1)
    planes: list[tuple[np.ndarray, float, list[int]]] = []
    for number, (normal, offset) in enumerate(zip(normals, offsets, strict=True)):
        for known, height, members in planes:
            if abs(abs(known @ normal) - 1) < 1e-10 and abs(height - (known @ normal) * offset) < 1e-6:
                members.append(number)
                break
        else:
            planes.append((normal, offset, [number]))
    return [(normal, offset, triangles[members]) for normal, offset, members in planes]


def enumerate_paths(blocks: list, users: np.ndarray, depth: int) -> dict[tuple[int, ...], np.ndarray]:
    """Vertices of all paths by (user, planes...)."""
    mesh = mesh_of(blocks)
    ground = np.array(
        [[[-200, -200, 0], [200, -200, 0], [200, 200, 0]], [[-200, -200, 0], [200, 200, 0], [-200, 200, 0]]]
    )
    on_ground = (mesh.surface == 2) & (mesh.vertices[mesh.faces, 2].max(axis=1) <= 0)
    triangles = np.concatenate([mesh.vertices[mesh.faces[~on_ground]], ground.astype(float)])
    planes = planes_of(triangles)
    found = {}
    for length in range(depth + 1):
        for sequence in itertools.product(range(len(planes)), repeat=length):
            if any(one == two for one, two in itertools.pairwise(sequence)):
                continue
            image, images = SOURCE, []
            for plane in sequence:
                normal, offset, _ = planes[plane]
                image = image - 2 * (image @ normal - offset) * normal
                images.append(image)
            at, vertices, valid = users.astype(np.float64), [], np.ones(len(users), bool)
            for plane, image in zip(reversed(sequence), reversed(images), strict=True):
                t = hits(at, np.broadcast_to(image, at.shape), planes[plane][2])
                where = np.nanmin(np.where(np.isnan(t), np.inf, t), axis=1, initial=np.inf)
                valid &= (where > 1e-9) & (where < 1 - 1e-9)
                vertices.append(at + np.where(valid, where, 0)[:, None] * (image - at))
                at = vertices[-1]
            chain = [np.broadcast_to(SOURCE, users.shape), *reversed(vertices), users.astype(np.float64)]
            for user in np.flatnonzero(valid):
                stops = np.array([point[user] for point in chain])
                if not blocked(stops[:-1], stops[1:], triangles).any():
                    found[(int(user), *sequence)] = stops[1:-1]
    return found


@pytest.mark.parametrize("blocks", [BLOCKS, NARROW, SLAB], ids=["blocks", "narrow", "slab"])
def test_paths_to_depth_two_are_exactly_those_of_the_oracle(blocks: list) -> None:
    users = users_around(blocks, 25, seed=2)
    expected = enumerate_paths(blocks, users, 2)
    paths = ChainSolver(2, 1_000_000)(world_of(blocks), SOURCE, users)
    assert len(paths) == len(expected)
    left = list(range(len(paths)))
    for (user, *_), vertices in expected.items():
        count = len(vertices)
        candidates = [row for row in left if paths.receiver[row] == user and (paths.types[row] == 1).sum() == count]
        gaps = [np.abs(paths.vertices[row, :count] - vertices).max(initial=0.0) for row in candidates]
        assert gaps
        assert min(gaps) < 1e-6
        row = candidates[int(np.argmin(gaps))]
        left.remove(row)
        stops = np.concatenate([SOURCE[None], vertices, users[user][None].astype(np.float64)])
        steps = np.diff(stops, axis=0)
        assert paths.length[row] == pytest.approx(np.linalg.norm(steps, axis=1).sum(), abs=1e-6)
        np.testing.assert_allclose(paths.departure[row], steps[0] / np.linalg.norm(steps[0]), atol=1e-6)
        np.testing.assert_allclose(paths.arrival[row], -steps[-1] / np.linalg.norm(steps[-1]), atol=1e-6)
    assert {(paths.types[row] == 1).sum() for row in range(len(paths))} == {0, 1, 2}
