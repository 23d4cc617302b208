"""Channel prediction by waves that are tracked over the snapshots, alone and as the tokens of a small transformer.

    python scripts/tracked_waves.py STORE [--snr 10 20 none] [--seeds 3] [--steps 1000] [--floor 1e-5] [--users 1000]
           [--test-users 30] [--networks]

STORE has users that move (recipe `temporal` or one based on it). Windows, noise, bins and errors are those of
`wavecity evaluate --task prediction`: 16 snapshots seen, 8 to come, the 8 bins of delay with most energy. From the
snapshots seen, waves are recovered: Doppler, direction, delay and complex gain of each. They are continued by
their Doppler (the closed form), and a transformer whose tokens they are corrects level and phase of each continued wave; its
last layer starts at zero, so at step 0 it is the closed form. It is trained on windows of the training cities.

Prints tables in Markdown: NMSE in dB, mean over users, by method, noise, kind of user and horizon.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from waves_in_time import SUBCARRIERS, WAVES, Continued, Tracked, by_slope, closed_form, recover

from wavecity.model.data.trajectories import KINDS, TemporalUsers, gather_temporal, load_temporal
from wavecity.model.data.windows import Cutter, Windows
from wavecity.model.equivariance.group import Wrapped, epsilon, modulate
from wavecity.model.learning.baselines import decibel
from wavecity.model.learning.predictors import GruPredictor, persistence, ridge
from wavecity.model.settings.prediction import PredictionSettings
from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.settings.training import HeadSettings
from wavecity.model.tasks.prediction import SPEEDS, pick_test
from wavecity.model.tasks.prediction_training import Forecaster, ratios, trained
from wavecity.model.tasks.prediction_training import forecast as predict
from wavecity.model.temporal.extrapolation import extrapolate
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.transformer import seeded_weights

PAST, ANTENNAS, DELAYS, HORIZONS = 16, 16, 8, (1, 2, 4, 8)
AHEAD = HORIZONS[-1]
# Of `tokens`.
FEATURES = 17


def tokens(waves: Tracked) -> Tensor:
    """What is known of each wave, float32 (B, K, FEATURES), none of which changes under a modulation of the channel.

    Relative to the strongest wave: direction, delay, Doppler (circular) and level. And the uncertainty of the first three, drift
    of level and phase over the window, level over the noise, how near the nearest other wave is, how many there are, and what is
    unexplained at the end of the window.
    """
    found = waves.found
    level = waves.gain.abs().clamp_min(1e-30).log()
    strongest = torch.where(found, level, -torch.inf).argmax(1)
    rows = torch.arange(len(level))
    relative = waves.turns - waves.turns[rows, strongest][:, None]
    angle = 2 * math.pi * relative[..., :2]
    spread = waves.covariance.diagonal(dim1=2, dim2=3).clamp_min(1e-14).log() / 2
    scales = torch.tensor([1 / PAST, 1 / ANTENNAS, 1 / SUBCARRIERS], dtype=torch.float64)
    bins = (torch.remainder(relative + 0.5, 1) - 0.5) / scales
    far = (
        (bins[:, :, None] - bins[:, None])
        .square()
        .sum(-1)
        .masked_fill(~(found[:, None] & found[:, :, None]), torch.inf)
    )
    far = far + torch.diag_embed(torch.full(level.shape, torch.inf, dtype=torch.float64)).nan_to_num(
        0, posinf=torch.inf
    )
    nearest = far.amin(2).clamp(1e-4, 1e4).log()
    parts = torch.stack(
        (
            angle[..., 0].sin(), angle[..., 0].cos(), angle[..., 1].sin(), angle[..., 1].cos(),
            relative[..., 2] * SUBCARRIERS / 4,
            (level - level[rows, strongest][:, None]) / 3,
            (spread[..., 0] + 8) / 3, (spread[..., 1] + 8) / 3, (spread[..., 2] + 8) / 3,
            waves.drift.real.clamp(-3, 3), waves.drift.imag, waves.drift.real.abs().clamp_max(3), waves.drift.imag.abs(),
            (level - waves.noise.clamp_min(1e-30).log()[:, None] / 2) / 5, nearest / 4,
            found.sum(1, keepdim=True).expand_as(level) / WAVES,
            waves.recent[:, None].expand_as(level),
        ),
        -1,
    )  # fmt: skip
    return torch.where(found[..., None], parts, 0).float()


class Corrector(nn.Module):
    """A transformer over a window's waves that corrects level and phase of each wave at each snapshot to come.

    The logarithm of a wave's factor is quadratic in the distance ahead, real part (level) and imaginary part (phase). The last
    layer starts at zero: the closed form.
    """

    def __init__(self, width: int = 48, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 6)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, waves: Tensor, found: Tensor) -> Tensor:
        """Factors complex64 (B, H, K) of tokens (B, K, FEATURES)."""
        # A window without a wave has nothing to attend to.
        hidden = ~found & found.any(1, keepdim=True)
        states = self.blocks(self.embed(waves), src_key_padding_mask=hidden)
        corrections = self.head(states).unflatten(-1, (2, 3))  # (B, K, 2, 3)
        ahead = torch.arange(1, AHEAD + 1) / AHEAD
        powers = torch.stack((torch.ones(AHEAD), ahead, ahead.square()))
        level, phase = (corrections @ powers).unbind(2)  # (B, K, H)
        # Down to nothing, but at most e times as strong.
        level = torch.where(level < 0, level, level.tanh())
        return torch.exp(torch.complex(level, phase)).mT


@dataclass(frozen=True)
class Examples:
    """Windows as the corrector takes them; all first dimensions are windows."""

    waves: Tensor  # float32 (N, K, FEATURES)
    found: Tensor  # bool (N, K)
    weights: Tensor  # complex64 (N, H, K) of the closed form
    energy: Tensor  # float32 (N, H); 1, or 0 without a path
    right: Tensor  # complex64 (N, H, K)
    gram: Tensor  # complex64 (N, K, K)

    def at(self, rows: Tensor) -> "Examples":
        """Some of them."""
        return Examples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def errors(self, factors: Tensor) -> Tensor:
        """NMSE float32 (N, H) with factors (N, H, K), of the snapshots with a path."""
        weights = self.weights * factors
        fitted = (weights.conj() * (weights @ self.gram.mT)).sum(-1).real
        return (self.energy - 2 * (weights.conj() * self.right).sum(-1).real + fitted).clamp_min(0)


def examples(windows: Windows) -> Examples:
    """Recover the waves of windows, and what the errors of their continuations need. Energies are those of each snapshot."""
    waves = recover(windows.past)
    ahead = Continued(waves, windows.past)
    energy, right = ahead.products(windows.future)
    # A snapshot much quieter than what was seen weighs less, as in `prediction_training.prediction_loss`.
    seen = windows.past.abs().double().square().sum((2, 3)).mean(1, keepdim=True)
    level = torch.maximum(energy, 1e-2 * seen).clamp_min(1e-30).sqrt()
    return Examples(
        tokens(waves), waves.found, (ahead.weights / level[..., None]).to(torch.complex64),
        (energy / level.square()).float(), (right / level[..., None]).to(torch.complex64), ahead.gram.to(torch.complex64),
    )  # fmt: skip


def train(
    known: Examples, judged: Examples, steps: int, seed: int, floor: float, rate: float = 1e-3, batch: int = 128
) -> Corrector:
    """A corrector with the least loss on the judged windows, where it is looked at ten times; the closed form if that is.

    The loss is the mean of the errors in dB, with `floor` added to each error: windows whose error is far below count little.
    """
    with seeded_weights(seed):
        model = Corrector()
    rng = np.random.default_rng([seed, 51])
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)

    def loss_of(part: Examples) -> Tensor:
        return (part.errors(model(part.waves, part.found)) + floor).log().mean() * 10 / math.log(10)

    def judge() -> float:
        with torch.no_grad():
            return float(loss_of(judged))

    best, kept = judge(), {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        loss_of(known.at(torch.from_numpy(rng.integers(0, len(known.waves), batch)))).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % max(steps // 10, 1) == 0 and (now := judge()) < best:
            best, kept = now, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return model.eval()


def training_windows(
    people: TemporalUsers, draws: int, snrs: Sequence[float | None], seed: int
) -> tuple[Examples, Examples]:
    """Examples of the training cities, to train on and to judge by: every fifth scene judges."""
    judges = people.scene.unique()[::5]
    held = torch.isin(people.scene, judges)
    rng = np.random.default_rng([seed, 50])
    parts = []
    for csi, repeats in ((people.csi[~held], draws), (people.csi[held], 1)):
        cut = [cutter(snr).cut(csi, rng) for snr in snrs for _ in range(repeats)]
        found = [examples(windows) for windows in cut]
        parts.append(
            Examples(*(torch.cat([getattr(one, name) for one in found]) for name in Examples.__dataclass_fields__))
        )
    return parts[0], parts[1]


def cutter(snr: float | None) -> Cutter:
    """As `wavecity evaluate --task prediction` cuts with its default settings."""
    return Cutter(PAST, AHEAD, DELAYS, True, snr)


def forecasts(windows: Windows, models: Sequence[Corrector]) -> Iterator[tuple[str, Tensor]]:
    """Name and forecast of each method; of one that was trained, once per seed."""
    past, config = windows.past, PredictionSettings()
    yield "persistence", persistence(past, range(1, AHEAD + 1))
    simple = ridge(past, HORIZONS, config.ridge_orders, config.ridge_penalties).values
    whole = torch.zeros_like(windows.future)
    whole[:, [horizon - 1 for horizon in HORIZONS]] = simple
    yield "ridge (AR) of each sample", whole
    yield "first guess of the temporal model", extrapolate(past, AHEAD).best()
    yield "waves, Doppler by phase slope", Continued(by_slope(past), past).forecast()
    waves = recover(past)
    ahead = Continued(waves, past)
    yield "waves, closed form", ahead.forecast()
    for model in models:
        with torch.no_grad():
            yield "waves as tokens", ahead.forecast(model(tokens(waves), waves.found))
    yield "best factors of the waves (bound)", ahead.forecast(best_factors(ahead, windows.future))


def networks(csi: Tensor, cut: Cutter) -> Iterator[tuple[str, nn.Module]]:
    """A GRU and the temporal model from random weights, trained as docs/results.md has it, on all users at one level of noise."""
    config = PredictionSettings(steps=10, fit_windows=32, gru_steps=1000, learning_rates=(0.001,))
    settings = TemporalModelSettings(layers=2, heads=4, top_k=False)
    grid = (PAST + AHEAD, ANTENNAS, DELAYS)
    starts: dict[str, tuple[Callable[[], nn.Module], int]] = {
        "temporal model from random weights": (lambda: Forecaster(TemporalModel(settings, grid), AHEAD), config.steps),
        "GRU": (lambda: GruPredictor(grid[1:], AHEAD, config.gru_width), config.gru_steps),
    }

    def draw(seed: int) -> Tensor:
        return csi[torch.from_numpy(np.random.default_rng([seed, 33]).permutation(len(csi)))]

    for name, (build, steps) in starts.items():
        for _, network, _ in trained(build, draw, cut, config, HeadSettings(seeds=1), steps):
            yield name, network


def best_factors(ahead: Continued, future: Tensor) -> Tensor:
    """Factors (B, H, K) with the least error, which only the future knows: what no correction of the waves can improve on."""
    found = ahead.weights.abs().sum(1) > 0  # (B, K)
    unit = torch.diag_embed(torch.where(found, 1e-9 * PAST, 1.0)).to(ahead.gram.dtype)
    gram = ahead.gram * (found[:, :, None] & found[:, None]) + unit
    weights = torch.linalg.solve(gram[:, None], (ahead.products(future)[1] * found[:, None])[..., None])[..., 0]
    return torch.where(ahead.weights != 0, weights / ahead.weights, 0)


def figures(kind: Tensor, predicted: Tensor, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """NMSE in dB by kind of user and horizon, (kinds, horizons): of the mean over users, and of the median user."""
    errors = ratios(predicted, windows.future)[:, [horizon - 1 for horizon in HORIZONS]]
    mine = [errors[kind == KINDS.index(name)] for name in SPEEDS]
    mean = [[decibel(float(value)) for value in part.nanmean(0)] for part in mine]
    median = [[decibel(float(value)) for value in part.nanmedian(0).values] for part in mine]
    return np.array(mean), np.array(median)


def shift_errors(forecast: Callable[[Tensor], Tensor], past: Tensor, seed: int) -> dict[str, float]:
    """Equivariance error in dB along time and antennas, under random shifts of any size: f(M_g H) against M_g f(H)."""
    rng = np.random.default_rng([seed, 52])
    errors = {}
    for name, axis, begins in (("time", 1, past.shape[1]), ("antennas", 2, 0)):
        turns = torch.from_numpy(rng.uniform(-0.5, 0.5, (len(past), 1)))

        def moved(bins: Tensor, origin: int, axis: int = axis, turns: Tensor = turns) -> Tensor:
            entries = modulate(torch.fft.ifft(bins.to(torch.complex128), dim=2, norm="ortho"), turns, [axis], origin)
            return torch.fft.fft(entries, dim=2, norm="ortho")

        shifted = epsilon(forecast(moved(past, 0)), moved(forecast(past.to(torch.complex128)), begins))
        errors[name] = decibel(float(shifted))
    return errors


def row(name: str, values: Sequence[np.ndarray]) -> str:
    """A row of the table: all, each kind, each horizon; with several seeds the standard deviation of the first."""
    mean = np.mean(values, 0)
    spread = f" ± {np.std([value.mean() for value in values], ddof=1):.2f}" if len(values) > 1 else ""
    cells = [f"{mean.mean():.2f}{spread}", *(f"{value:.1f}" for value in (*mean.mean(1), *mean.mean(0)))]
    return f"| {name} | {' | '.join(cells)} |"


def noise_level(text: str) -> float | None:
    """Of the command line: dB, or none."""
    return None if text == "none" else float(text)


def main() -> None:
    """Train, compare, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--snr", nargs="+", type=noise_level, default=[10.0, 20.0, None], metavar="DB", help="or none")
    parser.add_argument("--seeds", type=int, default=3, help="of the transformer")
    parser.add_argument("--steps", type=int, default=1000, help="of its training")
    parser.add_argument(
        "--floor", type=float, default=1e-5, help="of the errors in its loss; large: the worst windows rule"
    )
    parser.add_argument("--users", type=int, default=1000, help="largest number of training users")
    parser.add_argument("--draws", type=int, default=2, help="windows of a training user at each level of noise")
    parser.add_argument("--test-users", type=int, default=30, help="of each kind")
    parser.add_argument("--seed", type=int, default=4, help="of windows and noise")
    parser.add_argument("--networks", action="store_true", help="a GRU and the temporal model from random weights, too")
    options = parser.parse_args()
    torch.set_num_threads(1)

    people = gather_temporal(load_temporal(options.store, ("train",)).splits["train"], options.users)
    models: list[Corrector] = []
    if options.seeds:
        clock = time.process_time()
        known, judged = training_windows(people, options.draws, options.snr, options.seed)
        took = time.process_time() - clock
        print(f"{len(known.waves)} windows to train on, {len(judged.waves)} to judge by: {took:.0f} s of CPU time")
        clock = time.process_time()
        models = [train(known, judged, options.steps, seed, options.floor) for seed in range(options.seeds)]
        print(f"{options.seeds} trainings: {time.process_time() - clock:.0f} s of CPU time\n", flush=True)
    test = pick_test(load_temporal(options.store, ("test",)), options.test_users)
    for snr in options.snr:
        windows = cutter(snr).cut(test.csi, np.random.default_rng([options.seed, 30]))
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for name, predicted in forecasts(windows, models):
            found.setdefault(name, []).append(figures(test.kind, predicted, windows))
        for name, network in networks(people.csi, cutter(snr)) if options.networks else ():
            found.setdefault(name, []).append(figures(test.kind, predict(network, windows.past), windows))
        users = ", ".join(f"{int((test.kind == KINDS.index(name)).sum())} {name}s" for name in SPEEDS)
        print(f"{users}; {'no noise' if snr is None else f'{snr:g} dB'}; mean over users, then the median user\n")
        head = ["NMSE, dB", "all", *(f"{name}s" for name in SPEEDS), *(f"horizon {horizon}" for horizon in HORIZONS)]
        for part in range(2):
            print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
            print(
                "\n".join(row(name, [values[part] for values in of]) for name, of in found.items()),
                end="\n\n",
                flush=True,
            )
        for name, forecast in equivariant(models).items():
            errors = shift_errors(forecast, windows.past, options.seed)
            print(
                f"equivariance error, {name}: {', '.join(f'{axis} {value:.0f} dB' for axis, value in errors.items())}"
            )
        print()


