"""Maps as the network sees them: cells of 5 m around the link, what is masked of them, and what waves say about them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecity.model.data.tokens import unpatchify
from wavecity.model.path_model.front import Fronts

# Cells of the raster along a patch of the occupancy grid.
CELLS = 2
# Channels: of the heights; and of the occupancy branch, which sees mask, link, user and evidence of waves besides.
HEIGHT_CHANNELS, EVIDENCE_CHANNELS = 3, 7
SCALE = 50.0
# Widths of what is drawn into the raster, m, and the angle within which a wave is the direct one, radians.
LINE, SPOT, ALIGNED = 5.0, 8.0, 0.03


@dataclass(frozen=True)
class Sites:
    """Maps of S scenes and which of them B users stand in.

    Attributes
    ----------
    height : float32 (S, rows, columns)
        m, row 0 = north.
    row : int64 (B,)
        Scene of a user.
    bs : float32 (B, 2)
        Base station in the scene's frame (origin in the middle), m.
    size : float
        Edge of a tile, m.
    """

    height: Tensor
    row: Tensor
    bs: Tensor
    size: float

    def on_grid(self, place: Tensor) -> Tensor:
        """Places (B, ..., 2) relative to the base station as `grid_sample` counts them, -1 to 1 along columns and rows."""
        bs = self.bs.view(-1, *[1] * (place.ndim - 2), 2)
        return (place + bs) * place.new_tensor([2 / self.size, -2 / self.size])

    def sampled(self, maps: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
        """Values (B, P, C) of maps (S, C, rows, columns) at places (B, P, 2) relative to the base station."""
        values = F.grid_sample(maps[self.row], self.on_grid(place)[:, None], mode, "border", align_corners=False)
        return values[:, :, 0].mT

    def mirrored(self) -> "Sites":
        """Of a world mirrored east-west."""
        return Sites(self.height.flip(-1), self.row, self.bs * self.bs.new_tensor([-1.0, 1.0]), self.size)


def rasters(height: Tensor, cells: int) -> Tensor:
    """Highest, mean height and built share of the cells of maps (S, rows, columns), (S, 3, cells, cells)."""
    maps = (height / SCALE)[:, None]
    return torch.cat(
        (
            F.adaptive_max_pool2d(maps, cells),
            F.adaptive_avg_pool2d(maps, cells),
            F.adaptive_avg_pool2d((maps > 0).to(maps.dtype), cells),
        ),
        1,
    )


def centres(cells: int, size: float, device: torch.device) -> Tensor:
    """Centres of cells in the scene's frame, m, (cells, cells, 2), row 0 = north."""
    along = (torch.arange(cells, device=device) + 0.5) * (size / cells) - size / 2
    return torch.stack((along.expand(cells, -1), -along[:, None].expand(-1, cells)), -1)


def masked_rasters(sites: Sites, masked: Tensor, patches: int) -> Tensor:
    """Rasters of visible heights and the mask, (B, 4, G, G), of masked patches int64 (B, m) of a grid of `patches`^2."""
    hidden = torch.zeros(len(masked), patches * patches, dtype=torch.bool, device=masked.device)
    hidden = unpatchify(hidden.scatter(1, masked, True)[..., None], 1, patches, patches)
    hidden = hidden.repeat_interleave(CELLS, 1).repeat_interleave(CELLS, 2)[:, None]
    seen = rasters(sites.height, CELLS * patches)[sites.row]
    return torch.cat((torch.where(hidden, 0.0, seen), hidden.to(seen.dtype)), 1)


def evidence(fronts: Fronts, user: Tensor, sites: Sites, cells: int, drop: float) -> Tensor:
    """What waves say about the map around a link to a user whose place is known, (B, 7, cells, cells).

    Link, user, base station; the link where a direct wave shows that it is free, and where none does; the points at which
    single reflections must have happened, and their free legs. Nothing here depends on the map. `drop` is how far the base
    station is above the user, m.
    """
    grid = centres(cells, sites.size, user.device)
    batch = len(user)
    at = grid[None] - sites.bs[:, None, None]  # relative to the base station
    nothing = torch.zeros_like(user)
    link = _near_line(at, nothing, user)
    length = user.norm(dim=1)
    # Panels face south: the first cosine is that towards east.
    distance = (length.square() + drop**2).sqrt()
    expected = torch.stack((user[:, 0] / distance, drop / distance), -1)
    off = (fronts.direction - expected[:, None]).norm(dim=2)
    direct = ((off < ALIGNED) & fronts.found).any(1).to(at.dtype)[:, None, None]
    spots, legs = torch.zeros_like(link), torch.zeros_like(link)
    east, down = fronts.direction.unbind(-1)
    flat = (1 - down.square()).clamp_min(1e-6).sqrt()
    heading = torch.stack((east, -(flat.square() - east.square()).clamp_min(0).sqrt()), -1) / flat[..., None]
    way = drop * flat / down.clamp_min(1e-3)
    for wave in range(way.shape[1]):
        total, toward = way[:, wave], heading[:, wave]
        # A path of this length that turns once: the point as far from the user as the way that is left.
        first = (total.square() - length.square()) / (2 * (total - (toward * user).sum(1))).clamp_min(1e-3)
        turns = fronts.found[:, wave] & (off[:, wave] >= ALIGNED) & (first > 1) & (first < total) & (total < 1000)
        bounce = toward * first[:, None]
        shown = turns.to(at.dtype)[:, None, None]
        spots = torch.maximum(spots, shown * torch.exp(-((at - bounce[:, None, None]).norm(dim=-1) / SPOT).square()))
        both = torch.maximum(_near_line(at, nothing, bounce), _near_line(at, bounce, user))
        legs = torch.maximum(legs, shown * both)
    user_spot = torch.exp(-((at - user[:, None, None]).norm(dim=-1) / SPOT).square())
    bs_spot = torch.exp(-(at.norm(dim=-1) / SPOT).square())
    drawn = torch.stack((link, user_spot, bs_spot, link * direct, link * (1 - direct), spots, legs), 1)
    assert len(drawn) == batch
    return drawn


def _near_line(at: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """How near cells (B, G, G, 2) are to segments between (B, 2) and (B, 2), 1 on them: (B, G, G)."""
    along = (end - start)[:, None, None]
    offset = at - start[:, None, None]
    share = ((offset * along).sum(-1) / along.square().sum(-1).clamp_min(1e-6)).clamp(0, 1)
    return torch.exp(-((offset - share[..., None] * along).norm(dim=-1) / LINE).square())
