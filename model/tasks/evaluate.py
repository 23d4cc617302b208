"""Evaluation of a pretrained run: (checkpoint, dataset version, settings) -> table of records -> report."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch

from wavecity.dataset import InputError
from wavecity.dataset.files import atomic_path, read_json, write_json
from wavecity.model.data.feasible import NotPossible
from wavecity.model.data.trajectories import TemporalData, load_temporal
from wavecity.model.data.users import WirelessData, dataset_sha256, dataset_version, geometry_of, load_data
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.rays.surroundings import radio_of
from wavecity.model.results.records import Facts, Findings, write_records
from wavecity.model.settings.tasks import REGISTERED, TASKS, TASKS_OF
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.spec import TaskSpec, spec_of
from wavecity.model.training.checkpoint import Checkpoint, weights_of
from wavecity.model.training.load import load_model, load_rays_model, load_temporal_model
from wavecity.model.training.run_folder import changed_keys, weights_sha256
from wavecity.model.training.trainer import cpu_threads

# Raised when records or arrays of a task change: results of before are then made anew.
RESULTS = 10

Data = WirelessData | TemporalData


def evaluate(
    run: Path,
    store: str,
    task: str,
    settings: TrainingSettings,
    seed: int,
    data: Data | None = None,
    own: tuple[TrainingSettings, int] | None = None,
) -> Facts:
    """Evaluate a run and leave `results/<task>.parquet`, `.json` and, for the figures, `.npz` in it.

    A result of the same checkpoint, dataset version, evaluation settings and seed is returned as it is. Results with
    settings other than the run's own get a name of their own, `results/<task>-<hash of what differs>`.

    Parameters
    ----------
    run : Path
        Folder of a pretraining.
    store : str
        Folder of a build, of a version, or a `.zarr`; it need not be what the run was trained on.
    task : str
        A name of `wavecity.model.settings.tasks.TASKS`.
    settings : TrainingSettings
        Only `evaluation` and `threads` count; the model's settings are the checkpoint's.
    seed : int
    data : WirelessData or TemporalData, optional
        Instead of opening `store`.
    own : (TrainingSettings, int), optional
        The run's own settings and seed; by default `settings` and `seed`.

    Returns
    -------
    dict
        What the JSON holds: `facts` (sample sizes, checks), provenance, `changed` (settings that are not the run's own),
        `table` (path of the table of records in the run folder, one line for every seed).

    Raises
    ------
    InputError
        Unknown task, no checkpoint, no such dataset.
    NotPossible
        A task of another model than the run's, or a dataset that does not fit the model or is too small for the task.

    Examples
    --------
    >>> found = evaluate(Path("runs/mine"), "runs/quickstart/store", "localization", TrainingSettings(), seed=7)
    >>> read_records(Path("runs/mine") / found["table"], "localization")[0].metric.unit
    'm'
    """
    if task not in TASKS:
        raise InputError(f"task {task!r}: there is no such task; choose one of {', '.join(TASKS)}")
    checkpoint = weights_of(run)
    card, weights = checkpoint
    backbone = card["settings"].get("backbone", "multimodal")
    spec = spec_of(task, backbone)
    if spec is None:
        needed = REGISTERED[task].backbones[0]
        raise NotPossible(
            f"task {task} needs a {needed} model, {run} holds a {backbone} one; choose {', '.join(TASKS_OF[backbone])}"
        )
    version = data.version if data is not None else dataset_version(store)
    evaluation = _read_by(spec, settings.evaluation)
    changed = [] if own is None else changed_keys(_read_by(spec, own[0].evaluation), evaluation, "training.evaluation.")
    if own is not None and own[1] != seed:
        changed.append(f"seed: {own[1]} -> {seed}")
    content = [card["fingerprint"], version, evaluation, task, seed, RESULTS]
    content += spec.other_data(settings.evaluation)
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = run / "results" / f"{task}{_suffix(changed)}.json"
    hashes = {
        "weights_sha256": weights_sha256(weights),
        "dataset_sha256": "" if data is not None else dataset_sha256(store),
    }
    known = read_json(path) or {}
    # The checkpoint of an unfinished training has the fingerprint of the finished one, but other weights.
    same = known.get("fingerprint") == fingerprint and all(
        known.get(key, value) == value for key, value in hashes.items()
    )
    if same and path.with_suffix(".parquet").exists():
        return dict(known)

    started = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]), cpu_threads(settings.threads):
            name, findings = _run(spec, run, checkpoint, store, settings.evaluation, seed, data)
    except InputError as error:
        raise NotPossible(f"{task} is not possible: {error}") from error
    result = {
        "task": task,
        "fingerprint": fingerprint,
        "checkpoint": card["fingerprint"],
        "dataset": name,
        "dataset_version": version,
        "trained_on": card["dataset_version"],
        **hashes,
        "changed": changed,
        "table": str(path.relative_to(run).with_suffix(".parquet")),
        "seed": seed,
        "seeds": len({record.seed for record in findings.records}),
        "seconds": round(time.perf_counter() - started, 1),
        "facts": findings.facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # A result is there when its JSON is: that of before goes first, the new one comes last.
    path.unlink(missing_ok=True)
    write_records(path.with_suffix(".parquet"), findings.records, task, card["fingerprint"], version)
    path.with_suffix(".npz").unlink(missing_ok=True)
    if findings.arrays:
        with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **findings.arrays)  # type: ignore[arg-type]
    write_json(path, result)
    return result


def note_not_possible(run: Path, task: str, why: str) -> None:
    """Leave in a run's results why a task could not be run, for the report, instead of what was there of it."""
    card, _ = weights_of(run)
    path = run / "results" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".parquet", ".npz"):
        path.with_suffix(suffix).unlink(missing_ok=True)
    write_json(path, {"task": task, "checkpoint": card["fingerprint"], "not_possible": why})


