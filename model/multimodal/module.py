"""The training step for Lightning: curriculum, augmentation, losses, optimiser, and what a checkpoint carries."""

import math
import time

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from wavecity.model.data.json_types import Json
from wavecity.model.data.snapshots import SnapshotData, Snapshots, before_panel
from wavecity.model.data.users import ScenePatches, SceneTable
from wavecity.model.multimodal import losses
from wavecity.model.multimodal.inputs import loss_terms, prepare
from wavecity.model.multimodal.masking import Draws, Plan, RankDraws, draw_mask, draw_plan
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.settings.training import AugmentSettings, TrainingSettings
from wavecity.model.transformer import seeded_weights

# Streams of random numbers.
SHARED, TRAINING, VALIDATION = 1, 2, 3
EMBEDDINGS = ("positions", "physc", "separators", "mask_tokens")


class MaskedPretraining(lightning.LightningModule):
    """What the pretrainings share: optimiser, schedule, log, and the card that goes into every checkpoint."""

    model: nn.Module  # The network
    tokens: int  # Of a sample

    def __init__(self, settings: TrainingSettings, steps_per_epoch: int, seed: int, card: Json) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.card = card
        self.seconds_before = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time so far, over all resumed runs."""
        return self.seconds_before + time.perf_counter() - self._started

    def on_fit_start(self) -> None:
        """Threads of a process that Lightning has started."""
        if self.settings.threads:
            torch.set_num_threads(self.settings.threads)

    def log_step(self, terms: dict[str, Tensor], batch_size: int) -> None:
        """Means over all ranks, which have equal shares of the batch, in one exchange."""
        # Lightning would collect them at every step and write them at these.
        if (self.global_step + 1) % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        values: Tensor = torch.stack([value.detach() for value in terms.values()])
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")  # type: ignore[assignment]
        logged = {f"train/{name}": value for name, value in zip(terms, values.unbind(), strict=True)}
        self.log_dict(logged, batch_size=batch_size)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with weight decay on what `decays` alone; linear warm-up, then a cosine."""
        optimiser = self.settings.optimiser
        parameters: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            parameters[self.decays(name, parameter)].append(parameter)
        decays = {True: optimiser.weight_decay, False: 0.0}
        groups = [{"params": parameters[decayed], "weight_decay": decay} for decayed, decay in decays.items()]
        adamw = torch.optim.AdamW(groups, lr=optimiser.learning_rate, betas=optimiser.betas)
        steps = self.settings.epochs * self.steps_per_epoch

        def factor(step: int) -> float:
            return schedule(step, steps, optimiser.warmup_steps, optimiser.final_share)

        scheduler = torch.optim.lr_scheduler.LambdaLR(adamw, factor)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter has weight decay: no vector and no embedding has."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: Json) -> None:
        """Add the card: a checkpoint alone is enough to use the model."""
        checkpoint["wavecity"] = {**self.card, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: Json) -> None:
        """Go on counting the time."""
        self.seconds_before = float(checkpoint["wavecity"]["seconds"])


