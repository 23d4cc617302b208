"""Views of `wavecity explore` in a real browser: radio maps, materials, followed waves; progress, touch, accessibility."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from pages import DRAWN, NEEDS_CHROMIUM, Opened, number, opened
from PIL import Image
from test_explore import write_rays_run, write_run
from toy import ATTRIBUTES, BASE, make_layout, write_synthetic_unit

from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import open_group
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.reader import open_store
from wavecity.flows.explore.server import _Handler, serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
# The camera above the middle of a tile of 200 m, and the tangent of half its field of view.
ABOVE, FAR, HALF_VIEW = "camera=270,89.9,324,0,0", 324.0, np.tan(np.radians(20))
CELLS, SPACING = 20, 10.0


def pixel(page: Any, east: float, north: float) -> tuple[int, int]:
    """Where a place on the ground is on the screen, from above."""
    page.locator("canvas").scroll_into_view_if_needed()
    box = page.locator("canvas").bounding_box()
    scale = box["height"] / 2 / (FAR * HALF_VIEW)
    return round(box["x"] + box["width"] / 2 + east * scale), round(box["y"] + box["height"] / 2 - north * scale)


def colours(page: Any, *places: tuple[float, float]) -> list[NDArray[np.int64]]:
    """Colours that the scene has at places on the ground."""
    at = [pixel(page, *place) for place in places]
    page.evaluate(DRAWN)
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    return [picture[y, x] for x, y in at]


def colour(text: str) -> NDArray[np.int64]:
    return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)])


# Radio maps


@pytest.fixture
def radio_store(tmp_path: Path) -> Path:
    """The toy with radio maps of cells of 10 m, as a build leaves them: strong in the north-east, silent in the south."""
    draft = open_draft(tmp_path / "store", "radio0123456789abcdef", make_layout())
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    gain = np.full((6, CELLS, CELLS), -110, np.float32)
    gain[:, :10, 10:] = -70
    gain[:, -1] = -200
    # The block of the toy's buildings: 80 to 40 m west, 25 to 60 m north; the quarantined scene has nothing.
    block = np.zeros((CELLS, CELLS), bool)
    block[4:7, 2:6] = True
    gain[:, block] = gain[3] = np.nan
    seen = np.where(np.isnan(gain), np.nan, gain == -70).astype(np.float32)
    beam = np.where(np.isnan(gain), np.nan, np.where(gain == -200, -1, 31 * 32 + 5)).astype(np.float32)
    # 0 both where one path arrives and where none does.
    spread = np.where(np.isnan(gain), np.nan, np.where(gain == -70, 40, 0)).astype(np.float32)
    group = open_group(draft.data, "r+").create_group("radio_map")
    for name, values, units in (
        ("path_gain", gain, "dB"), ("los", seen, "1"), ("delay_spread", spread, "ns"), ("best_beam", beam, "1"),
    ):  # fmt: skip
        array = group.create_array(
            name, shape=values.shape, shards=(2, CELLS, CELLS), chunks=(1, CELLS, CELLS), dtype="float32",
            fill_value=np.nan, dimension_names=("scene", "map_row", "map_column"),
            attributes={"units": units, "long_name": name, "spacing_m": SPACING, "receiver_height_m": 1.5},
        )  # fmt: skip
        array[:] = values
    finish_draft(draft, ATTRIBUTES, {"map": {"name": "toy"}})
    seal(draft)
    return Path(draft.folder)


def test_a_radio_map_lies_on_the_ground_where_its_cells_are(chromium: Any, radio_store: Path) -> None:
    with serving(make_site(radio_store)) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0000?map=path_gain&users=none&{ABOVE}")
        page.wait_for_function("document.querySelector('canvas')?.dataset.map === 'path_gain'")
        strong, weak, silent, roof = colours(page, (55, 45), (-55, -45), (-55, -95), (-60, 45))
        # The ends of magma, grey, and no map where a building stands.
        np.testing.assert_allclose(strong, colour("#fcfdbf"), atol=8)
        np.testing.assert_allclose(weak, colour("#000004"), atol=8)
        np.testing.assert_allclose(silent, colour("#b4b9be"), atol=8)
        assert min(np.abs(roof - other).max() for other in (strong, weak, silent)) > 30
        key = look.text(".keys").replace("\xa0", " ")
        assert "Ground: path gain" in key
        assert "−110 dB" in key
        assert "−70 dB" in key
        assert f"no path: {100 * 20 / 388:.1f} % of the cells" in key
        assert "At 1.5 m above ground, in 388 cells of 10.0 m" in key
        page.mouse.move(*pixel(page, 55, 45))
        page.wait_for_selector(".hint")
        assert look.text(".hint").replace("\xa0", " ").splitlines() == ["path gain: −70 dB", "55, 45 m"]
        page.mouse.move(*pixel(page, -55, -95))
        page.wait_for_function("document.querySelector('.hint')?.innerText.startsWith('no path')")
        assert look.problems == []


def test_every_metric_of_a_radio_map_can_be_chosen_and_its_code_copied(chromium: Any, radio_store: Path) -> None:
    with serving(make_site(radio_store)) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0004?{ABOVE}")
        choice = page.locator("label:has-text('Ground by') select")
        # Only those that the store has.
        assert choice.locator("option").all_inner_texts() == [
            "nothing", "path gain", "line of sight", "RMS delay spread", "best beam, horizontal index",
        ]  # fmt: skip
        choice.select_option("los")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'los'")
        assert "map=los" in page.url
        assert "line of sight\n" in look.text(".keys") + "\n"
        shown, hidden = colours(page, (-5, 5), (5, 45))
        np.testing.assert_allclose(hidden, colour("#0072b2"), atol=8)
        np.testing.assert_allclose(shown, colour("#e69f00"), atol=8)
        page.click("main > .code summary")
        names: dict[str, Any] = {}
        exec(page.inner_text("main > .code pre[data-code='xarray']"), names)
        values = zarr.open_array(radio_store / "data.zarr/radio_map/los", mode="r")[4]
        np.testing.assert_array_equal(names["radio_map"], values)
        choice.select_option("delay_spread")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'delay_spread'")
        page.select_option("label:has-text('Users by') select", "none")
        long, short, silent = colours(page, (55, 45), (-55, -45), (-55, -95))
        for shown, expected in ((long, "#fde725"), (short, "#440154"), (silent, "#b4b9be")):
            np.testing.assert_allclose(shown, colour(expected), atol=8)
        assert f"no path: {100 * 20 / 388:.1f} % of the cells" in look.text(".keys").replace("\xa0", " ")
        choice.select_option("best_beam")
        page.wait_for_function("document.querySelector('canvas').dataset.map === 'best_beam'")
        choice.select_option("")
        page.wait_for_function("document.querySelector('canvas').dataset.map === ''")
        assert "map=" not in page.url
        assert look.problems == []


def test_stores_without_radio_maps_do_not_offer_them(look: Opened) -> None:
    page = look.go("#/scene/toy-0000?map=path_gain")
    assert page.locator("label:has-text('Ground by')").count() == 0


def test_a_missing_radio_map_is_said_where_it_would_be_explained(chromium: Any, radio_store: Path) -> None:
    site = make_site(radio_store)
    shutil.rmtree(radio_store / "data.zarr/radio_map/path_gain/c/0")
    with serving(site) as address, opened(chromium, address) as look:
        page = look.go("#/scene/toy-0000?map=path_gain")
        page.wait_for_selector("text=Cannot show the radio map")
        assert "data.zarr/radio_map/path_gain/c/0/0/0 is missing" in look.text()
        assert page.locator(".users tbody tr").count() == 8


# Materials


def test_surfaces_have_the_colours_of_their_materials(chromium: Any, toy_store: Path) -> None:
    site = make_site(toy_store)
    radio = {"wall_material": "metal", "roof_material": "brick", "ground_material": "metal"}
    attributes = {**site.index["attributes"], "recipe": {"radio": radio}}
    with (
        serving(replace(site, index={**site.index, "attributes": attributes})) as address,
        opened(chromium, address) as look,
    ):
        page = look.go(f"#/scene/toy-0000?buildings=material&users=none&{ABOVE}")
        page.wait_for_function("document.querySelector('canvas').dataset.drawn > 0")
        key = look.text(".keys")
        assert "walls, ground: metal" in key
        assert "roofs: brick" in key
        roof, ground = colours(page, (-60, 45), (-55, -45))
        np.testing.assert_allclose(ground, colour("#5b7fa6"), atol=8)
        assert roof[0] > roof[1] > roof[2]  # brick, in the sun
        page.select_option("label:has-text('Buildings by') select", "source")
        page.wait_for_function("!location.hash.includes('buildings=')")
        assert np.abs(colours(page, (-55, -45))[0] - ground).max() > 30
        assert look.problems == []


# Waves that a model followed


def test_followed_waves_stand_next_to_the_paths(chromium: Any, toy_store: Path, tmp_path: Path) -> None:
    arrays = write_rays_run(tmp_path / "run", toy_store, 4)
    with serving(make_site(toy_store, tmp_path / "run")) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0004?user=2&{ABOVE}")
        drawn = json.loads(page.get_attribute("canvas", "data-followed"))
        assert [one["lands"] for one in drawn] == [True, False]
        np.testing.assert_allclose(drawn[0]["points"], arrays["ray_corners"][2, 0, :3] + BASE, atol=0.006)
        text = look.text().replace("\xa0", " ")
        assert "2 waves that run recovered of user 2" in text
        assert "1 comes down where a user can be" in text
        assert "Location error of the model\n5.0 m" in text
        assert "Location error of physics alone\n10.0 m" in text
        rows = look.rows(".followed")
        assert [row[2] for row in rows] == ["1", "0"]  # walls
        assert number(rows[0][6]) == pytest.approx(1, abs=0.06)  # from the user
        assert rows[1][6] == "–"
        legs = np.diff(arrays["ray_corners"][2, 0, :3], axis=0)
        assert number(rows[0][3]) == pytest.approx(np.linalg.norm(legs, axis=1).sum(), abs=0.1)
        # In the scene, in a colour of their own, if they are wanted.
        page.select_option("label:has-text('Lines') select", "followed")
        page.wait_for_function("location.hash.includes('rays=followed')")
        assert green(page) > 60
        page.select_option("label:has-text('Lines') select", "paths")
        page.wait_for_function("location.hash.includes('rays=paths')")
        assert green(page) == 0
        # A user that is in outage was not predicted, and other scenes were not either.
        look.go(f"#/scene/toy-0004?user={len(arrays['scene'])}")
        assert page.locator("label:has-text('Lines')").count() == 0
        look.go("#/scene/toy-0005?user=1")
        assert "no predictions of this scene" in look.text()
        assert look.problems == []


def green(page: Any) -> int:
    """Pixels of the scene that have the colour of followed waves."""
    page.evaluate(DRAWN)
    picture = np.asarray(Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB")).astype(int)
    return int((np.abs(picture - colour("#00715a")).max(-1) < 12).sum())


# Progress


def test_progress_counts_the_arrays_that_are_there(chromium: Any, toy: str) -> None:
    held: list[Any] = []
    released = False
    with opened(chromium, toy) as look:
        look.page.route("**/best_beam/c/**", lambda route: route.continue_() if released else held.append(route))
        look.page.goto(toy + "#/scene/toy-0000")
        # Seven of eight.
        look.page.wait_for_selector("text=Loading the users of the scene … 87 %")
        assert look.page.get_attribute(".waiting progress", "value") == "87"
        released = True
        for route in list(held):
            route.continue_()
        look.ready()
        assert look.page.locator(".users tbody tr").count() == 8
        assert look.problems == []


def test_progress_counts_the_bytes_of_what_arrives(chromium: Any, toy: str) -> None:
    """The server sends half of a chunk of channels, and the rest when the page has said so."""
    go_on = Event()
    write = _Handler._write

    def halting(self: _Handler, content: bytes) -> None:
        if "/csi/c/" in self.path and len(content) > 1000:
            half = len(content) // 2
            write(self, content[:half])
            self.wfile.flush()
            go_on.wait(30)
            content = content[half:]
        write(self, content)

    with mock.patch.object(_Handler, "_write", halting), opened(chromium, toy) as look:
        look.page.goto(toy + "#/scene/toy-0000?user=1")
        waiting = "[...document.querySelectorAll('.waiting')].some(one => /channel …\\s+(49|50) %/.test(one.innerText))"
        look.page.wait_for_function(waiting)
        go_on.set()
        look.ready()
        assert look.page.locator("figure:has-text('Spatial spectrum') image").count() > 0
        assert look.problems == []


# Touch, and addresses of what is seen


@pytest.fixture
def phone(chromium: Any, toy: str) -> Iterator[Opened]:
    with opened(chromium, toy, **PHONE) as one:
        yield one
        assert one.problems == []


class Fingers:
    """Fingers on a screen."""

    def __init__(self, page: Any) -> None:
        self.client = page.context.new_cdp_session(page)

    def move(self, *ways: tuple[tuple[float, float], tuple[float, float]], steps: int = 8) -> None:
        """Put a finger down at the start of each way, move all together, and lift them."""
        self._send("touchStart", [start for start, _ in ways])
        for step in range(1, steps + 1):
            share = step / steps
            places = [(a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])) for a, b in ways]
            self._send("touchMove", places)
        self._send("touchEnd", [])

    def _send(self, kind: str, places: list[tuple[float, float]]) -> None:
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        self.client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def camera(page: Any) -> NDArray[np.float64]:
    """Azimuth, elevation, distance and place that the address has."""
    page.wait_for_function("location.hash.includes('camera=')")
    return np.array(re.search(r"camera=([\d.,-]+)", page.url).group(1).split(","), float)


def test_fingers_turn_enlarge_and_choose_in_a_scene(phone: Opened, toy_store: Path) -> None:
    page = phone.go("#/scene/toy-0000?camera=250,40,300,0,0")
    box = page.locator("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = Fingers(page)
    fingers.move(((x - 60, y), (x + 60, y)))
    page.wait_for_function("!location.hash.includes('camera=250,')")
    turned = camera(page)
    assert turned[0] < 240
    assert turned[2] == pytest.approx(300, abs=0.2)
    before = page.url
    fingers.move(((x - 20, y), (x - 90, y)), ((x + 20, y), (x + 90, y)))
    page.wait_for_function("url => location.href !== url", arg=before)
    assert camera(page)[2] < 250
    # A tap on a user, from above.
    page.goto(f"{phone.address}#/scene/toy-0000?{ABOVE}")
    phone.ready()
    page.evaluate(DRAWN)
    data = open_store(toy_store).isel(scene=0)
    places = data.user_position.values[: int(data.n_users)] + BASE
    scale = box["height"] / 2 / (FAR * field_of_view(box))
    # One that no other is near.
    apart = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=-1) + 1e3 * np.eye(len(places))
    user = int(apart.min(1)[:-1].argmax())
    # Nearer to the camera than the ground.
    zoom = FAR / (FAR - places[user, 2]) * scale
    page.touchscreen.tap(x + places[user, 0] * zoom, y - places[user, 1] * zoom)
    page.wait_for_function(f"location.hash.includes('user={user}')")


def field_of_view(box: dict[str, float]) -> float:
    """Tangent of half the vertical field of view: a narrow screen sees the whole scene from side to side."""
    return float(HALF_VIEW * max(1, 1.4 * box["height"] / box["width"]))


def test_two_fingers_enlarge_a_map_and_one_moves_the_page(phone: Opened) -> None:
    page = phone.go("#/")
    page.locator(".map").scroll_into_view_if_needed()
    box = page.locator(".map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = Fingers(page)
    fingers.move(((x, y + 40), (x, y - 60)))
    assert "zoom=" not in page.url
    page.wait_for_function("window.scrollY > 20")
    page.locator(".map").scroll_into_view_if_needed()
    box = page.locator(".map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers.move(((x - 20, y), (x - 80, y)), ((x + 20, y), (x + 80, y)))
    page.wait_for_function("location.hash.includes('zoom=')")
    assert 2 < float(re.search(r"zoom=([\d.]+)", page.url).group(1)) < 6


def test_a_link_shows_the_same_part_of_the_map(look: Opened) -> None:
    page = look.go("#/?zoom=4.000,0.570,0.250")
    moved = page.get_attribute(".map g", "transform")
    assert "scale(4)" in moved
    page.click("button[aria-label='Enlarge the map']")
    page.wait_for_function("location.hash.includes('zoom=6.4')")
    page.click(".zoom button:last-child")
    page.wait_for_function("!location.hash.includes('zoom=')")
    assert "scale(1)" in page.get_attribute(".map g", "transform")


def test_the_wheel_enlarges_maps_and_scenes(look: Opened) -> None:
    page = look.go("#/")
    page.locator(".map").scroll_into_view_if_needed()
    page.locator(".map").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_function("location.hash.includes('zoom=')")
    assert float(re.search(r"zoom=([\d.]+)", page.url).group(1)) > 1.2
    page = look.go("#/scene/toy-0000?camera=270,60,300,0,0")
    page.locator("canvas").hover()
    page.mouse.wheel(0, -300)
    page.wait_for_function("!location.hash.includes('camera=270,60,300,')")
    assert camera(page)[2] < 290


def test_a_link_shows_a_scene_from_the_same_side(look: Opened) -> None:
    page = look.go("#/scene/toy-0000?camera=200.0,50.0,250.0,10.0,-20.0")
    page.focus("canvas")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("!location.hash.includes('camera=200.0,50')")
    assert camera(page) == pytest.approx([200 - np.degrees(0.12), 50, 250, 10, -20], abs=0.15)
    page.click("text=From above")
    page.wait_for_function("location.hash.includes('camera=270,89.9')")
    page.click("text=From the south")
    page.wait_for_function("!location.hash.includes('camera=')")


@pytest.mark.parametrize("size", [(1280, 900), (390, 844), (820, 1180)])
def test_a_scene_is_seen_whole_at_first(chromium: Any, toy: str, size: tuple[int, int]) -> None:
    """Nothing of it reaches the edge of the canvas, and it fills at least half of it from side to side."""
    with opened(chromium, toy, viewport={"width": size[0], "height": size[1]}) as look:
        page = look.go("#/scene/toy-0000")
        page.wait_for_function("document.querySelector('canvas').dataset.drawn > 0")
        page.evaluate(DRAWN)
        picture = np.asarray(Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB")).astype(int)
        drawn = np.abs(picture - picture[8, 8]).max(-1) > 8
        # Corners are round.
        edges = [drawn[3, 20:-20], drawn[-4, 20:-20], drawn[20:-20, 3], drawn[20:-20, -4]]
        assert not any(edge.any() for edge in edges)
        assert max(np.ptp(np.flatnonzero(drawn.any(0))) / size[0], np.ptp(np.flatnonzero(drawn.any(1))) / size[1]) > 0.5


def test_places_in_the_south_and_west_are_written_so(chromium: Any, toy_store: Path) -> None:
    site = make_site(toy_store)
    scenes = {**site.index["scenes"], "latitude": [-22.9] * 6, "longitude": [-43.2] * 6}
    with serving(replace(site, index={**site.index, "scenes": scenes})) as address, opened(chromium, address) as look:
        look.go("#/scene/toy-0000")
        assert "22.90000° S, 43.20000° W" in look.text(".lead")


# Accessibility

AUDIT = """
() => {
  const problems = [];
  const numbers = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = (front, back) => front.slice(0, 3).map((v, i) => v * (front[3] ?? 1) + back[i] * (1 - (front[3] ?? 1)));
  const luminance = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const groundOf = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if ((colour[3] ?? 1) > 0) layers.push(colour);
      if ((colour[3] ?? 1) === 1) break;
    }
    return layers.reduceRight((back, front) => over(front, back), [255, 255, 255]);
  };
  const label = (one) => `${one.tagName} ${(one.className.baseVal ?? one.className)} ${one.textContent.trim().slice(0, 30)}`;
  for (const one of document.querySelectorAll("body *")) {
    const texts = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!texts || one.closest("[aria-hidden=true], script, style, noscript, title, option")) continue;
    if (!one.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(one);
    const drawn = one instanceof SVGElement;
    // Letters on a map have a rim of the page's colour.
    const ground = drawn && style.paintOrder.startsWith("stroke") ? numbers(style.stroke) : groundOf(one);
    const front = over(numbers(drawn ? style.fill : style.color), ground);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = contrast(front, ground);
    if (found < (large ? 3 : 4.5)) problems.push(`contrast ${found.toFixed(2)}: ${label(one)}`);
    if (size < 9.5) problems.push(`letters of ${size} px: ${label(one)}`);
  }
  for (const one of document.querySelectorAll("button, a, input, select, canvas, progress, svg[role=img], [tabindex]")) {
    const named = [one.getAttribute("aria-label"), one.textContent, one.querySelector("title")?.textContent];
    named.push(...[...(one.labels ?? [])].map((text) => text.textContent));
    if (one.id !== "content" && !named.some((text) => text?.trim())) problems.push(`no name: ${one.outerHTML.slice(0, 80)}`);
    if (one.tabIndex > 0) problems.push(`order of its own: ${label(one)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) problems.push("an id twice");
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((one) => Number(one.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) problems.push(`headings ${levels}`);
  levels.forEach((level, i) => i && level > levels[i - 1] + 1 && problems.push(`headings ${levels}`));
  if (!document.documentElement.lang || !document.title) problems.push("no language or title");
  return problems;
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "view",
    ["#/?gain=-200..0", "#/city/Toy", "#/scene/toy-0003", "#/scene/toy-0004?user=1&path=0&order=gain", "#/city/No"],
)
def test_every_view_can_be_read(chromium: Any, toy_store: Path, tmp_path: Path, theme: str, view: str) -> None:
    """Contrast by WCAG AA as computed from what is on the screen, names for what is operated, an order of headings."""
    write_run(tmp_path / "run", toy_store, [4])
    with (
        serving(make_site(toy_store, tmp_path / "run")) as address,
        opened(chromium, address, color_scheme=theme) as look,
    ):
        page = look.go(view)
        for summary in page.locator(".code summary").all():
            summary.click()
        assert page.evaluate(AUDIT) == ([] if "No" not in view else ["headings "])
        assert look.problems == []


def test_what_has_the_focus_is_seen(look: Opened) -> None:
    page = look.go("#/scene/toy-0004?user=1")
    seen = 0
    for _ in range(30):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement);"
            " return [document.activeElement.tagName, s.outlineStyle, parseFloat(s.outlineWidth)] }"
        )
        assert style[1] != "none", style
        assert style[2] >= 2, style
        seen += style[0] == "CANVAS"
    assert seen == 1


# Structure

VIEWS = {
    "#/": ["Cities", "Median path gain (dB)", "Users with line of sight (%)", "Users in outage (%)", "Median number of paths",
           "Scenes (6)"],
    "#/city/Toy": ["Tiles of Toy", "Median path gain (dB)", "Users with line of sight (%)", "Users in outage (%)",
                   "Median number of paths", "Scenes (6)"],
    "#/scene/toy-0000": ["In 3D", "Users (8)"],
    "#/scene/toy-0000?user=1": ["In 3D", "Users (8)", "Channel: |csi|", "Channel: phase", "Spatial spectrum", "Delay profile",
                                "Directions of the paths", "Paths (1 stored of 1 found)"],
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_a_view_is_made_of_its_parts(chromium: Any, toy: str, view: str, size: tuple[int, int]) -> None:
    """On a picture of the whole page: all parts in their order, none on another, none empty, none cut off."""
    with opened(chromium, toy, viewport={"width": size[0], "height": size[1]}) as look:
        page = look.go(view)
        page.evaluate(DRAWN)
        assert page.locator("figcaption h2, figcaption h3").all_inner_texts() == VIEWS[view]
        boxes = page.eval_on_selector_all(
            "main figure",
            "all => all.filter(i => !i.parentElement.closest('figure')).map(i => i.getBoundingClientRect().toJSON())",
        )
        for index, box in enumerate(boxes):
            assert 0 <= box["left"] < box["right"] <= size[0]
            for other in boxes[:index]:
                apart = (
                    box["left"] >= other["right"]
                    or other["left"] >= box["right"]
                    or box["top"] >= other["bottom"]
                    or other["top"] >= box["bottom"]
                )
                assert apart, (box, other)
        picture = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"))
        drawings = page.eval_on_selector_all(
            "main canvas, main .map, main .drawing svg, main svg.drawing",
            "all => all.filter(i => i.getBoundingClientRect().height > 60).map(i => i.getBoundingClientRect().toJSON())",
        )
        assert len(drawings) >= min(5, len(VIEWS[view]) - 1)
        for box in drawings:
            part = picture[int(box["top"]) : int(box["bottom"]), int(box["left"]) : int(box["right"])]
            assert len(np.unique(part.reshape(-1, 3), axis=0)) > 4
        assert look.problems == []
