"""Checks of several carriers, or pairs of ports, against each other: the same geometry, and fields of their own."""

import numpy as np

from wavecity.dataset.bands import CARRIER, PORT, dim_of
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays, Values

# What a path keeps from one to another, to the bit.
GEOMETRY = ("delay", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth")


def check_bands(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Paths of a user are the same at every carrier or port: the direct one, and at carriers all where none was cut.

    Parameters
    ----------
    arrays : dict
        Of one scene, those of users (user, carrier or port, ...).
    n_users : int
    attrs : StoreAttributes

    Returns
    -------
    str
        One line, or nothing.
    """
    dim = dim_of(attrs) or CARRIER
    if "paths/gain" not in arrays:
        return ""
    there = arrays["paths/gain"][:n_users] != 0
    geometry = np.stack([arrays[f"paths/{name}"][:n_users] for name in GEOMETRY], axis=-1)
    direct = there & ~arrays["paths/interactions"][:n_users].any(-1)
    first, known = _of_first(geometry, direct), direct.any(2)
    # At a port that is blind to it there is none.
    one = np.take_along_axis(first, known.argmax(1)[:, None, None], axis=1)
    moved = int(((first != one).any(-1) & known).any(1).sum())
    if moved:
        return f"the direct path of {moved} users has another delay or direction at another {dim}"
    # Of diffuse paths, some thousand for a user, a few may vanish at one carrier alone; others at a port.
    if dim == PORT or attrs.get("recipe", {}).get("solver", {}).get("diffuse"):
        return ""
    found = arrays["paths/n_paths"][:n_users]
    whole = (there.sum(2) == found) & (found == found[:, :1])
    ordered = np.sort(np.where(there, arrays["paths/delay"][:n_users], np.inf), axis=2)
    others = int(((ordered != ordered[:, :1]).any(2) & whole & whole[:, :1]).any(1).sum())
    return f"{others} users have paths of other delays at another {dim}" if others else ""


def _of_first(values: Values, chosen: Values) -> Values:
    """Values (user, carrier or port, ...) of the first path that is chosen."""
    place = chosen.argmax(2)
    return np.take_along_axis(values, place[..., None, None], axis=2)[:, :, 0]
