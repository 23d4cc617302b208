"""Statistics of the train split that merge: every unit leaves sums, the finishing step adds them up."""

import math
from collections.abc import Sequence

import numpy as np

from wavecity.dataset.schema import Arrays

HEIGHT_SCALE = 50.0
POSITION_SCALE = 100.0


def unit_statistics(scenes: Sequence[Arrays | None], splits: Sequence[str]) -> dict[str, float]:
    """Sums over the train users of a unit that are not in outage.

    Parameters
    ----------
    scenes : sequence of dict
        Arrays of each scene (`features.scene_arrays`), or None where it is quarantined.
    splits : sequence of str
        Split of each scene.

    Returns
    -------
    dict
        `n_samples`, `power` (sum over users of the mean |csi|^2 of an antenna), `rms_db`, `rms_db_squared` (sums of the
        users' RMS in dB and of its square), `n_patches`, `occupied`.

    Examples
    --------
    >>> sums = [unit_statistics(scenes, splits) for scenes, splits in units]
    >>> merge_statistics(sums)["csi_rms"]
    1.38e-05
    """
    sums = dict.fromkeys(("n_samples", "power", "rms_db", "rms_db_squared", "n_patches", "occupied"), 0.0)
    for arrays, split in zip(scenes, splits, strict=True):
        if arrays is None or split != "train":
            continue
        csi = arrays["csi"][~arrays["outage"]].astype(np.complex128)
        power = np.mean(np.abs(csi) ** 2, axis=(-2, -1))
        decibel = 10 * np.log10(power)
        sums["n_samples"] += len(power)
        sums["power"] += float(power.sum())
        sums["rms_db"] += float(decibel.sum())
        sums["rms_db_squared"] += float((decibel**2).sum())
        sums["n_patches"] += arrays["occupancy"].size
        sums["occupied"] += float(arrays["occupancy"].sum())
    return sums


def merge_statistics(units: Sequence[dict[str, float]]) -> dict[str, float | int]:
    """Statistics of the train split from the sums of all units.

    Returns
    -------
    dict
        `csi_rms` (RMS of |csi|), `csi_rms_db_mean` and `csi_rms_db_std` (of the users' RMS in dB), `occupied_share`,
        `height_scale` (m), `position_scale` (m), `n_samples`. A store without train users has zeros.
    """
    total = {key: math.fsum(unit[key] for unit in units) for key in units[0]}
    n = max(total["n_samples"], 1)
    mean = total["rms_db"] / n
    return {
        "n_samples": int(total["n_samples"]),
        "csi_rms": math.sqrt(total["power"] / n),
        "csi_rms_db_mean": mean,
        "csi_rms_db_std": math.sqrt(max(total["rms_db_squared"] / n - mean**2, 0.0)),
        "occupied_share": total["occupied"] / max(total["n_patches"], 1),
        "height_scale": HEIGHT_SCALE,
        "position_scale": POSITION_SCALE,
    }
