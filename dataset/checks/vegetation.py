"""Checks of vegetation, for `validate`: losses are within their range, and the gains include them."""

import numpy as np

from wavecity.dataset.checks.physics import SceneCheck
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays
from wavecity.dataset.vegetation import LOSS
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

# dB; gains and losses are rounded to float32.
ROUNDING_DB = 0.01
DIFFUSE, DIFFRACTION = 2, 8


def _losses(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Losses are between 0 and the largest, and 0 where there is no path."""
    loss, there = arrays[LOSS], arrays["paths/gain"] != 0
    most = attrs["vegetation"]["largest_loss_db"]
    wrong = ~((loss >= 0) & (loss <= most + ROUNDING_DB))
    if wrong.any():
        return f"losses of {int(wrong.sum())} paths in vegetation are not between 0 and {most:.1f} dB"
    stray = (loss != 0) & ~there
    return f"{int(stray.sum())} losses in vegetation without a path" if stray.any() else ""


def _depths(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """No path has more vegetation than it is long."""
    loss = arrays[LOSS][:n_users].astype(np.float64)
    gamma, most = attrs["vegetation"]["attenuation_db_per_m"], attrs["vegetation"]["largest_loss_db"]
    length = SPEED_OF_LIGHT * arrays["paths/delay"][:n_users].astype(np.float64)
    all_along = -most * np.expm1(-gamma * length / most)
    wrong = (arrays["paths/gain"][:n_users] != 0) & (loss > all_along + ROUNDING_DB)
    return f"{int(wrong.sum())} paths lose more than if there were vegetation all along them" if wrong.any() else ""


def _included(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """A path that is neither diffracted nor scattered has at most the gain of free space, less its loss."""
    kinds = arrays["paths/interactions"][:n_users]
    gain = np.abs(arrays["paths/gain"][:n_users].astype(np.complex128))
    plain = (gain > 0) & ~np.isin(kinds, (DIFFUSE, DIFFRACTION)).any(-1)
    length = SPEED_OF_LIGHT * arrays["paths/delay"][:n_users].astype(np.float64)[plain]
    free = 20 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * attrs["frequency_hz"] * length)) + attrs["element_gain_max_db"]
    above = 20 * np.log10(gain[plain]) - (free - arrays[LOSS][:n_users][plain])
    excess = float(above.max(initial=-np.inf))
    return f"a gain is {excess:.2f} dB above that of free space less the loss in vegetation" if excess > 0.05 else ""


VEGETATION_CHECKS: dict[str, SceneCheck] = {
    "vegetation": _losses,
    "vegetation depth": _depths,
    "vegetation gain": _included,
}
