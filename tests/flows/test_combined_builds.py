"""Base stations, carriers, ports, vegetation, trajectories and radio maps in one recipe: each part as a run of its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from builds import build_version, recipe_with
from town import write_town

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.derived import DerivedCsi
from wavecity.dataset.draft import load_draft
from wavecity.dataset.preview.scene import load_view
from wavecity.dataset.publish import latest
from wavecity.dataset.radio_map_data import RadioMapDataset
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.views import derived_csi
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.scenes import scene_of
from wavecity.geo.base_stations import place_others
from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.raytrace.moving import simulate_moving
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.simulate import simulate, simulate_csi

LOW, HIGH = 3.5e9, 28.5e9
SMALL = {
    "area.city": "Town", "area.country": "FI", "area.scenes": 1, "area.split.by": "scene", "area.split.validation": 0,
    "area.split.test": 0, "users.minimum": 20, "users.maximum": 20, "radio.columns": 4, "radio.rows": 4,
    "solver.rays": 10_000, "solver.max_depth": 1, "scene.base_stations.positions": "[[80, 0, 10]]",
}  # fmt: skip
CARRIERS = {"radio.carriers": f"[{HIGH}, {LOW}]"}
MOVING = {"mobility": "{steps: 6, interval: 0.02, subcarriers: 3}", "users.minimum": 8, "users.maximum": 8}
STANDING = {**CARRIERS, "scene.vegetation": "{}", "features.radio_map": "{spacing: 20, metrics: [path_gain, los]}"}
PORTS = {"radio.user_polarisation": "VH", "scene.vegetation": "{}"}
EVERYTHING = (MOVING, CARRIERS, {"scene.vegetation": "{}"})
PATHS = ("gain", "delay", "aod_azimuth", "interactions", "n_paths", "power_cut")


def recipe_in(folder: Path, *parts: dict[str, object]) -> Recipe:
    changes: dict[str, object] = {**SMALL, "area.source": folder / "town.osm"}
    for part in parts:
        changes |= part
    return recipe_with("quickstart", changes)


@pytest.fixture(scope="module")
def town(shared) -> Path:
    def make(folder: Path) -> None:
        write_town(folder / "town.osm")
        plan_scenes(recipe_in(folder, STANDING), folder / "maps")

    folder: Path = shared("combined-town", make)
    return folder


def built(shared, town: Path, name: str, *parts: dict[str, object]) -> Path:
    def build(folder: Path) -> None:
        build_version(recipe_in(town, *parts), folder / "store", town / "maps")

    folder: Path = shared(f"combined-{name}", build)
    return folder / "store"


@pytest.fixture(scope="module")
def standing(shared, town: Path) -> Path:
    return built(shared, town, "standing", STANDING)


@pytest.fixture(scope="module")
def moving(shared, town: Path) -> Path:
    return built(shared, town, "moving", MOVING)


@pytest.fixture(scope="module")
def ports(shared, town: Path) -> Path:
    return built(shared, town, "ports", PORTS)


@pytest.fixture(scope="module")
def moving_at_carriers(shared, town: Path) -> Path:
    return built(shared, town, "moving-carriers", *EVERYTHING)


def links_of(recipe: Recipe, town: Path) -> Iterator[tuple[int, Scene, RadioSettings]]:
    """Number, scene and radio of each base station, as if it were the only one; its panel faces the tile's middle."""
    scene = scene_of(recipe, "town-0000", town / "maps")
    source = plan_scenes(recipe, town / "maps").sources["Town"]
    (other,) = place_others(scene, source, recipe.scene)
    assert other is not None
    yield 0, scene, recipe.radio
    yield 1, replace(scene, bs_position=other.position), recipe.radio.model_copy(update={"azimuth": other.azimuth})


def equal_paths(store: Path, number: int, found: object, **chosen: object) -> None:
    """The stored paths of a link are those of a run of its own, bit by bit."""
    paths = open_store(store, "paths", bs=number, **chosen).isel(scene=0).load()
    for name in PATHS:
        np.testing.assert_array_equal(paths[name], getattr(found, name))


