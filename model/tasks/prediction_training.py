"""Windows of trajectories, and how every method that learns to predict is trained: same labels, budget, choice of rate."""

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.windows import Cutter, Windows
from wavecity.model.learning import selection
from wavecity.model.settings.prediction import PredictionSettings
from wavecity.model.settings.training import HeadSettings
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.transformer import seeded_weights

# Held-back windows that are looked at, and how often in a training.
LOOKED_AT = 32
LOOKS = 3
# Windows predicted at a time.
BATCH = 16
# Ridge penalties of the combination, over the mean power of its terms; the held-back windows choose.
PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# In training, a snapshot quieter than this share of those seen weighs as if it had it: no fade may rule a step.
QUIET = 1e-2
# Streams of random numbers.
HELD_BACK, BATCHES = 31, 32


class Forecaster(nn.Module):
    """The temporal model as a predictor of `horizon` snapshots: all that comes after those seen is hidden."""

    def __init__(self, model: TemporalModel, horizon: int) -> None:
        super().__init__()
        self.model = model
        self.horizon = horizon

    def forward(self, past: Tensor) -> Tensor:
        """Complex (B, T, angle, delay) to (B, horizon, angle, delay)."""
        return self.model.predict_tail(past, self.horizon)

    def fit(self, windows: Windows, judged: Windows) -> None:
        """Find the weights with which the guesses and the network's prediction are combined, by least squares.

        Every user and snapshot counts by its error over that of the guess alone: over its energy, as it is judged, the few
        that nothing can foretell would rule. The penalty draws the weights towards what they are, or towards the guess
        alone; penalty and aim are those with the least `prediction_loss` on `judged`, and if none helps there the weights
        stay.
        """
        combine = self.model.combine
        if combine is None:
            return
        with torch.no_grad():
            start = torch.cat((combine.weight, combine.bias[:, None]), 1).double()
            now = torch.complex(start[0::2], start[1::2]).flatten()
            (gram, moment), (judged_gram, judged_moment) = self._normal(windows, True), self._normal(judged, False)

            def loss(weights: Tensor) -> float:
                """On the judged windows, but for what does not depend on the weights."""
                return float((weights.conj() @ (judged_gram @ weights - 2 * judged_moment)).real)

            level = gram.diagonal().real.mean().clamp_min(1e-30)
            unit = torch.eye(len(gram), dtype=gram.dtype)
            tries = [now, torch.zeros_like(now)]
            for aim, penalty in itertools.product((now, torch.zeros_like(now)), PENALTIES):
                tries.append(aim + torch.linalg.solve(gram + penalty * level * unit, moment - gram @ aim))
            best = min(tries, key=loss).view(len(start) // 2, -1)
            found = torch.view_as_real(best).transpose(1, 2).flatten(0, 1).to(combine.weight)
            combine.weight.copy_(found[:, :-1])
            combine.bias.copy_(found[:, -1])

    def _normal(self, windows: Windows, relative: bool) -> tuple[Tensor, Tensor]:
        """Gram matrix and moment of the weighted least squares, complex128."""
        gram, moment = torch.zeros(()), torch.zeros(())
        self.model.eval()
        for past, future, share in zip(
            windows.past.split(BATCH), windows.future.split(BATCH), _shares(windows).split(BATCH), strict=True
        ):
            encoded, terms, start = self.model.combined(past, self.horizon)
            encoded = F.pad(encoded, (0, 1), value=1.0).to(torch.complex128)
            known = (terms[..., None] * encoded[..., None, None, :]).transpose(-2, -3).flatten(-2)
            missing = self.model.patches(future) - start
            if relative:
                error = missing.abs().square().sum((2, 3, 4)) * share
                share = share / error.clamp_min(1e-6 / share.numel())
            weight = share.double().sqrt()[..., None, None, None]
            known = (known * weight[..., None]).flatten(0, -2)
            asked = (missing * weight).flatten()
            gram, moment = gram + known.mH @ known, moment + known.mH @ asked
        return gram, moment


def ratios(predicted: Tensor, future: Tensor) -> Tensor:
    """Squared error over energy per snapshot, (N, H, angle, delay) to float64 (N, H); nan where there is no path."""
    error = (predicted - future).abs().double().square().sum((-1, -2))
    power = future.abs().double().square().sum((-1, -2))
    return torch.where(power > 0, error / power, torch.nan)


def prediction_loss(predicted: Tensor, windows: Windows) -> Tensor:
    """Mean over users and snapshots of the squared error over the energy."""
    error = torch.view_as_real(predicted - windows.future).square().sum((-1, -2, -3))
    return (error * _shares(windows)).sum()


def _shares(windows: Windows) -> Tensor:
    """What the squared error of each user and snapshot counts, (N, H)."""
    power = torch.view_as_real(windows.future).square().sum((-1, -2, -3))
    seen = torch.view_as_real(windows.past).square().sum((-1, -2, -3)).mean(1, keepdim=True)
    return 1 / power.maximum(QUIET * seen).clamp_min(1e-6) / power.numel()


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
) -> Iterator[selection.Trained[nn.Module]]:
    """Train a predictor once per seed, at the learning rate that the first seed's held-back labels favour.

    `build` makes where training starts, the pretrained model or random weights, and is called under the seed. `draw`
    gives for a seed labelled trajectories (N, T, F, X) in random order, the last `heads.held_back` of which choose.
    """
    looked_at_every = max(steps // LOOKS, 1)

    def prepare(seed: int) -> selection.TrainAt[nn.Module]:
        csi, held_back = selection.split_held_back(draw(seed), heads.held_back)
        rng = np.random.default_rng([seed, HELD_BACK])
        judged = cutter.cut(selection.repeated(held_back, LOOKED_AT), rng)
        with seeded_weights(seed):
            start = build()
        if isinstance(start, Forecaster) and settings.fit_windows:
            start.fit(cutter.cut(selection.repeated(csi, settings.fit_windows), rng, turn=True), judged)

        def train_at(rate: float) -> tuple[float, nn.Module]:
            model = copy.deepcopy(start)
            rng = np.random.default_rng([seed, BATCHES])

            def batch_loss() -> Tensor:
                # With few labels a trajectory comes several times in a step, each time at another place.
                windows = cutter.cut(selection.draw_rows(rng, csi, settings.batch_size), rng, turn=True)
                return prediction_loss(model(windows.past), windows)

            def held_back_loss() -> float:
                return float(prediction_loss(forecast(model, judged.past), judged))

            return selection.train_selected(model, batch_loss, held_back_loss, rate, steps, looked_at_every), model

        return train_at

    return selection.train_seeds(heads.seeds, settings.learning_rates, prepare)
