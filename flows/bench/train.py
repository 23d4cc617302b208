"""`wavecity bench train`: Lightning training compared with a plain PyTorch loop and with full-length attention.

1. Three sides train the same model on the same batches, masks and random numbers, step by step in turns within one
   training: Lightning's step is what passes between two hooks, so it has everything that Lightning, our logging and our
   checkpoints do; the two others are plain loops, one with our model (only needed tokens are computed), one with all
   tokens in every block and attention masks.
2. Every side runs some steps in a process of its own, for its peak memory.
3. Lightning trains with one and with two processes (DDP, gloo) of one thread each, at the same batch.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray

from wavecity.dataset.progress import Stage, stage, track
from wavecity.flows.bench.measure import apart, environment, median, table_of
from wavecity.flows.bench.memory import peak_memory
from wavecity.flows.bench.train_reference import FullLengthModel, PlainLoop
from wavecity.flows.console import console
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.publishing import check_and_publish, finish
from wavecity.flows.recipe import load_recipe
from wavecity.flows.units import jobs_of, run_unit
from wavecity.model.data.snapshots import Snapshots
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.backbones import Multimodal, steps_per_epoch
from wavecity.model.training.trainer import check_machine, cpu_threads, make_trainer, quiet

SIDES = ("lightning", "plain", "full_length")
PROCESSES = (1, 2)
# Steps before the clock: the first ones allocate.
WARM = 3
MEMORY_STEPS = 4
SEED = 0
PACKAGES = ("torch", "lightning", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    data : str or None
        Store to train on; None builds a small one of Helsinki.
    recipe : str
        Whose training settings count.
    scenes : int
        Of the store that is built.
    steps : int
        Timed steps of every side.
    batch : int
        Users of a step.
    threads : int
        Of torch in parts 1 and 2; 0 for its own choice.
    """

    data: str | None = None
    recipe: str = "pretrain-10k"
    scenes: int = 8
    steps: int = 40
    batch: int = 16
    threads: int = 0


def run(options: Options) -> dict[str, object]:
    """Measure, print the tables and return all figures, JSON-ready.

    Raises
    ------
    InputError
        Not a store or a recipe, or one that does not fit the other.
    """
    settings = bench_settings(load_recipe(options.recipe).training, options)
    with tempfile.TemporaryDirectory() as folder, cpu_threads(options.threads):
        temporary = Path(folder)
        store = options.data or str(build_store(temporary / "store", options.scenes))
        data = Multimodal.load(store, settings)
        train_users = len(data.data.splits["train"])
        check_machine(settings, train_users)
        steps = min(options.steps, epoch_steps(data) - WARM)
        loops = {side: PlainLoop(make_module(side, data), batches_of(data))
                 for side in SIDES[1:]}  # fmt: skip
        turns = Turns(loops, steps + WARM)
        module = make_module("lightning", data)
        train(module, data, steps + WARM, temporary / "run", turns)
        memory = {side: apart(measure_memory, side, store, settings) for side in track(SIDES, "peak memory")}
        rates = {
            processes: processes_rate(data, processes, steps + WARM, temporary / f"ddp-{processes}")
            for processes in track(PROCESSES, "processes")
        }
    figures = {
        "parameters": count_parameters(module.model),
        "tokens": module.model.tokens,
        **summary(turns.seconds, loops["plain"].loading, settings.batch_size),
        "largest_loss_difference": float(np.abs(np.subtract(turns.losses, loops["plain"].losses)).max()),
        "largest_loss_difference_full_length": float(
            np.abs(np.subtract(turns.losses, loops["full_length"].losses)).max()
        ),
        **{f"peak_memory_mb_{side}": value for side, value in memory.items()},
        **{f"samples_per_second_{count}_processes": rate for count, rate in rates.items()},
        "scaling_2_processes": rates[2] / rates[1],
        "steps": steps,
        "batch": settings.batch_size,
        "threads": options.threads or torch.get_num_threads(),
        "train_users": train_users,
    }
    trained_on = options.data or "helsinki, built"
    print_result(figures, trained_on)
    return {**figures, "recipe": options.recipe, "data": trained_on, **environment(*PACKAGES)}


