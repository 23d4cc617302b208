"""Pretraining: dataset and settings in, checkpoint out. Resumes at the step where it was stopped; runs once."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wavecity.dataset import InputError
from wavecity.dataset.files import write_json
from wavecity.model.data.batches import PretrainBatches
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics
from wavecity.model.data.users import (
    WirelessData,
    check_data,
    data_facts,
    dataset_sha256,
    dataset_version,
    geometry_of,
    load_data,
)
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.multimodal.network import FoundationModel, count_parameters
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.initial import Initial, sizes_of
from wavecity.model.training.load import Pretrained
from wavecity.model.training.run_folder import (
    CHECKPOINT,
    card_of,
    is_finished,
    pretrain_fingerprint,
    refuse_other,
    start_of,
    weights_sha256,
)
from wavecity.model.training.trainer import check_machine, cpu_threads, make_trainer, quiet

PACKAGES = ("wavecity", "torch", "lightning", "numpy")


def pretrain(
    store: str,
    settings: TrainingSettings,
    out: Path,
    seed: int,
    overwrite: bool = False,
    data: WirelessData | None = None,
) -> Path:
    """Pretrain the model that `settings.backbone` names on the train split.

    A finished run of the same settings, seed and dataset version is returned as it is; an unfinished one goes on from
    its last checkpoint and ends with the weights of an uninterrupted run. A folder with another training is refused.

    Parameters
    ----------
    store : str
        Folder of a build, of a version, or a `.zarr`.
    settings : TrainingSettings
    out : Path
        Run folder: `checkpoints/last.ckpt`, `logs/*/metrics.csv`, at the end `pretrain.json`.
    seed : int
    overwrite : bool
        Replace another training in the folder, and its results.
    data : WirelessData, optional
        Instead of opening `store`, for the multi-modal model.

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
    """
    if settings.backbone == "temporal":
        from wavecity.model.training.pretrain_temporal import pretrain_temporal

        return pretrain_temporal(store, settings, out, seed, overwrite)
    version = data.version if data is not None else dataset_version(store)
    initial = initial_of(settings, out)
    digest = None if initial is None else initial.digest
    fingerprint = pretrain_fingerprint(settings, version, seed, digest)
    if is_finished(out, fingerprint):
        return out / CHECKPOINT
    if not overwrite:
        refuse_other(out, settings, seed, version, digest)

    manifest = "" if data is not None else dataset_sha256(store)
    data = data or load_data(store, ("train", "validation"))
    geometry = geometry_of(data, settings.model)
    check_data(data, geometry)
    if initial is not None:
        initial.check(settings, sizes_of({"geometry": vars(geometry)}))
    check_machine(settings, len(data.splits["train"]))
    _check_mirror(data, settings)
    start_from = start_of(out, fingerprint)
    card = {
        "fingerprint": fingerprint,
        "settings": settings.model_dump(mode="json"),
        "statistics": data.statistics.to_dict(),
        "geometry": vars(geometry),
        "dataset_version": version,
        "dataset_sha256": manifest,
        "data": data_facts(data.attributes),
        "seed": seed,
        "versions": package_versions(),
    }
    batches = PretrainBatches(data, settings, seed)
    steps_per_epoch = len(batches.sampler())
    module = PretrainModule(settings, geometry, data.statistics, data.scenes, steps_per_epoch, seed, card)
    if initial is not None:
        card["init_from"] = initial.record()
        load_weights(module.model, initial.weights, initial.path)
    return run_training(module, batches, settings, out, start_from, card, data.name)


def initial_of(settings: TrainingSettings, out: Path) -> Initial | None:
    """Checkpoint that `training.init_from` names; None where training starts from random weights.

    Raises
    ------
    InputError
        It is no checkpoint, or that of the run itself.
    """
    if settings.init_from is None:
        return None
    path = checkpoint_file(settings.init_from)
    if path.resolve() == (out / CHECKPOINT).resolve():
        msg = f"training.init_from {settings.init_from}: the run to be trained, {out}; name another --out"
        raise InputError(msg)
    return Initial(Path(settings.init_from), *weights_of(path))


def refuse_other_training(out: Path, settings: TrainingSettings, seed: int, version: str) -> None:
    """Refuse a folder that holds another training, as `refuse_other` does; with the weights that it starts from.

    Raises
    ------
    InputError
        The folder holds another training; `init_from` names no checkpoint.
    """
    initial = initial_of(settings, out)
    refuse_other(out, settings, seed, version, None if initial is None else initial.digest)


def run_training(
    module: Any,
    batches: PretrainBatches,
    settings: TrainingSettings,
    out: Path,
    start_from: Path | None,
    card: dict[str, Any],
    name: str,
) -> Path:
    """Train to the last step, and leave `pretrain.json`.

    Parameters
    ----------
    module : PretrainModule or TemporalModule
    batches : PretrainBatches
    settings : TrainingSettings
    out : Path
        Run folder.
    start_from : Path or None
        See `start_of`.
    card : dict
    name : str
        The dataset's.

    Returns
    -------
    Path
        The checkpoint.
    """
    checkpoint = out / CHECKPOINT
    order = batches.sampler()
    steps = settings.epochs * len(order)
    trainer = make_trainer(settings, out, len(order), order.batch_size)
    with quiet(), cpu_threads(settings.threads):
        trainer.fit(module, datamodule=batches, ckpt_path=start_from)
    # The trainer here did not train where it started processes for that; the checkpoint tells in any case.
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["global_step"] < steps:
        msg = f"pretraining stopped at step {state['global_step']}; run the same command to go on"
        raise RuntimeError(msg)

    if trainer.is_global_zero:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        device = trainer.strategy.root_device.type
        train, validation = batches.samples("train"), batches.samples("validation")
        write_json(
            out / "pretrain.json",
            {
                **card,
                "weights_sha256": weights_sha256(model_weights(state)),
                "dataset": os.path.abspath(name) if Path(name).exists() else name,
                "parameters": count_parameters(module.model),
                "tokens": module.model.tokens,
                "train_users": len(train),
                "train_scenes": len({int(scene) for scene in train.scene_index}),
                "validation_users": len(validation),
                "validation_scenes": len({int(scene) for scene in validation.scene_index}),
                "epochs": settings.epochs,
                "steps": steps,
                "samples": steps * order.batch_size,
                "seconds": round(state["wavecity"]["seconds"], 1),
                "samples_per_second": round(metrics.pop("samples_per_second"), 1),
                "device": device if settings.devices == 1 else f"{settings.devices} x {device}",
                "losses": metrics,
            },
        )
    return checkpoint


def _check_mirror(data: WirelessData, settings: TrainingSettings) -> None:
    """Refuse to mirror a world whose panel does not face along the axis of the mirror."""
    of_recipe = data.attributes.get("recipe", {}).get("radio", {}).get("azimuth", -90.0)
    azimuth = data.attributes.get("array", {}).get("azimuth_deg", of_recipe)
    if settings.augment.mirror and abs(azimuth) != 90.0:
        msg = f"{data.name}: the panel's azimuth is {azimuth:g}, mirroring needs -90; set training.augment.mirror to false"
        raise InputError(msg)


def package_versions() -> dict[str, str]:
    """Versions of the code that trains."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def load_model(checkpoint: str | Path) -> Pretrained:
    """Rebuild the multi-modal model from a checkpoint alone.

    Parameters
    ----------
    checkpoint : str or Path
        A run folder, its folder `checkpoints`, or the file.

    Returns
    -------
    Pretrained
        Model (in evaluation mode, on the CPU), settings, statistics and card; its `embed` takes channels as they are.

    Raises
    ------
    InputError
        No checkpoint, none of this package, one of another version of the model, or one of the temporal model
        (`wavecity.model.training.pretrain_temporal.load_temporal_model` loads that).

    Examples
    --------
    >>> model = load_model("runs/quickstart")
    >>> features = model.embed(csi, height)  # complex (N, 32, 32), m (N, 200, 200) -> (N, d)
    """
    card, weights = weights_of(checkpoint)
    settings = TrainingSettings.model_validate(card["settings"])
    if settings.backbone != "multimodal":
        msg = f"{checkpoint}: a {settings.backbone} model; a run with training.backbone multimodal is needed here"
        raise InputError(msg)
    model = FoundationModel(settings.model, Geometry(**card["geometry"]))
    load_weights(model, weights, checkpoint)
    return Pretrained(model.eval(), settings, Statistics.from_dict(card["statistics"]), card)


