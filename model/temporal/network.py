"""A transformer over angle, delay and time: "LWM-Temporal: Sparse Spatio-Temporal Attention for Wireless Channel
Representation Learning" (arXiv 2603.10024).

A token is a patch of bins (1 x 1 by default) of one snapshot. A hidden one is replaced by one learned mask token, which
carries its position like every other. Where a sample's whole future is hidden, the model starts from guesses that take its
past alone and learns how to combine them (see `extrapolation`); other hidden entries start from interpolation, in a frame
that turns with the sample's mean Doppler. The full paper is not at hand: sizes are those of its model card, and what is ours
says so in `TemporalModelSettings`.

Shapes in comments: B samples, T snapshots, A bins of angle and D of delay; a x d tokens of a snapshot, each of p bins; N of
a sample, of the model's width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.temporal.attention import TemporalBlock
from wavecity.model.temporal.extrapolation import WAYS, extrapolate
from wavecity.model.temporal.neighbourhood import Grid, Neighbourhood, neighbourhood
from wavecity.model.transformer import initialise

# Share of a sample's RMS below which an entry's phase and level fade out of the features.
FLOOR = 1e-3
# Features of a complex entry: real and imaginary part, those of its phase alone, level.
FEATURES = 5
# Of the guesses of a token: how each did in its bins, the level of its past there, how far ahead it lies.
GUESS_FEATURES = WAYS + 2
TINY = 1e-30
# Where training starts: logarithm of the ratio of the weights of a snapshot and the next one.
FALL = 2.0


@dataclass(frozen=True)
class Guess:
    """Forecasts without a network, for the samples whose whole future is hidden; zero elsewhere."""

    values: Tensor  # complex64 (B, WAYS, T, a, d, p)
    chosen: Tensor  # float32 (B, WAYS); 1 for the way that the sample's own past favours
    features: Tensor  # float32 (B, T, a, d, F); what the tokens are given of them
    guessed: Tensor  # bool (B, T); snapshots that have a guess

    def start(self) -> Tensor:
        """The chosen way's values, complex64 (B, T, a, d, p)."""
        return (self.values * self.chosen[..., None, None, None, None]).sum(1)

    def terms(self, predicted: Tensor) -> Tensor:
        """What a forecast combines: all guesses and the network's own prediction, complex64 (B, T, a, d, WAYS + 1, p)."""
        return torch.cat((self.values, predicted[:, None]), 1).permute(0, 2, 3, 4, 1, 5)