def test_each_link_at_each_carrier_is_a_run_of_its_own(standing: Path, town: Path) -> None:
    recipe = recipe_in(town, STANDING)
    result = validate(standing)
    assert result.ok, result.findings
    for number, scene, radio in links_of(recipe, town):
        for one in radio.each:
            channels, csi = simulate_csi(scene, one, recipe.solver, recipe.seed)
            data = open_store(standing, bs=number, carrier=one.frequency).isel(scene=0).load()
            np.testing.assert_array_equal(data["csi"], csi)
            for name in ("path_gain", "los", "outage"):
                np.testing.assert_array_equal(data[name], getattr(channels, name))
            equal_paths(standing, number, channels, carrier=one.frequency)
            assert (~channels.outage).sum() > 5


Losses = dict[tuple[float, ...], tuple[complex, float]]


def losses_of(store: Path, number: int, **chosen: object) -> list[Losses]:
    """Gain and loss of the paths of each user, by delay and direction, which are the same in every band to the bit."""
    paths = open_store(store, "paths", bs=number, **chosen).isel(scene=0).load()
    place = np.stack([paths[name].values for name in ("delay", "aod_zenith", "aod_azimuth")], axis=-1)
    found: list[Losses] = []
    for user, gains in enumerate(paths["gain"].values):
        there = np.flatnonzero(gains)
        loss = paths["vegetation_loss"].values[user]
        found.append({tuple(place[user, path].tolist()): (complex(gains[path]), float(loss[path])) for path in there})
    return found


def test_each_carrier_loses_in_crowns_what_p_833_says(standing: Path) -> None:
    """Metres of vegetation from the loss at one carrier, and from these the loss at the other."""

    def constants(frequency: float) -> tuple[float, float]:
        return 0.2 * frequency / 1e9, 1.15 * (frequency / 1e6) ** 0.43

    (gamma, most), (gamma_high, most_high) = constants(LOW), constants(HIGH)
    compared = 0
    for number in (0, 1):
        each = (losses_of(standing, number, carrier=carrier) for carrier in (LOW, HIGH))
        for low, high in zip(*each, strict=True):
            for path in low.keys() & high.keys():
                loss = low[path][1]
                assert 0 <= loss <= most
                if loss < 0.9 * most:
                    depth = -most / gamma * np.log(1 - loss / most)
                    expected = most_high * (1 - np.exp(-gamma_high * depth / most_high))
                    assert high[path][1] == pytest.approx(expected, rel=1e-4, abs=1e-4)
                    compared += expected > 1
    assert compared > 10
    for carrier in (LOW, HIGH):
        stored = attributes_of(open_store(standing, carrier=carrier).attrs)["vegetation"]
        expected = dict(zip(("attenuation_db_per_m", "largest_loss_db"), constants(carrier), strict=True))
        assert stored == pytest.approx(expected)
    # All of them are said of the store as a whole, those of the first in the usual place.
    whole = attributes_of(open_store(standing, carrier="all").attrs)
    assert whole["vegetation"] == whole["carriers"]["vegetation"][0]
    assert [one["attenuation_db_per_m"] for one in whole["carriers"]["vegetation"]] == pytest.approx([5.7, 0.7])
    card = (latest(standing).folder / "card.md").read_text(encoding="utf-8")
    assert "28.5 GHz: 5.7 dB/m, at most 94.7 dB; 3.5 GHz: 0.7 dB/m, at most 38.4 dB" in " ".join(card.split())


def test_radio_maps_have_every_carrier(standing: Path, town: Path) -> None:
    """A cell has what a user in its middle would."""
    maps = open_store(standing, "radio_map", carrier="all").load().isel(scene=0)
    assert maps["path_gain"].dims == ("carrier", "map_row", "map_column")
    assert maps["los"].dims == ("map_row", "map_column")
    recipe = recipe_in(town, STANDING)
    scene = scene_of(recipe, "town-0000", town / "maps")
    north, east = np.meshgrid(maps["north"], maps["east"], indexing="ij")
    ground = np.isfinite(maps["los"].values)
    cells = np.column_stack([east[ground], north[ground], np.full(ground.sum(), 1.5)]).astype(np.float32)
    for radio in recipe.radio.each:
        channels = simulate(replace(scene, users=cells), radio, recipe.solver, recipe.seed)
        found = maps["path_gain"].sel(carrier=radio.frequency).values
        np.testing.assert_allclose(found[ground], channels.path_gain, atol=1e-3)
        np.testing.assert_array_equal(maps["los"].values[ground], channels.los)
        one = open_store(standing, "radio_map", carrier=radio.frequency)["path_gain"].values[0]
        np.testing.assert_array_equal(one, found)
        sample = RadioMapDataset(standing, "train", ("path_gain", "los"), carrier=radio.frequency)[0]
        np.testing.assert_array_equal(sample["radio_map"].numpy(), [found, maps["los"].values])
    with pytest.raises(InputError, match=r"carrier=2.85e\+10"):
        RadioMapDataset(standing, "train")
    assert validate(standing).checks["radio map"] == 2


