"""Whatever stands in a map, a scene is sound or refused: any tags, any rings."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import trimesh
from geo_maps import LATITUDE, LONGITUDE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon

from wavecity.geo.build import build_scene
from wavecity.geo.errors import SceneError
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.guess import Neighbours
from wavecity.geo.heights import Height, HeightStatistics, height_statistics, impute_height, tagged_height
from wavecity.geo.mesh import build_mesh
from wavecity.geo.projection import unproject
from wavecity.geo.scene import Mesh
from wavecity.geo.settings import SceneSettings, UserSettings
from wavecity.geo.tiles import Tile

SETTINGS = SceneSettings()
LENIENT = SceneSettings(bs_max_shift=100.0)
USERS = UserSettings(minimum=20, maximum=40)
TILE = Tile("fuzz-0000", "Fuzz", "FI", LATITUDE, LONGITUDE, 200.0, split="train")
KEYS = ["height", "building:height", "min_height", "building:min_height", "building:levels", "roof:levels"]
KEYS += ["building:min_level", "layer", "location"]
FAST = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
Ring = list[tuple[float, float]]
Drawn = tuple[Ring, list[Ring], dict[str, str]]


@dataclass(frozen=True)
class Drawing:
    """A `Source` of rings in metres around the tile's centre, kept as they are."""

    buildings_drawn: list[Drawn]
    bounds: tuple[float, float, float, float] = (LONGITUDE - 0.1, LATITUDE - 0.1, LONGITUDE + 0.1, LATITUDE + 0.1)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def statistics(self) -> HeightStatistics:
        return height_statistics([tags for _, _, tags in self.buildings_drawn], [100.0] * len(self.buildings_drawn))

    def buildings(self, bounds: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
        shapes = [
            MultiPolygon([Polygon(_degrees(shell), [_degrees(hole) for hole in holes])])
            for shell, holes, _ in self.buildings_drawn
        ]
        n = len(shapes)
        columns = {
            "osm_type": ["way"] * n,
            "osm_id": np.arange(1, n + 1),
            "tags": [tags for _, _, tags in self.buildings_drawn],
            "outline_of": np.zeros(n, dtype=np.int64),
            "problem": "",
        }
        frame = gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")
        return frame[shapely.intersects(shapely.box(*shapely.bounds(shapes).T), shapely.box(*bounds))]


def _degrees(ring: Ring) -> np.ndarray:
    return unproject(np.array(ring, dtype=float), LATITUDE, LONGITUDE)


# --- tags ---

NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats().map(str),
    st.floats(0, 1100).map(lambda value: f"{value:.3f}"),
    st.sampled_from(
        ["nan", "NaN", "inf", "-inf", "Infinity", "1e3", "1e400", "0", "-0", "0.0001", "999999", "1000", "٣", "½"]
    ),
)
UNITS = st.sampled_from(
    ["", " ", "m", " m", "ft", " feet", "'", "'6\"", "cm", " km", "°", " storeys", "\u00a0m", ";", "-"]
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.builds(lambda *parts: "".join(parts), st.sampled_from(["", "~", "ca. ", "-", "+", ">"]), NUMBERS, UNITS),
    st.lists(NUMBERS, min_size=1, max_size=5).map(";".join),
    st.lists(NUMBERS, max_size=3).map(str),
)
TAGS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)


def assert_height(height: Height | None) -> None:
    if height is None:
        return
    assert math.isfinite(height.top)
    assert math.isfinite(height.base)
    assert 0 <= height.base < height.top <= 1000
    assert height.top - height.base >= 0.099
    assert 0 < height.confidence <= 1


def check_tags(
    tags: dict[str, str], storey: float, neighbours: list[float], area: float, others: list[dict[str, str]], seed: int
) -> None:
    assert_height(tagged_height(tags, storey))
    statistics = height_statistics([tags, *others], [area] * (len(others) + 1))
    assert 0 < statistics.storey(storey) < 1000
    n = len(neighbours)
    known = Neighbours(
        np.array(neighbours, dtype=float), np.full(n, 100.0), np.arange(n, dtype=float), np.ones(n, bool)
    )
    for method in ("neighbours", "geo2sigmap"):
        assert_height(impute_height(tags, ("way", 1), area, known, statistics, storey, method, seed))


TAG_CASES = st.tuples(
    TAGS,
    st.floats(0.1, 10),
    st.lists(st.floats(0.1, 1000), max_size=4),
    st.floats(0, 1e5),
    st.lists(TAGS, max_size=3),
    st.integers(0, 2**31),
)


@settings(FAST, max_examples=50)
@given(TAG_CASES)
def test_any_tags(case: tuple[Any, ...]) -> None:
    check_tags(*case)


