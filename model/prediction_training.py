"""Windows of trajectories, and how every method that learns to predict is trained: same labels, budget, choice of rate."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model.angle_delay import delay_window, to_angle_delay
from model.prediction_settings import PredictionSettings
from model.settings import HeadSettings
from model.temporal import TemporalModel

# Held-back windows that are looked at, and how often in a training.
LOOKED_AT = 16
LOOKS = 3
WEIGHT_DECAY = 1e-2
# Windows predicted at a time.
BATCH = 16
# In training, a snapshot quieter than this share of those seen weighs as if it had it: no fade may rule a step.
QUIET = 1e-2


@dataclass(frozen=True)
class Windows:
    """Snapshots seen and those to come, in angle and delay.

    Attributes
    ----------
    past : complex64 (N, T, angle, delay)
        With noise, where there is any.
    future : complex64 (N, H, angle, delay)
        Without noise.
    """

    past: Tensor
    future: Tensor

    def __len__(self) -> int:
        return len(self.past)


@dataclass(frozen=True)
class Cutter:
    """Cuts windows out of trajectories.

    Attributes
    ----------
    past, future : int
        Snapshots seen and predicted.
    delays : int
        Bins of delay.
    align : bool
        Keep the bins with the most energy among the snapshots seen (the future has no say), or the first ones.
    snr : float, optional
        Of the snapshots seen, dB; over all subcarriers and antennas.
    """

    past: int
    future: int
    delays: int
    align: bool
    snr: float | None

    def cut(self, csi: Tensor, rng: np.random.Generator, turn: bool = False) -> Windows:
        """One window at a random place of each trajectory.

        Parameters
        ----------
        csi : complex64 (N, T, F, X)
        rng : Generator
            Draws places and noise.
        turn : bool
            Also rotate each window by a random phase: more of the same physics, for training.
        """
        start = torch.from_numpy(rng.integers(0, csi.shape[1] - self.past - self.future + 1, len(csi)))
        steps = start[:, None] + torch.arange(self.past + self.future)
        window = csi[torch.arange(len(csi))[:, None], steps]
        seen = window[:, : self.past]
        level = seen.abs().square().mean((1, 2, 3), keepdim=True).sqrt()
        if turn:
            angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, (len(csi), 1, 1, 1))).float()
            level = level * torch.polar(torch.ones_like(angle), -angle)
        # Of mean power one: squares of channels as weak as they come would leave float32. What was never heard stays out.
        window = torch.where(level.abs() > 0, window / level, 0)
        seen = window[:, : self.past]
        if self.snr is not None:
            deviation = 10 ** (-self.snr / 20) / 2**0.5
            noise = deviation * rng.standard_normal((*seen.shape, 2), dtype=np.float32)
            seen = seen + torch.view_as_complex(torch.from_numpy(noise.astype(np.float32)))
        first = delay_window(seen, self.delays) if self.align else 0
        return Windows(
            to_angle_delay(seen, self.delays, first), to_angle_delay(window[:, self.past :], self.delays, first)
        )

    def lost(self, csi: Tensor) -> float:
        """Share of the energy of some trajectories that lies in bins of delay that are dropped."""
        first = delay_window(csi, self.delays) if self.align else 0
        kept = to_angle_delay(csi, self.delays, first).abs().square().sum()
        return max(1 - float(kept / csi.abs().square().sum()), 0.0)


class Forecaster(nn.Module):
    """The temporal model as a predictor: all that comes after the snapshots seen is hidden.

    Parameters
    ----------
    model : TemporalModel
    horizon : int
        Snapshots predicted.
    """

    def __init__(self, model: TemporalModel, horizon: int) -> None:
        super().__init__()
        self.model = model
        self.horizon = horizon

    def forward(self, past: Tensor) -> Tensor:
        """Complex (B, T, angle, delay) to (B, horizon, angle, delay)."""
        return self.model.predict_tail(past, self.horizon)


def ratios(predicted: Tensor, future: Tensor) -> Tensor:
    """Squared error of a snapshot over its energy, float64 (N, H); not-a-number where there is no path.

    Parameters
    ----------
    predicted, future : complex (N, H, angle, delay)
    """
    error = (predicted - future).abs().double().square().sum((-1, -2))
    power = future.abs().double().square().sum((-1, -2))
    return torch.where(power > 0, error / power, torch.nan)


def prediction_loss(predicted: Tensor, windows: Windows) -> Tensor:
    """Mean over users and snapshots of the squared error over the energy."""
    error = torch.view_as_real(predicted - windows.future).square().sum((-1, -2, -3))
    power = torch.view_as_real(windows.future).square().sum((-1, -2, -3))
    seen = torch.view_as_real(windows.past).square().sum((-1, -2, -3)).mean(1, keepdim=True)
    return (error / power.maximum(QUIET * seen).clamp_min(1e-6)).mean()


@torch.no_grad()
def forecast(model: nn.Module, past: Tensor) -> Tensor:
    """Predictions of many windows."""
    model.eval()
    return torch.cat([model(part) for part in past.split(BATCH)])


def trained(
    build: Callable[[], nn.Module],
    draw: Callable[[int], Tensor],
    cutter: Cutter,
    settings: PredictionSettings,
    heads: HeadSettings,
    steps: int,
) -> Iterator[tuple[int, nn.Module, float]]:
    """Train a predictor once a seed, at the learning rate that the first seed's held-back labels favour.

    Parameters
    ----------
    build : callable
        Where training starts, the pretrained model or random weights; called under the seed.
    draw : callable
        Seed -> labelled trajectories (N, T, F, X) in random order; the last `heads.held_back` of them choose.
    cutter : Cutter
    settings : PredictionSettings
        Batch size and learning rates.
    heads : HeadSettings
        Seeds and share held back.
    steps : int

    Yields
    ------
    seed : int
    model : nn.Module
        In evaluation mode.
    rate : float
    """
    rates = settings.learning_rates
    for seed in range(heads.seeds):
        csi = draw(seed)
        stop = max(len(csi) - max(round(heads.held_back * len(csi)), 1), 1)
        tries = []
        for rate in rates:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = build()
            value = _train(model, csi[:stop], csi[stop:][:LOOKED_AT], cutter, rate, steps, settings.batch_size, seed)
            tries.append((value, rate, model))
        _, rate, model = min(tries, key=lambda entry: entry[0])
        rates = (rate,)
        yield seed, model, rate


def _train(
    model: nn.Module, csi: Tensor, held_back: Tensor, cutter: Cutter, rate: float, steps: int, batch: int, seed: int
) -> float:
    """Train in place; the step with the least loss on the held-back trajectories wins, the start included."""
    judged = cutter.cut(held_back, np.random.default_rng([seed, 31]))

    def held_back_loss() -> float:
        return float(prediction_loss(forecast(model, judged.past), judged))

    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    rng = np.random.default_rng([seed, 32])
    best, weights = held_back_loss(), copy.deepcopy(model.state_dict())
    for step in range(1, steps + 1):
        model.train()
        # With few labels a trajectory comes several times in a step, each time at another place.
        index = torch.from_numpy(np.resize(rng.permutation(len(csi)), batch))
        windows = cutter.cut(csi[index], rng, turn=True)
        optimiser.zero_grad()
        prediction_loss(model(windows.past), windows).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(steps // LOOKS, 1) == 0 or step == steps:
            value = held_back_loss()
            if value < best:
                best, weights = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    model.eval()
    return best