def test_other_arrays_follow_from_the_paths_of_any_link_and_carrier(standing: Path) -> None:
    for carrier in (LOW, HIGH):
        stored = open_store(standing, bs="all", carrier=carrier)["csi"]
        scale = float(np.abs(stored).max())
        derived = derived_csi(standing, bs="all", carrier=carrier)
        np.testing.assert_allclose(derived.values, stored.values, atol=1e-5 * scale)


def test_two_ports_of_several_base_stations_behind_vegetation(ports: Path, town: Path) -> None:
    """Each pair is a run of its own; both ports of a user lose the same in crowns."""
    store, recipe = ports, recipe_in(town, PORTS)
    result = validate(store)
    assert result.ok, result.findings
    behind = 0
    for number, scene, radio in links_of(recipe, town):
        for polarisation in ("V", "H"):
            one = radio.model_copy(update={"user_polarisation": polarisation})
            channels, csi = simulate_csi(scene, one, recipe.solver, recipe.seed)
            data = open_store(store, bs=number, port=f"{polarisation}/V").isel(scene=0).load()
            np.testing.assert_array_equal(data["csi"], csi)
            np.testing.assert_array_equal(data["path_gain"], channels.path_gain)
            equal_paths(store, number, channels, port=f"{polarisation}/V")
            bare = simulate(replace(scene, vegetation=None), one, recipe.solver, recipe.seed)
            place = np.stack([bare.delay, bare.aod_zenith, bare.aod_azimuth], axis=-1)
            for user, found in enumerate(losses_of(store, number, port=f"{polarisation}/V")):
                for path, gain in enumerate(bare.gain[user]):
                    key = tuple(place[user, path].tolist())
                    if gain != 0 and key in found:
                        weak, loss = found[key]
                        assert abs(weak) == pytest.approx(abs(gain) * 10 ** (-loss / 20), rel=1e-4)
                        behind += loss > 1
        for vertical, horizontal in zip(*(losses_of(store, number, port=port) for port in ("V/V", "H/V")), strict=True):
            for key in vertical.keys() & horizontal.keys():
                assert vertical[key][1] == horizontal[key][1]
    assert behind > 10


def test_panels_are_turned_for_all_pairs_of_ports(ports: Path) -> None:
    stored = open_store(ports, bs="all", port="all")["csi"]
    scale = float(np.abs(stored).max())
    np.testing.assert_allclose(derived_csi(ports, bs="all", port="all").values, stored.values, atol=1e-5 * scale)
    view = DerivedCsi(ports, port="all")
    links = ChannelDataset(ports, "train", (*view.fields, "csi", "bs/azimuth"), bs="all", port="all")
    for index in range(0, len(links), 6):
        np.testing.assert_allclose(view(links[index])["csi"], links[index]["csi"], atol=1e-5 * scale)
    batch = next(iter(ShuffledChannels(ports, "train", links.fields, batch_size=9, bs="all", port="all")))
    np.testing.assert_allclose(view(batch)["csi"], batch["csi"], atol=1e-5 * scale)


def equal_routes(
    store: Path, number: int, scene: Scene, radio: RadioSettings, recipe: Recipe, **chosen: object
) -> None:
    """Channels of a link along trajectories are those of a run of its own, bit by bit."""
    assert recipe.mobility is not None
    found = simulate_moving(scene, radio, recipe.solver, recipe.mobility, recipe.seed)
    along = open_store(store, "trajectory", bs=number, **chosen).isel(scene=0).load()
    np.testing.assert_array_equal(along["csi"], found.csi)
    assert scene.tracks is not None
    place = (scene.tracks.position - scene.bs_position).astype(np.float32)
    np.testing.assert_array_equal(along["position"], place)
    np.testing.assert_array_equal(along["velocity"], scene.tracks.velocity)
    equal_paths(store, number, found.channels, **chosen)