def bench_settings(training: TrainingSettings, options: Options) -> TrainingSettings:
    """Settings of a recipe for a measurement on the CPU, halfway through the curriculum."""
    masking = training.masking
    halfway = (masking.stage_2_start + masking.stage_2_end) / 2
    changes = {
        # The side with full-length attention is that of the paper's profile.
        "model": training.model.model_copy(update={"profile": "paper"}),
        "masking": masking.model_copy(update={"stage_2_start": halfway, "stage_2_end": halfway}),
        "batch_size": options.batch,
        "threads": options.threads,
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "ema_decay": 0.0,
        "compile": False,
        "logger": "csv",
    }
    return training.model_copy(update=changes)


def build_store(folder: Path, scenes: int) -> Path:
    """Build and publish the quickstart's dataset with fewer scenes, in this process; returns the store."""
    recipe = load_recipe("quickstart", (f"area.scenes={scenes}",))
    plan = plan_scenes(recipe, folder / "maps")
    reuse = reuse_of(recipe, plan, folder)
    draft = draft_of(recipe, plan, folder)
    for unit in track(range(draft.layout.units), "store", unit="units"):
        run_unit(draft, unit, jobs_of(draft, unit, plan, reuse), plan.sources, recipe)
    finish(draft, recipe, plan)
    check_and_publish(draft, recipe, folder)
    return folder


def make_module(side: str, data: Multimodal) -> PretrainModule:
    """Model, losses and optimiser of a side; all start from the same weights."""
    module = data.module(epoch_steps(data), SEED, {})
    if side == "full_length":
        full = FullLengthModel(data.settings.model, data.data.geometry)
        full.load_state_dict(module.model.state_dict())
        module.model = full
    return module


def epoch_steps(data: Multimodal) -> int:
    """Steps of an epoch."""
    return steps_per_epoch(data.settings, len(data.data.splits["train"]))


def batches_of(data: Multimodal) -> Iterator[Snapshots]:
    """Training batches of the first epoch, as Lightning gets them."""
    return iter(data.batches(SEED).train_dataloader())


class Turns(Callback):
    """After every step of Lightning the plain loops train the same one.

    Parameters
    ----------
    loops : dict
        Side -> `PlainLoop`.
    steps : int
        For the progress bar.

    Attributes
    ----------
    seconds : dict
        Side -> seconds of each step.
    losses : list of float
        Eq. 7 of each step of Lightning.
    """

    def __init__(self, loops: dict[str, PlainLoop], steps: int) -> None:
        self.seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        self.losses: list[float] = []
        self._loops = loops
        self._steps = steps
        self._shown = ExitStack()
        self._bar: Stage | None = None
        self._since = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock of the first step."""
        self._bar = self._shown.enter_context(stage("steps in turns", self._steps, "steps"))
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop Lightning's clock, let the others train, in an order that turns around, and start it again."""
        self.seconds["lightning"].append(time.perf_counter() - self._since)
        assert isinstance(outputs, Mapping)
        self.losses.append(float(outputs["loss"]))
        sides = list(self._loops)
        for side in sides if len(self.losses) % 2 else reversed(sides):
            self.seconds[side].append(self._loops[side].step())
        assert self._bar is not None
        self._bar.advance()
        self._since = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._shown.close()


class Clock(Callback):
    """Writes when each step ended; in the process that trains, which may be another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        """Look at the clock."""
        self._ends.append(time.perf_counter())

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write what the first process saw."""
        if trainer.is_global_zero:
            self._path.write_text(json.dumps(self._ends))


def train(module: PretrainModule, data: Multimodal, steps: int, out: Path, callback: Callback) -> None:
    """Train some steps with Lightning as `wavecity pretrain` does, without validation."""
    out.mkdir(parents=True, exist_ok=True)
    settings = data.settings.model_copy(update={"epochs": 1})
    trainer = make_trainer(settings, out, epoch_steps(data), settings.batch_size)
    trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
    trainer.limit_train_batches = steps
    trainer.limit_val_batches = 0
    with quiet():
        trainer.fit(module, datamodule=data.batches(SEED))


