"""Places of interactions (`features.interactions: positions`): in the store, its checks, its copies, and DeepMIMO's hands."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command import wavecity
from exchange_store import BASE, BOUNCES, PATHS, build_paths_store, put_vertices, scene_values

from wavecity.dataset.card.tables import all_arrays
from wavecity.dataset.checks.physics import SCENE_CHECKS
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.exchange.scenarios import import_scenarios
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.preview.paths import strongest_paths
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.flows.recipe import Recipe, load_recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `exchange_store`, with places; publishing it has validated it."""
    folder = tmp_path_factory.mktemp("vertices") / "store"
    build_paths_store(folder, vertices=True)
    return folder


def values(row: int) -> dict[str, np.ndarray]:
    arrays = scene_values(row, 5 + row)
    put_vertices(arrays, row)
    return arrays


def test_places_are_read_by_path_bounce_and_axis(store: Path) -> None:
    paths = open_store(store, "paths")
    assert paths["vertices"].dims == ("scene", "user", "path", "bounce", "axis")
    assert paths["vertices"].shape == (5, 9, PATHS, BOUNCES, 3)
    assert paths["vertices"].attrs["units"] == "m"
    one = paths.sel(scene="Zug-0001")["vertices"].values
    np.testing.assert_array_equal(one, values(4)["paths/vertices"])
    assert not paths["vertices"].values[3].any()  # quarantined


def test_a_place_that_is_wrong_is_found() -> None:
    arrays, users = values(4), 9
    assert SCENE_CHECKS["vertices"](arrays, users, {}) == ""
    deep = np.argwhere((arrays["paths/interactions"] != 0).sum(-1) >= 2)
    user, path = deep[0]
    # The order of the interactions matters, not only where they are.
    arrays["paths/vertices"][user, path, :2] = arrays["paths/vertices"][user, path, 1::-1].copy()
    assert SCENE_CHECKS["vertices"](arrays, users, {}).startswith("1 paths are not as long")
    arrays["paths/vertices"] += np.float32(1.0)
    assert "paths are not as long" in SCENE_CHECKS["vertices"](arrays, users, {})
    del arrays["paths/vertices"]
    assert SCENE_CHECKS["vertices"](arrays, users, {}) == ""


