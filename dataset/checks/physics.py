"""Checks of one scene: its values are finite, and agree with each other and with the physics of free space."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.radio_maps import GROUP
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays
from wavecity.dataset.vegetation import LOSS
from wavecity.raytrace.arrays import SPEED_OF_LIGHT, best_beam

# Rounding of float32 values of some 1e-6 relative; positions and delays are rounded to float32 independently.
RELATIVE = 1e-4


def _finite(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """All values are finite, but for cells of radio maps."""
    bad = [name for name, values in arrays.items() if not name.startswith(GROUP) and not np.isfinite(values).all()]
    return f"not finite: {', '.join(bad)}" if bad else ""


def _friis(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """LoS path gain: equal to Friis for isotropic elements, never above it by more than the element's gain.

    Without what vegetation takes from it.

    `los` is geometry: it also holds where the recipe does not trace the direct path, or where its gain is below the
    floor.
    """
    if "paths/gain" not in arrays or not attrs["los_traced"]:
        return ""
    users = np.flatnonzero(arrays["los"][:n_users] & ~arrays["outage"][:n_users])
    direct = (arrays["paths/gain"][users] != 0) & ~arrays["paths/interactions"][users].any(-1)
    # Among paths that were cut the direct one may be, behind an element pattern's null.
    missing = ~direct.any(1) & (arrays["paths/power_cut"][users] == 0)
    gains = arrays["paths/gain"][users]
    if LOSS in arrays:
        # A direct path far down in crowns may be cut without a share of the power that float32 can hold.
        missing &= arrays["paths/n_paths"][users] <= direct.shape[1]
        gains = gains * np.power(10.0, arrays[LOSS][users].astype(np.float64) / 20)
    # So may a user's antenna be, to the polarisation of the direct path.
    same = len(set(attrs.get("polarisations", "V/V").split("/"))) == 1
    if same and missing.any():
        return f"{int(missing.sum())} users are labelled LoS without a direct path"
    gains, users, direct = gains[direct.any(1)], users[direct.any(1)], direct[direct.any(1)]
    distance = np.linalg.norm(arrays["user_position"][users], axis=-1)
    friis = SPEED_OF_LIGHT / (4 * np.pi * attrs["frequency_hz"] * distance)
    found = np.abs(np.where(direct, gains, 0)).max(1, initial=0)
    excess = 20 * np.log10(found / friis) - attrs["element_gain_max_db"] if len(users) else np.zeros(1)
    if excess.max() > 0.01:
        return f"LoS gain {excess.max():.2f} dB above Friis"
    if attrs["element_pattern"] == "iso" and attrs["polarisation_matched"] and excess.min() < -0.5:
        return f"LoS gain {-excess.min():.2f} dB below Friis"
    return ""


def _delay(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """No path arrives before light would."""
    if "paths/delay" not in arrays:
        return ""
    shortest = np.linalg.norm(arrays["user_position"][:n_users], axis=-1)[:, None] / SPEED_OF_LIGHT
    real = arrays["paths/gain"][:n_users] != 0
    early = real & (arrays["paths/delay"][:n_users] < shortest * (1 - RELATIVE))
    return f"{int(early.sum())} paths arrive before light could" if early.any() else ""


def _vertices(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """The way over a path's vertices is as long as its delay says."""
    if "paths/vertices" not in arrays:
        return ""
    there = arrays["paths/interactions"][:n_users, ..., None] != 0
    user = arrays["user_position"][:n_users, None, None].astype(np.float64)
    # The base station is the origin; after a path's last vertex comes its user.
    stops = np.where(there, arrays["paths/vertices"][:n_users], user)
    ends = np.broadcast_to(user, (*stops.shape[:2], 1, 3))
    length = np.linalg.norm(np.diff(np.concatenate([0 * ends, stops, ends], axis=2), axis=2), axis=-1).sum(-1)
    traced = SPEED_OF_LIGHT * arrays["paths/delay"][:n_users]
    wrong = (arrays["paths/gain"][:n_users] != 0) & (np.abs(length - traced) > RELATIVE * traced)
    return f"{int(wrong.sum())} paths are not as long over their vertices as their delay says" if wrong.any() else ""


