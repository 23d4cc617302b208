"""The path model: attention over waves, places and the map; a mixture for the location, spectrum, CSI and occupancy.

[PHYSC] carries what the model knows in a form that a linear layer can read: the Fourier code of the place that its mixture
points at, and that of the directions of the waves, added to what the tokens came to.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.data.geometry import Geometry
from wavecity.model.multimodal.sparse import enlarge
from wavecity.model.path_model.front import PLACE_FEATURES, PLACES, WAVE_FEATURES, Fronts
from wavecity.model.path_model.maps import CELLS, EVIDENCE_CHANNELS, HEIGHT_CHANNELS, Sites, centres, rasters
from wavecity.model.path_model.mixture import Mixture
from wavecity.model.rays.dictionary import FLATTEST
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.waves import WAVES
from wavecity.model.settings.rays import RaysModelSettings
from wavecity.model.transformer import Block, initialise

# Wavelengths of the Fourier codes: of places in m, and of direction cosines.
PLACE_WAVES = (400.0, 200.0, 100.0, 50.0, 25.0, 12.5, 6.25)
DIRECTION_WAVES = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
# Edges of the map's tokens along one side, points along a link, and distances that the attention tells apart, m.
SCENE_TOKENS, LINK_POINTS = 5, 16
REACHES = (1.0, 4.0, 16.0, 64.0)
# Of a mixture's components, m: least scale, how far one may move from its place, reach and first scale of those of cells
# and of the free one.
LEAST, MOVED, CELL_REACH, CELL_SCALE, FREE_REACH, FREE_SCALE = 0.05, 5.0, 20.0, 12.0, 100.0, 40.0
# Of the places on which the waves agree, m.
LEAST_SPREAD = 1e-3
# Of link and level at a place.
LINK_FEATURES = 5
# Edge of the spectrum head's coarse map, over that of the array, and its channels.
COARSE, SPECTRUM_CHANNELS = 4, 16
# Score of a token that is not there.
ABSENT = -1e4


@dataclass(frozen=True)
class Outputs:
    """What the model says of B users.

    Attributes
    ----------
    physc : float32 (B, d)
    location : Mixture
        Of the place relative to the base station: a component for each place, one for each coarse cell of the map, where
        users are whose waves say little, and a free one, the last.
    spectrum : float32 (B, kx, ky)
        Logarithm of the spectrum, up to a constant.
    gate : float32 (B, K)
        What each recovered wave is multiplied with.
    """

    physc: Tensor
    location: Mixture
    spectrum: Tensor
    gate: Tensor


def channel_of(fronts: Fronts, gate: Tensor, radio: Radio) -> Tensor:
    """The channel that B users' waves make up, each multiplied with its gate (B, K): complex64 (B, x, y)."""
    columns, rows = fronts.shown.shape[1:]
    direction = fronts.direction.double()
    ratio, shrunk, steeper = radio.ground_bounce(direction[..., 1].clamp_min(FLATTEST))
    east = torch.cat((direction[..., 0], direction[..., 0] * shrunk), 1)  # (B, 2 K): waves, then their bounces
    down = torch.cat((direction[..., 1], steeper), 1)
    gain = fronts.gain * gate
    gain = torch.cat((gain, gain * (ratio * fronts.bounced).to(gain.dtype)), 1)
    along_x, along_y = (
        torch.polar(*_phase(cosine, edge, radio.spacing)).to(gain.dtype)
        for cosine, edge in ((east, columns), (down, rows))
    )
    return (along_x * gain[:, None]) @ along_y.mT