def test_a_subset_keeps_the_places_and_cards_list_them(store: Path, tmp_path: Path) -> None:
    subset(store, tmp_path / "part", cities=["Alba"], fields=["csi", "paths"])
    np.testing.assert_array_equal(
        open_store(tmp_path / "part", "paths").sel(scene="alba-0002")["vertices"].values[:6],
        values(1)["paths/vertices"],
    )
    parts = {"data": open_store(tmp_path / "part"), "paths": open_store(tmp_path / "part", "paths")}
    source = SimpleNamespace(**parts, trajectory=None, radio_map=None, base_stations=None)
    assert "paths/vertices" in all_arrays(source)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scenarios(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenarios") / "out"
    export_dataset(str(store), "deepmimo", out)
    return out


def test_the_matrix_of_places_belongs_to_the_paths_of_the_other_matrices(scenarios: Path) -> None:
    """DeepMIMO has the line of sight first, so paths are in another order than in the store."""

    def matrix(name: str) -> np.ndarray:
        return np.load(scenarios / "alba-0002" / f"{name}_t000_tx000_r001.npz")[name].astype(np.float64)

    place, delay, inter = matrix("inter_pos"), matrix("delay"), matrix("inter")
    users, base = matrix("rx_pos"), matrix("tx_pos")[0]
    arrays, moved = values(1), 0
    for user, path in np.argwhere(~np.isnan(delay)):
        count = len(str(int(inter[user, path]))) if inter[user, path] else 0
        stops = place[user, path]
        assert np.isnan(stops[count:]).all()
        way = [base, *stops[:count], users[user]]
        length = sum(float(np.linalg.norm(end - start)) for start, end in pairwise(way))
        assert length / 299_792_458 == pytest.approx(delay[user, path], rel=1e-5)
        moved += delay[user, path] != arrays["paths/delay"][user, path]
    assert moved > 0
    assert np.isnan(place[np.isnan(delay)]).all()
    assert "Positions of interactions are those of the store" in (scenarios / "README.md").read_text(encoding="utf-8")


def test_deepmimo_draws_the_rays(scenarios: Path) -> None:
    dm = pytest.importorskip("deepmimo", reason="needs the dependency group deepmimo")
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    dm.config.set("scenarios_folder", str(scenarios))
    scenario = dm.load("alba-0002", max_paths=32)
    arrays, base = values(1), BASE + np.array([2.0, 0, 0])
    there = arrays["paths/interactions"] != 0
    ours = {tuple(np.round(place, 3)) for place in (arrays["paths/vertices"] + base)[there]}
    theirs = scenario.inter_pos[~np.isnan(scenario.inter_pos).any(-1)]
    assert {tuple(np.round(place.astype(float), 3)) for place in theirs} == ours
    scenario.plot_rays(0, proj_3d=False)
    lines = [line for axes in plt.gcf().axes for line in axes.get_lines()]
    plt.close("all")
    assert len(lines) >= np.isfinite(scenario.power[0]).sum()


def test_a_preview_draws_the_stored_way(store: Path) -> None:
    arrays, users = values(4), 9
    table = {name.removeprefix("paths/"): array for name, array in arrays.items() if name.startswith("paths/")}
    position = arrays["user_position"].astype(np.float64) + BASE
    status = np.where(arrays["outage"], 2, 0)
    drawn = strongest_paths(table, BASE, position, status, np.zeros((0, 3, 3)), users)
    assert len(drawn) == users - 1  # the last one has no path
    for path in drawn:
        (line,) = path.lines
        there = arrays["paths/interactions"][path.user, 0] != 0
        right = [BASE, *(arrays["paths/vertices"][path.user, 0][there] + BASE), position[path.user]]
        np.testing.assert_allclose(line, right, atol=1e-6)


def test_without_them_nothing_has_changed(store: Path, toy_store: Path) -> None:
    """Neither what is written of a recipe, nor a store's files and metadata."""
    plain, asked = load_recipe("quickstart"), load_recipe("quickstart", ("features.interactions=positions",))
    assert plain.model_dump(mode="json")["features"] == {"spectrum": True, "paths": True}
    assert plain == load_recipe("quickstart", ("features.interactions=kinds",))
    assert asked.data_parts()["features"] == {"spectrum": True, "paths": True, "interactions": "positions"}
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked
    layouts = [json.loads((latest(path).folder / "draft.json").read_text())["layout"] for path in (store, toy_store)]
    assert layouts[0].keys() - layouts[1].keys() == {"with_vertices"}
    with_places, without = [
        (latest(path).folder / "data.zarr" / "zarr.json").read_text() for path in (store, toy_store)
    ]
    assert "paths/vertices" in with_places
    assert "vertices" not in without


def test_places_without_paths_are_refused_in_one_line(tmp_path: Path) -> None:
    done = wavecity("plan", "quickstart", "--set", "features.interactions=positions", "--set", "features.paths=false")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("wavecity: ")]
    assert "features.interactions is positions, but features.paths is false; set it to true" in line


def test_places_go_through_deepmimo_and_come_back(scenarios: Path, tmp_path: Path) -> None:
    import_scenarios([scenarios], str(tmp_path / "back"), {"interactions": "positions"})
    back = open_store(tmp_path / "back", "paths")
    for row, name in ((0, "alba-0001"), (4, "Zug-0001")):
        arrays, users = values(row), 5 + row
        there = arrays["paths/interactions"] != 0
        found = back.sel(scene=name)["vertices"].values[:users]
        np.testing.assert_allclose(found[there], arrays["paths/vertices"][there], atol=2e-5)
        assert not found[~there].any()
