"""Features of a scene that are precomputed into the store, from `Scene` and `Channels`."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.schema import Arrays
from wavecity.geo.scene import Scene
from wavecity.raytrace.arrays import beam_gain, best_beam, dft_codebook, spectrum
from wavecity.raytrace.channels import Channels, WeakenedChannels

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


def scene_arrays(
    scene: Scene, channels: Channels, csi: NDArray[np.complex64], moving: NDArray[np.complex64] | None = None
) -> Arrays:
    """Every per-unit array of the schema for one scene, users not yet padded.

    Parameters
    ----------
    scene : Scene
    channels : Channels
        Paths of the scene's U users.
    csi : complex64 (U, x, y)
        Channels of the base station's array.
    moving : complex64 (U, time, subcarrier, x, y), optional
        Channels along the scene's tracks.

    Returns
    -------
    dict
        Array name of `schema.array_specs` -> values without the scene axis.

    Examples
    --------
    >>> channels = simulate(scene, radio, solver, seed=0)
    >>> arrays = scene_arrays(scene, channels, csi(channels, radio))
    >>> arrays["csi"].shape
    (83, 32, 32)
    """
    beams = best_beam(csi)
    beams[channels.outage] = -1
    arrays: Arrays = {
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
    if isinstance(channels, WeakenedChannels):
        arrays["paths/vegetation_loss"] = channels.vegetation_loss
    there = channels.interactions[..., None] != 0
    arrays["paths/vertices"] = np.where(there, channels.vertices - scene.bs_position, 0).astype(np.float32)
    if moving is not None and scene.tracks is not None:
        arrays |= {
            "trajectory/csi": moving,
            "trajectory/position": (scene.tracks.position - scene.bs_position).astype(np.float32),
            "trajectory/velocity": scene.tracks.velocity,
            "trajectory/kind": scene.tracks.kind,
        }
    return arrays


def channel_checksum(arrays: Arrays) -> str:
    """SHA-256 over a scene's channels: CSI and user positions, then those along trajectories where there are any."""
    digest = hashlib.sha256()
    for name in ("csi", "user_position", "trajectory/csi", "trajectory/position"):
        if name in arrays:
            digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()
