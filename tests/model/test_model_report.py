"""The report: claims judged by one rule, figures from results tables, one page that a browser opens and prints alone."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from dataset import InputError
from model import claims, measures
from model.claims import CLAIMS, judge, verdict
from model.drawing import style
from model.figures import draw_spectra
from model.outcomes import TITLES, Outcome, read_outcomes
from model.pretrain import pretrain
from model.report import write_report
from model.results import Record, rows_of, to_frame
from model.settings import TrainingSettings
from model.task_figures import draw_mu

SEEDS = 3
LABELS = (100, 300, 1000)
FEW = (0, 20, 50, 100)
RATIOS = (0.05, 0.1, 0.2, 0.4, 0.8)
LOCAL, CROSS = "Localisation, median error", "Cross-scene localisation, median error"
# Accuracy by hidden layers, over that of a linear probe.
HIDDEN = {"none": 1.0, "32": 0.97, "32-32": 0.94}


def sweep(quantity, condition, method, x, level, unit, better, rng, n=400, noise=0.02):
    """Records of a method whose value at x is level(x), with a little noise over the seeds."""
    return [
        Record(quantity, condition, method, level(value) * (1 + noise * rng.normal()), unit, better, seed, n, value)
        for value in x
        for seed in range(SEEDS)
    ]


def once(quantity, condition, method, value, unit, better, n=400):
    return [Record(quantity, condition, method, value, unit, better, 0, n)]


def localization(rng, data, cross=False):
    quantity, pooled = (CROSS, "unseen scenes") if cross else (LOCAL, "all scenes")
    names = [data.scenes.names[row] for row in (6, 7)]
    errors = {"[PHYSC] + MLP": 12, "[PHYSC], fine-tuned": 11, "raw CSI + CNN": 20, "from-scratch twin": 26,
              "untrained [PHYSC] + MLP": 40, "kNN on |DFT|": 11, "kNN on |DFT| and level": 9.5,
              "mean of labelled users": 70}  # fmt: skip
    records = []
    for condition in (pooled, *(f"scene {name}" for name in names)):
        for method, error in errors.items():
            x = LABELS[-1:] if "tuned" in method or "twin" in method else LABELS
            x = FEW if cross else x
            found = sweep(quantity, condition, method, x, lambda v, e=error: e * (1 + 60 / (v + 60)), "m", "lower", rng)
            # Without labels neighbours do not depend on the seed.
            records += [record for record in found if not (method.startswith("kNN") and record.x == 0 and record.seed)]
        records += once(quantity, condition, "model's location head, no labels", 31.0, "m", "lower")
    true = rng.uniform(-60, 60, (2, 20, 2)) - (0, 90)
    arrays = {
        "layout_scene": np.array([6, 7]),
        "layout_true": true,
        "layout_methods": np.array(["[PHYSC] + MLP", "raw CSI + CNN"]),
        "layout_places": np.stack([true + rng.normal(0, spread, true.shape) for spread in (8, 20)]),
    }
    facts = {"scenes": names, "head_seeds": SEEDS, "learning_rates": {"[PHYSC] + MLP": {"100": [0.003, 0.003]}}}
    if not cross:
        cluster = rng.integers(0, 8, 600)
        centres = rng.normal(0, 30, (8, 2))
        arrays |= {
            "tsne_raw": rng.normal(0, 30, (600, 2)),
            "tsne_physc": centres[cluster] + rng.normal(0, 5, (600, 2)),
            "tsne_cluster": cluster,
        }
        facts |= {"silhouette_raw": -0.02, "silhouette_physc": 0.31}
    return records, facts, arrays


def saturating(top, half):
    return lambda ratio: top * ratio / (ratio + half)


def mu_mimo(rng, data):
    methods = {"[PHYSC], linear probe": saturating(95, 0.02), "raw CSI, linear probe": saturating(72, 0.1),
               "untrained [PHYSC], linear probe": saturating(10, 0.1), "[PHYSC], fine-tuned": saturating(96, 0.02),
               "from-scratch twin": saturating(60, 0.2), "|zero-filled DFT|, linear probe": saturating(93, 0.02)}  # fmt: skip
    fixed = {"model's spectrum, no labels": 93.0, "zero-filled DFT, no labels": 83.0, "OMP, 4 paths, no labels": 91.0}
    records = []
    for quantity, share, unit, n in (
        ("Beam, top-1 accuracy", 0.7, "%", 400),
        ("Beam, top-5 accuracy", 1.0, "%", 400),
        ("MU-MIMO sum-rate", 0.4, "bit/s/Hz", 50),
    ):
        for method, level in methods.items():
            records += sweep(quantity, "linear probe", method, RATIOS, lambda r, f=level, s=share: s * f(r), unit,
                             "higher", rng, n, 0.005)  # fmt: skip
        for method, value in fixed.items():
            records += once(quantity, "linear probe", method, share * value, unit, "higher", n)
        for rate in ("0.001", "0.0001"):
            for hidden in HIDDEN:
                for method, name in (
                    ("[PHYSC], linear probe", "[PHYSC], head"),
                    ("raw CSI, linear probe", "raw CSI, head"),
                ):
                    level = methods[method]
                    records += sweep(quantity, f"hidden {hidden}, learning rate {rate}", name, RATIOS,
                                     lambda r, f=level, s=share * HIDDEN[hidden]: s * f(r), unit,
                                     "higher", rng, n)  # fmt: skip
    records += once("MU-MIMO sum-rate", "linear probe", "exhaustive search", 39.0, "bit/s/Hz", "higher", 50)
    names = ["[PHYSC], linear probe", "raw CSI, linear probe", "OMP, 4 paths, no labels", "exhaustive search"]
    means = np.array([[0.4 * methods[names[0]](r), 0.4 * methods[names[1]](r), 36.4, 39.0] for r in RATIOS])
    cluster = rng.integers(0, 12, 800)
    arrays = {
        "ecdf_ratios": np.array(RATIOS),
        "ecdf_methods": np.array(names),
        "ecdf_rates": means[..., None] + rng.normal(0, 4, (len(RATIOS), len(names), 50)),
        "tsne_raw": rng.normal(0, 30, (800, 2)),
        "tsne_physc": rng.normal(0, 30, (12, 2))[cluster] + rng.normal(0, 4, (800, 2)),
        "tsne_cluster": cluster,
    }
    facts = {"test_scenes": 2, "train_users": 900, "silhouette_raw": 0.01, "silhouette_physc": 0.02, "bound": 44.0}
    return records, facts, arrays


def su_mimo(rng, data):
    methods = {"[PHYSC], fine-tuned": 0.03, "[PHYSC], linear probe": 0.05, "raw CSI, linear probe": 0.15,
               "from-scratch twin": 0.3, "|zero-filled DFT|, linear probe": 0.04}  # fmt: skip
    records = []
    for quantity, top, unit in (
        ("Receive beams, top-2 accuracy", 98, "%"),
        ("Transmit beams, top-2 accuracy", 80, "%"),
        ("Dominant beam pair, accuracy", 75, "%"),
        ("SU-MIMO sum-rate", 14, "bit/s/Hz"),
    ):
        for method, half in methods.items():
            records += sweep(quantity, "two linear probes", method, RATIOS, saturating(top, half), unit, "higher", rng,
                             300, 0.01)  # fmt: skip
        for method, share in (("zero-filled DFT, no labels", 0.7), ("OMP, 4 paths, no labels", 0.85)):
            records += once(quantity, "two linear probes", method, share * top, unit, "higher", 300)
        if unit != "%":
            records += once(quantity, "two linear probes", "exhaustive search", top, unit, "higher", 300)
    return records, {"test_scenes": 2}, {}


def latency(rng, data):
    records = [
        Record("Latency, batch of 1", "encoder with 25% of the CSI and the scene, 1 thread(s)", f"model in {way}",
               value, "ms", "lower", 7, 200)
        for way, value in (("PyTorch", 9.1), ("torch.export", 8.0), ("ONNX Runtime", 4.2))
    ]  # fmt: skip
    return records, {"threads": 1, "difference, ONNX Runtime": {"physc": 2e-6}}, {}


def reconstruction(rng, data):
    """Four users of two held-out scenes, 32 x 32 spectra, 20 x 20 occupancy cells, eight layers."""
    scene = np.array([6, 6, 7, 7])
    samples = data.splits["test"]
    users = np.array([0, 5, 24, 30])
    spectra = np.abs(np.fft.fft2(samples.arrays["csi"][users])) ** 2
    place = samples.arrays["user_position"][users, :2]
    occupied = data.scenes.occupancy.numpy()[scene].astype(float)
    guess = np.where(rng.random(occupied.shape) < 0.2, rng.random(occupied.shape), np.nan)
    arrays = {
        "spectrum_true": spectra, "spectrum_model": spectra**0.7, "spectrum_zero_filled": spectra**0.5,
        "spectrum_users": np.array(["80 m, LoS", "120 m, NLoS", "45 m, LoS", "150 m, NLoS"]),
        "spectrum_scene": scene, "spectrum_position": place, "spectrum_condition": np.array("0.94 of the CSI masked"),
        "location_true": samples.arrays["user_position"][:, :2],
        "location_model": samples.arrays["user_position"][:, :2] + rng.normal(0, 12, (48, 2)),
        "location_scene": samples.scene_index, "spacing": np.array(0.5),
        "occupancy_true": occupied, "occupancy_model": guess, "attention": rng.random((4, 8, 20, 20)),
    }  # fmt: skip
    records = [
        Record(quantity, condition, method, value, unit, better, 7, 48)
        for quantity, condition, unit, better, values in (
            ("Masked CSI, normalised squared error", "0.94 of the CSI masked", "dB", "lower",
             {"model": -0.1, "OMP, 16 paths": -4.9, "LMMSE": -0.3, "zeros": 0.0}),
            ("Hidden location, median error", "0.94 of the CSI masked", "m", "lower",
             {"model": 28.5, "kNN on |DFT| of training scenes": 28.9, "mean of training users": 79.4}),
            ("Strongest direction of the spectrum, top 5", "0.5 of the CSI masked", "%", "higher",
             {"zero-filled DFT": 99.5, "model": 98.0}),
            ("Strongest direction of the spectrum, top 5", "0.94 of the CSI masked", "%", "higher",
             {"zero-filled DFT": 95.3, "model": 92.8}),
            ("Masked occupancy, average precision", "0.2 masked", "", "higher",
             {"model": 0.30, "mean of visible neighbours": 0.42, "prevalence": 0.2}),
        )
        for method, value in values.items()
    ]  # fmt: skip
    facts = {"test_users": 48, "test_scenes": 2, "mask_leak_check": {"true_link_m": 30.0, "decoy_link_m": 30.5}}
    return records, facts, arrays


MAKERS = {
    "reconstruction": reconstruction,
    "localization": localization,
    "cross-localization": lambda rng, data: localization(rng, data, cross=True),
    "mu-mimo": mu_mimo,
    "su-mimo": su_mimo,
    "latency": latency,
}


def leave_results(run, data, tasks=tuple(MAKERS), version=None):
    """Results in the form that `evaluate` leaves them in."""
    (run / "results").mkdir(exist_ok=True)
    for task in tasks:
        records, facts, arrays = MAKERS[task](np.random.default_rng(3), data)
        frame = to_frame(records, task)
        frame.to_parquet(run / "results" / f"{task}.parquet", index=False)
        if arrays:
            np.savez_compressed(run / "results" / f"{task}.npz", **arrays)
        result = {
            "task": task, "fingerprint": "f" * 64, "checkpoint": "c" * 64, "dataset": "stores/synthetic",
            "dataset_version": version or data.version, "trained_on": data.version, "seed": 7,
            "seeds": int(frame["seed"].nunique()), "seconds": 12.0, "facts": facts,
            "rows": [row.to_dict() for row in rows_of(frame)],
        }  # fmt: skip
        (run / "results" / f"{task}.json").write_text(json.dumps(result))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    model = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "height_patch": 20}
    settings = TrainingSettings.model_validate({"model": model, "epochs": 1, "batch_size": 16, "accelerator": "cpu"})
    pretrain("synthetic", settings, folder, seed=1, data=data)
    return folder


@pytest.fixture(scope="module")
def report(run, data):
    leave_results(run, data)
    return write_report(run, "synthetic", data=data)


@pytest.fixture(scope="module")
def page(report):
    return report.read_text(encoding="utf-8")


def outcome_of(records, task="mu-mimo", facts=None, arrays=None):
    return Outcome(
        task, {"facts": facts or {}, "dataset_version": "v", "rows": []}, to_frame(records, task), arrays or {}
    )


def claim_of(key):
    return next(claim for claim in CLAIMS if claim.key == key)


@pytest.mark.parametrize(
    ("gains", "size", "opposite", "expected"),
    [
        ((24, 25, 26), 20, -2, "shown"),  # mean 25, standard deviation 1
        ((15, 25, 35), 20, -2, "not shown"),  # 25 - 10 is below 20
        ((20.5, 21.5, 22.5), 20, -2, "shown"),
        ((20.2, 21.0, 21.8), 20.25, -2, "not shown"),  # 21 - 0.8 = 20.2
        ((-4, -5, -6), 20, -2, "contradicted"),  # -5 + 1 = -4
        ((-2, -3, -4), 20, -2, "not shown"),  # -3 + 1 = -2 is not below -2
        ((30, 31), 20, -2, "not shown"),  # two seeds
        ((30, float("nan"), 31, 32), 20, -2, "shown"),
        ((float("nan"),) * 3, 20, -2, "not measured"),
    ],
)
def test_the_rule(gains, size, opposite, expected):
    claim = claims.Claim("k", "5", "s", "t", "c", "mu-mimo", None, size, opposite)
    assert verdict(claim, np.array(gains, float)) == expected


def test_the_rule_is_told_in_the_page_as_it_is_computed(page):
    assert "at least 3 seeds" in page
    assert "less one standard deviation" in page
    assert "2 % or points" in page


def test_a_gain_is_the_mean_over_labels_of_paired_differences():
    """Two labels, three seeds, by hand."""
    ours = {100: (10.0, 11.0, 12.0), 300: (8.0, 8.0, 9.0)}
    cnn = {100: (20.0, 20.0, 24.0), 300: (16.0, 10.0, 12.0), 1000: (1.0, 1.0, 1.0)}
    records = [
        Record(LOCAL, "all scenes", name, value, "m", "lower", seed, 50, x)
        for name, table in (("[PHYSC] + MLP", ours), ("raw CSI + CNN", cnn))
        for x, values in table.items()
        for seed, value in enumerate(values)
    ]
    found = claim_of("local-share").measure(outcome_of(records, "localization"))
    np.testing.assert_allclose(found.gains, [(50 + 50) / 2, (45 + 20) / 2, (50 + 25) / 2])
    assert "[PHYSC] + MLP 9.7 ± 0.8" in found.text  # means 9, 9.5, 10.5
    assert found.samples == "50 users · labels 100, 300 · 3 seeds"
    metres = claim_of("local-metres").measure(outcome_of(records, "localization"))
    np.testing.assert_allclose(metres.gains, [9, 5.5, 7.5])
    few = claim_of("local-few").measure(outcome_of(records, "localization"))
    np.testing.assert_allclose(few.gains, [10 - 8, 9 - 2, 12 - 3])


def test_the_best_rival_counts_and_what_takes_no_labels_stands_at_every_ratio():
    records = []
    for name, values in (("[PHYSC], linear probe", (80, 90)), ("|zero-filled DFT|, linear probe", (60, 70))):
        for x, value in zip((0.1, 0.2), values, strict=True):
            records += [
                Record(measures.TOP5, "linear probe", name, value + s, "%", "higher", s, 9, x) for s in range(3)
            ]
    records.append(Record(measures.TOP5, "linear probe", "OMP, 4 paths, no labels", 91.0, "%", "higher", 0, 9))
    found = claim_of("mu-simple").measure(outcome_of(records))
    np.testing.assert_allclose(found.gains, [85 - 91, 86 - 91, 87 - 91])
    assert "OMP, 4 paths, no labels 91.0" in found.text
    assert judge(claim_of("mu-simple"), {"mu-mimo": outcome_of(records)}).verdict == "contradicted"


def test_zero_shot_and_adaptation():
    values = {"[PHYSC] + MLP": {0: 20.0, 20: 18.0, 100: 15.0}, "raw CSI + CNN": {0: 40.0, 20: 44.0, 100: 30.0}}
    records = [
        Record(CROSS, "unseen scenes", name, value + 0.1 * seed, "m", "lower", seed, 80, x)
        for name, table in values.items()
        for x, value in table.items()
        for seed in range(3)
    ]
    # One record stands for all seeds where nothing depends on them.
    records += [Record(CROSS, "unseen scenes", "kNN on |DFT|", 30.0, "m", "lower", 0, 80, 0)]
    records += [Record(CROSS, "unseen scenes", "kNN on |DFT|", 10.0, "m", "lower", s, 80, 20) for s in range(3)]
    outcomes = {"cross-localization": outcome_of(records, "cross-localization")}
    judged = {key: judge(claim_of(key), outcomes) for key in ("cross-zero", "cross-more", "cross-cnn", "cross-knn")}
    assert {key: item.verdict for key, item in judged.items()} == {
        "cross-zero": "shown",
        "cross-more": "shown",
        "cross-cnn": "shown",
        "cross-knn": "contradicted",
    }
    np.testing.assert_allclose(claim_of("cross-more").measure(outcomes["cross-localization"]).gains[0], 25.0)
    np.testing.assert_allclose(claim_of("cross-cnn").measure(outcomes["cross-localization"]).gains[0], 10.0)
    # 0 labels: (30 - 20)/30, 20 labels: (10 - 18)/10.
    np.testing.assert_allclose(
        claim_of("cross-knn").measure(outcomes["cross-localization"]).gains[0], 100 * (1 / 3 - 0.8) / 2
    )


def test_share_of_the_bound_fewer_labels_and_the_ratio_the_paper_names():
    rate, probe = "MU-MIMO sum-rate", "linear probe"
    records = []
    for name, values in (("[PHYSC], linear probe", (30, 38, 39)), ("raw CSI, linear probe", (10, 20, 37))):
        for x, value in zip((0.05, 0.2, 0.8), values, strict=True):
            records += [Record(rate, probe, name, value, "bit/s/Hz", "higher", s, 12, x) for s in range(3)]
    records.append(Record(rate, probe, "exhaustive search", 39.5, "bit/s/Hz", "higher", 0, 12))
    outcome = outcome_of(records)
    np.testing.assert_allclose(claim_of("mu-near").measure(outcome).gains, 100 * 38 / 39.5)
    np.testing.assert_allclose(claim_of("mu-fewer").measure(outcome).gains, 100 * (38 - 37) / 37)
    assert claim_of("mu-near").measure(outcome).samples == "12 clusters · labels 20 % · 3 seeds"
    # 10 % was not run, 5 and 20 % are as near as is allowed; nothing within a factor of two of 0.3 % is.
    assert measures._row_at(np.array([0.05, 0.2, 0.8]), 0.1) in (0, 1)
    assert measures._row_at(np.array([0.2, 0.8]), 0.05) is None
    assert claim_of("su-rate").measure(outcome) is None


def test_the_weakest_head_counts():
    records = []
    for hidden, ours in (("none", 50), ("32", 43), ("32-32", 60)):
        for name, value in (("[PHYSC], head", ours), ("raw CSI, head", 40)):
            where = f"hidden {hidden}, learning rate 0.001"
            records += [Record(measures.TOP5, where, name, value, "%", "higher", s, 9, 0.1) for s in range(3)]
    found = claim_of("heads-large").measure(outcome_of(records))
    np.testing.assert_allclose(found.gains, 3)
    assert "hidden 32, learning rate 0.001" in found.text
    assert judge(claim_of("heads-small"), {"mu-mimo": outcome_of(records)}).verdict == "not measured"


def test_silhouettes_and_milliseconds():
    facts = {"silhouette_raw": 0.01, "silhouette_physc": 0.2}
    outcomes = {"mu-mimo": outcome_of([], facts=facts, arrays={"tsne_cluster": np.array([0, 0, 1, 2])})}
    item = judge(claim_of("mu-clusters"), outcomes)
    assert (item.verdict, item.samples) == ("shown", "4 users · 3 clusters · one draw")
    for slowest, expected in ((4.0, "shown"), (40.0, "not shown"), (150.0, "contradicted")):
        records = [
            Record("Latency, batch of 1", where, f"model in {way}", value, "ms", "lower", 5, 200)
            for where, way, value in (
                ("a", "PyTorch", 2 * slowest),
                ("a", "ONNX Runtime", slowest),
                ("b", "PyTorch", 1.0),
            )
        ]
        item = judge(claim_of("latency"), {"latency": outcome_of(records, "latency")})
        assert item.verdict == expected
        assert f"{slowest:.2f} ms by model in ONNX Runtime (a)" in item.text


def test_where_the_paper_has_pictures_only_our_number_is_told_and_not_judged(run):
    outcomes = read_outcomes(run)
    for key, text in (
        ("spectra", "top 5, % (0.94 of the CSI masked): model 92.8, zero-filled DFT 95.3"),
        ("locations", "m (0.94 of the CSI masked): model 28.5, kNN on |DFT| of training scenes 28.9"),
        ("occupancy", "average precision (0.2 masked): model 0.30, mean of visible neighbours 0.42"),
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
    # Attention, spectra in scenes, locations, spectra, occupancy, two layouts, losses, six scenes.
    assert page.count('src="data:image/png;base64,') == 5 + 2 + 1 + 6
    # Figure 5 has four drawings, Figure 6 two, Figures 7, 13, 14 and 15 one each.
    assert page.count('src="data:image/svg+xml;base64,') == 4 + 2 + 4
    for number in (3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15):
        assert f"Figure {number} of the paper" in page
    for words in ("© OpenStreetMap contributors", "ODbL", "What this run does not show", "Mask leak check",
                  "stores" not in page and "synthetic", "that of pretraining", "up to 3 of a task"):  # fmt: skip
        assert words in page, words


def test_tables_give_mean_and_spread(page, run):
    frame = pd.read_parquet(run / "results" / "localization.parquet")
    here = frame[(frame["condition"] == "all scenes") & (frame["method"] == "raw CSI + CNN") & (frame["x"] == 300)]
    assert f"{here['value'].mean():.1f} ± {here['value'].std():.1f}" in page


def test_the_same_results_give_the_same_pictures(run, page):
    outcomes = read_outcomes(run)
    for again in (draw_mu(outcomes["mu-mimo"]), draw_spectra(outcomes["reconstruction"].arrays)):
        assert again in page


def test_a_run_without_results_says_what_to_run(data, run, tmp_path):
    with pytest.raises(InputError, match="no finished pretraining"):
        write_report(tmp_path, "synthetic", data=data)
    shutil.copy(run / "pretrain.json", tmp_path)
    shutil.copytree(run / "logs", tmp_path / "logs")
    text = write_report(tmp_path, "synthetic", data=data).read_text(encoding="utf-8")
    assert "No task has been evaluated yet" in text
    for task in TITLES:
        assert f"wavecity evaluate RUN --task {task} --data STORE" in text
    assert text.count('class="verdict not-measured"') == 2 * len(CLAIMS) - 1
    assert "Not evaluated in this run: " + ", ".join(TITLES) in text


def test_without_a_store_the_report_is_of_the_dataset_of_the_pretraining(run, tmp_path):
    summary = json.loads((run / "pretrain.json").read_text())
    assert summary["dataset"] == "synthetic"
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


def test_a_method_has_one_colour_that_no_rival_has():
    rivals = ("[PHYSC], linear probe", "[PHYSC], fine-tuned", "raw CSI, linear probe", "from-scratch twin",
              "|zero-filled DFT|, linear probe", "zero-filled DFT, no labels", "OMP, 4 paths, no labels",
              "exhaustive search", "untrained [PHYSC], linear probe", "kNN on |DFT| and level",
              "mean of labelled users")  # fmt: skip
    colours = [style(name)["color"] for name in rivals if not name.startswith("kNN")]
    assert len(set(colours)) == len(colours)
    assert style("[PHYSC] + MLP")["color"] == style("[PHYSC], head")["color"] == style("[PHYSC], linear probe")["color"]
    assert style("[PHYSC] + MLP")["linewidth"] > max(style(name)["linewidth"] for name in rivals[2:])


chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")


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
    assert len(pictures) == 24
    assert all(complete and natural > 300 for complete, natural in pictures)
    assert width <= 1280
    assert max(tables) <= 1
    assert scrolled > 0


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