def _phase(cosine: Tensor, edge: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Magnitude and phase (B, edge, K) along one side of the panel."""
    axis = torch.arange(edge, dtype=cosine.dtype, device=cosine.device) - (edge - 1) / 2
    phase = 2 * math.pi * spacing * axis[:, None] * cosine[:, None]
    return torch.ones_like(phase), phase


def fourier(values: Tensor, wavelengths: tuple[float, ...]) -> Tensor:
    """Sines and cosines of values (..., 2) at some wavelengths, (..., 4 * wavelengths)."""
    turns = 2 * math.pi * values[..., None] / values.new_tensor(wavelengths)
    return torch.cat((turns.sin(), turns.cos()), -1).flatten(-2)


class BiasedBlock(Block):
    """Transformer block with a bias added to the scores."""

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """Tokens (B, N, d) and bias (B, heads, N, N) to (B, N, d)."""
        query, key, value = self.projected(tokens)
        # Written out: PyTorch's own, with a bias, is not exported to ONNX.
        scores = query @ key.mT / query.shape[-1] ** 0.5 + bias
        return self.added(tokens, scores.softmax(-1) @ value)


class PathModel(nn.Module):
    """Waves, places and a map in; [PHYSC], location, spectrum and gates out; and the occupancy branch.

    Parameters
    ----------
    settings : RaysModelSettings
    geometry : Geometry
        Of the data.
    radio : Radio
        Of the links.
    """

    def __init__(self, settings: RaysModelSettings, geometry: Geometry, radio: Radio) -> None:
        super().__init__()
        width, channels = settings.width, settings.scene_channels
        self.settings, self.geometry, self.radio = settings, geometry, radio
        place_code, direction_code = 4 * len(PLACE_WAVES), 4 * len(DIRECTION_WAVES)
        self.physc = nn.Parameter(torch.empty(width))
        self.kinds = nn.Parameter(torch.empty(3, width))
        self.wave_in = nn.Linear(WAVE_FEATURES + direction_code + place_code, width)
        self.place_in = nn.Linear(PLACE_FEATURES + place_code + channels + LINK_FEATURES, width)
        self.scene_in = nn.Linear(channels + place_code, width)
        self.summary_in = nn.Linear(2, width)
        self.scene = SceneEncoder(channels)
        self.near = nn.Parameter(torch.zeros(settings.heads, len(REACHES)))
        blocks = [BiasedBlock(width, settings.heads, settings.mlp_ratio) for _ in range(settings.layers)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.place_out = nn.Linear(width, 4)
        self.cell_out = nn.Linear(width, 4)
        self.free_out = nn.Linear(width, 4)
        self.prior_scale = nn.Parameter(torch.ones(1))
        self.gate_out = nn.Linear(width, 1)
        self.of_place = nn.Linear(place_code, width)
        self.of_directions = nn.Linear(direction_code, width)
        self.physc_norm = nn.LayerNorm(width)
        self.spectrum = SpectrumHead(width, geometry)
        self.occupancy = OccupancyBranch(channels)
        initialise(self, self.physc, self.kinds)
        for layer in (self.place_out, self.cell_out, self.free_out, self.gate_out):
            nn.init.zeros_(layer.weight)
        self.spectrum.start()
        with torch.no_grad():
            self.cell_out.bias.copy_(torch.tensor([-5.0, 0.0, 0.0, 0.0]))
            self.free_out.bias.copy_(torch.tensor([-2.0, 0.0, 0.0, 0.0]))
            self.gate_out.bias.fill_(4.0)

    @property
    def tokens(self) -> int:
        """Of a user: [PHYSC], waves, places and the map's."""
        return 1 + WAVES + PLACES + SCENE_TOKENS**2

    def forward(self, fronts: Fronts, sites: Sites) -> Outputs:
        """Predict location, spectrum and gates of B users."""
        most = fronts.found.shape[1]
        maps = self.scene(rasters(sites.height, CELLS * self.geometry.occupancy_patches))
        scene, scene_place = self._scene_tokens(maps, sites)
        at_place = torch.cat((sites.sampled(maps, fronts.place), self._links(fronts, sites)), -1)
        tokens = torch.cat(
            (
                self._summary(fronts)[:, None],
                self.wave_in(
                    torch.cat(
                        (
                            fronts.wave,
                            fourier(fronts.direction, DIRECTION_WAVES),
                            fourier(fronts.landing, PLACE_WAVES),
                        ),
                        -1,
                    )
                )
                + self.kinds[0],
                self.place_in(torch.cat((fronts.place_features, fourier(fronts.place, PLACE_WAVES), at_place), -1))
                + self.kinds[1],
                scene + self.kinds[2],
            ),
            1,
        )
        bias = self._bias(fronts, scene_place)
        for block in self.blocks:
            tokens = block(tokens, bias)
        tokens = self.norm(tokens)
        waves, places = tokens[:, 1 : 1 + most], tokens[:, 1 + most : 1 + most + fronts.place.shape[1]]
        location = self._location(tokens[:, 0], places, tokens[:, -(SCENE_TOKENS**2) :], fronts, scene_place)
        # What the mixture points at: its mean code is the code of the place where it is sure.
        pointed = (location.log_weight.exp()[..., None] * fourier(location.centre, PLACE_WAVES)).sum(1)
        power = fronts.gain.abs().square()
        power = power / power.sum(1, keepdim=True).clamp_min(1e-30)
        directions = (power[..., None] * fourier(fronts.direction, DIRECTION_WAVES)).sum(1)
        physc = self.physc_norm(tokens[:, 0] + self.of_place(pointed) + self.of_directions(directions))
        gate = self.gate_out(waves)[..., 0].sigmoid() * fronts.found
        return Outputs(physc, location, self.spectrum(physc, fronts), gate)

    def _summary(self, fronts: Fronts) -> Tensor:
        """[PHYSC] at first (B, d), with the noise and how far the waves disagree."""
        # Of users without power, as behind a turned panel, there is no spread.
        spread = fronts.spread.clamp_min(LEAST_SPREAD).log()
        return self.physc + self.summary_in(torch.stack((fronts.noise / 20, spread / 3), -1))

    def _scene_tokens(self, maps: Tensor, sites: Sites) -> tuple[Tensor, Tensor]:
        """Tokens of the map (B, T, d), and where they are relative to the base stations, (B, T, 2)."""
        coarse = F.adaptive_avg_pool2d(maps, SCENE_TOKENS).flatten(2).mT[sites.row]
        grid = centres(SCENE_TOKENS, sites.size, maps.device).flatten(0, 1)
        place = grid[None] - sites.bs[:, None]
        return self.scene_in(torch.cat((coarse, fourier(place, PLACE_WAVES)), -1)), place

    def _links(self, fronts: Fronts, sites: Sites) -> Tensor:
        """Of the straight links to places (B, C, 2): how high buildings reach into them, and the level they would have."""
        share = (torch.arange(LINK_POINTS, device=fronts.place.device) + 0.5) / LINK_POINTS
        batch, count, _ = fronts.place.shape
        points = fronts.place[:, :, None] * share[:, None]  # (B, C, L, 2)
        height = sites.sampled(sites.height[:, None], points.flatten(1, 2), "nearest").view(batch, count, LINK_POINTS)
        above = height - (self.radio.drop * (1 - share) + self.radio.user_height)
        length = (fronts.place.square().sum(-1) + self.radio.drop**2).sqrt()
        level = 10 * torch.log10(fronts.gain.abs().square().sum(1, keepdim=True).clamp_min(1e-20))
        blocked = (above > 0).to(above.dtype)
        return torch.stack(
            (
                above.amax(-1).clamp(-15, 30) / 15,
                blocked.mean(-1),
                blocked.amax(-1),
                ((level - self.radio.friis(length)) / 20).clamp(-4, 2),
                length / 100,
            ),
            -1,
        )

    def _bias(self, fronts: Fronts, scene_place: Tensor) -> Tensor:
        """Bias (B, heads, N, N): by how near two tokens' places are; and what is absent is not attended to."""
        unknown = torch.zeros_like(fronts.place[:, :1])
        place = torch.cat((unknown, fronts.landing, fronts.place, scene_place), 1)
        placed = torch.cat(
            (
                torch.zeros_like(fronts.usable[:, :1]),
                fronts.landing.abs().sum(-1) > 0,
                fronts.usable,
                torch.ones_like(scene_place[..., 0], dtype=torch.bool),
            ),
            1,
        )
        there = torch.cat(
            (torch.ones_like(placed[:, :1]), fronts.found, fronts.usable, placed[:, -(SCENE_TOKENS**2) :]), 1
        )
        apart = (place[:, :, None] - place[:, None]).square().sum(-1).add(1e-6).sqrt()  # (B, N, N)
        near = (
            torch.exp(-apart[..., None] / apart.new_tensor(REACHES)) * (placed[:, :, None] & placed[:, None])[..., None]
        )
        bias = (near @ self.near.T).permute(0, 3, 1, 2)
        return bias.masked_fill(~there[:, None, None], ABSENT)

    def _location(self, summary: Tensor, places: Tensor, cells: Tensor, fronts: Fronts, middles: Tensor) -> Mixture:
        """The mixture: untrained it is mostly the physics' own, by how well the waves agree."""
        score, scale, moved = self.place_out(places).split((1, 1, 2), -1)
        score = self.prior_scale * fronts.prior + score[..., 0]
        score = score.masked_fill(~fronts.usable, ABSENT)
        first = torch.full_like(fronts.prior, 1.0)
        first[:, 0] = fronts.spread.clamp_min(0.2).clamp_max(20.0)
        free, cell = self.free_out(summary), self.cell_out(cells)
        centre = torch.cat(
            (
                fronts.place + MOVED * (moved / MOVED).tanh(),
                middles + CELL_REACH * cell[..., 2:].tanh(),
                FREE_REACH * (free[:, None, 2:] + free.new_tensor([0.0, -1.0])),  # at first in the tile's middle
            ),
            1,
        )
        log_scale = torch.cat(
            (
                first.log() + 3 * (scale[..., 0] / 3).tanh(),
                math.log(CELL_SCALE) + cell[..., 1],
                math.log(FREE_SCALE) + free[:, 1:2],
            ),
            1,
        )
        log_weight = torch.cat((score, cell[..., 0], free[:, :1]), 1).log_softmax(1)
        return Mixture(log_weight, centre, log_scale.clamp(math.log(LEAST), math.log(500.0)))


class SceneEncoder(nn.Module):
    """Convolutions over a map's cells, (S, 3, G, G) to (S, C, G / 2, G / 2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(HEIGHT_CHANNELS, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.more = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))

    def forward(self, maps: Tensor) -> Tensor:
        """Encode maps of heights."""
        found = F.gelu(self.down(F.gelu(self.first(maps))))
        for layer in self.more:
            found = found + F.gelu(layer(found))
        return found


class SpectrumHead(nn.Module):
    """The recovered spectrum, corrected by a map of the directions that [PHYSC] speaks of."""

    def __init__(self, width: int, geometry: Geometry) -> None:
        super().__init__()
        self.coarse = (max(geometry.columns // COARSE, 1), max(geometry.rows // COARSE, 1))
        self.scale = geometry.columns // self.coarse[0]
        self.lift = nn.Linear(width, SPECTRUM_CHANNELS * math.prod(self.coarse))
        self.sharpness = nn.Linear(width, 1)
        self.mix = nn.Conv2d(SPECTRUM_CHANNELS + 1, SPECTRUM_CHANNELS, 3, padding=1, padding_mode="circular")
        self.last = nn.Conv2d(SPECTRUM_CHANNELS, 1, 3, padding=1, padding_mode="circular")

    def start(self) -> None:
        """At first the recovered spectrum passes unchanged."""
        for layer in (self.sharpness, self.last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, physc: Tensor, fronts: Fronts) -> Tensor:
        """Logarithm of the spectrum (B, kx, ky), up to a constant."""
        known = fronts.log_spectrum
        lifted = F.gelu(self.lift(physc)).unflatten(1, (SPECTRUM_CHANNELS, *self.coarse))
        maps = torch.cat((enlarge(lifted, self.scale), known[:, None] / 5), 1)
        return known * (1 + self.sharpness(physc)[..., None]) + self.last(F.gelu(self.mix(maps)))[:, 0]


class OccupancyBranch(nn.Module):
    """U-Net over the visible map and the evidence of waves: it never sees what is masked, nor places followed through it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = channels * 3 // 2
        self.fine = nn.Conv2d(HEIGHT_CHANNELS + 1 + EVIDENCE_CHANNELS, channels, 3, padding=1)
        self.middle = nn.Conv2d(channels, wide, 3, padding=1)
        self.low = nn.Conv2d(wide, 2 * channels, 3, padding=1)
        self.lower = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.up = nn.Conv2d(2 * channels + wide, wide, 3, padding=1)
        self.out = nn.Conv2d(wide, 1, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, 4 + 7, G, G) to logits of occupancy (B, G / 2, G / 2)."""
        fine = F.max_pool2d(F.gelu(self.fine(maps)), CELLS)
        middle = F.gelu(self.middle(fine))
        low = F.gelu(self.low(F.avg_pool2d(middle, 2)))
        low = F.gelu(self.lower(low))
        up = F.interpolate(low, size=middle.shape[-2:], mode="nearest")
        return self.out(F.gelu(self.up(torch.cat((up, middle), 1))))[:, 0]

    def symmetric(self, maps: Tensor) -> Tensor:
        """Logits, averaged over the eight symmetries of the square: turned maps give turned logits exactly."""
        found = []
        for turns in range(4):
            for flip in (False, True):
                found.append(turned(self(turned(maps, turns, flip)), turns, flip, back=True))
        return torch.stack(found).mean(0)


def turned(maps: Tensor, turns: int, flip: bool, back: bool = False) -> Tensor:
    """Maps (..., G, G) turned by quarters, then flipped; or turned `back`."""
    if back:
        return torch.rot90(maps.flip(-1) if flip else maps, -turns, (-2, -1))
    whole = torch.rot90(maps, turns, (-2, -1))
    return whole.flip(-1) if flip else whole
