"""The few users whose attention, spectra, waves and map the report shows, and what of them is drawn."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.data.tokens import squared
from wavecity.model.data.users import WirelessData
from wavecity.model.path_model.attention import KINDS as TOKENS
from wavecity.model.path_model.attention import by_kind, physc_attention
from wavecity.model.path_model.followed import CORNERS, ways
from wavecity.model.path_model.front import SPARSE_ANTENNAS, Draw, Fronts
from wavecity.model.path_model.inference import Links, PathPredictor, Predictions
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import PathModel
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.results.records import Arrays
from wavecity.model.tasks.zero_shot_location import KINDS, seen_by
from wavecity.model.tasks.zero_shot_rates import region_rng

# Kinds of the users that are shown, in turn: those with diffracted paths only are the hardest.
TURNS = (0, 1, 2, 2)


def typical(kinds: NDArray[np.int64], error: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Rows (n,) of users to be shown: kinds in turn, and of each kind users whose errors are typical of it.

    Parameters
    ----------
    kinds : int (N,)
        Indices into `KINDS`.
    error : float (N,)
        Distance between where a user is and where the model says so, m.
    count : int
        Users that are shown, if there are so many.

    Returns
    -------
    int64 (n,)
        By kind, and by error among those of a kind: one is the median, of two one is at each quartile, and so on.

    Examples
    --------
    >>> typical(np.array([0, 0, 0, 2]), np.array([5.0, 1.0, 2.0, 40.0]), 2).tolist()
    [2, 3]
    """
    there = [int((kinds == kind).sum()) for kind in range(len(KINDS))]
    wanted = [0] * len(KINDS)
    while sum(wanted) < min(count, len(kinds)):
        for kind in TURNS:
            if wanted[kind] < there[kind] and sum(wanted) < count:
                wanted[kind] += 1
    rows = [np.zeros(0, np.int64)]
    for kind, number in enumerate(wanted):
        mine = np.flatnonzero(kinds == kind)
        ascending = mine[error[mine].argsort(kind="stable")]
        rows.append(ascending[[int((place + 0.5) / number * len(mine)) for place in range(number)]])
    return np.concatenate(rows)


def followed(predictor: PathPredictor, users: Links, draw: Draw) -> Arrays:
    """The ways of every user's waves (N, K, corners, 3) in m from the base station, their gains in dB, and which land."""
    fronts = predictor.cache.users(users.scene, users.user, draw)
    corners = torch.full((*fronts.found.shape, CORNERS, 3), torch.nan)
    lands = torch.zeros_like(fronts.found)
    for row in users.scene.unique().tolist():
        # Of users in this scene, the waves that there are.
        mine = fronts.found & (users.scene == row)[:, None]
        corners[mine], lands[mine] = ways(fronts.direction[mine], surroundings(predictor.cache.store, row))
    gain = torch.where(fronts.found, 20 * fronts.gain.abs().log10(), torch.nan)
    return {"ray_corners": corners.numpy(), "ray_gain": gain.numpy(), "ray_lands": lands.numpy()}


def shown(
    predictor: PathPredictor,
    data: WirelessData,
    test: Links,
    kinds: NDArray[np.int64],
    found: Predictions,
    draw: Draw,
    count: int,
    share: float,
) -> Arrays:
    """What is drawn of `count` users under a draw, but for occupancy.

    Parameters
    ----------
    test : Links
    kinds : int64 (N,)
    found : Predictions
        Of all users `test`.
    share : float
        Of the mixture that a stated region holds.

    Returns
    -------
    dict
        `shown`: their rows among `test`. Spectra (n, kx, ky) are shares of their mean. `attention` (n, layers, cells, cells)
        is over its largest; `attention_shares` (n, layers, kinds of tokens) sums to 1; `attention_to_places`
        (n, layers, K + C) is to waves and places, which are at `attention_places` (n, K + C, 2), m from the base station,
        nan where they are nowhere. The mixture is `mixture_log_weight`, `mixture_centre` and `mixture_log_scale`, and
        `region_edge` (n,) the logarithm of its density at the edge of the region.
    """
    error = (found.location.best() - test.position).norm(dim=1).numpy()
    rows = typical(kinds, error, count)
    some = torch.from_numpy(rows)
    users = test.at(some)
    edge = found.location.edge(share, region_rng(share, draw.seed))[some]
    said = found.at(some)
    arrays: Arrays = {
        "shown": rows,
        "spectrum_users": np.array([f"{float(test.position[row].norm()):.0f} m, {KINDS[kinds[row]]}" for row in rows]),
        "spectrum_scene": users.scene.numpy(),
        "spectrum_position": users.position.numpy(),
        "spacing": np.array(float(data.attributes.get("array", {}).get("spacing_wavelengths", 0.5))),
        "mixture_log_weight": said.log_weight.numpy(),
        "mixture_centre": said.centre.numpy(),
        "mixture_log_scale": said.log_scale.numpy(),
        "region": np.array(share),
        "region_edge": edge.numpy(),
    }
    if not len(rows):
        return arrays
    fronts = predictor.cache.users(users.scene, users.user, draw)
    return (
        arrays
        | _spectra(predictor, users, said, fronts, draw)
        | _attention(predictor.model, fronts, predictor.sites(users))
    )


def _spectra(predictor: PathPredictor, users: Links, said: Predictions, fronts: Fronts, draw: Draw) -> Arrays:
    """True spectra, the model's, the front end's, and those of the DFT with zeros where nothing is seen."""
    noisy, _, visible = seen_by(predictor, users, draw)
    own = "spectrum_sbl" if int(visible.sum()) <= SPARSE_ANTENNAS else "spectrum_waves"
    spectra = {
        "spectrum_true": _power(users.csi),
        "spectrum_model": said.spectrum.flatten(1).softmax(1).view_as(said.spectrum),
        own: fronts.log_spectrum.exp(),
        "spectrum_zero_filled": _power(torch.where(visible, noisy, 0)),
    }
    return {name: (power / power.mean((1, 2), keepdim=True)).float().numpy() for name, power in spectra.items()}


def _power(csi: Tensor) -> Tensor:
    return squared(torch.fft.fft2(csi.to(torch.complex128)))


def _attention(model: PathModel, fronts: Fronts, sites: Sites) -> Arrays:
    weights = physc_attention(model, fronts, sites).transpose(0, 1)  # (n, layers, N)
    kinds = by_kind(weights, fronts)
    _, waves, places, cells = kinds
    landed = fronts.landing.abs().sum(-1, keepdim=True) > 0
    where = (
        torch.where(landed, fronts.landing, torch.nan),
        torch.where(fronts.usable[..., None], fronts.place, torch.nan),
    )
    return {
        "attention": (cells / cells.amax((-2, -1), keepdim=True)).numpy(),
        "attention_kinds": np.array(TOKENS),
        "attention_shares": torch.stack([kind.flatten(2).sum(-1) for kind in kinds], -1).numpy(),
        "attention_to_places": torch.cat((waves, places), -1).numpy(),
        "attention_places": torch.cat(where, 1).numpy(),
    }
