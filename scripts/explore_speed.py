"""How fast the page of `wavecity explore` opens, and what it moves, measured in the browser.

Usage: python scripts/explore_speed.py STORE [--rounds 5]

Prints seconds and bytes of the index, of the page from the first request until everything is drawn (a browser without
anything in its cache), and of the first and second scene that are opened; medians over the rounds. Seconds of the processor
are those of all processes of the browser, its software renderer among them: on a busy machine they say what the time on the
clock does not.
"""

import argparse
import shutil
import time
import zlib
from statistics import median
from typing import Any
from urllib.parse import quote

import psutil
from playwright.sync_api import sync_playwright

from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import INDEX, make_site, page_files

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
QUIET = "!document.querySelector('.waiting') && document.querySelector('.traffic')?.dataset.busy === 'false'"


# Bytes of all answers so far, as they came over the network.
MOVED = "() => performance.getEntries().reduce((sum, entry) => sum + (entry.encodedBodySize ?? 0), 0)"


def processor() -> float:
    """Seconds of the processor that the browser has used."""
    used = [one.cpu_times() for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    return sum(times.user + times.system + times.children_user + times.children_system for times in used)


def opened(page: Any, address: str, heading: str) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and bytes until the view with a heading is there."""
    before = page.evaluate(MOVED)
    used = processor()
    begun = time.perf_counter()
    page.goto(address)
    page.wait_for_function("text => document.querySelector('h1')?.innerText === text", arg=heading)
    page.wait_for_function(QUIET)
    took = time.perf_counter() - begun
    return took, processor() - used, page.evaluate(MOVED) - before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    begun = time.perf_counter()
    site = make_site(given.store)
    index = site.files()[INDEX]
    print(
        f"index of {len(site.index['scenes']['id']):,} scenes: {time.perf_counter() - begun:.1f} s, {len(index) / 1e6:.2f} MB"
    )
    bundle = page_files().values()
    packed = sum(len(zlib.compress(content)) for content in bundle)
    print(f"bundle: {sum(map(len, bundle)) / 1e6:.2f} MB, {packed / 1e6:.2f} MB compressed")
    scenes = site.index["scenes"]
    done = [name for name, status in zip(scenes["id"], scenes["status"], strict=True) if status == "done"]
    views = {
        "page": ("#/", site.index["attributes"]["title"]),
        "first scene": (f"#/scene/{quote(done[0])}", done[0]),
        "second scene": (f"#/scene/{quote(done[-1])}", done[-1]),
    }
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in views}
    with sync_playwright() as playwright, serving(site) as address:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for _ in range(given.rounds):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            for name, (view, heading) in views.items():
                found[name].append(opened(page, address + view, heading))
            context.close()
        browser.close()
    for name, values in found.items():
        seconds, busy, size = (median(column) for column in zip(*values, strict=True))
        print(f"{name}: {seconds:.2f} s, {busy:.2f} s of the processor, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
