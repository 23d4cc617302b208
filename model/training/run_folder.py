"""A run folder belongs to one training: what it holds, how another would differ from it, and what a new one replaces."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wavecity.dataset import InputError
from wavecity.dataset.files import make_folder, read_json
from wavecity.model.data.json_types import Json
from wavecity.model.settings.training import TrainingSettings

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "last.ckpt"
# What a run's folder holds of a training, and what was made from its checkpoint.
LEFTOVERS = (CHECKPOINT.parent, Path("logs"), Path("tensorboard"), Path("wandb"))
RESULTS = (Path("results"), Path("report.html"))

# Where Lightning keeps the loader's position in a checkpoint.
POSITION = "ChannelDataModule"

# They change no weight.
INDIFFERENT = ("evaluation", "threads", "checkpoint_minutes", "logger", "init_from")
# Parts of the settings that only the other backbones read.
OF_THE_OTHER = {
    "multimodal": ("backbone", "temporal", "rays"),
    "temporal": ("model", "masking", "losses", "augment", "normalisation", "rays"),
    "rays": ("temporal", "masking", "losses", "augment", "normalisation"),
}
# Differences that a refusal names.
NAMED = 4


def pretrain_fingerprint(settings: TrainingSettings, version: str, seed: int, initial: str | None = None) -> str:
    """SHA-256 of what decides the weights: settings but for evaluation and the other backbone, dataset version, seed.

    Of a checkpoint to start from the hash of its weights counts (`initial`), not its place.
    """
    content = [decisive(settings.model_dump(mode="json")), version, seed]
    if initial is not None:
        content.append(initial)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def decisive(settings: Json) -> Json:
    """The part of dumped training settings that decides the weights."""
    left_out = [*INDIFFERENT, *OF_THE_OTHER[settings.get("backbone", "multimodal")]]
    if not settings.get("loader_workers"):
        # Workers divide the order of the users among themselves; without any it has none.
        left_out.append("loader_workers")
    decisive = {name: value for name, value in settings.items() if name not in left_out}
    if "rays" in decisive:
        decisive["rays"] = {name: value for name, value in decisive["rays"].items() if name != "workers"}
    return decisive


def held_training(out: Path) -> Json:
    """Card of the training that a run folder holds, finished or not; empty where there is none."""
    return dict(read_json(out / "pretrain.json") or {}) or dict(read_state(out / CHECKPOINT).get("wavecity", {}))


def refuse_other(
    out: Path, settings: TrainingSettings, seed: int, version: str | None = None, initial: str | None = None
) -> None:
    """Refuse to train into a folder that holds a training of other settings, another seed or dataset version.

    Without the `version`'s fingerprint only settings and seed are compared; `initial` is the hash of the weights it
    starts from.

    Examples
    --------
    >>> refuse_other(Path("runs/new"), TrainingSettings(), seed=0)
    """
    held = held_training(out)
    if not held or (
        version is not None and held["fingerprint"] == pretrain_fingerprint(settings, version, seed, initial)
    ):
        return
    changes = differences(held["settings"], settings.model_dump(mode="json"))
    if seed != held["seed"]:
        changes.append(f"seed: {held['seed']} -> {seed}")
    if version is not None and version != held["dataset_version"]:
        changes.append(f"dataset version: {held['dataset_version'][:12]} -> {version[:12]}")
    before = (held.get("init_from") or {}).get("weights")
    if version is not None and before != initial:
        weights = [f"weights {digest[:12]}" if digest else "random weights" for digest in (before, initial)]
        changes.append(f"training.init_from: {weights[0]} -> {weights[1]}")
    if version is not None and not changes:
        changes.append("it was made by another version of wavecity")
    if changes:
        refuse_run(out, changes)


def refuse_run(out: Path, changes: list[str]) -> None:
    """Say what another run in a folder would differ in, and what to do."""
    more = f" and {len(changes) - NAMED} more" if len(changes) > NAMED else ""
    raise InputError(
        f"{out} holds another training; what differs: {', '.join(changes[:NAMED])}{more}; "
        "name another --out, or replace that training and its results with --overwrite"
    )


def differences(old: Json, new: Json) -> list[str]:
    """Name what decides the weights and differs between two dumps of training settings, as `key: old -> new`."""
    backbones = [content.get("backbone", "multimodal") for content in (old, new)]
    if backbones[0] != backbones[1]:
        return [f"training.backbone: {backbones[0]} -> {backbones[1]}"]
    return changed_keys(decisive(old), decisive(new), "training.")


def changed_keys(old: Json, new: Json, prefix: str = "") -> list[str]:
    """Compare two nested mappings key by key.

    Examples
    --------
    >>> changed_keys({"store": {"unit": 4}}, {"store": {"unit": 8}})
    ['store.unit: 4 -> 8']
    """
    before, after = dict(_flat(old, prefix)), dict(_flat(new, prefix))
    return [
        f"{key}: {_written(before, key)} -> {_written(after, key)}"
        for key in dict.fromkeys((*before, *after))
        if key not in before or key not in after or before[key] != after[key]
    ]


def _flat(content: Json, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _written(content: Json, key: str) -> str:
    return json.dumps(content[key]) if key in content else "not set"


def is_finished(out: Path, fingerprint: str) -> bool:
    """Whether a run folder holds the finished pretraining of this fingerprint."""
    finished = read_json(out / "pretrain.json")
    if (out / CHECKPOINT).is_file() and finished and finished["fingerprint"] == fingerprint:
        log.info("pretraining is finished: %s", out / CHECKPOINT)
        return True
    return False


def start_of(out: Path, fingerprint: str) -> Path | None:
    """Checkpoint that training goes on from; None, with the run folder cleared, where it starts anew."""
    make_folder(out)
    state = read_state(out / CHECKPOINT)
    card = state.get("wavecity", {})
    if card.get("fingerprint") == fingerprint:
        if POSITION in state:
            return out / CHECKPOINT
        log.warning("%s: of a version that took the users in another order; training starts anew", out / CHECKPOINT)
    held = read_json(out / "pretrain.json") or card
    # Results go with the training that they are of. Where its checkpoint was damaged they stay, and are told by its hash.
    replaced = held.get("fingerprint", fingerprint) != fingerprint
    for leftover in (*LEFTOVERS, *(RESULTS if replaced else ())):
        if (out / leftover).is_dir():
            shutil.rmtree(out / leftover, ignore_errors=True)
        else:
            (out / leftover).unlink(missing_ok=True)
    (out / "pretrain.json").unlink(missing_ok=True)
    return None


def read_state(checkpoint: Path) -> Json:
    """All that a checkpoint's file holds, on the CPU; empty when there is none or it cannot be read."""
    if not checkpoint.is_file():
        return {}
    # A second `wavecity run` needs no torch to see that a training is finished.
    import torch

    try:
        return dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises a dozen types for a broken file
        log.warning("%s cannot be read (%s)", checkpoint, str(error).splitlines()[0])
        return {}


def weights_sha256(weights: Json) -> str:
    """SHA-256 of a model's tensors and their names, the same wherever and whenever the file was written."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Through bytes: NumPy has no bfloat16.
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
