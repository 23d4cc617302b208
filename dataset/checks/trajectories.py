"""Checks of users that move, for `validate`: their routes, and the channels along them."""

import numpy as np

from wavecity.dataset.checks.physics import SceneCheck
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays

# float32 at 200 m from the base station; two positions are rounded.
ROUNDING_M = 4e-5
# Relative; gains, angles and channels are rounded to float32, angles before they are multiplied by hundreds of radians.
ROUNDING_CSI = 1e-4
# Steps shorter than this many m are short compared with the straight pieces of routes: at most this share has a corner.
SHORT_STEP_M, MOST_CORNERS = 0.3, 0.2


def _start(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Routes start where the users are."""
    wrong = arrays["trajectory/position"][:n_users, 0] != arrays["user_position"][:n_users]
    return f"{int(wrong.any(axis=1).sum())} users do not start at user_position" if wrong.any() else ""


def _motion(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """No step is longer than the fastest of its kind takes, and steps agree with the velocity, except at corners.

    A corner is turned instantly, anywhere in a step, so that such a step may lead anywhere within reach.
    """
    position = arrays["trajectory/position"][:n_users].astype(np.float64)
    velocity = arrays["trajectory/velocity"][:n_users].astype(np.float64)
    interval, fastest = attrs["trajectory"]["interval_s"], np.asarray(attrs["trajectory"]["fastest_mps"], np.float64)
    kind = arrays["trajectory/kind"][:n_users]
    if (kind >= len(fastest)).any():
        return f"{int((kind >= len(fastest)).sum())} users of an unknown kind"
    most = fastest[kind][:, None] * (1 + 1e-6)
    speeding = (np.linalg.norm(velocity, axis=-1) > most).any(axis=1)
    if speeding.any():
        return f"{int(speeding.sum())} users are faster than their kind may be"
    steps = np.diff(position, axis=1)
    leaping = (np.linalg.norm(steps, axis=-1) > most * interval + ROUNDING_M).any(axis=1)
    if leaping.any():
        return f"{int(leaping.sum())} users take a step that their kind is too slow for"
    off = np.linalg.norm(steps - velocity[:, :-1] * interval, axis=-1) > ROUNDING_M
    short = np.broadcast_to(most * interval < SHORT_STEP_M, off.shape)
    share = off[short].mean() if short.any() else 0.0
    return f"{share:.0%} of the steps are not what the velocity says" if share > MOST_CORNERS else ""


def _first_snapshot(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """At the carrier the first snapshot equals `csi`, up to the paths that `csi` lacks.

    N paths of summed power p add up to at most N p at an antenna (Cauchy and Schwarz). Without stored paths it is not
    known what was cut, and users are not checked.
    """
    carrier = attrs["trajectory"]["subcarriers"] // 2
    heard = ~arrays["outage"][:n_users]
    if "paths/gain" not in arrays or not heard.any():
        return ""
    first = arrays["trajectory/csi"][:n_users, 0, carrier][heard].astype(np.complex128)
    csi = arrays["csi"][:n_users][heard].astype(np.complex128)
    power = 10 ** (arrays["path_gain"][:n_users][heard].astype(np.float64) / 10)
    stored = (arrays["paths/gain"][:n_users][heard] != 0).sum(axis=-1)
    missing = arrays["paths/n_paths"][:n_users][heard] - stored
    # Amplitudes that meet in phase at most: the rounding of as many paths.
    cut = np.sqrt(missing * power * (arrays["paths/power_cut"][:n_users][heard] + 1e-6))
    bound = cut + ROUNDING_CSI * np.sqrt(stored * power)
    wrong = np.abs(first - csi).max(axis=(-2, -1)) > bound
    return f"the first snapshot of {int(wrong.sum())} users is not csi" if wrong.any() else ""


TRAJECTORY_CHECKS: dict[str, SceneCheck] = {
    "start": _start,
    "motion": _motion,
    "first snapshot": _first_snapshot,
}
