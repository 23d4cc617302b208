"""The card's figures against the arrays themselves; the page in a browser; the Markdown in a parser."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import toy
import xarray as xr
import yaml
from markdown_it import MarkdownIt

from wavecity.dataset.card.croissant import write_croissant
from wavecity.dataset.card.facts import gather_facts
from wavecity.dataset.card.page import tile_places, write_card
from wavecity.dataset.card.source import load_source
from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import read_json, write_json
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.writer import write_unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished draft of the toy store with card, with what a build of real maps leaves in its lineage."""
    draft = open_draft(tmp_path_factory.mktemp("card"), "0123456789abcdef0123", toy.make_layout())
    for unit in draft.missing():
        toy.write_synthetic_unit(draft, unit)
    rejected = {"too few buildings": 3, "not needed": 11}
    city = {"name": "Toy", "country": "FI", "state": "short", "wanted": 7, "scenes": 6, "candidates": 20}
    tile = {
        "id": "toy-9999",
        "latitude": 60.002,
        "longitude": 25.004,
        "status": "rejected",
        "reason": "<too few> | _b_",
    }
    of = {"file": "toy.osm.pbf", "sha256": "ab" * 32, "map_date": "2020-02-03T04:05:06Z", "licence": "© somebody"}
    lineage = {
        "maps": {
            "Toy": of
            | {
                "counts": {"buildings": 1234, "lost": 3},
                "losses": {"members are missing in the map": 2, "ring that does not close": 1},
                "unread_heights": {"height=<tall> | very": 4},
            }
        },
        "cities": [city | {"rejected": rejected, "problem": "a <b>small</b> | map"}],
        # One that was not needed was not looked at: it has no place on the map.
        "tiles": [tile, tile | {"id": "toy-9998", "latitude": 61.0, "reason": "not needed"}],
    }
    finish_draft(draft, toy.ATTRIBUTES, lineage)
    write_card(draft.folder)
    return draft.folder


def test_the_map_shows_scenes_and_what_was_rejected_after_a_look(folder):
    states = {place.name: place.state for place in tile_places(load_source(folder))}
    assert states.pop("toy-9999") == "rejected"
    assert states.pop("toy-0003") == "quarantined"
    assert set(states.values()) <= {"train", "validation", "test"}
    assert len(states) == 5