@pytest.mark.heavy
@settings(FAST, max_examples=10_000)
@given(TAG_CASES)
def test_10000_tags(case: tuple[Any, ...]) -> None:
    check_tags(*case)


# --- rings ---

# Whole and half metres meet often: shared corners, party walls, collinear points, zero areas.
GRIDDED = st.integers(-240, 240).map(lambda value: value / 2)
COORDINATES = st.one_of(GRIDDED, st.floats(-130, 130), st.sampled_from([-100.0, 100.0, 0.0, 99.9995, -100.0005]))
POINTS = st.tuples(COORDINATES, COORDINATES)


@st.composite
def boxes(draw: st.DrawFn) -> Ring:
    x, y = draw(POINTS)
    width, depth = draw(st.tuples(st.sampled_from([0.0, 1e-9, 0.001, 0.1, 2.0, 10.0, 30.0, 300.0]), st.floats(0, 60)))
    return [(x, y), (x + width, y), (x + width, y + depth), (x, y + depth)]


@st.composite
def stars(draw: st.DrawFn) -> Ring:
    """Around a centre, with as many corners as a palace or a circle; radii from the seed, so that examples stay small."""
    x, y = draw(POINTS)
    count = draw(st.sampled_from([3, 5, 8, 40, 400]))
    seed = draw(st.integers(0, 1000))
    reach = draw(st.sampled_from([0.01, 0.5, 5.0, 40.0, 2000.0]))
    radius = reach * np.random.default_rng(seed).uniform(draw(st.sampled_from([0.05, 0.9, 1.0])), 1, count)
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return list(zip((x + radius * np.cos(angle)).tolist(), (y + radius * np.sin(angle)).tolist(), strict=True))


@st.composite
def spoilt(draw: st.DrawFn, rings: st.SearchStrategy[Ring]) -> Ring:
    """A ring with what drawing and conversion do to rings."""
    ring = list(draw(rings))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(ring) - 1))
        x, y = ring[at]
        kind = draw(st.sampled_from(["double", "noise", "spike", "back", "collinear", "reverse", "pinch"]))
        if kind == "double":
            ring.insert(at, (x, y))
        elif kind == "noise":
            ring = [(a + 1e-9 * (k % 3), b - 1e-9 * (k % 2)) for k, (a, b) in enumerate(ring)]
        elif kind == "spike":
            ring[at + 1 : at + 1] = [(x + draw(st.floats(-50, 50)), y), (x, y)]
        elif kind == "back":
            ring[at + 1 : at + 1] = [ring[at - 1], (x, y)]
        elif kind == "collinear":
            a, b = ring[at - 1]
            ring.insert(at, ((x + a) / 2, (y + b) / 2))
        elif kind == "reverse":
            ring.reverse()
        else:
            ring.append(ring[at])
    return ring


RINGS = spoilt(st.one_of(boxes(), stars(), st.lists(POINTS, min_size=3, max_size=12)))
BUILDING_TAGS = st.builds(
    lambda kind, tags: {**kind, **tags},
    st.sampled_from([{"building": "yes"}, {"building:part": "yes"}, {"building": "yes", "building:part": "yes"}]),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"height": st.sampled_from(["3", "9", "9", "20", "60"])}),
        st.just({"height": "7.5", "min_height": "5.5"}),
        st.just({"building:levels": "4", "building:min_level": "2"}),
        TAGS,
    ),
)


@st.composite
def maps(draw: st.DrawFn) -> list[Drawn]:
    found: list[Drawn] = []
    for _ in range(draw(st.integers(1, 6))):
        tags = draw(BUILDING_TAGS)
        if found and draw(st.integers(0, 3)) == 0:
            # The same once more, moved by nothing, by rounding, or by something.
            shell, holes, _ = draw(st.sampled_from(found))
            dx, dy = draw(st.sampled_from([(0.0, 0.0), (1e-9, 0.0), (0.0005, -0.0004), (0.05, 0.0), (3.0, 4.0)]))
            moved = [[(x + dx, y + dy) for x, y in ring] for ring in (shell, *holes)]
            found.append((moved[0], moved[1:], tags))
            continue
        shell = draw(RINGS)
        holes: list[Ring] = []
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            if draw(st.booleans()):
                holes.append(draw(RINGS))
            else:  # the shell itself, shrunk about one of its corners or its middle: nested or touching
                x, y = draw(st.sampled_from([shell[0], tuple(np.mean(shell, axis=0).tolist())]))
                scale = draw(st.sampled_from([0.2, 0.5, 0.99, 1.0]))
                holes.append([(x + scale * (a - x), y + scale * (b - y)) for a, b in shell])
        found.append((shell, holes, tags))
    return found