class MixingHead(nn.Module):
    """Hidden entries as complex combinations of the visible entries of their bin [ours].

    A path's entries at two snapshots differ by a phase, so a combination is exact at any level, where a real-valued
    network would have to learn to multiply. Weight of visible snapshot s for snapshot t: one that falls with |t - s|, all of a
    bin adding up to one, and the product of two complex vectors, from the token at t and the token at s. Training starts from
    the former alone: interpolation.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 2 * rank)
        self.key = nn.Linear(width, 2 * rank)
        self.fall = nn.Parameter(torch.tensor(FALL))

    def forward(self, tokens: Tensor, entries: Tensor, visible: Tensor, causal: bool) -> Tensor:
        """Combinations, complex64 (B, T, a, d, p), of entries that are zero where not `visible`, bool (B, T, a, d).

        Tokens are (B, T, a, d, width); a causal one looks at earlier snapshots only.
        """
        query, key = (
            torch.view_as_complex(part(tokens).float().unflatten(-1, (-1, 2))).permute(0, 2, 3, 1, 4)
            for part in (self.query, self.key)
        )  # complex (B, a, d, T, rank) each
        weights = query @ key.transpose(-2, -1) / (query.shape[-1] * query.shape[-2]) ** 0.5  # (B, a, d, T, T)
        allowed = visible.permute(0, 2, 3, 1)[..., None, :]  # (B, a, d, 1, T)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        if causal:
            allowed = allowed & (steps[:, None] >= steps)  # (B, a, d, T, T)
        distance = (steps[:, None] - steps).abs()  # (T, T)
        near = (-self.fall.float() * distance).masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0)
        mixed = (near + weights * allowed) @ entries.permute(0, 2, 3, 1, 4)  # (B, a, d, T, p)
        return mixed.permute(0, 3, 1, 2, 4)  # (B, T, a, d, p)


class TemporalModel(nn.Module):
    """Blocks over the tokens of all snapshots, and a head for the entries; a patch must divide the bins of the grid.

    Nothing depends on the number of snapshots: times enter as sinusoids and through the offsets of the neighbourhood,
    so another T than in training works. Times later than any in training are extrapolation.
    """

    def __init__(self, settings: TemporalModelSettings, grid: Grid) -> None:
        super().__init__()
        self.settings = settings
        self.grid = grid
        width, (high, wide) = settings.width, settings.patch
        self.token_grid = (grid[0], grid[1] // high, grid[2] // wide)
        self.embed = nn.Linear(FEATURES * high * wide, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.angle_positions = nn.Parameter(torch.empty(self.token_grid[1], width))
        self.delay_positions = nn.Parameter(torch.empty(self.token_grid[2], width))
        neighbours = len(self._near(grid[0]))
        self.blocks = nn.ModuleList(TemporalBlock(settings, neighbours) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * high * wide)
        self.mixing = MixingHead(width, settings.mixing) if settings.mixing else None
        self.embed_guess = nn.Linear(FEATURES * high * wide + GUESS_FEATURES, width) if settings.extrapolation else None
        # Complex weights of a token: of each guess, added to the chosen one's 1, and of the network's own prediction.
        self.combine = nn.Linear(width, 2 * (WAYS + 1)) if settings.extrapolation else None
        initialise(self, self.mask_token, self.angle_positions, self.delay_positions)
        # Training starts from interpolation (of nothing, where a bin shows nothing), and for forecasts from the guess as it is.
        nn.init.zeros_(self.head.weight)
        if self.mixing is not None:
            nn.init.zeros_(self.mixing.query.weight)
        if self.combine is not None:
            nn.init.zeros_(self.combine.weight)

    @property
    def tokens(self) -> int:
        """Tokens of a sample as long as in training."""
        return math.prod(self.token_grid)

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Predict every entry of complex64 (B, T, A, D), in any unit and of the model's bins, from the visible ones.

        What is hidden may hold anything; a patch with a hidden entry, of bool (B, T, A, D), is hidden whole.
        """
        if tokens.shape[2:] != self.grid[1:]:
            msg = f"tokens of {tuple(tokens.shape[2:])} bins of angle and delay; the model is built for {self.grid[1:]}"
            raise ValueError(msg)
        entries, masked, scale = self._visible(tokens, hidden)  # (B, T, a, d, p), (B, T, a, d), (B, T, 1, 1, 1)
        guess = self._guess(entries, masked)
        encoded = self.encode(entries, masked, guess)  # (B, T, a, d, width)
        predicted = self._network(encoded, entries, masked)  # (B, T, a, d, p)
        if self.combine is not None and guess is not None:
            weights = self._complex(self.combine, encoded)[..., None]  # (B, T, a, d, WAYS + 1, 1)
            combined = guess.start() + (weights * guess.terms(predicted)).sum(-2)  # (B, T, a, d, p)
            predicted = torch.where(guess.guessed[..., None, None, None], combined, predicted)
        return self._bins(predicted * scale)  # (B, T, A, D)

    def combined(self, past: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `predict_tail` combines of a past of at least 2 snapshots, for `combine` to be fitted.

        Embeddings float32 (B, H, a, d, width), terms complex64 (B, H, a, d, WAYS + 1, p) in the unit of the data, and
        the start, (B, H, a, d, p): a forecast is the start plus the sum of the terms with weights linear in the
        embeddings.
        """
        entries, masked, scale = self._visible(*_with_tail(past, horizon))
        guess = self._guess(entries, masked)
        if guess is None:
            raise ValueError("nothing to combine without training.temporal.model.extrapolation")
        encoded = self.encode(entries, masked, guess)
        terms = guess.terms(self._network(encoded, entries, masked)) * scale[..., None]
        ahead = slice(past.shape[1], None)
        return encoded[:, ahead], terms[:, ahead], (guess.start() * scale)[:, ahead]

    def encode(self, entries: Tensor, masked: Tensor, guess: Guess | None = None) -> Tensor:
        """Embeddings (B, T, a, d, width) of all tokens, also of hidden ones: a channel that moves, represented.

        Entries, complex64 (B, T, a, d, p), are patches over the RMS of the visible ones; `masked`, bool (B, T, a, d),
        are hidden, with a guess of what they are.
        """
        settings = self.settings
        embedded = self.embed(_features(entries))  # (B, T, a, d, width)
        # Replaced, not added to: of a hidden entry nothing is left.
        embedded = torch.where(masked[..., None], self.mask_token, embedded)
        if self.embed_guess is not None and guess is not None:
            embedded = embedded + self.embed_guess(guess.features) * guess.guessed[..., None, None, None]
        snapshots = entries.shape[1]
        times = _sinusoids(snapshots, settings.width, embedded.device)[:, None, None]  # (T, 1, 1, width)
        embedded = embedded + times + self.angle_positions[:, None] + self.delay_positions
        grid = embedded.shape[1:4]
        states = embedded.flatten(1, 3)  # (B, N, width)
        near = self._near(snapshots) if settings.attention == "sparse" else None
        top_k = near.top_k if near is not None and settings.top_k else None
        causal = self._causal(snapshots, states.device) if near is None and settings.causal else None  # (N, N)
        for block in self.blocks:
            if settings.recompute and torch.is_grad_enabled():
                states = checkpoint(block, states, near, top_k, causal, use_reentrant=False)
            else:
                states = block(states, near, top_k, causal)
        return self.norm(states).unflatten(1, grid)  # (B, T, a, d, width)

    def represent(self, tokens: Tensor) -> Tensor:
        """Embeddings of all tokens where nothing is hidden: complex64 (B, T, A, D) in any unit to (B, T, a, d, width)."""
        entries, masked, _ = self._visible(tokens, torch.zeros(tokens.shape, dtype=torch.bool, device=tokens.device))
        return self.encode(entries, masked)

    def predict_tail(self, past: Tensor, horizon: int) -> Tensor:
        """Forecast: complex64 (B, T, A, D) of the past to (B, horizon, A, D)."""
        return self(*_with_tail(past, horizon))[:, past.shape[1] :]

    def _guess(self, entries: Tensor, masked: Tensor) -> Guess | None:
        """Guess what is to come of samples that are seen up to some snapshot and hidden from then on; None of none."""
        if self.embed_guess is None:
            return None
        batch, snapshots = entries.shape[:2]
        hidden, seen = masked.all((2, 3)), ~masked.any((2, 3))  # (B, T) each
        past = seen.long().cumprod(1).sum(1)  # (B,) snapshots seen before the first hidden one
        forecast = (past >= 2) & (past < snapshots) & (past + hidden.sum(1) == snapshots)
        if not forecast.any():
            return None
        values = entries.new_zeros(batch, WAYS, *entries.shape[1:])
        chosen = torch.zeros(batch, WAYS, device=entries.device)
        features = torch.zeros(*masked.shape, self.embed_guess.in_features, device=entries.device)
        for length in past[forecast].unique().tolist():
            rows = torch.nonzero(forecast & (past == length))[:, 0]
            known = entries[rows, :length]  # (b, length, a, d, p) of the b samples with as long a past
            guesses = extrapolate(known.flatten(3), snapshots - length)
            values[rows, :, length:] = guesses.values.unflatten(4, entries.shape[3:])
            chosen[rows, guesses.chosen] = 1
            best = guesses.best().unflatten(3, entries.shape[3:])  # (b, ahead, a, d, p)
            # Levels over the sample's RMS.
            errors = (
                guesses.errors.unflatten(3, entries.shape[3:]).mean(-1).sqrt().permute(0, 2, 3, 1)
            )  # (b, a, d, WAYS)
            level = known.abs().square().mean((1, 4)).sqrt()[..., None]  # (b, a, d, 1)
            ahead = torch.arange(1, snapshots - length + 1, device=entries.device).log() / math.log(8)
            quality = torch.cat((_log_level(errors.float()), _log_level(level)), -1)[:, None]
            quality = quality.expand(-1, len(ahead), -1, -1, -1)  # (b, ahead, a, d, WAYS + 1)
            distance = ahead[:, None, None, None].expand(*best.shape[:4], 1)
            features[rows, length:] = torch.cat((_features(best), quality, distance), -1)
        return Guess(values, chosen, features, hidden & forecast[:, None])

    def _network(self, encoded: Tensor, entries: Tensor, masked: Tensor) -> Tensor:
        """The network's own prediction of every entry, complex64 (B, T, a, d, p), over the RMS of the visible ones."""
        predicted = self._complex(self.head, encoded)  # (B, T, a, d, p)
        if self.mixing is None:
            return predicted
        return predicted + self.mixing(encoded, entries, ~masked, self.settings.causal)

    @staticmethod
    def _complex(head: nn.Linear, encoded: Tensor) -> Tensor:
        return torch.view_as_complex(head(encoded).float().unflatten(-1, (-1, 2)))

    def _visible(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Patches over their scale, hidden ones zero; which are hidden; and that scale, complex (B, T, 1, 1, 1).

        The scale is the RMS of the visible ones, and where `steady` also turns with their mean Doppler.
        """
        masked = self.patches(hidden).any(-1)
        entries = self.patches(tokens).masked_fill(masked[..., None], 0)
        count = (~masked).sum((1, 2, 3)) * entries.shape[-1]
        power = entries.abs().square().sum((1, 2, 3, 4)) / count.clamp_min(1)
        scale = power.clamp_min(TINY).sqrt()[:, None, None, None, None]
        turning = self._turning(entries / scale)
        return entries / scale * turning.conj(), masked, scale * turning

    def _turning(self, entries: Tensor) -> Tensor:
        """Phasor that turns with the mean Doppler of patches (B, T, a, d, p), zero where hidden: complex (B, T, 1, 1, 1)."""
        batch, snapshots = entries.shape[:2]
        phase = torch.zeros(batch, dtype=torch.float64, device=entries.device)
        if self.settings.steady and not self.settings.causal:
            # The phase of one snapshot over the one before, weighted by the energy of both.
            phase = (entries[:, 1:] * entries[:, :-1].conj()).sum((1, 2, 3, 4)).to(torch.complex128).angle()
        phases = phase[:, None] * torch.arange(snapshots, dtype=torch.float64, device=entries.device)
        return torch.polar(torch.ones_like(phases), phases).to(entries.dtype)[:, :, None, None, None]

    def _near(self, snapshots: int) -> Neighbourhood:
        settings = self.settings
        return neighbourhood(
            (snapshots, *self.token_grid[1:]), settings.reach, settings.past, settings.future, settings.causal
        )

    def _causal(self, snapshots: int, device: torch.device) -> Tensor:
        time = torch.arange(snapshots, device=device).repeat_interleave(math.prod(self.token_grid[1:]))
        return time[:, None] >= time

    def patches(self, bins: Tensor) -> Tensor:
        """Entries of the tokens: (B, T, A, D) to (B, T, a, d, p)."""
        high, wide = self.settings.patch
        return bins.unflatten(-1, (-1, wide)).unflatten(2, (-1, high)).transpose(3, 4).flatten(-2)

    def _bins(self, patches: Tensor) -> Tensor:
        """Inverse of `patches`."""
        return patches.unflatten(-1, self.settings.patch).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _with_tail(past: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Entries complex64 (B, T + horizon, A, D), and which are hidden: those that come after the past."""
    tokens = F.pad(torch.view_as_real(past), (0, 0, 0, 0, 0, 0, 0, horizon))
    hidden = torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=past.device)
    hidden[:, past.shape[1] :] = True
    return torch.view_as_complex(tokens), hidden


def _features(entries: Tensor) -> Tensor:
    """Real numbers of complex patches, (..., p) to (..., FEATURES * p): an entry's phase must stay visible at any level."""
    level = entries.abs() + FLOOR
    phase = entries / level
    return torch.cat((entries.real, entries.imag, phase.real, phase.imag, _log_level(entries.abs())), -1)


def _log_level(level: Tensor) -> Tensor:
    """Logarithm of a level over the sample's RMS: 0 at it, -1 at the floor."""
    return (level + FLOOR).log() / -math.log(FLOOR)


def _sinusoids(count: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the time, (count, width): periods from 4 to some hundred snapshots."""
    time = torch.arange(count, device=device, dtype=torch.float32)[:, None]
    rates = math.pi / 2 * 128.0 ** -torch.linspace(0, 1, (width + 1) // 2, device=device)
    return torch.cat(((time * rates).sin(), (time * rates).cos()), -1)[:, :width]
