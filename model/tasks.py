"""Evaluation of a pretrained run on held-out scenes: one function, three tasks, results as JSON and arrays."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dataset import InputError
from dataset.files import atomic_path, read_json, write_json
from model.data import WirelessData, dataset_version, geometry_of, load_data
from model.inference import Predictor
from model.pretrain import load_model
from model.probes import beams, localization
from model.reconstruction import reconstruction
from model.settings import TrainingSettings
from model.trainer import cpu_threads

Task = Literal["reconstruction", "localization", "beams"]
# Raised when rows or arrays of a task change: results of before are then made anew.
RESULTS = 2
TASKS = {"reconstruction": reconstruction, "localization": localization, "beams": beams}


def evaluate(
    run: Path,
    store: str,
    task: Task,
    settings: TrainingSettings,
    seed: int,
    data: WirelessData | None = None,
) -> dict[str, Any]:
    """Evaluate a run on the test split and leave `results/<task>.json` (and `.npz` for the figures) in it.

    A result of the same checkpoint, dataset version, evaluation settings and seed is returned as it is.

    Parameters
    ----------
    run : Path
        Folder of a pretraining.
    store : str
        Folder of a build, of a version, or a `.zarr`.
    task : {"reconstruction", "localization", "beams"}
    settings : TrainingSettings
        Only `evaluation` counts; the model's settings are the checkpoint's.
    seed : int
    data : WirelessData, optional
        Instead of opening `store`.

    Returns
    -------
    dict
        `rows` (quantity, condition, unit, values by predictor, verdict), `facts` (sample sizes, checks), provenance.

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
    if known and known.get("fingerprint") == fingerprint:
        return dict(known)

    started = time.perf_counter()
    data = data or load_data(store)
    geometry = geometry_of(data, trained_with.model)
    if geometry != model.geometry:
        msg = f"{store}: {geometry}, but the checkpoint in {run} needs {model.geometry}; evaluate on such a dataset"
        raise InputError(msg)
    predictor = Predictor(model, trained_with, statistics, data, settings.evaluation.batch_size)
    with torch.random.fork_rng(devices=[]), cpu_threads(settings.threads):
        rows, facts, arrays = TASKS[task](predictor, data, settings.evaluation, seed)
    result = {
        "task": task,
        "fingerprint": fingerprint,
        "checkpoint": card["fingerprint"],
        "dataset_version": version,
        "trained_on": card["dataset_version"],
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "facts": facts,
        "rows": [row.to_dict() for row in rows],
    }
    if arrays:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)
    write_json(path, result)
    return result