class Tables(HTMLParser):
    """Text of every cell: tables -> rows -> cells."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


def tables_of(folder):
    return Tables((folder / "card.html").read_text(encoding="utf-8")).tables


def table_with(folder, column):
    return next(table for table in tables_of(folder) if column in table[0])


def markdown_tables(folder):
    text = (folder / "card.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]
    return Tables(MarkdownIt().enable("table").render(text)).tables


def test_users_are_those_of_the_arrays(folder):
    data = xr.open_zarr(folder / "data.zarr")
    real = np.arange(data.sizes["user"]) < data["n_users"].values[:, None]
    rows = table_with(folder, "outage")
    for split, los, nlos, outage, users in rows[1:]:
        here = real & (np.ones_like(real) if split == "all" else (data["split"].values == split)[:, None])
        expected = [
            (here & data["los"].values).sum(),
            (here & ~data["los"].values & ~data["outage"].values).sum(),
            (here & data["outage"].values).sum(),
            here.sum(),
        ]
        assert [int(text.split()[0]) for text in (los, nlos, outage, users)] == expected
    assert [row[0] for row in rows[1:]] == ["train", "validation", "test", "all"]


def test_distributions_are_those_of_the_arrays(folder):
    data = xr.open_zarr(folder / "data.zarr")
    test = (data["split"].values == "test") & (data["status"].values == "done")
    heard = ~data["outage"].values & test[:, None]
    values = {
        "path gain of users with a path, dB": data["path_gain"].values[heard],
        "height of built cells of the height map, m": data["height"].values[test][data["height"].values[test] > 0],
        "share of a scene's height map that is built": (data["height"].values[test] > 0).mean((1, 2)),
    }
    rows = {(row[0], row[1]): row[2:] for row in table_with(folder, "median lies in")[1:]}
    for name, expected in values.items():
        count, mean, lowest, highest, median = rows[name, "test"]
        assert int(count.replace(",", "")) == len(expected)
        np.testing.assert_allclose(
            [float(text) for text in (mean, lowest, highest)],
            [expected.mean(), expected.min(), expected.max()],
            rtol=1e-3,
        )
        low, high = map(float, median.split(" to "))
        assert low <= np.sort(expected)[(len(expected) - 1) // 2] <= high


def test_scenes_outcomes_and_heights(folder):
    """Six scenes, one quarantined; one block with a tagged height in each of the others."""
    text = (folder / "card.md").read_text(encoding="utf-8")
    assert "| scenes | 5 of 6 planned |" in text
    cities = table_with(folder, "heights imputed")
    assert cities[1] == ["Toy", "FI", "3", "1", "2", "5", "44", "5", "0%"]
    assert ["quarantined", "1"] in table_with(folder, "planned scenes")
    assert table_with(folder, "why quarantined")[1] == ["scene", "SceneError: toy", "1"]
    assert table_with(folder, "why a candidate tile is no scene")[-1] == ["all", "14"]
    assert table_with(folder, "city that is short")[1] == ["Toy", "a <b>small</b> | map", "1"]
    heights = {row[0]: row[2:] for row in table_with(folder, "mean confidence")[1:]}
    assert heights["tag"] == ["5", "100%", "1.00"]
    assert heights["imputed"] == ["0", "0%", ""]
    assert table_with(folder, "newest edit")[1][2:] == ["2020-02-03", "1,234", "3", "ab" * 32]
    lost = table_with(folder, "not built")
    assert [row for row in lost[1:] if row[0] != "all"] == [
        ["members are missing in the map", "2"],
        ["ring that does not close", "1"],
    ]
    assert table_with(folder, "height tags that could not be read")[1] == ["height=<tall> | very", "4"]


def test_every_array_is_in_the_schema_table_as_stored(folder):
    rows = {row[0]: row[1:] for row in table_with(folder, "dtype")[1:]}
    stored = xr.open_datatree(folder / "data.zarr", engine="zarr")
    arrays = {**stored.dataset.variables, **{f"paths/{k}": v for k, v in stored["paths"].dataset.variables.items()}}
    arrays = {
        name: array for name, array in arrays.items() if name.split("/")[-1] not in stored.coords or "/" not in name
    }
    assert rows.keys() == arrays.keys()
    for name, array in arrays.items():
        dims, shape, dtype, unit, meaning = rows[name]
        assert dims == ", ".join(array.dims)
        assert [int(size.replace(",", "")) for size in shape.split(" × ")] == list(array.shape)
        assert dtype == ("string" if array.dtype.kind in "TOU" else str(array.dtype))
        assert (unit, meaning) == (array.attrs.get("units", ""), array.attrs["long_name"])


def test_statistics_are_those_of_the_version(folder):
    stored = read_json(folder / "statistics.json")
    shown = {row[0]: float(row[1].replace(",", "")) for row in table_with(folder, "statistic")[1:]}
    assert shown == pytest.approx(stored, rel=1e-5)


def test_markdown_says_the_same_as_the_page(folder):
    """Every table of the page, cell by cell, through a Markdown parser; the glance is a list on the page."""
    page, parsed = tables_of(folder), markdown_tables(folder)
    assert parsed[0][0] == ["what", "value"]
    assert [[[cell.strip() for cell in row] for row in table] for table in parsed[1:]] == page


def test_markdown_header_is_that_of_a_dataset_card(folder):
    text = (folder / "card.md").read_text(encoding="utf-8")
    header = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    assert header["license"] == "odbl"
    assert header["size_categories"] == ["n<1K"]
    assert "![" not in text
    assert "<img" not in text


def test_licence_is_named_and_linked(folder):
    for name in ("card.html", "card.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "© OpenStreetMap contributors" in text
        assert "https://www.openstreetmap.org/copyright" in text
        assert "https://opendatacommons.org/licenses/odbl/1-0/" in text
        assert "Share alike" in text
        assert "© somebody" in text


def test_same_version_same_bytes(folder):
    names = ("card.html", "card.md")
    before = [(folder / name).read_bytes() for name in names]
    write_card(folder)
    assert [(folder / name).read_bytes() for name in names] == before
    assert not list(folder.glob("*.partial"))


def test_the_snippets_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    snippets = gather_facts(load_source(folder))["snippets"]
    scope = {}
    exec(snippets["xarray"], scope)
    assert scope["csi"].shape == (8, 32, 32)
    assert np.abs(scope["csi"]).max() > 0
    pytest.importorskip("torch")
    exec(snippets["PyTorch"], scope)
    assert scope["csi"].shape[1:] == (32, 32)


def test_recipe_and_its_consequences(folder, tmp_path):
    """What the recipe left out is named among the limits, and all of its settings are listed."""
    flows = pytest.importorskip("wavecity.flows.recipe")
    copy = tmp_path / "version"
    shutil.copytree(folder, copy)
    recipe = flows.load_recipe("quickstart").model_dump(mode="json")
    for path in (copy / "data.zarr" / "zarr.json",):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["attributes"]["recipe"] = recipe
        write_json(path, content)
    write_card(copy)
    text = (copy / "card.md").read_text(encoding="utf-8")
    assert text.split("\n---\n", 1)[1].lstrip().startswith("# Wavecity channels: quickstart\n")
    assert "Not traced: diffraction, refraction, diffuse scattering." in text
    assert "up to 3 interactions (line of sight, specular) with 200,000 rays" in text
    assert "| `radio.frequency` | `28500000000.0` |" in text
    assert "training" not in text.split("### Recipe")[1].split("## Known limits")[0]

    # Scattering from patches has too many paths to store them all.
    made = "csi is made from the kept ones, path_gain from all.", "csi and path_gain are made from all."
    for sentence, overrides in zip(made, ((), ("solver.diffuse=true", "radio.scattering=0.3")), strict=True):
        content["attributes"]["recipe"] = flows.load_recipe("quickstart", overrides).model_dump(mode="json")
        write_json(path, content)
        assert any(limit.endswith(sentence) for limit in gather_facts(load_source(copy))["limits"])


def test_many_cities_give_a_bounded_page(tmp_path):
    """80 cities, all of them quarantined but one scene: tables are cut, their totals are not."""
    cities, each = 80, 5
    layout = toy.make_layout(scenes=cities * each, unit=100, users=9)
    draft = open_draft(tmp_path, "f" * 64, layout)
    for unit in range(layout.units):
        outcomes, scenes = [], []
        for scene in layout.scenes_of(unit):
            city = scene // each
            done = scene == 7
            outcome = {
                "scene_id": f"s-{scene}",
                "city": f"City {city}",
                "country": f"C{city % 50}",
                "n_users": 9 * done,
            }
            outcome |= {
                "latitude": -50 + city / 2,
                "longitude": -170 + 4 * city,
                "split": "train" if city else "test",
            }
            outcome |= (
                {"status": "done"} if done else {"status": "quarantined", "stage": "scene", "reason": f"E {scene}"}
            )
            outcomes.append(outcome)
            scenes.append(toy.make_arrays(np.random.default_rng(0), 9) if done else None)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    finish_draft(draft, toy.ATTRIBUTES, {})
    write_card(draft.folder)
    assert (draft.folder / "card.html").stat().st_size < 2_000_000
    assert len((draft.folder / "card.md").read_text(encoding="utf-8").splitlines()) < 300
    rows = table_with(draft.folder, "heights imputed")
    assert len(rows) == 1 + 30 + 2
    assert rows[-2][:7] == ["50 more cities", "", "250", "0", "0", "0", "0"]
    assert rows[-1][:7] == ["all", "", "395", "0", "5", "1", "9"]
    # Reasons that differ in a number are one.
    assert table_with(draft.folder, "why quarantined")[1:] == [["scene", "E …", "399"]]


def test_without_paths_and_spectra(tmp_path):
    from dataclasses import replace

    layout = replace(toy.make_layout(scenes=2, unit=1), with_paths=False, with_spectrum=False)
    draft = open_draft(tmp_path, "e" * 64, layout)
    for unit in range(layout.units):
        toy.write_synthetic_unit(draft, unit)
    finish_draft(draft, toy.ATTRIBUTES, {})
    write_card(draft.folder)
    names = Counter(row[0] for row in table_with(draft.folder, "dtype"))
    assert not [name for name in names if name.startswith("paths/") or name == "spectrum"]


def test_object_storage_gives_the_same_card(folder, bucket):
    """The same draft on an S3-compatible server: page, Markdown and Croissant byte by byte."""
    draft = open_draft(f"{bucket}/card", "0123456789abcdef0123", toy.make_layout())
    for unit in draft.missing():
        toy.write_synthetic_unit(draft, unit)
    finish_draft(
        draft, toy.ATTRIBUTES, {k: v for k, v in read_json(folder / "lineage.json").items() if k != "versions"}
    )
    write_card(draft.folder)
    write_croissant(draft.folder)
    write_croissant(folder)
    for name in ("card.html", "card.md", "croissant.json"):
        assert (draft.folder / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.system
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_opens_in_a_browser(folder, width):
    """No console error, no request that leaves the page, every picture decoded, nothing wider than the screen."""
    from playwright.sync_api import sync_playwright

    problems, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url[:80]))
        page.goto((folder / "card.html").as_uri())
        pictures = page.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth, !!i.alt])")
        wide = page.evaluate("document.documentElement.scrollWidth")
        broken = page.evaluate(
            "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href'))).length"
        )
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len(pictures) == 1 + 3 + 1 + 6  # map, a scene a split, a spectrum with line of sight, histograms
    assert all(complete and natural > 300 and alt for complete, natural, alt in pictures)
    assert wide <= width
    assert broken == 0


@pytest.mark.parametrize("name", ["card.html", "card.md"])
def test_the_card_says_how_to_look_at_the_dataset(folder, name):
    assert "wavecity explore STORE" in (folder / name).read_text()
