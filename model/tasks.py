"""Evaluation of a pretrained run: (checkpoint, dataset version, settings) -> results table -> figures of the report."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset import InputError
from dataset.files import atomic_path, read_json, write_json
from model.cross_scene import cross_localization
from model.data import SPLITS, WirelessData, dataset_version, geometry_of, load_data
from model.export import latency
from model.inference import Predictor
from model.localization import localization
from model.mu_mimo import mu_mimo
from model.pretrain import load_model
from model.reconstruction import reconstruction
from model.results import Findings, rows_of, to_frame
from model.settings import EvaluationSettings, TrainingSettings
from model.su_mimo import su_mimo
from model.trainer import cpu_threads

# Raised when rows or arrays of a task change: results of before are then made anew.
RESULTS = 3


@dataclass(frozen=True)
class Task:
    """A task and the splits that its dataset must have."""

    run: Callable[[Predictor, WirelessData, EvaluationSettings, int], Findings]
    splits: tuple[str, ...] = SPLITS


TASKS = {
    "reconstruction": Task(reconstruction),
    "localization": Task(localization, ("test",)),
    "cross-localization": Task(cross_localization),
    "mu-mimo": Task(mu_mimo),
    "su-mimo": Task(su_mimo),
    "latency": Task(latency, ("test",)),
}


def evaluate(
    run: Path,
    store: str,
    task: str,
    settings: TrainingSettings,
    seed: int,
    data: WirelessData | None = None,
) -> dict[str, Any]:
    """Evaluate a run and leave `results/<task>.parquet`, `.json` and, for the figures, `.npz` in it.

    A result of the same checkpoint, dataset version, evaluation settings and seed is returned as it is.

    Parameters
    ----------
    run : Path
        Folder of a pretraining.
    store : str
        Folder of a build, of a version, or a `.zarr`; it need not be what the run was trained on.
    task : str
        A name of `TASKS`.
    settings : TrainingSettings
        Only `evaluation` and `threads` count; the model's settings are the checkpoint's.
    seed : int
    data : WirelessData, optional
        Instead of opening `store`.

    Returns
    -------
    dict
        `rows` (quantity, condition, unit, x, means and spreads by method, verdict), `facts` (sample sizes, checks),
        provenance. The table of records has one line for every seed.

    Raises
    ------
    InputError
        Unknown task, no checkpoint, or a dataset that does not fit the model.
    """
    if task not in TASKS:
        msg = f"task {task!r}: there is no such task; choose one of {', '.join(TASKS)}"
        raise InputError(msg)
    model, trained_with, statistics, card = load_model(run)
    version = data.version if data is not None else dataset_version(store)
    content = [card["fingerprint"], version, settings.evaluation.model_dump(mode="json"), task, seed, RESULTS]
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = run / "results" / f"{task}.json"
    known = read_json(path)
    if known and known.get("fingerprint") == fingerprint and path.with_suffix(".parquet").exists():
        return dict(known)

    started = time.perf_counter()
    data = data or load_data(store, TASKS[task].splits)
    geometry = geometry_of(data, trained_with.model)
    if geometry != model.geometry:
        msg = f"{store}: {geometry}, but the checkpoint in {run} needs {model.geometry}; evaluate on such a dataset"
        raise InputError(msg)
    predictor = Predictor(model, trained_with, statistics, data, settings.evaluation.batch_size)
    with torch.random.fork_rng(devices=[]), cpu_threads(settings.threads):
        findings = TASKS[task].run(predictor, data, settings.evaluation, seed)
    frame = to_frame(findings.records, task)
    result = {
        "task": task,
        "fingerprint": fingerprint,
        "checkpoint": card["fingerprint"],
        "dataset": data.name,
        "dataset_version": version,
        "trained_on": card["dataset_version"],
        "seed": seed,
        "seeds": int(frame["seed"].nunique()),
        "seconds": round(time.perf_counter() - started, 1),
        "facts": findings.facts,
        "rows": [row.to_dict() for row in rows_of(frame)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        frame.to_parquet(temporary, index=False)
    if findings.arrays:
        with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **findings.arrays)  # type: ignore[arg-type]
    # Last: with it the others are whole.
    write_json(path, result)
    return result
