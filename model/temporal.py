"""LWM-Temporal: a transformer over angle, delay and time with sparse spatio-temporal attention (arXiv 2603.10024).

A token is a patch of bins (1 x 1 by default) of one snapshot. A hidden one is replaced by one learned mask token, which
carries its position like every other. Where a sample's whole future is hidden, the model starts from the autoregression
of its past and corrects it (`model.extrapolation`). The full paper is not at hand: sizes are those of its model card, and
what is ours says so in `TemporalModelSettings`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.extrapolation import extrapolate
from model.ssta import Grid, Neighbourhood, dense_attention, neighbourhood, sparse_attention
from model.temporal_settings import TemporalModelSettings

# Share of a sample's RMS below which an entry's phase and level fade out of the features.
FLOOR = 1e-3
# Features of a complex entry: real and imaginary part, those of its phase alone, level.
FEATURES = 5
TINY = 1e-30


class TemporalBlock(nn.Module):
    """Pre-norm transformer block: attention to the neighbourhood, or to all, and a GELU MLP."""

    def __init__(self, settings: TemporalModelSettings, neighbours: int) -> None:
        super().__init__()
        width, hidden = settings.width, round(settings.width * settings.mlp_ratio)
        self.heads = settings.heads
        self.norm_1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        biased = settings.relative_bias and settings.attention == "sparse"
        self.bias = nn.Parameter(torch.zeros(settings.heads, neighbours)) if biased else None

    def forward(self, tokens: Tensor, near: Neighbourhood | None, top_k: int | None, causal: Tensor | None) -> Tensor:
        """(B, N, d) to (B, N, d).

        Parameters
        ----------
        tokens : (B, N, d)
        near : Neighbourhood or None
            None for dense attention.
        top_k : int or None
        causal : bool (N, N) or None
            What dense attention may look at.
        """
        batch, count, width = tokens.shape
        parts = self.query_key_value(self.norm_1(tokens)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        if near is None:
            attended = dense_attention(query, key, value, causal)
        else:
            attended = sparse_attention(query, key, value, near, self.bias, top_k)
        mixed = tokens + self.project(attended.transpose(1, 2).reshape(batch, count, width))
        return mixed + self.mlp(self.norm_2(mixed))


class MixingHead(nn.Module):
    """Hidden entries as complex combinations of the visible entries of their bin [ours].

    A path's entries at two snapshots differ by a phase, so a combination is exact at any level, where a real-valued
    network would have to learn to multiply. Weight of visible snapshot s for snapshot t: the product of two complex
    vectors, from the token at t and the token at s.

    Parameters
    ----------
    width, rank : int
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 2 * rank)
        self.key = nn.Linear(width, 2 * rank)

    def forward(self, tokens: Tensor, entries: Tensor, visible: Tensor, causal: bool) -> Tensor:
        """Combinations, complex64 (B, T, a, d, p).

        Parameters
        ----------
        tokens : (B, T, a, d, width)
        entries : complex64 (B, T, a, d, p)
            Zero where hidden.
        visible : bool (B, T, a, d)
        causal : bool
            Only earlier snapshots.
        """
        query, key = (
            torch.view_as_complex(part(tokens).float().unflatten(-1, (-1, 2))).permute(0, 2, 3, 1, 4)
            for part in (self.query, self.key)
        )
        weights = query @ key.transpose(-2, -1) / (query.shape[-1] * query.shape[-2]) ** 0.5
        allowed = visible.permute(0, 2, 3, 1)[..., None, :]
        if causal:
            steps = torch.arange(tokens.shape[1], device=tokens.device)
            allowed = allowed & (steps[:, None] >= steps)
        return ((weights * allowed) @ entries.permute(0, 2, 3, 1, 4)).permute(0, 3, 1, 2, 4)


