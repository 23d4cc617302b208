"""Against Sionna's own solver, on a real tile: no path lost, none twice, the same coefficients, and its `cfr`."""

from pathlib import Path

import numpy as np
import pytest
from raytrace_helpers import (
    BLOCKS,
    SOURCE,
    SPEED_OF_LIGHT,
    angles_of,
    real_scenes,
    scene_of,
    stock_paths,
    users_around,
    world_of,
)

from wavecity.geo.build import build_scene
from wavecity.geo.scene import Scene
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import open_source
from wavecity.geo.tiles import grid
from wavecity.raytrace import surfaces
from wavecity.raytrace.channels import csi
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.stock import (
    EDGE_TOLERANCE,
    Table,
    compare,
    count_repeats,
    partners,
    planes_met,
    stock_repeats,
    stock_table,
)
from wavecity.raytrace.world import World, build_world

FREQUENCY = 28.5e9
WEST_SOUTH_WEST = (-np.pi / 2, 0.12, 0.0)


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A real Helsinki scene: one with a row of houses whose fronts are nearly on one plane, among others."""
    scenes = real_scenes("helsinki", tmp_path_factory.mktemp("maps"), 12, 50)
    return max(scenes[:6], key=lambda scene: len(scene.mesh.faces))


def assert_the_same_physics(theirs: Table, ours: Paths) -> None:
    """Delays, angles and coefficients of paths that are partners, row by row."""
    np.testing.assert_allclose(ours.length, theirs["length"], atol=2e-4)
    turned = np.angle(np.exp(1j * (angles_of(ours) - theirs["angles"])))
    # Of a mirror nearly on the plane of another Sionna keeps either's image.
    assert np.median(np.abs(turned)) < 1e-5
    assert np.abs(turned).max() < 5e-3
    difference = np.abs(ours.coefficient - theirs["coefficient"][:, 0]) / np.abs(theirs["coefficient"][:, 0])
    # Grazing incidence magnifies the rounding of float32 directions, in the stock solver too.
    assert np.median(difference) < 1e-4
    assert np.quantile(difference, 0.95) < 1e-2


@pytest.mark.parametrize("pattern", ["iso", "tr38901"])
def test_specular_paths_of_a_real_tile(tile: Scene, pattern: str) -> None:
    world = build_world(tile.mesh, tile.size, RadioSettings())
    options = {"pattern": pattern, "orientation": WEST_SOUTH_WEST}
    theirs = stock_table(stock_paths(world, tile.bs_position, tile.users, **options), world)
    ours = ChainSolver(3, 100_000)(world, tile.bs_position, tile.users, WEST_SOUTH_WEST, pattern)
    partner = partners(theirs, ours, world)
    assert len(partner) > 100
    assert (partner >= 0).all()
    assert_the_same_physics(theirs, ours.select(partner))


def test_no_path_of_a_real_tile_comes_twice(tile: Scene) -> None:
    world = build_world(tile.mesh, tile.size, RadioSettings())
    paths = ChainSolver(3, 200_000, diffraction=True)(world, tile.bs_position, tile.users)
    met = np.where(paths.types == 1, planes_met(world, paths.types, paths.faces), paths.elements)
    assert len(np.unique(np.column_stack([paths.receiver, met]), axis=0)) == len(paths)
    for user in range(len(tile.users)):
        mine = paths.select(paths.receiver == user)
        gap = np.linalg.norm(mine.vertices[:, None] - mine.vertices, axis=-1).max(axis=-1)
        gap[(mine.types[:, None] != mine.types).any(axis=-1)] = np.inf
        np.fill_diagonal(gap, np.inf)
        assert gap.min(initial=np.inf) > 0.01


def test_diffracted_paths_of_blocks() -> None:
    """Depth 2, of which the stock solver gets the fields right that use all of it, or end at the edge."""
    world, users = world_of(BLOCKS), users_around(BLOCKS, 25)
    theirs = stock_table(stock_paths(world, SOURCE, users, max_depth=2, diffraction=True), world)
    ours = ChainSolver(2, 100_000, diffraction=True)(world, SOURCE, users)
    partner = partners(theirs, ours, world)
    assert (partner >= 0).all()
    diffracts = (theirs["types"] == 8).any(axis=1)
    assert diffracts.sum() > 100
    ours_matched = ours.select(partner)
    np.testing.assert_allclose(ours_matched.length, theirs["length"], atol=2e-4)
    difference = np.abs(ours_matched.coefficient - theirs["coefficient"][:, 0]) / np.abs(theirs["coefficient"][:, 0])
    assert np.median(difference[diffracts]) < 1e-4
    assert np.quantile(difference[diffracts], 0.95) < 1e-2


def test_fields_do_not_depend_on_the_depth_allowed() -> None:
    """A path by diffraction and one reflection has one field (in the stock solver it changes with `max_depth`)."""
    world, users = world_of(BLOCKS), users_around(BLOCKS, 25)
    shallow, deep = (ChainSolver(d, 100_000, diffraction=True)(world, SOURCE, users) for d in (2, 3))
    lookup = {
        (int(r), *e[:2]): c for r, e, c in zip(deep.receiver, deep.elements, deep.coefficient, strict=True) if e[2] < 0
    }
    known = [(int(r), *e) in lookup for r, e in zip(shallow.receiver, shallow.elements, strict=True)]
    assert np.mean(known) > 0.99
    for row in np.flatnonzero(known):
        other = lookup[(int(shallow.receiver[row]), *shallow.elements[row])]
        assert abs(shallow.coefficient[row] - other) <= 1e-5 * abs(other)


def test_csi_is_sionnas_cfr() -> None:
    """32 x 32, a tilted 3GPP panel, all paths."""
    users = users_around(BLOCKS, 24)
    radio = RadioSettings(pattern="tr38901", downtilt=7.0)
    scene, world = scene_of(BLOCKS, users), world_of(BLOCKS, radio)
    orientation = (np.deg2rad(-90.0), np.deg2rad(7.0), 0.0)
    ours = csi(simulate(scene, radio, SolverSettings(rays=100_000), 0), radio).reshape(len(users), -1)
    stock = stock_paths(world, SOURCE, users, rows=32, columns=32, pattern="tr38901", orientation=orientation)

    # Sionna's coefficients at every antenna, with the carrier phase of the exact lengths (its own has float32 delays).
    theirs = stock_table(stock, world)
    exact = ChainSolver(3, 100_000)(world, SOURCE, users, orientation, "tr38901")
    length = exact.length[partners(theirs, exact, world)]
    phase = np.exp(-2j * np.pi * (length * FREQUENCY / SPEED_OF_LIGHT % 1))
    expected = np.zeros((len(users), 1024), np.complex128)
    np.add.at(expected, theirs["receiver"], theirs["coefficient"] * phase[:, None])
    size = np.linalg.norm(expected, axis=1)
    served = size > 0
    assert served.sum() > 8
    error = np.linalg.norm(ours - expected, axis=1)[served] / size[served]
    # One user has a reflection at grazing incidence, where the stock solver's float32 vertices cost its last digits.
    assert np.sort(error)[-2] < 1e-4
    assert error.max() < 2e-4

    # And straight against `cfr`, whose phase is that of a float32 delay: some hundredths of a radian a path.
    cfr = stock.cfr(frequencies=[0.0], normalize_delays=False, out_type="numpy")[:, 0, 0, :, 0, 0]
    error = np.linalg.norm(ours - cfr, axis=1)[served] / size[served]
    assert error.max() < 2e-2
    np.testing.assert_array_equal(ours[~served], 0)


def test_line_of_sight_alone_is_cfr_but_for_one_phase_a_user() -> None:
    users = users_around([], 20)
    radio = RadioSettings(downtilt=3.0)
    channels = simulate(scene_of([], users), radio, SolverSettings(max_depth=0), 0)
    ours = csi(channels, radio).reshape(20, -1)
    orientation = (np.deg2rad(-90.0), np.deg2rad(3.0), 0.0)
    stock = stock_paths(world_of([]), SOURCE, users, rows=32, columns=32, max_depth=0, orientation=orientation)
    cfr = stock.cfr(frequencies=[0.0], normalize_delays=False, out_type="numpy")[:, 0, 0, :, 0, 0]
    common = (cfr * ours.conj()).sum(axis=1, keepdims=True)
    common /= np.abs(common)
    # The phase they differ by is the rounding of a float32 delay.
    assert np.abs(np.angle(common)).max() < 3e-2
    error = np.linalg.norm(ours * common - cfr, axis=1) / np.linalg.norm(cfr, axis=1)
    assert error.max() < 1e-4


def specular_paths_of(extract: Path, cache: Path, tiles: int, users: int, rays: int) -> int:
    """Compare both solvers on real tiles: none missing, none twice, the same physics. The number of stock paths."""
    compared = 0
    for scene in real_scenes(str(extract), cache, tiles, users):
        world = build_world(scene.mesh, scene.size, RadioSettings())
        theirs = stock_table(stock_paths(world, scene.bs_position, scene.users, samples_per_src=rays), world)
        ours = ChainSolver(3, rays)(world, scene.bs_position, scene.users)
        result = compare(theirs, ours, world, len(scene.users))
        assert (result.missing, result.duplicates) == (0, 0), scene.id
        assert np.median(result.difference) < 1e-3, scene.id
        assert result.difference.max() < 0.2, scene.id
        if len(theirs["receiver"]):
            assert_the_same_physics(theirs, ours.select(partners(theirs, ours, world)))
        compared += result.stock
    return compared


def test_specular_paths_of_other_cities(shared_osm: Path, tmp_path: Path) -> None:
    extracts = sorted(shared_osm.glob("*.osm*"))
    for extract in (extracts[0], extracts[-1]):
        assert specular_paths_of(extract, tmp_path, 1, 40, 100_000) > 20


@pytest.mark.heavy
def test_all_specular_paths_of_all_extracts(shared_osm: Path, tmp_path: Path) -> None:
    """At the stock solver's own number of rays."""
    for extract in sorted(shared_osm.glob("*.osm*")):
        specular_paths_of(extract, tmp_path, 3, 100, 1_000_000)


