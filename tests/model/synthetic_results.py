"""Results of all tasks in the form that `evaluate` leaves them in, from known curves."""

import json

import numpy as np

from wavecity.model.report.papers import MULTIMODAL
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import WHOLE, Condition, Record, write_records
from wavecity.model.results.rows import frame_of

SEEDS = 3
# Methods that depend on settings or sizes: fewer paths than a pursuit may use, arrays too large, no training asked for.
OPTIONAL = {Method.OMP_BEAM, Method.SBL, Method.PHYSICS, Method.FIRST_GUESS}
LABELS = (100, 300, 1000)
FEW = (0, 20, 50, 100)
RATIOS = (0.05, 0.1, 0.2, 0.4, 0.8)
# Accuracy by hidden layers, over that of a linear probe.
HIDDEN = {"none": 1.0, "32": 0.97, "32-32": 0.94}


def sweep(metric, method, x, level, rng, n=400, noise=0.02, condition=WHOLE):
    """Records of a method whose value at x is level(x), with a little noise over the seeds."""
    return [
        Record(metric, method, level(value) * (1 + noise * rng.normal()), seed, n, value, condition)
        for value in x
        for seed in range(SEEDS)
    ]


def localization(rng, data, cross=False):
    metric = Metric.CROSS_LOCATION_ERROR if cross else Metric.LOCATION_ERROR
    names = [data.scenes.names[row] for row in (6, 7)]
    errors = {Method.PHYSC_MLP: 12, Method.PHYSC_FINE_TUNED: 11, Method.RAW_CNN: 20, Method.TWIN: 26,
              Method.UNTRAINED_MLP: 40, Method.KNN: 11, Method.KNN_LEVEL: 9.5, Method.MEAN_LABELLED: 70}  # fmt: skip
    records = []
    for condition in (WHOLE, *(Condition(scene=name) for name in names)):
        for method, error in errors.items():
            x = LABELS[-1:] if method in (Method.PHYSC_FINE_TUNED, Method.TWIN) else LABELS
            x = FEW if cross else x
            found = sweep(metric, method, x, lambda v, e=error: e * (1 + 60 / (v + 60)), rng, condition=condition)
            # Without labels neighbours do not depend on the seed.
            neighbours = method in (Method.KNN, Method.KNN_LEVEL)
            records += [record for record in found if not (neighbours and record.x == 0 and record.seed)]
        records.append(Record(metric, Method.MODEL_LOCATION_HEAD, 31.0, 0, 400, condition=condition))
        records.append(Record(metric, Method.PHYSICS, 14.0, 0, 400, condition=condition))
    true = rng.uniform(-60, 60, (2, 20, 2)) - (0, 90)
    arrays = {
        "layout_scene": np.array([6, 7]),
        "layout_true": true,
        "layout_methods": np.array([Method.PHYSC_MLP, Method.RAW_CNN]),
        "layout_places": np.stack([true + rng.normal(0, spread, true.shape) for spread in (8, 20)]),
    }
    facts = {"scenes": names, "head_seeds": SEEDS, "learning_rates": {Method.PHYSC_MLP: {"100": [0.003, 0.003]}}}
    if not cross:
        cluster = rng.integers(0, 8, 600)
        centres = rng.normal(0, 30, (8, 2))
        arrays |= {
            "tsne_raw": rng.normal(0, 30, (600, 2)),
            "tsne_physc": centres[cluster] + rng.normal(0, 5, (600, 2)),
            "tsne_cluster": cluster,
        }
        facts |= {"silhouette_raw": -0.02, "silhouette_physc": 0.31}
        records += silhouettes(0.31, -0.02, 600)
    return records, facts, arrays


def silhouettes(physc, raw, n):
    return [
        Record(Metric.SILHOUETTE, method, value, 0, n) for method, value in ((Method.PHYSC, physc), (Method.RAW, raw))
    ]


def saturating(top, half):
    return lambda ratio: top * ratio / (ratio + half)


def mu_mimo(rng, data):
    methods = {Method.PHYSC_PROBE: saturating(95, 0.02), Method.RAW_PROBE: saturating(72, 0.1),
               Method.UNTRAINED_PROBE: saturating(10, 0.1), Method.PHYSC_FINE_TUNED: saturating(96, 0.02),
               Method.TWIN: saturating(60, 0.2), Method.DFT_PROBE: saturating(93, 0.02)}  # fmt: skip
    fixed = {Method.MODEL_SPECTRUM_BEAM: 93.0, Method.ZERO_FILLED_BEAM: 83.0, Method.OMP_4_BEAM: 91.0}
    heads = {Method.PHYSC_HEAD: Method.PHYSC_PROBE, Method.RAW_HEAD: Method.RAW_PROBE}
    records = []
    for metric, share, n in ((Metric.BEAM_TOP1, 0.7, 400), (Metric.BEAM_TOP5, 1.0, 400), (Metric.MU_RATE, 0.4, 50)):
        for method, level in methods.items():
            records += sweep(metric, method, RATIOS, lambda r, f=level, s=share: s * f(r), rng, n, 0.005)
        records += [Record(metric, method, share * value, 0, n) for method, value in fixed.items()]
        for rate in (1e-3, 1e-4):
            for hidden in HIDDEN:
                for head, probe in heads.items():
                    level, where = methods[probe], Condition(hidden_layers=hidden, learning_rate=rate)
                    records += sweep(metric, head, RATIOS, lambda r, f=level, s=share * HIDDEN[hidden]: s * f(r), rng, n,
                                     condition=where)  # fmt: skip
    records.append(Record(Metric.MU_RATE, Method.EXHAUSTIVE_SEARCH, 39.0, 0, 50))
    records += silhouettes(0.02, 0.01, 800)
    names = [Method.PHYSC_PROBE, Method.RAW_PROBE, Method.OMP_4_BEAM, Method.EXHAUSTIVE_SEARCH]
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
    methods = {Method.PHYSC_FINE_TUNED: 0.03, Method.PHYSC_PROBE: 0.05, Method.RAW_PROBE: 0.15, Method.TWIN: 0.3,
               Method.DFT_PROBE: 0.04}  # fmt: skip
    fixed = {Method.ZERO_FILLED_BEAM: 0.7, Method.OMP_4_BEAM: 0.85}
    tops = {Metric.RECEIVE_TOP2: 98, Metric.TRANSMIT_TOP2: 80, Metric.BEAM_PAIR: 75, Metric.SU_RATE: 14}
    records = []
    for metric, top in tops.items():
        for method, half in methods.items():
            records += sweep(metric, method, RATIOS, saturating(top, half), rng, 300, 0.01)
        records += [Record(metric, method, share * top, 0, 300) for method, share in fixed.items()]
    records.append(Record(Metric.SU_RATE, Method.EXHAUSTIVE_SEARCH, tops[Metric.SU_RATE], 0, 300))
    return records, {"test_scenes": 2}, {}


