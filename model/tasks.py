"""Evaluation of a pretrained run: (checkpoint, dataset version, settings) -> results table -> figures of the report."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from dataset import InputError
from dataset.files import atomic_path, read_json, write_json
from model.cross_scene import cross_localization
from model.data import SPLITS, WirelessData, dataset_version, geometry_of, load_data
from model.equivariance_task import equivariance, equivariance_temporal, versions_of
from model.export import latency
from model.inference import Predictor
from model.localization import localization
from model.mu_mimo import mu_mimo
from model.prediction import prediction
from model.pretrain import load_model, weights_of
from model.reconstruction import reconstruction
from model.results import Findings, rows_of, to_frame
from model.settings import EvaluationSettings, TrainingSettings
from model.su_mimo import su_mimo
from model.task_names import TASKS_OF
from model.temporal import TemporalModel
from model.temporal_data import TemporalData, load_temporal
from model.temporal_pretrain import load_temporal_model
from model.trainer import cpu_threads

# Raised when rows or arrays of a task change: results of before are then made anew.
RESULTS = 4

Data = WirelessData | TemporalData


@dataclass(frozen=True)
class Task:
    """A task of the multi-modal model and the splits that its dataset must have."""

    run: Callable[[Predictor, WirelessData, EvaluationSettings, int], Findings]
    splits: tuple[str, ...] = SPLITS
    # Fields of the evaluation settings that results depend on, None for all, and those that they do not.
    settings: frozenset[str] | None = None
    ignored: frozenset[str] | None = frozenset({"equivariance", "prediction", "tasks"})

    backbone: ClassVar = "multimodal"

    def measure(
        self, run: Path, store: str, settings: EvaluationSettings, seed: int, data: Data | None
    ) -> tuple[str, Findings]:
        """Load model and data and run it; returns the dataset's name too."""
        model, trained_with, statistics, _ = load_model(run)
        wireless = data if isinstance(data, WirelessData) else load_data(store, self.splits)
        geometry = geometry_of(wireless, trained_with.model)
        if geometry != model.geometry:
            msg = f"{store}: {geometry}, but the checkpoint in {run} needs {model.geometry}; evaluate on such a dataset"
            raise InputError(msg)
        predictor = Predictor(model, trained_with, statistics, wireless, settings.batch_size)
        return wireless.name, self.run(predictor, wireless, settings, seed)


@dataclass(frozen=True)
class TemporalTask:
    """A task of the temporal model and the splits that its dataset must have."""

    run: Callable[[TemporalModel, TrainingSettings, TemporalData, EvaluationSettings, int], Findings]
    splits: tuple[str, ...] = SPLITS
    settings: frozenset[str] | None = frozenset({"heads", "prediction"})
    ignored: frozenset[str] | None = None

    backbone: ClassVar = "temporal"

    def measure(
        self, run: Path, store: str, settings: EvaluationSettings, seed: int, data: Data | None
    ) -> tuple[str, Findings]:
        """Load model and data and run it; returns the dataset's name too."""
        model, trained_with, _ = load_temporal_model(run)
        trajectories = data if isinstance(data, TemporalData) else load_temporal(store, self.splits)
        return trajectories.name, self.run(model, trained_with, trajectories, settings, seed)


# A task of both models has an entry for each.
TASKS: dict[str, tuple[Task | TemporalTask, ...]] = {
    "reconstruction": (Task(reconstruction),),
    "localization": (Task(localization, ("test",)),),
    "cross-localization": (Task(cross_localization),),
    "mu-mimo": (Task(mu_mimo),),
    "su-mimo": (Task(su_mimo),),
    "latency": (Task(latency, ("test",)),),
    "prediction": (TemporalTask(prediction, ("train", "test")),),
    "equivariance": (
        Task(equivariance, ("train", "test"), frozenset({"equivariance", "heads"}), None),
        TemporalTask(equivariance_temporal, ("train", "test"), frozenset({"equivariance", "heads", "prediction"})),
    ),
}


def evaluate(
    run: Path,
    store: str,
    task: str,
    settings: TrainingSettings,
    seed: int,
    data: Data | None = None,
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
    data : WirelessData or TemporalData, optional
        Instead of opening `store`.

    Returns
    -------
    dict
        `rows` (quantity, condition, unit, x, means and spreads by method, verdict), `facts` (sample sizes, checks),
        provenance. The table of records has one line for every seed.

    Raises
    ------
    InputError
        Unknown task, no checkpoint, a task of another model than the run's, or a dataset that does not fit the model.
    """
    if task not in TASKS:
        msg = f"task {task!r}: there is no such task; choose one of {', '.join(TASKS)}"
        raise InputError(msg)
    card, _ = weights_of(run)
    backbone = card["settings"].get("backbone", "multimodal")
    chosen = next((one for one in TASKS[task] if one.backbone == backbone), None)
    if chosen is None:
        needed = TASKS[task][0].backbone
        msg = (
            f"task {task} needs a {needed} model, {run} holds a {backbone} one; choose {', '.join(TASKS_OF[backbone])}"
        )
        raise InputError(msg)
    version = data.version if data is not None else dataset_version(store)
    evaluation = settings.evaluation.model_dump(
        mode="json",
        include=None if chosen.settings is None else set(chosen.settings),
        exclude=None if chosen.ignored is None else set(chosen.ignored),
    )
    content = [card["fingerprint"], version, evaluation, task, seed, RESULTS]
    if task == "equivariance":
        content.append(versions_of(settings.evaluation.equivariance))
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = run / "results" / f"{task}.json"
    known = read_json(path)
    if known and known.get("fingerprint") == fingerprint and path.with_suffix(".parquet").exists():
        return dict(known)

    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]), cpu_threads(settings.threads):
        name, findings = chosen.measure(run, store, settings.evaluation, seed, data)
    frame = to_frame(findings.records, task)
    result = {
        "task": task,
        "fingerprint": fingerprint,
        "checkpoint": card["fingerprint"],
        "dataset": name,
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