def checkpoint_file(checkpoint: str | Path) -> Path:
    """File that a run folder, its folder of checkpoints, or the file itself means; it need not be there."""
    path = Path(checkpoint)
    if not path.is_dir():
        return path
    return next((file for file in (path / CHECKPOINT, path / CHECKPOINT.name) if file.is_file()), path / CHECKPOINT)


def weights_of(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Card and weights of a checkpoint, or of that of a run folder.

    Raises
    ------
    InputError
        No checkpoint, or none of this package.
    """
    path = checkpoint_file(checkpoint)
    card = card_of(path)
    if not card:
        msg = f"{path}: no readable checkpoint of a pretraining; run `wavecity pretrain` first"
        raise InputError(msg)
    return card, model_weights(torch.load(path, map_location="cpu", weights_only=True))


def model_weights(state: dict[str, Any]) -> dict[str, Any]:
    """The model's tensors in a checkpoint, by their names in the model."""
    return {name.removeprefix("model."): value for name, value in state["state_dict"].items()}


def load_weights(model: nn.Module, weights: dict[str, Any], checkpoint: str | Path) -> None:
    """Put the weights of a checkpoint into a model.

    Raises
    ------
    InputError
        They are of a model with other parts: that of another version of the code.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        msg = f"{checkpoint}: weights of another version of the model ({first}); run `wavecity pretrain` again, with a new --out"
        raise InputError(msg) from error
