"""Pages in a real browser: a browser for each test, and what is asked of a page of `wavecity explore`."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

NEEDS_CHROMIUM = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
# Draws WebGL without a graphics card.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
QUIET = "!document.querySelector('.waiting') && document.querySelector('.traffic')?.dataset.busy === 'false'"
# Two frames: what was drawn last is on the screen.
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@dataclass
class Opened:
    """A page, and what went wrong in it."""

    page: Any
    address: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    bytes: int = 0

    def go(self, view: str) -> Any:
        """Go to a view and wait until everything of it is there."""
        self.page.goto(self.address + view)
        # Where only the part after # differs, the page is told after this, and draws a frame later.
        self.page.evaluate(DRAWN)
        self.ready()
        return self.page

    def ready(self) -> None:
        self.page.wait_for_selector("h1, .problem")
        self.page.wait_for_function(QUIET)

    def text(self, selector: str = "main") -> str:
        return str(self.page.inner_text(selector))

    def rows(self, selector: str) -> list[list[str]]:
        """Cells of a table."""
        return self.page.eval_on_selector_all(
            f"{selector} tbody tr", "all => all.map(r => [...r.cells].map(c => c.innerText))"
        )


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A browser; one per test, as no process may outlive a test."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Any, address: str, **options: Any) -> Iterator[Opened]:
    """A new page in a profile of its own."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    result = Opened(context.new_page(), address)
    result.page.on("console", lambda note: result.problems.append(note.text) if note.type == "error" else None)
    result.page.on("pageerror", lambda error: result.problems.append(str(error)))
    result.page.on("request", lambda request: result.requests.append(request.url))
    try:
        yield result
    finally:
        context.close()


@pytest.fixture(scope="module")
def toy(toy_store: Path) -> Iterator[str]:
    with serving(make_site(toy_store)) as address:
        yield address


@pytest.fixture
def look(chromium: Any, toy: str) -> Iterator[Opened]:
    with opened(chromium, toy) as one:
        yield one
        assert one.problems == []
        assert [url for url in one.requests if not url.startswith((toy, "data:", "blob:"))] == []


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").split()[0])


# The camera above the middle of a tile of 200 m, and the tangent of half its field of view.
ABOVE, FAR, HALF_VIEW = "camera=270,89.9,324,0,0", 324.0, np.tan(np.radians(20))


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
