"""Results of all tasks in the form that `evaluate` leaves them in, from known curves."""

import json

import numpy as np

from wavecity.model.report.claims import CLAIMS
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.table import Record, rows_of, to_frame

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
    """Results in the form that `evaluate` leaves them in, of the run's own checkpoint."""
    checkpoint = json.loads((run / "pretrain.json").read_text())["fingerprint"]
    (run / "results").mkdir(exist_ok=True)
    for task in tasks:
        records, facts, arrays = MAKERS[task](np.random.default_rng(3), data)
        frame = to_frame(records, task)
        frame.to_parquet(run / "results" / f"{task}.parquet", index=False)
        if arrays:
            np.savez_compressed(run / "results" / f"{task}.npz", **arrays)
        result = {
            "task": task, "fingerprint": "f" * 64, "checkpoint": checkpoint, "dataset": "stores/synthetic",
            "dataset_version": version or data.version, "trained_on": data.version, "seed": 7,
            "seeds": int(frame["seed"].nunique()), "seconds": 12.0, "facts": facts,
            "rows": [row.to_dict() for row in rows_of(frame)],
        }  # fmt: skip
        (run / "results" / f"{task}.json").write_text(json.dumps(result))


def outcome_of(records, task="mu-mimo", facts=None, arrays=None):
    return Outcome(
        task, {"facts": facts or {}, "dataset_version": "v", "rows": []}, to_frame(records, task), arrays or {}
    )


def claim_of(key):
    return next(claim for claim in CLAIMS if claim.key == key)
