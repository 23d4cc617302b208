"""Checks of several carriers against each other: they have the same geometry, and fields of their own."""

import numpy as np

from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays, Values

# What a path keeps from carrier to carrier, to the bit.
GEOMETRY = ("delay", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth")


def check_carriers(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Paths of a user are the same at every carrier: the direct one, and all where none was cut.

    Parameters
    ----------
    arrays : dict
        Of one scene, those of users (user, carrier, ...).
    n_users : int
    attrs : StoreAttributes

    Returns
    -------
    str
        One line, or nothing.
    """
    if "paths/gain" not in arrays:
        return ""
    there = arrays["paths/gain"][:n_users] != 0
    geometry = np.stack([arrays[f"paths/{name}"][:n_users] for name in GEOMETRY], axis=-1)
    direct = there & ~arrays["paths/interactions"][:n_users].any(-1)
    first = _of_first(geometry, direct)
    both = direct.any(2) & direct.any(2)[:, :1]
    moved = int(((first != first[:, :1]).any(-1) & both).any(1).sum())
    if moved:
        return f"the direct path of {moved} users has another delay or direction at another carrier"
    # Of diffuse paths, some thousand for a user, a few may vanish at one carrier alone.
    if attrs.get("recipe", {}).get("solver", {}).get("diffuse"):
        return ""
    found = arrays["paths/n_paths"][:n_users]
    whole = (there.sum(2) == found) & (found == found[:, :1])
    ordered = np.sort(np.where(there, arrays["paths/delay"][:n_users], np.inf), axis=2)
    others = int(((ordered != ordered[:, :1]).any(2) & whole & whole[:, :1]).any(1).sum())
    return f"{others} users have paths of other delays at another carrier" if others else ""


def _of_first(values: Values, chosen: Values) -> Values:
    """Values (user, carrier, ...) of the first path that is chosen."""
    place = chosen.argmax(2)
    return np.take_along_axis(values, place[..., None, None], axis=2)[:, :, 0]
