"""Views of `wavecity explore` in a real browser: materials, followed waves, progress, accessibility, structure."""

import io
import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

import numpy as np
import pytest
from pages import ABOVE, DRAWN, NEEDS_CHROMIUM, Opened, colour, colours, number, opened
from PIL import Image
from test_explore import write_rays_run, write_run
from toy import BASE

from wavecity.flows.explore.server import _Handler, serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]


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
        look.go(f"#/scene/toy-0004?user={len(arrays['location_scene'])}")
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