class PretrainModule(MaskedPretraining):
    """Masked pretraining of the foundation model (Appendix B); `data` gives sizes and scales, no users."""

    def __init__(
        self, settings: TrainingSettings, data: SnapshotData, steps_per_epoch: int, seed: int, card: Json
    ) -> None:
        super().__init__(settings, steps_per_epoch, seed, card)
        self.statistics, self.tile_size, self.bs = data.statistics, data.tile_size, data.bs
        with seeded_weights(seed):
            self.model: FoundationModel = FoundationModel(settings.model, data.geometry)
        self.tokens = self.model.tokens

    def setup(self, stage: str) -> None:
        """Compile the blocks in place, in the process that trains: the names of the weights stay as they are."""
        if self.settings.compile:
            for block in (*self.model.encoder, *self.model.decoder):
                # Every step has its own number of visible tokens.
                block.compile(dynamic=True)

    def training_step(self, batch: Snapshots, batch_idx: int) -> Tensor:
        """Eq. 7 under this step's plan."""
        terms = self.step_terms(batch, self.global_step, self.global_rank, self.trainer.world_size)
        total = losses.total(terms, self.settings.losses)
        self.log_step({**terms, "total": total}, len(batch.csi))
        return total

    def step_terms(self, batch: Snapshots, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Loss terms of a step of this rank's share of the batch; random numbers depend on seed and step only."""
        shared = np.random.default_rng([self.seed, SHARED, step])
        plan = draw_plan(self.settings.masking, step // self.steps_per_epoch, self.settings.epochs, shared)
        own = RankDraws(np.random.default_rng([self.seed, TRAINING, step]), rank, world)
        csi, position, mirror = augment(batch.csi, batch.position, self.settings.augment, own)
        return self._terms(batch._replace(csi=csi, position=position), plan, own, mirror)

    def validation_step(self, batch: Snapshots, batch_idx: int) -> None:
        """Losses under two fixed plans: 0.7 of the CSI, and every modality with the location hidden."""
        terms: dict[str, list[Tensor]] = {}
        for number, plan in enumerate(VALIDATION_PLANS):
            rng = np.random.default_rng([self.seed, VALIDATION, batch_idx, number])
            for name, value in self._terms(batch, plan, rng, None).items():
                terms.setdefault(name, []).append(value)
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        means["total"] = losses.total(means, self.settings.losses)
        logged = {f"validation/{name}": value for name, value in means.items()}
        self.log_dict(logged, batch_size=len(batch.csi), sync_dist=True)

    def _terms(self, batch: Snapshots, plan: Plan, rng: Draws, mirror: Tensor | None) -> dict[str, Tensor]:
        csi, position, scene = batch[:3]
        scenes = self._scenes(batch)
        # Mirrored positions are relative to a mirrored base station.
        bs = scenes.bs[scene] if mirror is None else scenes.bs[scene] * _sign(mirror)
        drawn = draw_mask(plan, self.model.csi_patches, scenes.centres, bs, bs + position, scenes.size, rng)
        mask = drawn.to(self.device)
        if batch.station is not None:
            position = before_panel(position, batch.station[scene, 2])
        prepared = prepare(csi, position, scene, mask, scenes, mirror)
        outputs = self.model(prepared.inputs, mask)
        occupied = None if plan.csi_only else scenes.occupancy(scene, mirror)
        return loss_terms(outputs, prepared, mask, occupied, self.settings.losses)

    def _scenes(self, batch: Snapshots) -> ScenePatches:
        """Maps of the batch's scenes."""
        if batch.station is not None:
            bs = batch.station[:, :2]
        else:
            bs = torch.tensor(self.bs, device=batch.bs_shift.device) + torch.stack(
                (batch.bs_shift, torch.zeros_like(batch.bs_shift)), -1
            )
        table = SceneTable(batch.height, batch.occupancy, bs, self.tile_size, names=[], cities=[])
        return ScenePatches(table, self.settings, self.statistics, self.device)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """By the names of the embeddings."""
        return parameter.ndim > 1 and not any(part in name for part in EMBEDDINGS)


VALIDATION_PLANS = (
    Plan("csi", 2, csi_ratio=0.7, scene_ratio=0.0, hide_location=False),
    Plan("all", 2, csi_ratio=0.6, scene_ratio=0.15, hide_location=True),
)


def schedule(step: int, steps: int, warmup: int, final_share: float) -> float:
    """Share of the peak learning rate: linear warm-up over at most half the steps, then cosine to `final_share`."""
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))


def augment(
    csi: Tensor, position: Tensor, settings: AugmentSettings, rng: Draws
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rotate each channel by a phase of its own, and mirror half of the samples east-west.

    With the panel facing south, mirroring the world reverses the order of the array's columns, and nothing else.
    Returns channels complex64 (B, x, y), positions (B, 2), and which samples were mirrored, bool (B,): their maps must
    be, too.
    """
    mirror, batch = None, len(csi)
    if settings.global_phase:
        phase = torch.from_numpy(rng.uniform(0, 2 * np.pi, (batch,)).astype(np.float32)).to(csi.device)
        csi = csi * torch.polar(torch.ones_like(phase), phase)[:, None, None]
    if settings.mirror:
        mirror = torch.from_numpy(rng.random((batch,)) < 0.5).to(csi.device)
        csi = torch.where(mirror[:, None, None], csi.flip(-2), csi)
        position = position * _sign(mirror)
    return csi, position, mirror


def _sign(mirror: Tensor) -> Tensor:
    """Factors (B, 2) that mirror positions east-west."""
    return torch.stack((1 - 2 * mirror.float(), torch.ones_like(mirror, dtype=torch.float32)), -1)
