"""Lightning's trainer as the settings want it: processes, precision, checkpoints, averaged weights, loggers, progress."""

import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib import util
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.dataset.progress import Stage, stage
from wavecity.model.data.json_types import Json
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.run_folder import CHECKPOINT

log = logging.getLogger(__name__)


def check_machine(settings: TrainingSettings, train_users: int) -> None:
    """Refuse, before training, devices that are not there or do not divide the batch, a missing logger or compiler."""
    batch = min(settings.batch_size, train_users)
    if batch % settings.devices:
        msg = f"training.devices {settings.devices} must divide the batch of {batch} users; change training.batch_size"
        raise InputError(msg)
    gpus = torch.cuda.device_count()
    if settings.accelerator == "gpu" and not gpus:
        raise InputError("training.accelerator gpu: torch sees none; set it to cpu, or install a torch with CUDA")
    if uses_gpu(settings) and settings.devices > gpus:
        raise InputError(f"training.devices {settings.devices}: this machine has {gpus}; set at most that many")
    if settings.logger != "csv" and util.find_spec(settings.logger) is None:
        raise InputError(f"training.logger {settings.logger} needs a package: pip install {settings.logger}")
    if settings.compile:
        _check_compiler("cuda" if uses_gpu(settings) else "cpu")


def uses_gpu(settings: TrainingSettings) -> bool:
    """Whether training runs on a GPU."""
    return torch.cuda.is_available() and settings.accelerator != "cpu"


def _check_compiler(device: str) -> None:
    """Compile something small: what is missing differs from system to system."""
    try:
        torch.compile(lambda value: value.sin() + 1, dynamic=True)(torch.ones(4, device=device))
    except Exception as error:  # each backend has its own types
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        msg = f"training.compile: torch.compile fails here ({reason}); install g++ and Python's headers, or set it to false"
        raise InputError(msg) from error


def make_trainer(settings: TrainingSettings, out: Path, steps_per_epoch: int, batch_size: int) -> lightning.Trainer:
    """Trainer of a pretraining into a run folder; a step has `batch_size` users, over all processes."""
    steps = settings.epochs * steps_per_epoch
    precision = (
        ("bf16-mixed" if uses_gpu(settings) else "32-true") if settings.precision == "auto" else settings.precision
    )
    callbacks: list[Callback] = [SampleProgress(batch_size, steps), FiniteLoss()]
    if settings.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=settings.ema_decay))
    # One file, replaced in place: at the end of an epoch, and every few minutes within a long one.
    files: Json = {"dirpath": out / CHECKPOINT.parent, "filename": CHECKPOINT.stem, "enable_version_counter": False}
    callbacks += [
        ModelCheckpoint(**files, every_n_epochs=1, save_on_train_epoch_end=True),
        ModelCheckpoint(**files, train_time_interval=timedelta(minutes=settings.checkpoint_minutes)),
    ]
    with quiet():
        return lightning.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=_strategy(settings),
            precision=precision,  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            gradient_clip_val=settings.optimiser.gradient_clip or None,
            logger=_loggers(settings, out),
            log_every_n_steps=max(1, min(50, steps // 200)),
            callbacks=callbacks,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=out,
        )


def _strategy(settings: TrainingSettings) -> str | DDPStrategy:
    if settings.devices == 1:
        return "auto"
    # Spawned, not started as the command again: within a Prefect flow that would be the whole flow. A step's objective
    # leaves the heads of the others unused, on all ranks alike.
    return DDPStrategy(start_method="spawn", find_unused_parameters=True)


def _loggers(settings: TrainingSettings, out: Path) -> list[Logger]:
    """CSV files always: the report is drawn from them."""
    loggers: list[Logger] = [CSVLogger(out, name="logs")]
    if settings.logger == "tensorboard":
        loggers.append(TensorBoardLogger(out, name="tensorboard"))
    elif settings.logger == "wandb":
        loggers.append(WandbLogger(name=out.name, save_dir=out, project="wavecity"))
    return loggers


class SampleProgress(Callback):
    """One bar over the whole training, in samples (`batch_size` a step, over all processes), and a log line an epoch."""

    def __init__(self, batch_size: int, steps: int) -> None:
        self._batch_size = batch_size
        self._steps = steps
        self._shown = ExitStack()
        self._bar: Stage | None = None
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
        if trainer.is_global_zero:
            self._bar = self._shown.enter_context(stage("train", total, "samples", done))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        """Count the step's samples."""
        self._seen += self._batch_size
        if self._bar is not None:
            self._bar.advance(self._batch_size)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the epoch."""
        pl_module.log("samples_per_second", self.rate, sync_dist=True)
        losses = f"train {self._loss(trainer, 'train/total')}, validation {self._loss(trainer, 'validation/total')}"
        if self._bar is not None:
            epoch = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self._bar.advance(0, f"{epoch} done, losses: {losses}")
        if trainer.is_global_zero:
            log.info(
                "epoch %d of %s: %s; %.0f samples/s", trainer.current_epoch + 1, trainer.max_epochs, losses, self.rate
            )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._shown.close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar of a training that was interrupted."""
        self._shown.close()

    @staticmethod
    def _loss(trainer: lightning.Trainer, name: str) -> str:
        value = trainer.callback_metrics.get(name)
        return "-" if value is None else f"{float(value):.3f}"


class FiniteLoss(Callback):
    """Ends a training whose loss or weights are not finite any more, before a checkpoint takes the place of a good one."""

    def __init__(self) -> None:
        self._loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: STEP_OUTPUT, *_: object
    ) -> None:
        """Look at the loss where curves are written: on a GPU every look waits for all that was queued."""
        self._loss = outputs["loss"] if isinstance(outputs, Mapping) else torch.as_tensor(outputs)
        if trainer.global_step % trainer.log_every_n_steps == 0 and not self._loss.isfinite():  # type: ignore[attr-defined]
            self._refuse(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: Json
    ) -> None:
        """Look before anything is written; a step with a finite loss may have spoilt the weights."""
        values = [] if self._loss is None else [self._loss, *pl_module.parameters()]
        if not all(value.isfinite().all() for value in values):
            self._refuse(trainer)

    def _refuse(self, trainer: lightning.Trainer) -> None:
        raise InputError(
            f"training: loss or weights are not finite any more after {trainer.global_step} steps; the last checkpoint is kept. "
            "A smaller training.optimiser.learning_rate may help"
        )


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
def quiet() -> Iterator[None]:
    """Keep Lightning's banners and its advice on worker counts out of the log."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            # Workers share an epoch: `ShuffledChannels` sees to it.
            warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            yield
    finally:
        logger.setLevel(before)
