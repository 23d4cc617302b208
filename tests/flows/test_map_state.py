"""`plan` and `inspect` say what the map lacked."""

from pathlib import Path

import pytest
from command import wavecity
from geo_maps import box, osm_xml

from wavecity.dataset.card.maps import state_lines
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import load_recipe

WAY = '<way id="9000" version="1"><nd ref="1"/><nd ref="2"/><nd ref="1"/><tag k="building" v="yes"/></way>'
RELATION = (
    '<relation id="9001" version="1"><member type="way" ref="77" role="outer"/>'
    '<tag k="type" v="multipolygon"/><tag k="building" v="yes"/></relation>'
)


def town_with_losses(path: Path) -> Path:
    """Nine houses, a way of two nodes and a relation without its only member."""
    houses = [(box(x, y, x + 20, y + 20), {"building": "yes"}) for x in (-90, -50, -10) for y in (-60, -20, 20)]
    path.write_text(osm_xml(houses).replace("</osm>", f"{WAY}{RELATION}</osm>"))
    return path


def test_plan_says_how_many_buildings_are_lost_and_why(tmp_path: Path) -> None:
    path = town_with_losses(tmp_path / "town.osm")
    options = ("--set", f"area.source={path}", "--set", "area.city=Town", "--maps", str(tmp_path / "maps"))
    # The picture shows what has an area.
    done = wavecity("plan", "quickstart", *options, "--png", tmp_path / "tiles.png")
    assert done.returncode == 0
    assert (tmp_path / "tiles.png").exists()
    text = " ".join(done.stdout.split())
    assert "2 of 11 buildings in the map cannot be built: " in text
    assert "members are missing in the map 1" in text
    assert "rings without area 1" in text


def test_state_of_maps_adds_up() -> None:
    maps = {
        "A": {"counts": {"tagged": 10}, "losses": {"x": 1}, "repairs": {"y": 2}},
        "B": {"counts": {"tagged": 5}, "losses": {"x": 1, "z": 1}},
        "older": {"counts": {"buildings": 3}},
    }
    assert state_lines(maps) == [
        "3 of 15 buildings in the map cannot be built: x 2, z 1",
        "2 of 15 buildings in the map were repaired: y 2",
    ]
    assert state_lines({"older": maps["older"]}) == []
    many = {"A": {"counts": {"tagged": 100}, "unread_heights": {f"height={k}": 1 for k in range(9)}}}
    assert state_lines(many)[0].endswith("height=4 1, others 4")


def test_a_map_without_heights_is_warned_of_once(tmp_path: Path) -> None:
    path = town_with_losses(tmp_path / "town.osm")
    settings = (
        f"area.source={path}",
        "area.city=Town",
        "area.scenes=1",
        "area.min_coverage=0.01",
        "area.split={by: scene, validation: 0, test: 0}",
    )
    recipe = load_recipe("quickstart", settings)
    with pytest.warns(UserWarning, match="no height is stated by the map of Town") as caught:
        plan_scenes(recipe, tmp_path / "maps")
    assert sum("no height" in str(one.message) for one in caught) == 1
    options = [word for setting in settings for word in ("--set", setting)]
    assert "no height is stated by the map of Town: all are guesses" in wavecity("plan", "quickstart", *options).stdout
