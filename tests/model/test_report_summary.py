"""The report's first screen: three sentences, counts of verdicts, a scene and the losses; terms explained; bytes kept small."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic_results import claim_of, outcome_of

from wavecity.model.figures.curves import draw_local
from wavecity.model.figures.drawing import picture
from wavecity.model.figures.parts import rebuild
from wavecity.model.figures.pictures import few_points
from wavecity.model.report.papers import MULTIMODAL, TEMPORAL
from wavecity.model.report.summary import TERMS, first_screen, glossary_of, needed_users, small_pretraining
from wavecity.model.results.claims import Judged
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Missing
from wavecity.model.results.records import Record

SUMMARY = {
    "seconds": 57.0, "parameters": 495_143, "train_users": 24, "train_scenes": 2, "epochs": 1, "seed": 0,
    "geometry": {"columns": 32, "rows": 32},
}  # fmt: skip


def judged(**verdicts):
    keys = [claim.key for claim in MULTIMODAL.claims]
    found = [name.replace("_", " ") for name, number in verdicts.items() for _ in range(number)]
    return [Judged(claim_of(key), verdict, "", "") for key, verdict in zip(keys, found, strict=False)]


def screen(items, outcomes=None, missing=None):
    return first_screen(SUMMARY, "Helsinki", outcomes or {}, missing or {}, items, MULTIMODAL)


def records(labels, users=20):
    return [Record(Metric.LOCATION_ERROR, Method.PHYSC_MLP, 10.0, seed, users, x) for x in labels for seed in range(2)]


def test_three_sentences_say_what_was_trained_what_it_shows_and_what_it_cannot():
    outcomes = {"localization": outcome_of(records([6, 12]), "localization")}
    first = screen(judged(too_small_to_tell=5, not_judged=2), outcomes)
    trained, shows, cannot = first["sentences"]
    for words in ("495,143 parameters", "for 57 s", "24 users of 2 scenes (Helsinki)", "1 epoch", "up to 20 held-out users",
                  "the paper: 3.5 M users"):  # fmt: skip
        assert words in trained
    assert "of 7 claims" in shows
    assert "decides none" in shows
    assert "too small for 5 claims: a verdict needs 3 seeds, 50 tested users and a pretraining on 10,240" in cannot
    assert "this run has 2, 20 and 24" in cannot
    assert first["counts"] == [("too small to tell", 5), ("not judged", 2)]


def test_what_is_shown_and_contradicted_is_counted_with_an_example_of_each():
    items = judged(shown=2, contradicted=1, not_shown=3)
    first = screen(items)
    assert first["counts"] == [("shown", 2), ("not shown", 3), ("contradicted", 1)]
    shows = first["sentences"][1]
    assert f"bears out 2 (such as “{items[0].claim.text.rstrip('.')}”)" in shows
    assert f"contradicts 1 (“{items[2].claim.text.rstrip('.')}”)" in shows
    assert "too small" not in first["sentences"][2]


def test_what_was_to_be_there_and_is_not_stands_on_the_first_screen():
    missing = {"localization": Missing("not possible: too few"), "mu-mimo": Missing("not run", "wavecity evaluate"),
               "su-mimo": Missing("left out: of another training", "wavecity evaluate")}  # fmt: skip
    notes = screen([], missing=missing)["notes"]
    assert notes == ["localization: not possible: too few", "su-mimo: left out: of another training: wavecity evaluate"]


@pytest.mark.parametrize(
    ("shape", "needed"), [({"geometry": {"columns": 32, "rows": 32}}, 10_240), ({"grid": [24, 32, 8]}, 320)]
)
def test_a_pretraining_needs_ten_users_for_each_beam(shape, needed):
    assert needed_users(shape) == needed
    assert small_pretraining(shape | {"train_users": needed}) == ""
    assert f"{needed - 1:,} of {needed:,} users" in small_pretraining(shape | {"train_users": needed - 1})


def test_every_term_of_the_page_is_explained_once_and_no_other():
    page = "<style>.OMP { }</style><p title='GRU'>[PHYSC] and CSI at 10 dB <b>SNR</b></p>"
    assert [term for term, _ in glossary_of(page)] == ["[PHYSC]", "CSI", "LoS, NLoS", "SNR", "dB"]
    names = [term for term, _, _ in TERMS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("paper", [MULTIMODAL, TEMPORAL])
def test_no_abbreviation_of_the_claims_is_without_explanation(paper):
    text = " ".join(f"{claim.text} {claim.counted}" for claim in paper.claims)
    capitals = set(re.findall(r"\b[A-Z]{2,}[a-z]?\b", text))
    explained = " ".join(term for term, _ in glossary_of(text))
    assert {word for word in capitals if word not in explained} == set()


def test_few_points_are_no_curve_and_the_page_says_so(monkeypatch):
    outcome = outcome_of(records([6, 12]), "localization")
    figure = next(figure for figure in MULTIMODAL.figures if figure.number == "5")
    shown = rebuild(figure, {"localization": outcome}, lambda _: None, {"cross-localization": Missing("not run")})
    captions = [picture["caption"] for picture in shown.pictures]
    assert any("Only 2 points: too few to read a course from." in caption for caption in captions)
    more = outcome_of(records([6, 12, 24]), "localization")
    shown = rebuild(figure, {"localization": more}, lambda _: None, {"cross-localization": Missing("not run")})
    assert not any("too few" in picture["caption"] for picture in shown.pictures)
    # The panel itself says it too, for whoever copies the picture alone.
    monkeypatch.setattr("wavecity.model.figures.curves.drawing", lambda figure, *_: figure)
    titles = [draw_local(one).axes[0].get_title() for one in (outcome, more)]
    assert [" · 2 points only" in title for title in titles] == [True, False]


def test_one_validation_of_the_loss_is_no_course():
    def curves(number):
        return {"train": {"total": ([0], [1.0])}, "validation": {"total": (list(range(number)), [1.0] * number)}}

    assert few_points(curves(1)) == "1 validation point: too few to tell where training leads"
    assert few_points(curves(2)).startswith("2 validation points")
    assert few_points(curves(3)) == ""


def test_pictures_keep_their_look_in_a_third_of_the_bytes():
    def drawing():
        figure = Figure(figsize=(5, 4))
        axes = figure.subplots()
        axes.imshow(np.random.default_rng(0).random((20, 20)), cmap="inferno")
        axes.scatter(*np.random.default_rng(1).random((2, 50)) * 19, c=np.arange(50), cmap="plasma")
        return figure

    plain = io.BytesIO()
    drawing().savefig(plain, format="png", dpi=130)
    small = base64.b64decode(picture(drawing()).partition(",")[2])
    assert len(small) < 0.6 * len(plain.getvalue())
    before, after = (np.asarray(Image.open(data).convert("RGB"), float) for data in (plain, io.BytesIO(small)))
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < 3
