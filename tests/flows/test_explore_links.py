"""Views of `wavecity explore` in a real browser: links of several base stations, cells, crowns of trees."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from base_station_store import CROWN_LOSS, STATIONS, build_links_store
from pages import NEEDS_CHROMIUM, Opened, number, opened
from test_explore_views import ABOVE, colour, colours

from wavecity.dataset.reader import open_store
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]
CELLS = ("#56b4e9", "#d55e00", "#009e73")


@pytest.fixture(scope="module")
def store(shared) -> Path:
    return (
        shared("explore-links", lambda folder: build_links_store(folder / "store", moving=True, crowns=True)) / "store"
    )


@pytest.fixture
def page(chromium: Any, store: Path) -> Iterator[Opened]:
    with serving(make_site(store)) as address, opened(chromium, address) as look:
        yield look
        assert look.problems == []


def test_all_base_stations_stand_where_they_are(page: Opened, store: Path) -> None:
    look = page.go("#/scene/toy-0000")
    drawn = json.loads(look.get_attribute("canvas", "data-stations"))
    assert [one["number"] for one in drawn] == [0, 1, 2]
    np.testing.assert_allclose([one["place"] for one in drawn], [place for place, _ in STATIONS], atol=1e-6)
    assert look.locator("label:has-text('Links of') option").all_inner_texts() == [
        f"base station {k}" for k in range(3)
    ]
    assert "base station 0, whose links are shown" in page.text(".keys")
    # The last one found no place here.
    look = page.go("#/scene/toy-0001?bs=2")
    assert [one["number"] for one in json.loads(look.get_attribute("canvas", "data-stations"))] == [0, 1]
    assert "Base station 2 found no place in this scene." in page.text()
    assert "base station 2 (no place here)" in look.locator("label:has-text('Links of') option").all_inner_texts()
    assert {row[0] for row in page.rows(".users")} == {"outage"}


def test_the_links_of_another_base_station_are_shown(page: Opened, store: Path) -> None:
    look = page.go("#/scene/toy-0002?user=3")
    look.locator("label:has-text('Links of') select").select_option("1")
    look.wait_for_function("location.hash.includes('bs=1')")
    page.ready()
    data = open_store(store, bs=1).isel(scene=2).load()
    table = {int(row[1]): row for row in page.rows(".users")}
    assert len(table) == int(data.n_users)
    for user, row in table.items():
        outage = bool(data.outage[user])
        assert row[0] == ("outage" if outage else "line of sight")
        assert row[2] == "–" if outage else number(row[2]) == pytest.approx(float(data.path_gain[user]), abs=0.06)
        away = np.linalg.norm(data.user_position.values[user].astype(float))
        assert number(row[3]) == pytest.approx(away, abs=0.51)
        serving_now = int(data.serving[user])
        assert row[-3] == ("–" if serving_now < 0 else f"bs {serving_now}")
        assert row[-2] == "–" if serving_now < 0 else number(row[-2]) == pytest.approx(float(data.sinr[user]), abs=0.06)
    paths = open_store(store, "paths", bs=1).isel(scene=2, user=3).load()
    (row,) = page.rows(".paths")
    assert number(row[1]) == pytest.approx(20 * np.log10(abs(complex(paths.gain[0]))), abs=0.06)
    assert number(row[3]) == pytest.approx(1e9 * float(paths.delay[0]), abs=0.06)
    # Drawn from that base station to the user, whose place does not change.
    (line,) = json.loads(look.get_attribute("canvas", "data-paths"))
    user = data.user_position.values[3].astype(float) + STATIONS[1][0]
    np.testing.assert_allclose(line["lines"], [[STATIONS[1][0], user]], atol=1e-3)
    assert line["whole"]
    text = page.text(".user").replace("\xa0", " ")
    assert "User 3: line of sight for base station 1" in text
    assert f"Served by\nbase station {int(data.serving[3])}" in text
    assert "1 stored path of user 3 from base station 1." in page.text().replace("\xa0", " ")


def test_a_user_that_moves_has_the_channel_of_the_link_and_its_own_way(page: Opened, store: Path) -> None:
    ways = {}
    for link in (0, 1):
        look = page.go(f"#/scene/toy-0002?user=3&t=4&bs={link}")
        ways[link] = [float(value) for value in look.get_attribute("canvas", "data-place").split(",")]
        moving = open_store(store, "trajectory", bs=link).isel(scene=2, user=3, time=4).load()
        np.testing.assert_allclose(ways[link], moving.position.values + STATIONS[link][0], atol=1e-3)
    np.testing.assert_allclose(ways[0], ways[1], atol=1e-6)


def test_code_that_is_copied_reads_the_link(page: Opened, store: Path) -> None:
    look = page.go("#/scene/toy-0002?user=3&bs=1")
    look.click(".user .code summary")
    names: dict[str, Any] = {}
    exec(look.inner_text(".user .code pre[data-code='xarray']"), names)
    link = open_store(store, bs=1).isel(scene=2, user=3)
    np.testing.assert_array_equal(names["csi"], link.csi)
    exec(look.inner_text(".user .code pre[data-code='torch']"), names)
    np.testing.assert_array_equal(names["csi"], link.csi)
    look.click("main > .code summary")
    exec(look.inner_text("main > .code pre[data-code='xarray']"), names)
    np.testing.assert_array_equal(names["users"].user_position[3], link.user_position)


def test_code_for_a_page_elsewhere_reads_the_link_by_its_group(chromium: Any, store: Path) -> None:
    site = make_site(store)
    with serving(site) as address, opened(chromium, address) as look:
        # As a page that was written with --out: its data lie at an address.
        there = look.page
        there.route("**/explore.json", lambda route: route.fulfill(json={**site.index, "data": f"{address}data/"}))
        look.go("#/scene/toy-0002?user=3&bs=1")
        there.click(".user .code summary")
        names: dict[str, Any] = {}
        exec(there.inner_text(".user .code pre[data-code='xarray']"), names)
        right = xr.open_zarr(store / "latest.zarr", group="bs/1/paths").delay[2, 3]
        np.testing.assert_array_equal(names["delay"][0], right[0])


def test_users_and_base_stations_have_the_colours_of_cells(page: Opened, store: Path) -> None:
    everywhere = open_store(store, bs=0).load()
    row = max(range(4), key=lambda scene: len(set(everywhere.serving.values[scene].tolist()) - {-1}))
    data = everywhere.isel(scene=row)
    look = page.go(f"#/scene/toy-{row:04d}?users=serving&crowns=none&{ABOVE}")
    counts = [int((data.serving == k).sum()) for k in range(3)]
    assert sum(count > 0 for count in counts) > 1
    for k, count in enumerate(counts):
        assert f"served by bs {k}: {count}" in page.text(".keys")
    users = data.user_position.values.astype(float) + STATIONS[0][0]
    chosen = [int(np.flatnonzero(data.serving == k)[0]) for k in range(3) if counts[k]]
    found = colours(look, *((users[one, 0], users[one, 1]) for one in chosen))
    hues = [colour(text) for text in CELLS]
    for one, seen in zip(chosen, found, strict=True):
        # Lit by the sun: the nearest of the colours, not the colour itself.
        unit = [np.dot(seen, hue) / np.linalg.norm(seen) / np.linalg.norm(hue) for hue in hues]
        assert int(np.argmax(unit)) == int(data.serving[one])


def test_crowns_are_drawn_where_they_are_and_paths_through_them_are_said(page: Opened, store: Path) -> None:
    look = page.go(f"#/scene/toy-0002?users=none&{ABOVE}")
    look.wait_for_function("document.querySelector('canvas').dataset.crowns === '4'")
    assert "3 trees, 1 wood; paths through them" in page.text(".keys").replace("\xa0", " ")
    tree, wood, clearing, ground = colours(look, (40, -60), (-55, -55), (-40, -70), (-90, -20))
    for seen in (tree, wood):
        assert seen[1] > seen[0] + 10
        assert seen[1] > seen[2] + 10
    np.testing.assert_allclose(clearing, ground, atol=3)
    look.locator("label:has-text('Crowns') select").select_option("none")
    look.wait_for_function("document.querySelector('canvas').dataset.crowns === '0'")
    np.testing.assert_allclose(colours(look, (40, -60))[0], ground, atol=3)
    # Of user 2 the path goes through crowns, of user 3 not.
    look = page.go("#/scene/toy-0002?user=2&bs=1")
    (row,) = page.rows(".paths")
    assert number(row[-2]) == pytest.approx(CROWN_LOSS)
    text = page.text().replace("\xa0", " ")
    assert "1 path goes through crowns (green), which take up to 6.0 dB." in text
    assert json.loads(look.get_attribute("canvas", "data-paths"))[0]["loss"] == pytest.approx(CROWN_LOSS)
    look = page.go("#/scene/toy-0002?user=3&bs=1")
    assert page.rows(".paths")[0][-2] == "–"
    assert "through crowns (green)" not in page.text()


def test_a_path_through_crowns_is_marked_in_the_scene(page: Opened) -> None:
    """Along the path of user 2 there is green that the path of user 3 does not have."""

    def green(user: int) -> int:
        look = page.go(f"#/scene/toy-0002?user={user}&users=none&crowns=none&{ABOVE}")
        (line,) = json.loads(look.get_attribute("canvas", "data-paths"))
        start, end = np.array(line["lines"][0])
        along = [start + share * (end - start) for share in np.linspace(0.3, 0.7, 9)]
        # The camera looks straight down from 324 m: what is higher seems further out.
        places = [point[:2] * 324 / (324 - point[2]) for point in along]
        seen = colours(look, *((x + aside, y) for x, y in places for aside in (-0.9, 0.9)))
        return sum(int(one[1]) > int(one[0]) + 15 and int(one[1]) > int(one[2]) + 15 for one in seen)

    assert green(2) > 4
    assert green(3) == 0


def test_a_store_without_shapes_of_crowns_says_so(chromium: Any, tmp_path: Path) -> None:
    version = build_links_store(tmp_path / "store", crowns=True)
    for path in (version.folder / "receipts").iterdir():
        path.write_text(path.read_text().replace('"shapes"', '"shaped"'))
    with serving(make_site(tmp_path / "store")) as address, opened(chromium, address) as look:
        page = look.go("#/scene/toy-0002")
        assert "did not keep the shapes of crowns" in look.text()
        assert page.locator("label:has-text('Crowns')").count() == 0


def test_numbers_that_are_not_there_are_said(page: Opened) -> None:
    page.go("#/scene/toy-0002?bs=7")
    assert "No base station 7 in this dataset. It has base stations 0 to 2" in page.text()


def test_a_store_with_one_base_station_reads_nothing_more(look: Opened) -> None:
    page = look.go("#/scene/toy-0000?user=2")
    assert page.locator("label:has-text('Links of')").count() == 0
    assert page.locator("label:has-text('Crowns')").count() == 0
    assert not [url for url in look.requests if "/bs/" in url or "receipts" in url or "vegetation" in url]
    assert "base station, and where its panel faces" in look.text(".keys")
