"""Pretraining: dataset and settings in, checkpoint out. Resumes at the step where it was stopped; runs once."""

import hashlib
import json
import logging
import platform
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dataset import InputError
from dataset.files import make_folder, read_json, write_json
from model.data import StepSampler, WirelessData, collate, dataset_version, geometry_of, load_data
from model.foundation import FoundationModel, Geometry, count_parameters
from model.lightning_module import PretrainModule
from model.settings import TrainingSettings
from model.tokens import Statistics

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "last.ckpt"
PACKAGES = ("wavecity", "torch", "lightning", "numpy")


def pretrain(
    store: str,
    settings: TrainingSettings,
    out: Path,
    seed: int,
    resume: bool = True,
    data: WirelessData | None = None,
) -> Path:
    """Pretrain the foundation model on the train split.

    A finished run of the same settings, seed and dataset version is returned as it is; an unfinished one goes on from
    its last checkpoint and ends with the weights of an uninterrupted run; anything else starts anew.

    Parameters
    ----------
    store : str
        Folder of a build, of a version, or a `.zarr`.
    settings : TrainingSettings
    out : Path
        Run folder: `checkpoints/last.ckpt`, `logs/*/metrics.csv`, at the end `pretrain.json`.
    seed : int
    resume : bool
        False starts anew in any case.
    data : WirelessData, optional
        Instead of opening `store`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError
        The dataset does not fit the model, or lacks train or validation scenes.
    """
    version = data.version if data is not None else dataset_version(store)
    fingerprint = pretrain_fingerprint(settings, version, seed)
    checkpoint = out / CHECKPOINT
    finished = read_json(out / "pretrain.json")
    if resume and checkpoint.is_file() and finished and finished["fingerprint"] == fingerprint:
        log.info("pretraining is finished: %s", checkpoint)
        return checkpoint

    data = data or load_data(store, ("train", "validation"))
    geometry = geometry_of(data, settings.model)
    _check_mirror(data, settings)
    make_folder(out)
    start_from = checkpoint if resume and _card_of(checkpoint).get("fingerprint") == fingerprint else None
    if start_from is None:
        for leftover in (checkpoint.parent, out / "logs"):
            shutil.rmtree(leftover, ignore_errors=True)
        (out / "pretrain.json").unlink(missing_ok=True)

    card = {
        "fingerprint": fingerprint,
        "settings": settings.model_dump(mode="json"),
        "statistics": data.statistics.to_dict(),
        "geometry": vars(geometry),
        "dataset_version": version,
        "seed": seed,
        "versions": package_versions(),
    }
    train: Any = data.splits["train"]
    sampler = StepSampler(len(train), settings.batch_size, seed)
    module = PretrainModule(settings, geometry, data.statistics, data.scenes, len(sampler), seed, card)
    trainer, progress = _trainer(settings, out, len(sampler), sampler.batch_size)
    sampler.step = lambda: trainer.global_step
    sampler.rank, sampler.world = trainer.global_rank, trainer.world_size
    loader = ResumableLoader(train, batch_sampler=sampler, collate_fn=collate, num_workers=settings.loader_workers)
    with _quiet(), cpu_threads(settings.threads):
        trainer.fit(module, loader, _validation_loader(data, settings), ckpt_path=start_from)
    if trainer.interrupted or trainer.global_step < settings.epochs * len(sampler):
        msg = f"pretraining stopped at step {trainer.global_step}; run the same command to go on"
        raise RuntimeError(msg)

    if trainer.is_global_zero:
        trained = settings.epochs * len(sampler) * sampler.batch_size
        write_json(
            out / "pretrain.json",
            {
                **card,
                "parameters": count_parameters(module.model),
                "tokens": module.model.tokens,
                "train_users": len(train),
                "train_scenes": len({int(scene) for scene in train.scene_index}),
                "validation_users": len(data.splits["validation"]),
                "validation_scenes": len({int(scene) for scene in data.splits["validation"].scene_index}),
                "epochs": settings.epochs,
                "steps": trainer.global_step,
                "samples": trained,
                "seconds": round(module.seconds, 1),
                "samples_per_second": round(progress.rate, 1),
                "device": str(trainer.strategy.root_device),
                "losses": {name: float(value) for name, value in trainer.callback_metrics.items()},
            },
        )
    return checkpoint


def pretrain_fingerprint(settings: TrainingSettings, version: str, seed: int) -> str:
    """SHA-256 of what decides the weights: settings but for evaluation, dataset version, seed."""
    content = settings.model_dump(
        mode="json", exclude={"evaluation", "threads", "loader_workers", "checkpoint_minutes"}
    )
    return hashlib.sha256(json.dumps([content, version, seed], sort_keys=True).encode()).hexdigest()