class TemporalModel(nn.Module):
    """Blocks over the tokens of all snapshots, and a head for the entries.

    Nothing depends on the number of snapshots: times enter as sinusoids and through the offsets of the neighbourhood, so
    another T than in training works. Times later than any in training are extrapolation.

    Parameters
    ----------
    settings : TemporalModelSettings
    grid : (T, A, D)
        Snapshots in training, bins of angle and of delay; the patch must divide the bins.
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
        self.embed_guess = nn.Linear(FEATURES * high * wide, width) if settings.extrapolation else None
        self.gain = nn.Linear(width, 2) if settings.extrapolation else None
        self.apply(_initialise)
        for parameter in (self.mask_token, self.angle_positions, self.delay_positions):
            nn.init.trunc_normal_(parameter, std=0.02)
        # Training starts from the prediction of nothing, an NMSE of 1, and for forecasts from the guess as it is.
        nn.init.zeros_(self.head.weight)
        if self.mixing is not None:
            nn.init.zeros_(self.mixing.query.weight)
        if self.gain is not None:
            nn.init.zeros_(self.gain.weight)

    @property
    def tokens(self) -> int:
        """Tokens of a sample as long as in training."""
        return math.prod(self.token_grid)

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Predict every entry from the visible ones.

        Parameters
        ----------
        tokens : complex64 (B, T, A, D)
            In any unit. What is hidden may hold anything.
        hidden : bool (B, T, A, D)
            A patch with a hidden entry is hidden whole.

        Returns
        -------
        complex64 (B, T, A, D)
            In the unit of `tokens`.

        Raises
        ------
        ValueError
            Not the model's bins.
        """
        if tokens.shape[2:] != self.grid[1:]:
            msg = f"tokens of {tuple(tokens.shape[2:])} bins of angle and delay; the model is built for {self.grid[1:]}"
            raise ValueError(msg)
        masked = self._patches(hidden).any(-1)
        entries = self._patches(tokens).masked_fill(masked[..., None], 0)
        count = (~masked).sum((1, 2, 3)) * entries.shape[-1]
        power = entries.abs().square().sum((1, 2, 3, 4)) / count.clamp_min(1)
        # The RMS of what is visible, as in the multi-modal model.
        scale = power.clamp_min(TINY).sqrt()[:, None, None, None, None]
        entries = entries / scale
        guess, guessed = self._guess(entries, masked)
        encoded = self.encode(entries, masked, guess, guessed)
        predicted = torch.view_as_complex(self.head(encoded).float().unflatten(-1, (-1, 2)))
        if self.mixing is not None:
            predicted = predicted + self.mixing(encoded, entries, ~masked, self.settings.causal)
        if self.gain is not None:
            gain = torch.view_as_complex(self.gain(encoded).float())
            predicted = predicted + guess * (1 + gain[..., None])
        return self._bins(predicted * scale)

    def encode(
        self, entries: Tensor, masked: Tensor, guess: Tensor | None = None, guessed: Tensor | None = None
    ) -> Tensor:
        """Embeddings of all tokens, the hidden ones' too: the representation of a channel that moves.

        Parameters
        ----------
        entries : complex64 (B, T, a, d, p)
            Patches over the RMS of the visible ones.
        masked : bool (B, T, a, d)
        guess : complex64 (B, T, a, d, p), optional
            Of hidden patches.
        guessed : bool (B, T), optional
            Snapshots that have one.

        Returns
        -------
        (B, T, a, d, width)
        """
        settings = self.settings
        embedded = self.embed(_features(entries))
        # Replaced, not added to: of a hidden entry nothing is left.
        embedded = torch.where(masked[..., None], self.mask_token, embedded)
        if self.embed_guess is not None and guess is not None and guessed is not None:
            embedded = embedded + self.embed_guess(_features(guess)) * guessed[..., None, None, None]
        snapshots = entries.shape[1]
        times = _sinusoids(snapshots, settings.width, embedded.device)[:, None, None]
        embedded = embedded + times + self.angle_positions[:, None] + self.delay_positions
        grid = embedded.shape[1:4]
        states = embedded.flatten(1, 3)
        near = self._near(snapshots) if settings.attention == "sparse" else None
        top_k = near.top_k if near is not None and settings.top_k else None
        causal = self._causal(snapshots, states.device) if near is None and settings.causal else None
        for block in self.blocks:
            if settings.recompute and torch.is_grad_enabled():
                states = checkpoint(block, states, near, top_k, causal, use_reentrant=False)
            else:
                states = block(states, near, top_k, causal)
        return self.norm(states).unflatten(1, grid)

    def predict_tail(self, past: Tensor, horizon: int) -> Tensor:
        """Forecast: complex64 (B, T, A, D) of the past to (B, horizon, A, D)."""
        tokens = F.pad(torch.view_as_real(past), (0, 0, 0, 0, 0, 0, 0, horizon))
        hidden = torch.zeros(tokens.shape[:-1], dtype=torch.bool, device=past.device)
        hidden[:, past.shape[1] :] = True
        return self(torch.view_as_complex(tokens), hidden)[:, past.shape[1] :]

    def _guess(self, entries: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """First guess of samples that are seen up to some snapshot and hidden from then on.

        Returns
        -------
        guess : complex64 (B, T, a, d, p)
            Zero where there is none.
        guessed : bool (B, T)
            Snapshots that have one.
        """
        guess, snapshots = torch.zeros_like(entries), entries.shape[1]
        hidden, seen = masked.all((2, 3)), ~masked.any((2, 3))
        past = seen.long().cumprod(1).sum(1)
        forecast = (past >= 2) & (past < snapshots) & (past + hidden.sum(1) == snapshots)
        guessed = hidden & forecast[:, None]
        if self.settings.extrapolation:
            for length in past[forecast].unique().tolist():
                rows = forecast & (past == length)
                known = entries[rows, :length].flatten(3)
                guess[rows, length:] = extrapolate(known, snapshots - length).unflatten(3, entries.shape[3:])
        return guess, guessed

    def _near(self, snapshots: int) -> Neighbourhood:
        settings = self.settings
        return neighbourhood(
            (snapshots, *self.token_grid[1:]), settings.reach, settings.past, settings.future, settings.causal
        )

    def _causal(self, snapshots: int, device: torch.device) -> Tensor:
        time = torch.arange(snapshots, device=device).repeat_interleave(math.prod(self.token_grid[1:]))
        return time[:, None] >= time

    def _patches(self, bins: Tensor) -> Tensor:
        """(B, T, A, D) to (B, T, a, d, p)."""
        high, wide = self.settings.patch
        return bins.unflatten(-1, (-1, wide)).unflatten(2, (-1, high)).transpose(3, 4).flatten(-2)

    def _bins(self, patches: Tensor) -> Tensor:
        """Inverse of `_patches`."""
        return patches.unflatten(-1, self.settings.patch).transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _features(entries: Tensor) -> Tensor:
    """Real numbers of complex patches, (..., p) to (..., FEATURES * p): an entry's phase must not drown in its level."""
    level = entries.abs() + FLOOR
    phase = entries / level
    features = (entries.real, entries.imag, phase.real, phase.imag, level.log() / -math.log(FLOOR))
    return torch.cat(features, -1)


def _sinusoids(count: int, width: int, device: torch.device) -> Tensor:
    """Sines and cosines of the time, (count, width): periods from 4 to some hundred snapshots."""
    time = torch.arange(count, device=device, dtype=torch.float32)[:, None]
    rates = math.pi / 2 * 128.0 ** -torch.linspace(0, 1, (width + 1) // 2, device=device)
    return torch.cat(((time * rates).sin(), (time * rates).cos()), -1)[:, :width]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