def equivariant(models: Sequence[Corrector]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Forecasts whose equivariance is measured: past, complex (B, T, angle, delay), to the snapshots to come."""
    wrapped = Wrapped(OverAntennas(), dims=(1, 2), origin=(PAST, 0))

    def canonical(past: Tensor) -> Tensor:
        ahead: Tensor = wrapped(torch.fft.ifft(past.to(torch.complex128), dim=2, norm="ortho"))
        return torch.fft.fft(ahead, dim=2, norm="ortho")

    found: dict[str, Callable[[Tensor], Tensor]] = {
        "first guess": lambda past: extrapolate(past, AHEAD).best(),
        "closed form": closed_form,
        "closed form, wrapped": canonical,
    }
    return found | ({"tokens": lambda past: corrected(past, models[0])} if models else {})


class OverAntennas(nn.Module):
    """The closed form over antennas instead of angles, for the wrapper that removes shifts (`equivariance.group`)."""

    def forward(self, csi: Tensor, visible: Tensor) -> Tensor:
        """Complex (B, T, antennas, delay), all of it seen, to the snapshots to come."""
        ahead = closed_form(torch.fft.fft(csi, dim=2, norm="ortho"))
        return torch.fft.ifft(ahead.to(csi.dtype), dim=2, norm="ortho")


def corrected(past: Tensor, model: Corrector) -> Tensor:
    """Forecast by the waves with the transformer's corrections."""
    waves = recover(past)
    with torch.no_grad():
        return Continued(waves, past).forecast(model(tokens(waves), waves.found))


if __name__ == "__main__":
    main()
