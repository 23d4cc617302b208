"""Pretraining: dataset and settings in, checkpoint out. Resumes at the step where it was stopped; runs once."""

import os
import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from wavecity.dataset import InputError
from wavecity.dataset.files import write_json
from wavecity.model.data.users import data_facts, dataset_sha256, dataset_version
from wavecity.model.multimodal.module import MaskedPretraining
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training import checkpoint, run_folder
from wavecity.model.training.backbones import BACKBONES, Backbone, step_users, steps_per_epoch
from wavecity.model.training.trainer import check_machine, cpu_threads, make_trainer, quiet

PACKAGES = ("wavecity", "torch", "lightning", "numpy")


def pretrain(store: str, settings: TrainingSettings, out: Path, seed: int, overwrite: bool = False) -> Path:
    """Pretrain the model that `settings.backbone` names on the train split.

    A finished run of the same settings, seed and dataset version is returned as it is; an unfinished one goes on from
    its last checkpoint and ends with the weights of an uninterrupted run. A folder with another training is refused.

    Parameters
    ----------
    store : str
        Folder of a build, of a version, or a `.zarr`.
    out : Path
        Run folder: `checkpoints/last.ckpt`, `logs/*/metrics.csv`, at the end `pretrain.json`.
    overwrite : bool
        Replace another training in the folder, and its results.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError
        The folder holds another training; the dataset does not fit the model or its own statistics, or lacks train or
        validation scenes; the machine has no such devices, or lacks a package or compiler that the settings ask for;
        `init_from` names no checkpoint, or one of another architecture.

    Examples
    --------
    >>> pretrain("runs/quickstart/store", TrainingSettings(epochs=5), Path("runs/mine"), seed=7)
    PosixPath('runs/mine/checkpoints/last.ckpt')
    """
    version = dataset_version(store)
    initial = initial_of(settings, out)
    digest = None if initial is None else initial.digest
    fingerprint = run_folder.pretrain_fingerprint(settings, version, seed, digest)
    if run_folder.is_finished(out, fingerprint):
        return out / run_folder.CHECKPOINT
    if not overwrite:
        run_folder.refuse_other(out, settings, seed, version, digest)

    backbone = BACKBONES[settings.backbone].load(store, settings)
    backbone.check()
    if initial is not None:
        initial.check(settings, checkpoint.sizes_of(backbone.card()))
    check_machine(settings, len(backbone.data.splits["train"]))
    start_from = run_folder.start_of(out, fingerprint)
    card = {
        "fingerprint": fingerprint,
        "settings": settings.model_dump(mode="json"),
        **backbone.card(),
        "dataset_version": version,
        "dataset_sha256": dataset_sha256(store),
        "data": data_facts(backbone.data.attributes),
        "seed": seed,
        "versions": package_versions(),
    }
    module = backbone.module(steps_per_epoch(settings, len(backbone.data.splits["train"])), seed, card)
    if initial is not None:
        card["init_from"] = initial.record()
        checkpoint.load_weights(module.model, initial.weights, initial.path)
    return run_training(module, backbone, settings, out, start_from)


def initial_of(settings: TrainingSettings, out: Path) -> checkpoint.Initial | None:
    """Checkpoint that `training.init_from` names, which may not be the run's own; None for random weights."""
    if settings.init_from is None:
        return None
    path = checkpoint.checkpoint_file(settings.init_from)
    if path.resolve() == (out / run_folder.CHECKPOINT).resolve():
        raise InputError(f"training.init_from {settings.init_from}: the run to be trained, {out}; name another --out")
    return checkpoint.Initial(Path(settings.init_from), *checkpoint.weights_of(path))


def refuse_other_training(out: Path, settings: TrainingSettings, seed: int, version: str) -> None:
    """Refuse a folder that holds another training, as `refuse_other` does; with the weights that it starts from."""
    initial = initial_of(settings, out)
    run_folder.refuse_other(out, settings, seed, version, None if initial is None else initial.digest)


def run_training(
    module: MaskedPretraining, backbone: Backbone, settings: TrainingSettings, out: Path, start_from: Path | None
) -> Path:
    """Train on the backbone's batches to the last step, from a checkpoint or the start, and leave `pretrain.json`."""
    path = out / run_folder.CHECKPOINT
    train, validation = backbone.data.splits["train"], backbone.data.splits["validation"]
    per_epoch, batch_size = steps_per_epoch(settings, len(train)), step_users(settings, len(train))
    steps = settings.epochs * per_epoch
    trainer = make_trainer(settings, out, per_epoch, batch_size)
    with quiet(), cpu_threads(settings.threads):
        trainer.fit(module, datamodule=backbone.batches(module.seed), ckpt_path=start_from)
    # The trainer here did not train where it started processes for that; the checkpoint tells in any case.
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["global_step"] < steps:
        raise RuntimeError(f"pretraining stopped at step {state['global_step']}; run the same command to go on")

    if trainer.is_global_zero:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        device = trainer.strategy.root_device.type
        name = backbone.data.name
        write_json(
            out / "pretrain.json",
            {
                **module.card,
                "weights_sha256": run_folder.weights_sha256(checkpoint.model_weights(state)),
                "dataset": os.path.abspath(name) if Path(name).exists() else name,
                "parameters": count_parameters(module.model),
                "tokens": module.tokens,
                "train_users": len(train),
                "train_scenes": len(np.unique(train.scene_index)),
                "validation_users": len(validation),
                "validation_scenes": len(np.unique(validation.scene_index)),
                "epochs": settings.epochs,
                "steps": steps,
                "samples": steps * batch_size,
                "seconds": round(state["wavecity"]["seconds"], 1),
                "samples_per_second": round(metrics.pop("samples_per_second"), 1),
                "device": device if settings.devices == 1 else f"{settings.devices} x {device}",
                "losses": metrics,
            },
        )
    return path


def package_versions() -> dict[str, str]:
    """Versions of the code that trains."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