def _parseval(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """The spectrum is the squared magnitude of the channel's discrete Fourier transform."""
    if "spectrum" not in arrays:
        return ""
    csi, spectrum = arrays["csi"][:n_users], arrays["spectrum"][:n_users]
    transformed = np.abs(np.fft.fft2(csi.astype(np.complex128))) ** 2
    scale = transformed.max((-2, -1), initial=0)[:, None, None] + np.finfo(np.float32).tiny
    error = np.abs(spectrum - transformed) / scale
    return f"spectrum differs from |DFT(csi)|^2 by {error.max():.1e} of its peak" if error.max() > RELATIVE else ""


def _beams(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """`best_beam` is the strongest beam of the channel, -1 in outage."""
    expected = best_beam(arrays["csi"][:n_users])
    expected[arrays["outage"][:n_users]] = -1
    wrong = int((expected != arrays["best_beam"][:n_users]).sum())
    return f"best_beam wrong for {wrong} users" if wrong else ""


def _users(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Users inside the tile and outdoors: not where a cell and all its eight neighbours are built.

    Users under raised buildings, whom the receipt counts, are an exception: the height map does not show what is open
    below.
    """
    height = arrays["height"]
    half = attrs["tile_size_m"] / 2
    position = arrays["user_position"][:n_users] + np.asarray(attrs["bs_position_m"])
    # The recorded base station is the unshifted one; the shift is along x and at most a few cells.
    x, y = position[:, 0] + arrays["bs_shift"], position[:, 1]
    if n_users and max(np.abs(x).max(), np.abs(y).max()) > half + 0.01:
        return "users outside the tile"
    cell = attrs["tile_size_m"] / len(height)
    column = np.clip(((x + half) / cell).astype(int), 1, len(height) - 2)
    row = np.clip(((half - y) / cell).astype(int), 1, len(height) - 2)
    built = np.stack([height[row + i, column + j] > 0 for i in (-1, 0, 1) for j in (-1, 0, 1)]).all(0)
    indoors = int(built.sum()) - int(arrays["users_under_cover"])
    return f"{indoors} users inside buildings" if indoors > 0 else ""


def _occupancy(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Occupancy follows from the height map.

    A cell is built or not by its centre, so that a wall through a cell makes the share counted in cells differ from the
    exact one by up to half a cell: a row of houses that is 8.8 m wide may be 8 or 9 cells wide.
    """
    occupancy, threshold = arrays["occupancy"], attrs["occupancy_threshold"]
    cells = len(arrays["height"]) // len(occupancy)
    built = arrays["height"] > 0
    around = np.pad(built, 1, mode="edge")
    neighbours = [around[1:-1, :-2], around[1:-1, 2:], around[:-2, 1:-1], around[2:, 1:-1]]
    inner, outer = built & ~np.logical_and.reduce(neighbours), ~built & np.logical_or.reduce(neighbours)

    def share(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = chosen.reshape(len(occupancy), cells, len(occupancy), cells).mean((1, 3))
        return mean

    slack = np.maximum(0.05, np.maximum(share(inner), share(outer)) / 2)
    wrong = (share(built) > threshold + slack) & (occupancy == 0)
    wrong |= (share(built) < threshold - slack) & (occupancy == 1)
    return f"{int(wrong.sum())} occupancy patches contradict the height map" if wrong.any() else ""


def _padding(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Users beyond `n_users` are empty."""
    pad = arrays["csi"][n_users:].any() or not arrays["outage"][n_users:].all() or arrays["los"][n_users:].any()
    moving = (values for name, values in arrays.items() if name.startswith("trajectory/"))
    return "padding users are not empty" if pad or any(values[n_users:].any() for values in moving) else ""


# Each gets the arrays of one scene, its number of users and the store's attributes; a message is a finding, "" is none.
SceneCheck: TypeAlias = Callable[[Arrays, int, StoreAttributes], str]
SCENE_CHECKS: dict[str, SceneCheck] = {
    "finite": _finite,
    "friis": _friis,
    "delay": _delay,
    "vertices": _vertices,
    "spectrum": _parseval,
    "best_beam": _beams,
    "users": _users,
    "occupancy": _occupancy,
    "padding": _padding,
}