def assert_manifold(mesh: Mesh, buildings: gpd.GeoDataFrame) -> None:
    """Every edge belongs to two faces that run through it in opposite directions; and trimesh's opinion of the whole."""
    assert np.isfinite(mesh.vertices).all()
    edges = Counter((int(a), int(b)) for face in mesh.faces for a, b in zip(face, np.roll(face, -1), strict=True))
    assert set(edges.values()) <= {1}
    assert all((b, a) in edges for a, b in edges)
    if len(mesh.faces):
        solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        assert solid.is_watertight
        assert solid.is_winding_consistent
        volume = buildings.area @ (buildings["height"] - buildings["base"])
        assert solid.volume == pytest.approx(volume, rel=1e-6)
        assert np.abs(mesh.vertices[:, :2]).max() <= 100
        assert mesh.vertices[:, 2].min() >= 0
        assert mesh.vertices[:, 2].max() <= 1000


# What refuses a scene for the place it is; anything else would be a fault of ours that the gates caught.
EXPECTED = ("no buildings", "no clear base station position", "open ground")


def check_map(drawn: list[Drawn], scene_settings: SceneSettings = SETTINGS) -> None:
    source = Drawing(drawn)
    prints = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, scene_settings, 0)
    assert 0 <= prints.coverage <= 1
    assert all(shapely.is_valid(prints.buildings.geometry))
    for row in prints.buildings.itertuples():
        assert_height(Height(row.height, row.base, row.height_source, row.confidence))
    mesh = build_mesh(prints.buildings)
    assert_manifold(mesh, prints.buildings)
    try:
        scene = build_scene(TILE, source, LENIENT, USERS, 0)
    except SceneError as error:
        if not str(error).startswith(EXPECTED):
            raise
        return
    assert np.isfinite(scene.height).all()
    assert scene.height.min() >= 0


@settings(FAST, max_examples=50)
@given(maps())
def test_any_rings(drawn: list[Drawn]) -> None:
    check_map(drawn)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
@settings(FAST, max_examples=10_000)
@given(maps())
def test_10000_maps(drawn: list[Drawn]) -> None:
    check_map(drawn)


# --- what the cases above have found ---


NOBODY = Neighbours(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=bool))


def square(x: float, y: float, **tags: str) -> Drawn:
    return [(x, y), (x + 20, y), (x + 20, y + 20), (x, y + 20)], [], {"building": "yes", **tags}


def test_a_ring_without_area_gives_no_building_another_ones_neighbours() -> None:
    """Its missing centre once moved the centres of all later buildings up by one."""
    flat: Drawn = ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], [], {"building": "yes"})
    near = [square(x, 30, height="7") for x in (-90, -60)]
    far = [square(200, y, height="50") for y in (-40, 0, 40)]
    prints = tile_footprints(LATITUDE, LONGITUDE, 200.0, Drawing([flat, square(-90, 0), *far, *near]), SETTINGS, 0)
    assert prints.outcomes.set_index("osm_id").loc[1, "outcome"] == "rings without area"
    imputed = prints.buildings[prints.buildings["height_source"] == "imputed"]
    assert imputed["osm_id"].tolist() == [2]
    assert imputed["height"].tolist() == [7]


def test_a_map_of_one_ring_without_area_has_no_buildings() -> None:
    source = Drawing([([(0.0, 0.0)] * 4, [], {"building": "yes"})])
    with pytest.raises(SceneError, match="no buildings"):
        build_scene(TILE, source, LENIENT, USERS, 0)


@pytest.mark.parametrize(
    "tags",
    [
        {"building:levels": "200", "roof:levels": "200"},  # 1400 m
        {"height": "0.0001"},
        {"building:levels": "0.001"},
    ],
)
def test_absurd_heights_are_as_good_as_none(tags: dict[str, str]) -> None:
    assert tagged_height(tags, 3.5) is None


def test_a_base_at_the_limit_does_not_lift_the_top_beyond_it() -> None:
    height = impute_height({"min_height": "1000"}, ("way", 1), 100.0, NOBODY, HeightStatistics(), 3.5, "neighbours", 0)
    assert (height.top, height.base) == (1000, 0)


def test_union_of_all_rows_is_valid_where_two_raised_buildings_share_a_house_below() -> None:
    check_map(
        [
            square(0, 0, height="12", min_height="6"),
            square(20, 0, height="12", min_height="6"),
            ([(0.0, 0.0), (40.0, 0.0), (40.0, 20.0), (0.0, 20.0)], [], {"building": "yes", "height": "9"}),
        ]
    )
