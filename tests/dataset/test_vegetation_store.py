"""Vegetation in a store: its losses, checks and card, and how it is built, with several base stations and radio maps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from builds import build_version, recipe_with
from town import write_town

from wavecity.dataset.checks.physics import SCENE_CHECKS
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.checks.vegetation import VEGETATION_CHECKS
from wavecity.dataset.describe import describe
from wavecity.dataset.draft import load_draft
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.layout import Layout
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.schema import Arrays
from wavecity.dataset.vegetation import LOSS, vegetation_attributes
from wavecity.flows.fingerprint import code_of
from wavecity.flows.radio_maps import CROWN, draw
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.reuse import channels_key
from wavecity.flows.scenes import scene_of
from wavecity.raytrace.radio_map import RadioMap

SMALL = {
    "area.scenes": 1, "area.split.by": "scene", "area.split.validation": 0, "area.split.test": 0, "users.minimum": 30,
    "users.maximum": 30, "radio.columns": 4, "radio.rows": 4, "solver.rays": 20_000, "solver.max_depth": 1,
    "scene.vegetation": "{attenuation: 2}", "scene.base_stations.positions": "[[80, 0, 10]]",
    "features.radio_map": "{spacing: 20, metrics: [path_gain, los]}",
}  # fmt: skip


def recipe_in(folder: Path, **changes: object) -> Recipe:
    place = {"area.source": folder / "town.osm", "area.city": "Town", "area.country": "FI"}
    return recipe_with("quickstart", SMALL | place | changes)


@pytest.fixture(scope="module")
def built(shared) -> Path:
    def build(folder: Path) -> None:
        write_town(folder / "town.osm")
        build_version(recipe_in(folder), folder / "store", folder / "maps")

    folder: Path = shared("vegetation", build)
    return folder


def test_it_is_valid(built: Path) -> None:
    result = validate(built / "store")
    assert result.ok, result.findings
    assert all(result.checks[name] == 2 for name in VEGETATION_CHECKS)  # of two base stations
    stored = attributes_of(open_store(built / "store").attrs)["vegetation"]
    assert stored == {"attenuation_db_per_m": 2.0, "largest_loss_db": pytest.approx(1.15 * 28_500**0.43)}


def test_losses_of_all_base_stations_are_stored(built: Path) -> None:
    for number in (0, 1):
        paths = open_store(built / "store", "paths", bs=number).isel(scene=0).load()
        loss, gain = paths["vegetation_loss"], paths["gain"]
        assert loss.dims == ("user", "path")
        assert loss.attrs["units"] == "dB"
        assert (loss.values[gain.values != 0] > 0.5).sum() > 3
        assert not loss.values[gain.values == 0].any()


def test_channels_are_weaker_by_what_is_stored(built: Path, tmp_path: Path) -> None:
    """Against the same town without trees: the same paths, each weaker by its loss."""
    off = {"scene.vegetation": "null", "features.radio_map": "null"}
    build_version(recipe_in(built, **off), tmp_path / "store", built / "maps")
    paths = [open_store(store, "paths").isel(scene=0).load() for store in (tmp_path / "store", built / "store")]
    gains = []
    for of in paths:
        # Strongest first in either: ordered by where they go.
        order = np.lexsort((of["aod_azimuth"].values, of["aod_zenith"].values, of["gain"].values == 0), axis=-1)
        gains.append(np.take_along_axis(of["gain"].values, order, 1).astype(complex))
        loss = np.take_along_axis(of["vegetation_loss"].values, order, 1) if "vegetation_loss" in of else 0
    np.testing.assert_allclose(gains[1], gains[0] * 10 ** (-loss / 20), rtol=1e-5)
    assert "vegetation_loss" not in paths[0]
    assert "vegetation" not in open_store(tmp_path / "store").attrs
    assert not [name for name in validate(tmp_path / "store").checks if "vegetation" in name]
    assert "crowns" not in (latest(tmp_path / "store").folder / "card.md").read_text(encoding="utf-8")


def test_the_card_and_the_description_show_it(built: Path) -> None:
    card = (latest(built / "store").folder / "card.md").read_text(encoding="utf-8")
    assert "0 trees, 10 trees of rows, 1 woods in 1 scenes (11.0 a scene); 2 dB/m, at most 94.7 dB" in card
    loss = open_store(built / "store", "paths")["vegetation_loss"].values[..., 0]
    share = (loss > 0).sum() / (~open_store(built / "store")["outage"].values).sum()
    assert f"{share:.0%} of the users with a path; loss there" in card
    assert 0.1 < share < 0.9
    assert "no trees" not in card
    found = describe(built / "store")
    assert "P.833" in found["conventions"]["vegetation"]
    assert LOSS in [field["name"] for field in found["fields"]]
    receipt = load_draft(latest(built / "store").folder).receipts()[0]
    crowns = receipt["scenes"][0]["provenance"]["vegetation"]["crowns"]
    assert crowns == {"tree": 0, "row": 10, "wood": 1}


def test_a_subset_keeps_it(built: Path, tmp_path: Path) -> None:
    part = subset(built / "store", tmp_path / "part", fields=("csi", "paths"))
    assert LOSS in [field["name"] for field in describe(part.folder)["fields"]]
    layout = load_draft(part.folder).layout
    assert LOSS not in [spec.name for spec in replace(layout, with_paths=False).specs()]


def test_crowns_count_among_what_decides_the_channels(built: Path) -> None:
    keys = set()
    for change in ("{attenuation: 2}", "{attenuation: 3}", "{attenuation: 2, tree_height: 12}", "null"):
        recipe = recipe_in(built, **{"scene.vegetation": change})
        scene = scene_of(recipe, "town-0000", built / "maps")
        keys.add(channels_key(scene, recipe, "same"))
    assert len(keys) == 4
    assert code_of(recipe_in(built)) != code_of(recipe_in(built, **{"scene.vegetation": "null"}))


def test_pictures_of_radio_maps_show_crowns(built: Path, tmp_path: Path) -> None:
    counts = []
    for change in ("{attenuation: 2}", "null"):
        scene = scene_of(recipe_in(built, **{"scene.vegetation": change}), "town-0000", built / "maps")
        ground = np.ones((10, 10), bool)
        draw(
            scene, RadioMap(20.0, 1.5, ground, {"path_gain": np.full((10, 10), -90, np.float32)}), tmp_path / "map.png"
        )
        pixels = matplotlib.image.imread(tmp_path / "map.png")[..., :3]
        counts.append(int((np.abs(pixels - matplotlib.colors.to_rgb(CROWN)).max(axis=2) < 0.1).sum()))
    assert counts[0] > 300
    assert counts[1] == 0


def test_without_it_nothing_is_written_of_it(toy_store: Path) -> None:
    layout = load_draft(latest(toy_store).folder).layout
    assert "with_vegetation" not in layout.content()
    assert Layout.of(layout.content()) == layout
    assert not [spec for spec in layout.specs() if "vegetation" in spec.name]
    assert code_of(load_recipe("quickstart")) == code_of(load_recipe("quickstart", ("scene.vegetation=null",)))


ATTRIBUTES: Any = {
    "frequency_hz": 28.5e9, "element_gain_max_db": 0.0, "vegetation": vegetation_attributes(2.0, 20.0),
    "los_traced": True, "element_pattern": "iso", "polarisation_matched": True,
}  # fmt: skip


def arrays(loss: float = 6.0, applied: float | None = None, gain: float = 1.0) -> Arrays:
    """Two users on a line of sight of 50 m, one of them behind `loss` dB, and padding."""
    free = 299_792_458.0 / (4 * np.pi * 28.5e9 * 50)
    weak = free * 10 ** (-(loss if applied is None else applied) / 20)
    gains = np.zeros((3, 2), np.complex64)
    gains[:2, 0] = free * gain, weak * gain
    losses = np.zeros((3, 2), np.float32)
    losses[1, 0] = loss
    return {
        LOSS: losses,
        "paths/gain": gains,
        "paths/delay": np.where(gains != 0, 50 / 299_792_458.0, 0).astype(np.float32),
        "paths/interactions": np.zeros((3, 2, 1), np.int8),
        "paths/n_paths": np.array([1, 1, 0], np.int32),
        "paths/power_cut": np.zeros(3, np.float32),
        "los": np.array([True, True, False]),
        "outage": np.array([False, False, True]),
        "user_position": np.array([[0, -50, 0], [50, 0, 0], [0, 0, 0]], np.float32),
    }


def test_what_contradicts_itself_is_found() -> None:
    every = VEGETATION_CHECKS | {"friis": SCENE_CHECKS["friis"]}
    stray = arrays()
    stray[LOSS][2, 1] = 1.0
    cases: list[tuple[Arrays, set[str]]] = [
        (arrays(), set()),
        (arrays(0.0), set()),
        (arrays(-1.0), {"vegetation"}),
        (arrays(25.0), {"vegetation", "vegetation depth"}),
        (arrays(19.9), {"vegetation depth"}),
        (arrays(np.nan), {"vegetation"}),
        (stray, {"vegetation"}),
        (arrays(applied=0.0), {"vegetation gain", "friis"}),
        (arrays(applied=12.0), {"friis"}),
        (arrays(gain=0.5), {"friis"}),
    ]
    for number, (values, expected) in enumerate(cases):
        found = {name for name, check in every.items() if check(values, 2, ATTRIBUTES)}
        assert found >= expected, number
        assert found == expected or np.isnan(values[LOSS]).any(), (number, found)


def test_a_direct_path_lost_among_those_cut_is_no_contradiction() -> None:
    """Behind 90 dB of wood, with more paths than are kept: float32 has no share of the power for it."""
    values = arrays(0.0)
    values["paths/gain"][1] = 0
    values["paths/gain"][1, 0] = 1e-6
    values["paths/interactions"][1] = 1
    assert "labelled LoS" in SCENE_CHECKS["friis"](values, 2, ATTRIBUTES)
    values["paths/n_paths"][1] = 3
    assert not SCENE_CHECKS["friis"](values, 2, ATTRIBUTES)
