"""The page of `wavecity explore` in a real browser: every view, and what it computes."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pages import NEEDS_CHROMIUM, Opened, number, opened
from PIL import Image
from test_explore import write_run
from toy import ATTRIBUTES, make_arrays, make_layout, write_buildings

from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.preview.paths import direction, rebuild_path
from wavecity.dataset.preview.scene import load_view
from wavecity.dataset.reader import open_store
from wavecity.dataset.writer import write_unit
from wavecity.flows.explore.server import serving
from wavecity.flows.explore.site import make_site

pytestmark = [pytest.mark.system, NEEDS_CHROMIUM]
BRIGHTEST = (253, 231, 37)  # the end of viridis


# World and city


def test_the_world_shows_cities_scenes_and_distributions(look: Opened, toy_store: Path) -> None:
    page = look.go("#/")
    data = open_store(toy_store)
    assert look.text("h1") == "Wavecity channels"
    assert "Loading" not in look.text("body")
    assert "6 scenes" in look.text(".lead")
    assert f"{int(data.n_users.sum())} users" in look.text(".lead")
    assert page.locator(".map .city circle").count() == 1
    assert page.locator(".histograms figure").count() == 4
    # Every scene with a value is in a bar, those at the ends of the axis too; the first bars are of all scenes.
    for histogram in page.locator(".histograms .drawing").all():
        bars = histogram.locator("g[aria-label='rect']").first.locator("title").all_text_contents()
        assert sum(int(bar.split()[0]) for bar in bars) == 5
    rows = look.rows(".table")
    assert [row[0] for row in rows] == data.scene_id.values.tolist()
    assert [row[3] for row in rows] == data.status.values.tolist()
    gains = data.path_gain.where(~data.outage).quantile(0.5, "user")
    for row, gain in zip(rows, gains.values, strict=True):
        assert row[5] == "–" if np.isnan(gain) else number(row[5]) == pytest.approx(gain, abs=0.11)
    assert page.evaluate("document.documentElement.scrollWidth") == 1280
    assert "OpenStreetMap contributors" in look.text("footer")


def test_filters_are_in_the_address_and_the_back_button_undoes_them(look: Opened) -> None:
    page = look.go("#/")
    page.select_option("label:has-text('Split') select", "test")
    page.wait_for_function("document.querySelectorAll('.table tbody tr').length === 2")
    assert page.url.endswith("#/?split=test")
    page.fill("input[aria-label='Median path gain (dB), from']", "-500")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.includes('gain=-500')")
    page.go_back()
    page.go_back()
    page.wait_for_function("document.querySelectorAll('.table tbody tr').length === 6")
    page.goto(look.address + "#/?split=train&q=toy-0001")
    page.wait_for_function("document.querySelectorAll('.table tbody tr').length === 1")


def test_a_range_that_is_brushed_filters(look: Opened, toy_store: Path) -> None:
    page = look.go("#/")
    box = page.locator(".histograms .brush .overlay").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 40, steps=4)
    page.mouse.up()
    page.wait_for_function("location.hash.includes('gain=')")
    low, high = map(float, re.search(r"gain=(-[\d.]+)\.\.(-[\d.]+)", page.url).groups())
    data = open_store(toy_store)
    gains = data.path_gain.where(~data.outage).quantile(0.5, "user").values
    expected = int(((gains >= low) & (gains <= high)).sum())
    assert 0 < expected < 6
    page.wait_for_function(f"document.querySelectorAll('.table tbody tr').length === {expected}")


def test_a_city_is_reached_by_keyboard_and_shows_its_tiles(look: Opened) -> None:
    page = look.go("#/")
    page.focus(".map .city")
    page.keyboard.press("Enter")
    page.wait_for_selector(".map .tile")
    assert page.url.endswith("#/city/Toy")
    assert page.locator(".map .tile").count() == 6
    assert page.locator(".map .cross").count() == 1
    page.locator(".map .tile").nth(5).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.startsWith('#/scene/toy-0005')")
    look.ready()
    page.go_back()
    page.wait_for_selector(".map .tile")


def test_a_table_is_sorted_by_its_heads(look: Opened, toy_store: Path) -> None:
    page = look.go("#/?status=done")
    page.click(".table th:has-text('Gain') button")
    page.wait_for_function("location.hash.includes('sort=gain')")
    shown = [number(row[5]) for row in look.rows(".table")]
    assert shown == sorted(shown)
    assert len(shown) == 5


# Scene and user


def test_a_scene_in_3d_with_its_users(look: Opened, toy_store: Path) -> None:
    page = look.go("#/scene/toy-0000")
    page.wait_for_function("document.querySelector('canvas')?.dataset.drawn > 0")
    assert "1 building" in look.text(".keys")
    data = open_store(toy_store).isel(scene=0)
    users = int(data.n_users)
    assert f"line of sight: {int(data.los.sum())}" in look.text(".keys")
    assert "outage: 1" in look.text(".keys")
    rows = look.rows(".users")
    assert [row[1] for row in rows] == [str(user) for user in range(users)]
    picture = Image.open(io.BytesIO(page.locator("canvas").screenshot()))
    # Ground, one building in two tones, users: not an empty canvas.
    assert len(picture.convert("RGB").getcolors(10**6) or range(10**6)) > 100
    page.select_option("label:has-text('Users by') select", "distance")
    page.wait_for_function("location.hash.includes('users=distance')")
    page.focus("canvas")
    before = page.evaluate("document.querySelector('canvas').dataset.drawn")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"document.querySelector('canvas').dataset.drawn > {before}")


def test_a_user_is_what_the_store_has(look: Opened, toy_store: Path) -> None:
    """Complex numbers, axes and the codebook's convention, by the pixel of the spectrum that is the brightest."""
    page = look.go("#/scene/toy-0002?user=4")
    page.wait_for_selector("figure:has-text('Spatial spectrum') image")
    data = open_store(toy_store).isel(scene=2, user=4).load()
    paths = open_store(toy_store, "paths").isel(scene=2, user=4).load()
    (row,) = look.rows(".paths")
    gain, delay = complex(paths.gain[0]), float(paths.delay[0])
    assert number(row[1]) == pytest.approx(20 * np.log10(abs(gain)), abs=0.06)
    assert number(row[2]) == pytest.approx(np.degrees(np.angle(gain)), abs=0.6)
    assert number(row[3]) == pytest.approx(1e9 * delay, abs=0.06)
    assert row[-1] == "line of sight"

    def picture(title: str) -> np.ndarray:
        # The first is the scale's.
        link = page.locator(f"figure:has-text('{title}') image").last.get_attribute("href")
        content = base64.b64decode(link.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(data.csi.values))) ** 2
    pixels = picture("Spatial spectrum")
    assert pixels.shape == (32, 32, 3)
    y, x = np.unravel_index(np.abs(pixels - BRIGHTEST).sum(-1).argmin(), (32, 32))
    assert (x, y) == np.unravel_index(spectrum.argmax(), (32, 32))
    beam = int(data.best_beam)
    assert ((-(beam // 32) % 32 + 16) % 32, (-(beam % 32) % 32 + 16) % 32) == (x, y)
    assert f"best beam, {beam}" in look.text("figure:has-text('Spatial spectrum')")
    # The phase of a plane wave is the same in antennas with the same phase, and no others.
    phase = picture("Channel: phase")
    first = np.abs(np.angle(data.csi.values.T / data.csi.values[0, 0])) < 1e-3
    assert (phase[first] == phase[0, 0]).all()


def test_a_user_in_outage_has_no_pictures(look: Opened) -> None:
    look.go("#/scene/toy-0000?user=7")
    assert "this user is in outage" in look.text()
    assert "No path leads to this user" in look.text()


def test_what_is_not_there_is_said(look: Opened) -> None:
    for view, said in (
        ("#/scene/toy-9999", "No scene “toy-9999”"),
        ("#/scene/toy-0000?user=99", "No user 99 in this scene"),
        ("#/city/Atlantis", "No city “Atlantis”"),
        ("#/scene/toy-0003", "SceneError: toy"),
        ("#/?q=nothing", "No scene passes the filters"),
    ):
        look.go(view)
        look.page.wait_for_function("text => document.body.innerText.includes(text)", arg=said)


def test_code_that_is_copied_reads_what_is_shown(look: Opened, toy_store: Path) -> None:
    page = look.go("#/scene/toy-0002?user=4")
    page.click(".user .code summary")
    names: dict[str, Any] = {}
    exec(page.inner_text(".user pre[data-code='xarray']"), names)
    data = open_store(toy_store).isel(scene=2, user=4)
    np.testing.assert_array_equal(names["csi"], data.csi)
    exec(page.inner_text(".user pre[data-code='torch']"), names)
    np.testing.assert_array_equal(names["csi"], data.csi)
    page.click("main > .code summary")
    exec(page.inner_text("main > .code pre[data-code='xarray']"), names)
    np.testing.assert_array_equal(names["users"].user_position, open_store(toy_store).user_position[2, :10])
    exec(page.inner_text("main > .code pre[data-code='torch']"), names)
    assert len(names["users"]) == int(open_store(toy_store).n_users[2])
    page = look.go("#/?split=test")
    page.click(".code summary")
    exec(page.inner_text("pre[data-code='xarray']"), names)
    assert names["data"].scene_id.values.tolist() == ["toy-0004", "toy-0005"]
    exec(page.inner_text("pre[data-code='torch']"), names)
    assert len(names["users"]) == int((~open_store(toy_store).outage).isel(scene=[4, 5]).sum())


def test_pictures_are_kept_with_their_attribution(look: Opened) -> None:
    page = look.go("#/scene/toy-0000?user=1")
    for label, suffix in (("Download the 3D view as PNG", ".png"), ("Download Spatial spectrum as SVG", ".svg")):
        with page.expect_download() as download:
            page.click(f"button[aria-label='{label}']")
        assert download.value.suggested_filename.endswith(suffix)
        content = Path(download.value.path()).read_bytes()
        if suffix == ".svg":
            assert "OpenStreetMap contributors" in content.decode()
            assert content.decode().count("<image") == 2  # with its scale
        else:
            assert min(Image.open(io.BytesIO(content)).size) > 300


def test_paths_are_rebuilt_where_python_finds_them(chromium: Any, helsinki_store: Path) -> None:
    data, paths = open_store(helsinki_store).load(), open_store(helsinki_store, "paths").load()
    scene = data.scene_id.values[0]
    view = load_view(helsinki_store, str(scene))
    found = paths.n_paths.values[0, : len(view.users)]
    user = int(np.argmax(np.where(found < 40, found, 0)))
    with serving(make_site(helsinki_store)) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/{scene}?user={user}")
        page.wait_for_function("JSON.parse(document.querySelector('canvas')?.dataset.paths ?? '[]').length > 0")
        drawn = json.loads(page.get_attribute("canvas", "data-paths"))
        assert look.problems == []
    stored = paths.isel(scene=0, user=user)
    kept = int((stored.gain != 0).sum())
    assert len(drawn) == kept > 3
    bounces = 0
    for index, one in enumerate(drawn):
        path = stored.isel(path=index)
        kinds = [kind for kind in path.interactions.values.tolist() if kind]
        ends = [direction(path[f"{end}_zenith"].item(), path[f"{end}_azimuth"].item()) for end in ("aod", "aoa")]
        length = float(path.delay) * 299_792_458
        whole, lines = rebuild_path(view.base, ends[0], view.users[user], ends[1], kinds, length, view.triangles)
        assert one["whole"] == whole
        for mine, theirs in zip(one["lines"], lines, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=0.02)
        bounces += len(kinds)
    assert bounces > 3


# Users that move


def build_moving(store: Path) -> None:
    """A scene whose users walk to the east, half a metre a step; channels of a single plane wave."""
    layout = replace(make_layout(scenes=2, unit=2), steps=6, subcarriers=4)
    draft = open_draft(store, "moving0123456789abcd", layout)
    scenes, outcomes = [], []
    for scene in range(2):
        arrays = make_arrays(np.random.default_rng(scene), 5)
        start, steps = arrays["user_position"], np.arange(6)
        way = np.zeros((5, 6, 3), np.float32)
        way[..., 0] = 0.5 * steps
        arrays["trajectory/position"] = start[:, None] + way
        arrays["trajectory/velocity"] = np.broadcast_to(np.float32([5, 0, 0]), (5, 6, 3)).copy()
        arrays["trajectory/kind"] = np.zeros(5, np.uint8)
        turn = np.exp(2j * np.pi * (steps[:, None] / 6 + np.arange(4) / 4))
        arrays["trajectory/csi"] = (arrays["csi"][:, None, None] * turn[..., None, None]).astype(np.complex64)
        scenes.append(arrays)
        outcomes.append(
            {"scene_id": f"moving-{scene}", "city": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0 + scene / 200,
             "split": ("train", "test")[scene], "n_users": 5, "status": "done", "bs_shift": 0.0}
        )  # fmt: skip
    write_buildings(draft.buildings_path(0), outcomes)
    write_unit(draft, 0, scenes, outcomes, {"seed": 0})
    trajectory = {
        "interval_s": 0.1, "steps": 6, "subcarriers": 4, "subcarrier_spacing_hz": 1e6,
        "kinds": {"0": "walker", "1": "vehicle", "2": "cyclist"}, "fastest_mps": [10.0, 10.0, 10.0],
    }  # fmt: skip
    finish_draft(draft, {**ATTRIBUTES, "trajectory": trajectory}, {"map": {"name": "toy"}})
    seal(draft)


def test_a_user_that_moves_has_a_slider_of_time(chromium: Any, tmp_path: Path) -> None:
    build_moving(tmp_path / "store")
    (folder,) = (tmp_path / "store/.staging").iterdir()
    site = make_site(folder)
    with serving(site) as address, opened(chromium, address) as look:
        page = look.go("#/scene/moving-1?user=2&t=3")
        data = xr.open_zarr(folder / "data.zarr", group="trajectory").isel(scene=1, user=2).load()
        where = data.position.values + np.array(ATTRIBUTES["bs_position_m"])
        assert f"snapshot 3: {300:.2f} ms of {500:.2f} ms, 5.0 m/s" in look.text(".slider").replace("\xa0", " ")
        assert number(look.text(".slider").split(" at ")[1]) == pytest.approx(where[3, 0], abs=0.06)
        page.focus(".slider input")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("location.hash.includes('t=4')")
        look.ready()
        # The slider is drawn at once, the scene a frame later.
        near = "every((x, i) => Math.abs(x - place[i]) < 1e-4)"
        moved = f"place => document.querySelector('canvas').dataset.place?.split(',').{near}"
        page.wait_for_function(moved, arg=where[4].tolist())
        page.locator("figure:has-text('Delay profile of the band')").wait_for()
        assert look.problems == []


# Predictions


def test_predictions_stand_next_to_the_truth(chromium: Any, toy_store: Path, tmp_path: Path) -> None:
    (user, _) = write_run(tmp_path / "run", toy_store, [4, 5]).tolist()
    with serving(make_site(toy_store, tmp_path / "run")) as address, opened(chromium, address) as look:
        page = look.go(f"#/scene/toy-0004?user={user}")
        assert "median error 5.0 m" in look.text().replace("\xa0", " ")
        assert "seeing 6 % of the channel" in look.text().replace("\xa0", " ")
        beam = (-3 % 32) * 32 + (-5 % 32)
        assert f"Its strongest beam is {beam}" in look.text()
        assert page.locator("figure:has-text('Built patches') image").count() == 4  # each with its scale
        page.select_option("label:has-text('Users by') select", "error")
        look.go("#/scene/toy-0000")
        assert "no predictions of this scene" in look.text()
        assert look.problems == []


# How it looks


@pytest.mark.parametrize("view", ["#/", "#/city/Toy", "#/scene/toy-0000?user=1"])
def test_on_a_phone_nothing_is_wider_than_the_screen(chromium: Any, toy: str, view: str) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with opened(chromium, toy, **phone) as look:
        page = look.go(view)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        outside = "all => all.filter(i => i.getBoundingClientRect().right > 391 && !i.closest('.table, pre')).length"
        assert page.eval_on_selector_all("main svg, main figure, main canvas, main button", outside) == 0
        sizes = page.eval_on_selector_all(
            "p, td, button", "all => all.map(i => parseFloat(getComputedStyle(i).fontSize))"
        )
        assert min(sizes) >= 11
        assert look.problems == []


def test_dark_colours_follow_the_system_and_can_be_chosen(chromium: Any, toy: str) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    with opened(chromium, toy, color_scheme="dark") as look:
        page = look.go("#/")
        dark = page.evaluate(paper)
        page.select_option(".theme select", "light")
        page.wait_for_function(f"{paper} === 'rgb(255, 255, 255)'")
        assert dark != "rgb(255, 255, 255)"
        page.reload()
        look.ready()
        assert page.evaluate(paper) == "rgb(255, 255, 255)"


def test_a_browser_without_3d_says_so_and_lists_the_users(toy: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-3d-apis"]
        )
        with opened(browser, toy) as look:
            page = look.go("#/scene/toy-0000?user=1")
            assert "This browser cannot draw in 3D" in look.text()
            assert page.locator(".users tbody tr").count() == 8
            assert page.locator("figure:has-text('Spatial spectrum') image").count() > 0
        browser.close()