def _run(
    spec: TaskSpec,
    run: Path,
    checkpoint: Checkpoint,
    store: str,
    settings: EvaluationSettings,
    seed: int,
    data: Data | None,
) -> tuple[str, Findings]:
    """Load model and data and run a task; returns the dataset's name too."""
    if spec.without_model:
        return store, spec.run(store, settings, seed)
    if spec.backbone == "temporal":
        temporal, trained_with, _ = load_temporal_model(run, checkpoint)
        trajectories = data if isinstance(data, TemporalData) else load_temporal(store, spec.splits)
        return trajectories.name, spec.run(temporal, trained_with, trajectories, settings, seed)
    if spec.backbone == "rays":
        return _run_rays(spec, run, checkpoint, store, settings, seed, data)
    model, trained_with, statistics, _ = load_model(run, checkpoint)
    wireless = data if isinstance(data, WirelessData) else load_data(store, spec.splits)
    geometry = geometry_of(wireless, trained_with.model)
    if geometry != model.geometry:
        msg = f"{store}: {geometry}, but the checkpoint in {run} needs {model.geometry}; evaluate on such a dataset"
        raise InputError(msg)
    predictor = Predictor(model, trained_with, statistics, wireless, settings.batch_size)
    return wireless.name, spec.run(predictor, wireless, settings, seed)


def _run_rays(
    spec: TaskSpec,
    run: Path,
    checkpoint: Checkpoint,
    store: str,
    settings: EvaluationSettings,
    seed: int,
    data: Data | None,
) -> tuple[str, Findings]:
    """`_run` of the path model; refuses a dataset of another radio or other sizes than it was trained on."""
    model, trained_with, _ = load_rays_model(run, checkpoint)
    wireless = data if isinstance(data, WirelessData) else load_data(store, spec.splits)
    found = geometry_of(wireless, trained_with.model), radio_of(wireless.attributes, store)
    if found != (model.geometry, model.radio):
        needed = f"{model.geometry} and {model.radio}"
        raise InputError(
            f"{store}: {found[0]} and {found[1]}, but the checkpoint in {run} needs {needed}; evaluate on such data"
        )
    cache = FrontCache(store, trained_with.model.csi_patch)
    predictor = PathPredictor(model, cache, wireless.scenes, settings.batch_size)
    return wireless.name, spec.run(predictor, wireless, settings, seed)


def _read_by(spec: TaskSpec, settings: EvaluationSettings) -> Facts:
    """The part of the evaluation settings that a task's results depend on."""
    return settings.model_dump(mode="json", include=set(spec.settings))


def _suffix(changed: list[str]) -> str:
    """What the name of results has behind the task's: nothing for the run's own settings."""
    if not changed:
        return ""
    used = [f"{text.partition(': ')[0]}: {text.rpartition(' -> ')[2]}" for text in changed]
    return "-" + hashlib.sha256(json.dumps(used).encode()).hexdigest()[:8]
