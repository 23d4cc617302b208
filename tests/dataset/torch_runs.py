"""Functions of the torch readers' tests that run in other processes, which import them by name."""

import os
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.torch_batches import ShuffledChannels

Pairs = list[tuple[int, int]]


def pairs_of(batch: dict[str, Any]) -> Pairs:
    return list(zip(batch["scene"].tolist(), batch["user"].tolist(), strict=True))


def double(sample: dict[str, Any]) -> dict[str, Any]:
    """A transform that can be pickled."""
    return {**sample, "user_position": 2 * sample["user_position"]}


def run_rank(rank: int, world: int, store: str, folder: str, workers: int) -> None:
    """One of `world` processes: all batches of an epoch, with a collective operation at each, as training has it."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    try:
        channels = ShuffledChannels(store, fields=("user_position",), batch_size=7, seed=1, window=2)
        seen = []
        for batch in DataLoader(channels, batch_size=None, num_workers=workers):
            torch.distributed.all_reduce(batch["user_position"].sum())
            seen.append(pairs_of(batch))
        assert len(seen) == len(channels)
        torch.save(seen, Path(folder) / f"rank-{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


class Recorder(lightning.LightningModule):
    """Notes what it is trained on, and may be stopped like a killed run: in the middle of a step."""

    def __init__(self, stop_in: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen: list[tuple[int, int, Pairs]] = []
        self.validated: list[Pairs] = []
        self.stop_in = stop_in

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        if self.stop_in == len(self.seen):
            msg = "killed"
            raise RuntimeError(msg)
        self.seen.append((self.trainer.current_epoch, index, pairs_of(batch)))
        return self.layer(batch["user_position"]).mean()

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.validated.append(pairs_of(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(
    store: Path, folder: Path, workers: int = 0, stop_in: int | None = None, resume: Path | None = None, **options: Any
) -> tuple[Recorder, list[Path]]:
    """Two epochs with a checkpoint after every batch; returns the module and the checkpoints in order."""
    module = Recorder(stop_in)
    data = ChannelDataModule(
        store, ("user_position",), **{"batch_size": 16, "seed": 3, "window": 2, "workers": workers, **options}
    )
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(folder, "{step:04d}", every_n_train_steps=1, save_top_k=-1)],
    )
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=False)
    except RuntimeError as error:
        if str(error) != "killed":
            raise
    return module, sorted(folder.glob("*.ckpt"))