def counted(along: xr.DataArray, serving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Serving base stations and handovers, from channels (bs, user, time, ...) and the serving ones of the first snapshot.

    Event A3 with a hysteresis of 3 dB, user by user.
    """
    power = (np.abs(along.values.astype(complex)) ** 2).mean((3, 4, 5))
    cells, changes = np.full(power.shape[1:], -1), np.zeros(power.shape[1], int)
    for user in range(power.shape[1]):
        cell = serving[user]
        for step in range(power.shape[2]):
            here = power[:, user, step]
            if step == 0 or cell < 0 or here[cell] == 0 or here.max() > here[cell] * 10**0.3:
                new = int(here.argmax()) if here.any() else -1
                changes[user] += step > 0 and new != cell and min(new, cell) >= 0
                cell = new
            cells[user, step] = cell
    return cells, changes


def test_users_that_move_between_several_base_stations(moving: Path, town: Path, tmp_path: Path) -> None:
    recipe = recipe_in(town, MOVING)
    result = validate(moving)
    assert result.ok, result.findings
    assert result.checks["first snapshot"] == result.checks["motion"] == 2
    assert result.checks["handovers"] == 1
    for number, scene, radio in links_of(recipe, town):
        equal_routes(moving, number, scene, radio, recipe)
    along = open_store(moving, "trajectory", bs="all")["csi"].isel(scene=0).load()
    cells = open_store(moving, "bs").isel(scene=0).load()
    serving, handovers = counted(along, cells["serving_along"].values[:, 0])
    np.testing.assert_array_equal(cells["serving_along"], serving)
    np.testing.assert_array_equal(cells["handovers"], handovers)
    assert {0, 1} <= set(serving.ravel().tolist())
    # Users, their ways and the links of base station 0 are the bytes of a store of one.
    alone = build_version(recipe_in(town, MOVING, {"scene.base_stations": "null"}), tmp_path / "one", town / "maps")
    assert alone is not None
    (one,), (more,) = (load_draft(version.folder).receipts() for version in (alone, latest(moving)))
    assert {name: digest for name, digest in more["files"].items() if "/bs/" not in name} == one["files"]


def test_users_that_move_at_every_carrier(moving_at_carriers: Path, town: Path) -> None:
    store, recipe = moving_at_carriers, recipe_in(town, *EVERYTHING)
    result = validate(store)
    assert result.ok, result.findings
    assert result.checks["first snapshot"] == 4
    for number, scene, radio in links_of(recipe, town):
        for one in radio.each:
            equal_routes(store, number, scene, one, recipe, carrier=one.frequency)
    for carrier in (LOW, HIGH):
        along = open_store(store, "trajectory", bs="all", carrier=carrier)["csi"].isel(scene=0).load()
        cells = open_store(store, "bs", carrier=carrier).isel(scene=0).load()
        serving, handovers = counted(along, cells["serving_along"].values[:, 0])
        np.testing.assert_array_equal(cells["serving_along"], serving)
        np.testing.assert_array_equal(cells["handovers"], handovers)


def test_recipes_count_all_carriers_towards_the_memory_of_a_unit() -> None:
    fits = ("mobility={steps: 8}", "users.maximum=300", "store.unit=1", "radio.columns=16", "radio.rows=16")
    load_recipe("quickstart", fits)
    with pytest.raises(InputError, match="trajectories of a unit would take"):
        load_recipe("quickstart", (*fits, "radio.carriers=[28.5e9, 3.5e9, 5e9, 6e9]"))
    maps = ("features.radio_map={spacing: 0.5, metrics: [path_gain, n_paths]}", "store.unit=400", "users.maximum=300")
    small = ("radio.columns=1", "radio.rows=1")
    load_recipe("quickstart", (*maps, *small))
    with pytest.raises(InputError, match="radio maps of a unit would take"):
        load_recipe("quickstart", (*maps, *small, "radio.carriers=[28.5e9, 3.5e9]"))


@pytest.mark.parametrize(
    ("name", "chosen"), [("standing", {"carrier": LOW}), ("standing", {"carrier": HIGH}), ("ports", {"port": "H/V"})]
)
def test_a_link_is_drawn_in_any_band(name: str, chosen: dict, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(name)
    for number in (0, 1):
        view = load_view(store, "town-0000", bs=number, **chosen)
        data = open_store(store, bs=number, **chosen).isel(scene=0).load()
        users = int(data["n_users"])
        np.testing.assert_array_equal(view.gain, data["path_gain"].values[:users].astype(float))
        np.testing.assert_array_equal(view.serving, data["serving"].values[:users])
        assert [other for other, _, _ in view.others] == [1 - number]
