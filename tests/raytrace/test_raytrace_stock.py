"""Against Sionna's own solver, on a real tile: no path lost, none twice, the same coefficients, and its `cfr`."""

from pathlib import Path

import numpy as np
import pytest
from raytrace_helpers import (
    BLOCKS,
    SOURCE,
    SPEED_OF_LIGHT,
    angles_of,
    partners,
    planes_met,
    scene_of,
    stock_paths,
    stock_table,
    users_around,
    world_of,
)

from geo.build import build_scene
from geo.scene import Scene
from geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from geo.sources import open_source
from geo.tiles import plan_tiles
from raytrace.channels import csi
from raytrace.settings import RadioSettings, SolverSettings
from raytrace.simulate import simulate
from raytrace.solver import ChainSolver
from raytrace.world import build_world

FREQUENCY = 28.5e9
WEST_SOUTH_WEST = (-np.pi / 2, 0.12, 0.0)


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A real Helsinki scene: one with a row of houses whose fronts are nearly on one plane, among others."""
    area = AreaSettings(scenes=12, split=SplitSettings(by="scene"))
    source = open_source(area, tmp_path_factory.mktemp("maps"))
    tiles = [tile for tile in plan_tiles(source, area, SceneSettings(), 0) if tile.status == "accepted"]
    users = UserSettings(minimum=50, maximum=50)
    return max(
        (build_scene(tile, source, SceneSettings(), users, 0) for tile in tiles[:6]), key=lambda s: len(s.mesh.faces)
    )


@pytest.mark.parametrize("pattern", ["iso", "tr38901"])
def test_specular_paths_of_a_real_tile(tile: Scene, pattern: str) -> None:
    world = build_world(tile.mesh, tile.size, RadioSettings())
    options = {"pattern": pattern, "orientation": WEST_SOUTH_WEST}
    theirs = stock_table(stock_paths(world, tile.bs_position, tile.users, **options), world)
    ours = ChainSolver(3, 100_000)(world, tile.bs_position, tile.users, WEST_SOUTH_WEST, pattern)
    partner = partners(theirs, ours, world)
    assert len(partner) > 100
    assert (partner >= 0).all()
    ours_matched = ours.select(partner)
    np.testing.assert_allclose(ours_matched.length, theirs["length"], atol=2e-4)
    turned = np.angle(np.exp(1j * (angles_of(ours_matched) - theirs["angles"])))
    # Of a mirror nearly on the plane of another Sionna keeps either's image.
    assert np.median(np.abs(turned)) < 1e-5
    assert np.abs(turned).max() < 5e-3
    difference = np.abs(ours_matched.coefficient - theirs["coefficient"][:, 0]) / np.abs(theirs["coefficient"][:, 0])
    # Grazing incidence magnifies the rounding of float32 directions, in the stock solver too.
    assert np.median(difference) < 1e-4
    assert np.quantile(difference, 0.95) < 1e-2


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


@pytest.mark.heavy
def test_all_paths_of_other_cities(shared_osm: Path, tmp_path: Path) -> None:
    """No specular path missing at the stock solver's own number of rays; faint diffracted ones may be."""
    for number, extract in enumerate(sorted(shared_osm.glob("*.osm*"))):
        area = AreaSettings(source=str(extract), city=extract.name.split(".")[0], country="XX", scenes=1)
        area = area.model_copy(update={"split": SplitSettings(by="scene")})
        source = open_source(area, tmp_path)
        accepted = [tile for tile in plan_tiles(source, area, SceneSettings(), 0) if tile.status == "accepted"]
        if not accepted:
            continue
        scene = build_scene(accepted[0], source, SceneSettings(), UserSettings(minimum=50, maximum=50), 0)
        world = build_world(scene.mesh, scene.size, RadioSettings())
        for diffraction in (False, True):
            options = {"samples_per_src": 1_000_000, "diffraction": diffraction}
            theirs = stock_table(stock_paths(world, scene.bs_position, scene.users, **options), world)
            ours = ChainSolver(3, 1_000_000, diffraction=diffraction)(world, scene.bs_position, scene.users)
            missing = partners(theirs, ours, world) < 0
            assert missing.mean() <= (0.002 if diffraction else 0.0), (number, extract.name)