def _check_mirror(data: WirelessData, settings: TrainingSettings) -> None:
    """Refuse to mirror a world whose panel does not face along the axis of the mirror."""
    azimuth = data.attributes.get("recipe", {}).get("radio", {}).get("azimuth", -90.0)
    if settings.augment.mirror and abs(azimuth) != 90.0:
        msg = f"{data.name}: radio.azimuth is {azimuth:g}, mirroring needs -90; set training.augment.mirror to false"
        raise InputError(msg)


def package_versions() -> dict[str, str]:
    """Versions of the code that trains."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def load_model(checkpoint: Path) -> tuple[FoundationModel, TrainingSettings, Statistics, dict[str, Any]]:
    """Rebuild the model from a checkpoint alone.

    Parameters
    ----------
    checkpoint : Path
        The file, or the run folder it lies in.

    Returns
    -------
    model : FoundationModel
        In evaluation mode, on the CPU.
    settings : TrainingSettings
    statistics : Statistics
        Scales of the inputs.
    card : dict
        Fingerprint, dataset version, seed, package versions.

    Raises
    ------
    InputError
        No checkpoint, or none of this package.
    """
    path = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    card = _card_of(path)
    if not card:
        msg = f"{path}: no readable checkpoint of a pretraining; run `wavecity pretrain` first"
        raise InputError(msg)
    settings = TrainingSettings.model_validate(card["settings"])
    model = FoundationModel(settings.model, Geometry(**card["geometry"]))
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    return model.eval(), settings, Statistics.from_dict(card["statistics"]), card


def _card_of(checkpoint: Path) -> dict[str, Any]:
    """Card of a checkpoint; empty when there is none or it cannot be read."""
    if not checkpoint.is_file():
        return {}
    try:
        return dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["wavecity"])
    except Exception as error:  # torch raises a dozen types for a broken file
        log.warning("%s cannot be read (%s)", checkpoint, str(error).splitlines()[0])
        return {}


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that resuming within an epoch is exact: the sampler starts from the trainer's step."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the order follows from seed and step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def _validation_loader(data: WirelessData, settings: TrainingSettings) -> DataLoader[Any]:
    samples: Any = data.splits["validation"]
    count = len(samples)
    if count > settings.validation_users:
        samples = Subset(
            samples, [index * count // settings.validation_users for index in range(settings.validation_users)]
        )
    return DataLoader(samples, settings.evaluation.batch_size, collate_fn=collate)


def _trainer(
    settings: TrainingSettings, out: Path, steps_per_epoch: int, batch_size: int
) -> tuple[lightning.Trainer, "SampleProgress"]:
    steps = settings.epochs * steps_per_epoch
    gpu = torch.cuda.is_available() and settings.accelerator != "cpu"
    precision = ("bf16-mixed" if gpu else "32-true") if settings.precision == "auto" else settings.precision
    progress = SampleProgress(batch_size, steps)
    # One file, replaced in place: at the end of an epoch, and every few minutes within a long one.
    files: dict[str, Any] = {
        "dirpath": out / CHECKPOINT.parent,
        "filename": CHECKPOINT.stem,
        "enable_version_counter": False,
    }
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            gradient_clip_val=settings.optimiser.gradient_clip or None,
            logger=CSVLogger(out, name="logs"),
            log_every_n_steps=max(1, min(50, steps // 200)),
            callbacks=[
                progress,
                ModelCheckpoint(**files, every_n_epochs=1, save_on_train_epoch_end=True),
                ModelCheckpoint(**files, train_time_interval=timedelta(minutes=settings.checkpoint_minutes)),
            ],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=out,
        )
    return trainer, progress


class SampleProgress(Callback):
    """One bar over the whole training, in samples; a log line an epoch for those without a terminal."""

    def __init__(self, batch_size: int, steps: int) -> None:
        self._batch_size = batch_size
        self._steps = steps
        self._bar: Any = None
        self._seen = 0
        self._started = time.perf_counter()

    @property
    def rate(self) -> float:
        """Samples a second since this process began to train, validation included."""
        return self._seen / (time.perf_counter() - self._started)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the bar where training stands."""
        self._started = time.perf_counter()
        total, done = self._steps * self._batch_size, trainer.global_step * self._batch_size
        self._bar = tqdm(total=total, initial=done, desc="pretrain", unit="sample", unit_scale=True, disable=None)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count the step's samples."""
        self._seen += self._batch_size
        self._bar.update(self._batch_size)
        self._bar.set_postfix(epoch=trainer.current_epoch + 1, loss=self._loss(trainer, "train/total"), refresh=False)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the epoch."""
        losses = f"train {self._loss(trainer, 'train/total')}, validation {self._loss(trainer, 'validation/total')}"
        log.info("epoch %d of %s: %s; %.0f samples/s", trainer.current_epoch + 1, trainer.max_epochs, losses, self.rate)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    @staticmethod
    def _loss(trainer: lightning.Trainer, name: str) -> str:
        value = trainer.callback_metrics.get(name)
        return "-" if value is None else f"{float(value):.3f}"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads within, or as many as it likes for 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and its advice on worker counts out of the log."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            yield
    finally:
        logger.setLevel(before)
