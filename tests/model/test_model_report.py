"""The report: figures from results tables, claims with their verdicts, one page that a browser opens and prints alone."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic import stored
from synthetic_results import claim_of, leave_results

from wavecity.dataset import InputError
from wavecity.model.figures.curves import draw_mu
from wavecity.model.figures.drawing import style
from wavecity.model.figures.pictures import draw_spectra
from wavecity.model.report.page import write_report
from wavecity.model.report.papers import MULTIMODAL
from wavecity.model.results.claims import judge
from wavecity.model.results.measures import plus_minus
from wavecity.model.results.names import Method
from wavecity.model.results.outcomes import read_outcomes
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.pretrain import pretrain

CLAIMS = MULTIMODAL.claims


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    model = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "height_patch": 20}
    settings = TrainingSettings.model_validate({"model": model, "epochs": 1, "batch_size": 16, "accelerator": "cpu"})
    pretrain(stored(data), settings, folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def report(run, data):
    leave_results(run, data)
    return write_report(run, "synthetic", data=data)


@pytest.fixture(scope="module")
def page(report):
    return report.read_text(encoding="utf-8")


def test_the_rule_is_told_in_the_page_as_it_is_computed(page):
    assert "at least 3 seeds" in page
    assert "less one standard deviation" in page
    assert "2 % or points" in page


def test_the_first_screen_comes_before_tables_and_leads_to_all_of_them(page):
    head = page[: page.index('id="contents"')]
    assert "<table" not in head
    assert "pretrained for" in head
    assert "a verdict needs 3 seeds, 50 tested users and a pretraining on 10,240; this run has 3, 400 and 96" in head
    assert head.count("<img") == 2
    counts = [int(number) for number in re.findall(r'class="tally [a-z-]+">(\d+) ', head)]
    assert sum(counts) == len(CLAIMS)
    # The pretraining on 96 users decides nothing; only the time of an inference does not depend on it.
    assert 'class="tally shown">1 shown<' in head
    contents = page[page.index('id="contents"') : page.index('id="claims"')]
    sections = set(re.findall(r'href="#([a-z]+)"', contents))
    assert sections == {"claims", "size", "ran", "figures", "results", "scenes", "losses", "limits", "terms", "origin"}


def test_the_page_is_small_and_explains_its_terms(page):
    assert len(page.encode()) < 5e6
    terms = page[page.index('id="terms"') :]
    for term in ("[PHYSC]", "CSI", "OMP", "kNN", "LoS", "MLP", "CNN", "t-SNE"):
        assert len(re.findall(rf"<dt>[^<]*{re.escape(term)}[^<]*</dt>", terms)) == 1, term


def test_where_the_paper_has_pictures_only_our_number_is_told_and_not_judged(run):
    outcomes = read_outcomes(run)
    for key, text in (
        ("spectra", "top 5, % (0.94 of the CSI masked): model 92.8, zero-filled DFT 95.3"),
        ("locations", "m (0.94 of the CSI masked): model 28.5, kNN on |DFT| of training scenes 28.9"),
        (
            "occupancy",
            "average precision (0.2 of the height patches masked, along the link): model 0.30, mean of visible neighbours 0.42",
        ),
        ("layouts", "[PHYSC] + MLP 24"),
    ):
        item = judge(claim_of(key), outcomes)
        assert item.verdict == "not judged"
        assert text in item.text


def test_every_claim_has_a_verdict_and_a_place_in_the_page(page, run):
    outcomes = read_outcomes(run)
    expected = {
        "attention": "not judged", "local-clusters": "shown", "local-share": "shown", "local-few": "shown",
        "local-knn": "contradicted", "cross-zero": "shown", "cross-cnn": "contradicted", "mu-clusters": "not shown",
        "mu-top5": "shown", "mu-near": "not shown", "su-rate": "shown", "latency": "shown",
    }  # fmt: skip
    for claim in CLAIMS:
        item = judge(claim, outcomes)
        assert item.verdict == expected.get(claim.key, item.verdict), (claim.key, item)
        assert item.verdict != "not measured", (claim.key, item)
        if claim.figure:
            assert f'href="#figure-{claim.figure}"' in page
            assert f'id="figure-{claim.figure}"' in page
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS)
    assert page.count('class="verdict ') == 2 * len(CLAIMS) - 1  # latency has no figure of its own


def test_the_page_needs_nothing_else(page):
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    targets = {source[1:] for source in sources if source.startswith("#")}
    assert targets <= set(re.findall(r'id="([^"]+)"', page))
    for needle in ("<script", "@import", "url("):
        assert needle not in page
    # Attention, spectra in scenes, locations, spectra, occupancy, two layouts, losses twice, six scenes.
    assert page.count('src="data:image/png;base64,') == 5 + 2 + 2 + 6
    # Figure 5 has four drawings, Figure 6 two, Figures 7, 13, 14 and 15 one each.
    assert page.count('src="data:image/svg+xml;base64,') == 4 + 2 + 4
    for number in (3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15):
        assert f"Figure {number} of the paper" in page
    for words in ("© OpenStreetMap contributors", "ODbL", "What this run does not show", "Mask leak check",
                  "stores" not in page and "synthetic", "that of pretraining", "up to 3 of a task"):  # fmt: skip
        assert words in page, words


def test_the_paper_has_the_authors_of_the_citation(page):
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    first, second = (author["family-names"] for author in citation["references"][0]["authors"])
    assert f"{first} and {second}" in page


def test_tables_give_mean_and_spread(page, run):
    frame = pd.read_parquet(run / "results" / "localization.parquet")
    here = frame[frame["scene"].isna() & (frame["method"] == "raw_cnn") & (frame["x"] == 300)]
    assert f"{here['value'].mean():.1f} ± {here['value'].std():.1f}" in page


def test_the_same_results_give_the_same_pictures(run, page):
    outcomes = read_outcomes(run)
    for again in (draw_mu(outcomes["mu-mimo"]), draw_spectra(outcomes["reconstruction"])):
        assert again in page


def test_a_run_without_results_says_what_to_run(data, run, tmp_path):
    with pytest.raises(InputError, match="no finished pretraining"):
        write_report(tmp_path, "synthetic", data=data)
    shutil.copy(run / "pretrain.json", tmp_path)
    shutil.copytree(run / "logs", tmp_path / "logs")
    text = write_report(tmp_path, "synthetic", data=data).read_text(encoding="utf-8")
    assert "No task has been evaluated yet" in text
    for task in MULTIMODAL.specs:
        assert f"wavecity evaluate RUN --task {task} --data STORE" in text
    assert text.count('class="verdict not-measured"') == 2 * len(CLAIMS) - 1
    assert "Not evaluated in this run: " + ", ".join(MULTIMODAL.specs) in text


def test_without_a_store_the_report_is_of_the_dataset_of_the_pretraining(data, run, tmp_path):
    summary = json.loads((run / "pretrain.json").read_text())
    assert summary["dataset"] == stored(data)
    for dataset, words in ((str(tmp_path / "gone"), "gone"), ("", "pretrain.json names no dataset")):
        (tmp_path / "pretrain.json").write_text(json.dumps(summary | {"dataset": dataset}))
        with pytest.raises(InputError, match=words):
            write_report(tmp_path)


def test_maps_of_another_dataset_are_not_drawn_over_this_one(data, run, tmp_path):
    shutil.copy(run / "pretrain.json", tmp_path)
    leave_results(tmp_path, data, ("localization", "reconstruction"), version="elsewhere")
    text = write_report(tmp_path, "synthetic", data=data).read_text(encoding="utf-8")
    assert text.count("Not drawn: the scenes are those of dataset elsewhere") == 5
    assert "another than that of pretraining" in text
    assert text.count('src="data:image/svg+xml;base64,') == 3


@pytest.mark.parametrize(("values", "unit", "text"), [([0.21, 0.25], "m", "0.23 ± 0.03"), ([12.04, 0.3], "m", "6.2 ± 8.3"),
                                                      ([0.21], "%", "0.2"), ([0.21], "", "0.21"), ([], "m", "-")])  # fmt: skip
def test_less_than_a_metre_has_two_decimals(values, unit, text):
    assert plus_minus(np.array(values), unit) == text


def test_a_method_has_one_colour_that_no_rival_has():
    rivals = (Method.PHYSC_PROBE, Method.PHYSC_FINE_TUNED, Method.RAW_PROBE, Method.TWIN, Method.DFT_PROBE,
              Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.EXHAUSTIVE_SEARCH, Method.UNTRAINED_PROBE,
              Method.MEAN_LABELLED, Method.PHYSC_HEAD)  # fmt: skip
    colours = [style(name)["color"] for name in rivals]
    assert len(set(colours)) == len(colours)
    same = (Method.PHYSC_MLP, Method.PHYSC_PROBE)
    assert len({style(name)["color"] for name in same}) == 1
    assert style(Method.PHYSC_MLP)["linewidth"] > max(style(name)["linewidth"] for name in rivals[2:-1])


chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")


@pytest.mark.system
@chromium
def test_the_page_opens_in_a_browser(report):
    """No console error, no request that leaves the page, every picture decoded, nothing wider than the window."""
    from playwright.sync_api import sync_playwright

    problems, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("request", lambda request: requests.append(request.url[:80]))
        opened.goto(report.as_uri())
        pictures = opened.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth])")
        width = opened.evaluate("document.documentElement.scrollWidth")
        tables = opened.eval_on_selector_all(".wide", "all => all.map(i => i.scrollWidth - i.clientWidth)")
        opened.click("#claims a >> nth=0")
        scrolled = opened.evaluate("window.scrollY")
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len(pictures) == 25
    assert all(complete and natural > 300 for complete, natural in pictures)
    assert width <= 1280
    assert max(tables) <= 1
    assert scrolled > 0


@pytest.mark.system
@chromium
def test_the_page_is_read_on_a_phone(report):
    """Nothing wider than the screen but what is moved sideways; letters of a size to read; rows of claims as cards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        opened = browser.new_page(viewport={"width": 390, "height": 844}, is_mobile=True)
        opened.goto(report.as_uri())
        width = opened.evaluate("document.documentElement.scrollWidth")
        cards = opened.eval_on_selector_all(".claims td", "all => all.map(i => getComputedStyle(i).display)")
        overflowing = opened.eval_on_selector_all(
            "img, table", "all => all.filter(i => i.getBoundingClientRect().right > 391 && !i.closest('.wide')).length"
        )
        sizes = opened.eval_on_selector_all(
            "p, td, dd", "all => all.map(i => parseFloat(getComputedStyle(i).fontSize))"
        )
        browser.close()
    assert width == 390
    assert set(cards) == {"block"}
    assert overflowing == 0
    assert min(sizes) >= 11


@chromium
def test_the_page_prints(report, tmp_path):
    """Landscape pages of A4, and no picture taller than one of them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1040, "height": 720})
        opened.goto(report.as_uri())
        opened.emulate_media(media="print")
        heights = opened.eval_on_selector_all("img", "all => all.map(i => i.getBoundingClientRect().height)")
        opened.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
        browser.close()
    content = (tmp_path / "report.pdf").read_bytes()
    boxes = {tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([^\]]+)\]", content)}
    assert len(boxes) == 1
    left, bottom, right, top = boxes.pop()
    # A4: 297 x 210 mm in points.
    assert (right - left, top - bottom) == pytest.approx((841.9, 595.3), abs=1.5)
    # 188 mm are left between the margins, at 96 pixels an inch.
    assert max(heights) < 188 / 25.4 * 96
    assert len(re.findall(rb"/Type\s*/Page\b", content)) < 40
