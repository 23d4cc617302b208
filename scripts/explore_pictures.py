"""Pictures of every view of `wavecity explore` for its page of the documentation, each below 200 kB.

Usage: python scripts/explore_pictures.py STORE --scene ID --user N
           [--run RUN --run-store STORE --run-scene ID --run-user N --run-camera PLACE]
           [--maps STORE --maps-scene ID] [--moving STORE]
           [--cells STORE --cells-scene ID --cells-link N --cells-user N] [--only NAME ...] [--out docs/howto]

STORE is one of several cities; the others show what it lacks: a run of a path model, radio maps, users that move, several
base stations with trees. Draws with Debian's Chromium and its software renderer. Look at every picture before it is kept.
"""

import argparse
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import sync_playwright

from wavecity.dataset.reader import open_store
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

MOST = 200_000
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
QUIET = "!document.querySelector('.waiting') && document.querySelector('.traffic')?.dataset.busy === 'false'"
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


@dataclass
class Picture:
    """A view, and what of it is kept."""

    name: str
    store: str
    view: str
    run: str | None = None
    height: int = 860
    selector: str = ""  # An element; else what is on the screen
    options: dict[str, Any] = field(default_factory=dict)  # Of the browser's context


def pictures(given: argparse.Namespace) -> Iterator[Picture]:
    """All pictures for which there is data."""
    store, scene = given.store, f"#/scene/{quote(given.scene)}"
    city = str(open_store(store, scenes=[given.scene])["city"].values[0])
    user = f"user={given.user}"
    yield Picture("world", store, "#/?los=40..100")
    yield Picture("city", store, f"#/city/{quote(city)}?by=los")
    yield Picture("scene", store, f"{scene}?{user}&path=1", selector=".card")
    yield Picture("material", store, f"{scene}?buildings=material&users=gain", selector=".card")
    yield Picture("user", store, f"{scene}?{user}&path=3", selector=".user .grid")
    yield Picture("dark", store, f"{scene}?users=first&buildings=height", height=900, options={"color_scheme": "dark"})
    yield Picture("phone", store, f"{scene}?{user}", options=PHONE)
    if given.maps:
        view = f"#/scene/{quote(given.maps_scene)}?map=path_gain&users=none"
        yield Picture("map", given.maps, view, selector=".card")
    if given.run:
        view = f"#/scene/{quote(given.run_scene)}?user={given.run_user}"
        yield Picture("rays", given.run_store, view, run=given.run, height=1030)
        seen = f"#/scene/{quote(given.run_scene)}?users=error&camera={given.run_camera}"
        yield Picture("predictions", given.run_store, seen, run=given.run, selector=".card")
    if given.cells:
        scene = f"#/scene/{quote(given.cells_scene)}"
        yield Picture("cells", given.cells, f"{scene}?users=serving", selector=".card")
        view = f"{scene}?bs={given.cells_link}&user={given.cells_user}"
        yield Picture("link", given.cells, view, selector=".card")
    if given.moving:
        ids = open_store(given.moving)["scene"].values
        yield Picture("moving", given.moving, f"#/scene/{quote(str(ids[0]))}?user=0&t=6&users=kind", selector=".user")


def draw(picture: Picture, browser: Any) -> Image.Image:
    """What the browser shows of a view once everything is there."""
    options = {"viewport": {"width": 1280, "height": picture.height}, **picture.options}
    with serving(make_site(picture.store, picture.run and Path(picture.run))) as address:
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(address + picture.view)
        page.wait_for_selector("h1")
        page.wait_for_function(QUIET)
        # The head of the page stays on the screen otherwise, before what is shown.
        page.add_style_tag(content="header { position: static !important }")
        page.evaluate(DRAWN)
        shown = page.locator(picture.selector).first if picture.selector else page
        content = shown.screenshot()
        context.close()
    return Image.open(io.BytesIO(content)).convert("RGB")


def keep(image: Image.Image, path: Path) -> int:
    """Write a PNG of as many colours as fit; returns its bytes."""
    size = 0
    for colours in (None, 256, 128, 64):
        content = io.BytesIO()
        kept = image.quantize(colours, dither=Image.Dither.NONE) if colours else image
        kept.save(content, "png", optimize=True)
        size = len(content.getvalue())
        if size < MOST:
            path.write_bytes(content.getvalue())
            return size
    msg = f"{path}: {size} bytes even with 64 colours; show less"
    raise SystemExit(msg)


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--scene", required=True)
    parser.add_argument("--user", type=int, default=0)
    for name in ("run", "run-store", "run-scene", "maps", "maps-scene", "moving", "cells", "cells-scene"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--run-user", type=int, default=0)
    parser.add_argument("--run-camera", default="")
    parser.add_argument("--cells-link", type=int, default=1)
    parser.add_argument("--cells-user", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=Path("docs/howto"))
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for picture in pictures(given):
            if not given.only or picture.name in given.only:
                path = given.out / f"explore-{picture.name}.png"
                print(f"{path}: {keep(draw(picture, browser), path) / 1e3:.0f} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