def measure_memory(side: str, store: str, settings: TrainingSettings) -> float:
    """Peak memory in MB of this process after some steps of a side."""
    data = Multimodal.load(store, settings)
    module = make_module(side, data)
    with tempfile.TemporaryDirectory() as folder, cpu_threads(settings.threads):
        if side == "lightning":
            train(module, data, MEMORY_STEPS, Path(folder), Callback())
        else:
            loop = PlainLoop(module, batches_of(data))
            for _ in range(MEMORY_STEPS):
                loop.step()
    return peak_memory()


def processes_rate(data: Multimodal, processes: int, steps: int, out: Path) -> float:
    """Samples per second of Lightning with some processes of one thread each, after the warm steps."""
    settings = data.settings.model_copy(update={"devices": processes, "threads": 1})
    data = replace(data, settings=settings)
    path = out / "clock.json"
    with cpu_threads(1):
        train(make_module("lightning", data), data, steps, out, Clock(path))
    ends = json.loads(path.read_text())
    return settings.batch_size * (len(ends) - WARM) / (ends[-1] - ends[WARM - 1])


def summary(seconds: dict[str, list[float]], loading: list[float], batch: int) -> dict[str, float]:
    """Rates over all timed steps, and medians over the steps of the ratios between sides."""
    timed = {side: np.asarray(values[WARM:]) for side, values in seconds.items()}
    rates = {side: batch * len(values) / float(values.sum()) for side, values in timed.items()}
    ratios = {side: timed[side] / timed["plain"] for side in SIDES}
    low, high = median_interval(ratios["lightning"])
    return {
        "samples_per_second": rates["lightning"],
        "samples_per_second_plain": rates["plain"],
        "samples_per_second_full_length": rates["full_length"],
        "lightning_overhead": median(ratios["lightning"]) - 1,
        "lightning_overhead_low": low - 1,
        "lightning_overhead_high": high - 1,
        "lightning_overhead_total": float(timed["lightning"].sum() / timed["plain"].sum()) - 1,
        "speedup_over_full_length": median(ratios["full_length"]),
        "speedup_over_full_length_total": float(timed["full_length"].sum() / timed["plain"].sum()),
        "loading_share": float(np.sum(loading[WARM:]) / timed["plain"].sum()),
    }


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Ends between which the median lies with 95 % confidence: order statistics, whatever the distribution.

    With few values they are the smallest and the largest.
    """
    ordered, count = np.sort(values), len(values)
    reach = 1.96 * count**0.5 / 2
    first, last = int(np.floor(count / 2 - reach)), int(np.ceil(count / 2 + reach))
    return float(ordered[max(first, 0)]), float(ordered[min(last, count - 1)])


def print_result(result: dict[str, float], trained_on: str) -> None:
    """Print the tables of sides and of processes, and the summary."""
    table = table_of(("side",), ("samples/s", "step / plain, median", "peak MB"))
    ratios = {
        "lightning": 1 + result["lightning_overhead"],
        "plain": 1,
        "full_length": result["speedup_over_full_length"],
    }
    for side in SIDES:
        rate = result["samples_per_second" if side == "lightning" else f"samples_per_second_{side}"]
        table.add_row(side, f"{rate:.1f}", f"{ratios[side]:.3f}", f"{result[f'peak_memory_mb_{side}']:.0f}")
    console.print(table)
    console.print(
        f"Lightning over the plain loop: {100 * result['lightning_overhead']:.1f} % (95 %: "
        f"{100 * result['lightning_overhead_low']:.1f} to {100 * result['lightning_overhead_high']:.1f} %)"
    )
    table = table_of((), ("processes of one thread", "samples/s"))
    for count in PROCESSES:
        table.add_row(str(count), f"{result[f'samples_per_second_{count}_processes']:.1f}")
    console.print(table)
    console.print(
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['tokens']} tokens, batch {result['batch']}, "
        f"{result['steps']} steps; loading takes {100 * result['loading_share']:.1f} % of a plain step; "
        f"{trained_on}, {result['train_users']} users",
        soft_wrap=True,
    )