@pytest.mark.heavy
def test_the_stock_solver_finds_what_only_ours_found_when_it_has_few_receivers(
    shared_osm: Path, tmp_path: Path
) -> None:
    """Of 400 receivers it loses paths, some of them the strongest of a user: its hash table is full."""
    scene = real_scenes(str(shared_osm / "granada.osm"), tmp_path, 1, 400)[0]
    world = build_world(scene.mesh, scene.size, RadioSettings())
    ours = ChainSolver(3, 1_000_000, los=False)(world, scene.bs_position, scene.users)

    def found(users: np.ndarray) -> np.ndarray:
        """Positions in `ours` of the paths that the stock solver finds when only these users are there."""
        options = {"samples_per_src": 1_000_000, "los": False}
        theirs = stock_table(stock_paths(world, scene.bs_position, scene.users[users], **options), world)
        theirs["receiver"] = users[theirs["receiver"]]
        return partners(theirs, ours, world)

    only_ours = np.setdiff1d(np.arange(len(ours)), found(np.arange(400)))
    assert len(only_ours) > 0
    users = np.unique(ours.receiver[only_ours])
    again = [found(part) for part in np.array_split(users, -(-len(users) // 20))]
    assert np.isin(only_ours, np.concatenate(again)).all()


@pytest.mark.heavy
def test_all_diffracted_paths_of_all_extracts(
    shared_osm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faint ones by diffraction and then reflection may be missing: the rays from edges are random."""
    # The stock solver takes the edges of every building by itself, also where two touch.
    monkeypatch.setattr(surfaces, "merge_touching", lambda edges, *_: edges)
    for extract in sorted(shared_osm.glob("*.osm*")):
        for scene in real_scenes(str(extract), tmp_path, 1, 50):
            world = build_world(scene.mesh, scene.size, RadioSettings())
            options = {"samples_per_src": 1_000_000, "diffraction": True}
            theirs = stock_table(stock_paths(world, scene.bs_position, scene.users, **options), world)
            ours = ChainSolver(3, 1_000_000, diffraction=True)(world, scene.bs_position, scene.users)
            result = compare(theirs, ours, world, len(scene.users))
            assert result.missing <= 0.002 * result.stock, scene.id
            assert result.duplicates == 0, scene.id


def test_the_comparison_sees_what_is_missing_or_twice(tile: Scene) -> None:
    """The counters, against a plain search of all pairs and against paths taken away or put in again."""
    world = build_world(tile.mesh, tile.size, RadioSettings())
    users = tile.users[:20]
    options = {"diffraction": True, "max_depth": 2}
    theirs = stock_table(stock_paths(world, tile.bs_position, users, **options), world)
    ours = ChainSolver(2, 100_000, diffraction=True)(world, tile.bs_position, users)
    partner = partners(theirs, ours, world)
    np.testing.assert_array_equal(partner, plain_partners(theirs, ours, world))
    result = compare(theirs, ours, world, len(users))
    assert (result.stock, result.stock_duplicates) == ((~stock_repeats(theirs)).sum(), stock_repeats(theirs).sum())
    assert (result.missing + result.no_edge, result.duplicates) == ((partner[~stock_repeats(theirs)] < 0).sum(), 0)

    lost = ours.select(np.setdiff1d(np.arange(len(ours)), partner[:3]))
    assert compare(theirs, lost, world, len(users)).missing == result.missing + len(np.unique(partner[:3]))
    twice = ours.select(np.r_[np.arange(len(ours)), 5, 8])
    assert count_repeats(twice, world) == 2
    doubled = {name: np.concatenate([column, column[:4]]) for name, column in theirs.items()}
    again = compare(doubled, ours, world, len(users))
    assert again.stock == result.stock
    assert again.stock_duplicates == result.stock_duplicates + 4
    np.testing.assert_array_equal(again.difference, result.difference)


def plain_partners(theirs: Table, ours: Paths, world: World) -> np.ndarray:
    met = planes_met(world, ours.types, ours.faces)
    result = np.full(len(theirs["receiver"]), -1)
    for row in range(len(result)):
        same = (ours.receiver == theirs["receiver"][row]) & (met == theirs["met"][row]).all(axis=1)
        gap = np.linalg.norm(ours.vertices - theirs["vertices"][row], axis=2)
        same &= np.where(ours.types == 8, gap, 0).max(axis=1) < EDGE_TOLERANCE
        if same.any():
            candidates = np.flatnonzero(same)
            result[row] = candidates[gap[candidates].max(axis=1).argmin()]
    return result


def test_a_mirror_and_an_edge_that_meet_in_one_point_make_no_path(shared_osm: Path, tmp_path: Path) -> None:
    """A wall, and an edge that stands on its plane: fields of a step without length were NaN."""
    split = SplitSettings(by="city", validation=0, test=0)
    source = str(shared_osm / "granada.osm")
    area = AreaSettings(source=source, city="Granada", country="ES", scenes=100, stride=100, split=split)
    extract = open_source(area, tmp_path)
    tile = grid(extract, area)[5]
    scene = build_scene(tile, extract, SceneSettings(), UserSettings(minimum=100, maximum=150), 4)
    # The user of whom it was seen.
    assert scene.users[5] == pytest.approx([13.2136, 62.3460, 1.5], abs=1e-3)
    world = build_world(scene.mesh, scene.size, RadioSettings())
    paths = ChainSolver(3, 500_000, diffraction=True, seed=4)(world, scene.bs_position, scene.users[5:6])
    assert len(paths) > 3
    assert np.isfinite(paths.coefficient).all()
