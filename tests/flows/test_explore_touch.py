"""`wavecity explore` in a real browser: fingers, wheel and keyboard, and addresses of what is seen."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import ABOVE, DRAWN, FAR, HALF_VIEW, NEEDS_CHROMIUM, Opened, opened
from PIL import Image
from toy import BASE

from wavecity.dataset.reader import open_store
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


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