def latency(rng, data):
    where = Condition(csi_masked=0.75, threads=1)
    ways = {Method.MODEL_PYTORCH: 9.1, Method.MODEL_TORCH_EXPORT: 8.0, Method.MODEL_ONNX: 4.2}
    records = [Record(Metric.LATENCY, method, value, 7, 200, condition=where) for method, value in ways.items()]
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
        "spectrum_scene": scene, "spectrum_position": place, "spectrum_masked": np.array(0.94),
        "location_true": samples.arrays["user_position"][:, :2],
        "location_model": samples.arrays["user_position"][:, :2] + rng.normal(0, 12, (48, 2)),
        "location_scene": samples.scene_index, "spacing": np.array(0.5),
        "occupancy_true": occupied, "occupancy_model": guess, "attention": rng.random((4, 8, 20, 20)),
    }  # fmt: skip
    half, few, scene_masked = Condition(csi_masked=0.5), Condition(csi_masked=0.94), Condition(scene_masked=0.2)
    records = [
        Record(metric, method, value, 7, 48, condition=condition, paths=16 if method == Method.OMP else None)
        for metric, condition, values in (
            (Metric.CSI_NMSE, few, {Method.MODEL: -0.1, Method.OMP: -4.9, Method.LMMSE: -0.3, Method.ZEROS: 0.0}),
            (Metric.HIDDEN_LOCATION_ERROR, few,
             {Method.MODEL: 28.5, Method.KNN_TRAINING: 28.9, Method.MEAN_TRAINING: 79.4}),
            (Metric.DIRECTION_TOP5, half, {Method.ZERO_FILLED: 99.5, Method.MODEL: 98.0}),
            (Metric.DIRECTION_TOP5, few, {Method.ZERO_FILLED: 95.3, Method.MODEL: 92.8}),
            (Metric.OCCUPANCY_PRECISION, scene_masked,
             {Method.MODEL: 0.30, Method.NEIGHBOUR_MEAN: 0.42, Method.PREVALENCE: 0.2}),
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
        write_records(run / "results" / f"{task}.parquet", records, task, checkpoint, version or data.version)
        if arrays:
            np.savez_compressed(run / "results" / f"{task}.npz", **arrays)
        result = {
            "task": task, "fingerprint": "f" * 64, "checkpoint": checkpoint, "dataset": "stores/synthetic",
            "dataset_version": version or data.version, "trained_on": data.version, "seed": 7,
            "seeds": len({record.seed for record in records}), "seconds": 12.0, "facts": facts,
        }  # fmt: skip
        (run / "results" / f"{task}.json").write_text(json.dumps(result))


def outcome_of(records, task="mu-mimo", facts=None, arrays=None):
    return Outcome(task, {"facts": facts or {}, "dataset_version": "v"}, frame_of(records), arrays or {})


def claim_of(key):
    return next(claim for claim in MULTIMODAL.claims if claim.key == key)


def selected(select, outcome):
    """Records of the methods that a claim is about, under its conditions."""
    methods = {*select.own, *select.rivals} or set(outcome.methods(select.metric))
    conditions, frame = select.conditions(outcome), outcome.frame[outcome.frame["metric"] == select.metric]
    return [one for one in frame.itertuples() if one.condition in conditions and one.method in methods]


def check_spec(spec, findings):
    """What a task says of itself is in what it gives: every claim and figure finds its records, methods are declared."""
    outcome = outcome_of(findings.records, spec.name, findings.facts, findings.arrays)
    for claim in spec.claims:
        assert claim.task == spec.name
        if claim.select is None:
            continue
        assert selected(claim.select, outcome), claim.key
        assert {*claim.select.own, *claim.select.rivals} <= {*outcome.methods(claim.select.metric)} | OPTIONAL, (
            claim.key
        )
    for figure in spec.figures:
        assert all(part.there(outcome) for part in figure.parts), figure.title
    methods = {record.method for record in findings.records}
    assert {method for method in methods if not method.ours} <= {*spec.baselines}
    assert {*spec.baselines} - methods <= OPTIONAL
