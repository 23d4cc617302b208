"""Features of a scene that are precomputed into the store, from `Scene` and `Channels`."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo.scene import Scene
from raytrace.arrays import beam_gain, best_beam, dft_codebook, spectrum
from raytrace.channels import Channels

__all__ = ["beam_gain", "best_beam", "channel_checksum", "dft_codebook", "scene_arrays", "spectrum"]

_PATH_FIELDS = (
    "gain",
    "delay",
    "aod_zenith",
    "aod_azimuth",
    "aoa_zenith",
    "aoa_azimuth",
    "doppler",
    "interactions",
    "n_paths",
    "power_cut",
)


def scene_arrays(scene: Scene, channels: Channels, csi: NDArray[np.complex64]) -> dict[str, NDArray[Any]]:
    """Every per-unit array of the schema for one scene, users not yet padded.

    Parameters
    ----------
    scene : Scene
    channels : Channels
        Paths of the scene's U users.
    csi : complex64 (U, x, y)
        Channels of the base station's array.

    Returns
    -------
    dict
        Array name of `schema.array_specs` -> values without the scene axis.
    """
    beams = best_beam(csi)
    beams[channels.outage] = -1
    arrays: dict[str, NDArray[Any]] = {
        "csi": csi,
        "spectrum": spectrum(csi),
        "height": scene.height,
        "occupancy": scene.occupancy,
        "user_position": (scene.users - scene.bs_position).astype(np.float32),
        "path_gain": channels.path_gain,
        "los": channels.los,
        "outage": channels.outage,
        "best_beam": beams,
    }
    arrays.update({f"paths/{name}": getattr(channels, name) for name in _PATH_FIELDS})
    return arrays


def channel_checksum(arrays: dict[str, NDArray[Any]]) -> str:
    """SHA-256 over a scene's channels: CSI and user positions, in this order."""
    digest = hashlib.sha256()
    for name in ("csi", "user_position"):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
