"""Files of imported channels: their layout, reading and checking."""

import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError

SPLITS = ("train", "validation", "test")
LAYOUT = {
    "csi": "complex (user, x, y): sqrt(power gain), axes as in a store",
    "user_position": "float (user, 3): m, relative to the base station; x east, y north, z up",
    "scene": (
        "int or str (user,), optional: the user's scene, a number from 0 or a name; without it the file is one scene"
    ),
    "scene_id": "str (scene,), optional: names of numbered scenes; without it they are made from the file's name",
    "height": "float (scene, row, column) or (row, column), optional: m, row 0 = north; without it open ground, 0",
    "split": "str (scene,) or (user,), optional: train, validation or test",
    "path_gain": "float (user,), optional: dB; without it the mean of |csi|^2 over the antennas",
    "los": "bool (user,), optional: line of sight; without it false, not known",
}
# Cells of the map where none is given, and cells along a patch of the occupancy grid: as in recipes.
CELLS, PATCH = 200, 10


@lru_cache(1)
def load_channels(file: Path) -> Arrays:
    """Read a file and check every array; the last one read is kept.

    Parameters
    ----------
    file : Path
        `.npz` of `LAYOUT`.

    Returns
    -------
    dict
        The arrays that it has; `csi` is complex64, scenes are numbered (those with names in alphabetical order).

    Raises
    ------
    InputError
        It cannot be read, lacks an array, or has one of another name, shape or type; the message says what is expected.
    """

    def refuse(what: str) -> None:
        msg = f"{file}: {what}"
        raise InputError(msg)

    try:
        opened = np.load(file, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            refuse(f"a single array; expected an .npz of {', '.join(LAYOUT)}")
        with opened as archive:
            unknown = sorted(set(archive.files) - LAYOUT.keys())
            if unknown:
                refuse(f"array {unknown[0]!r} is not known; known are {', '.join(LAYOUT)}")
            for name in ("csi", "user_position"):
                if name not in archive.files:
                    refuse(f"no array {name!r}; expected {LAYOUT[name]}")
            arrays = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        msg = f"{file}: cannot be read as .npz ({str(error).splitlines()[0]})"
        raise InputError(msg) from error

    csi = arrays["csi"]
    users = len(csi) if csi.ndim else 0
    if csi.ndim != 3 or not csi.size:
        refuse(f"csi has shape {csi.shape}, expected {LAYOUT['csi']}")
    if csi.dtype.kind != "c":
        refuse(f"csi is {csi.dtype}, expected complex numbers: real + 1j * imaginary")
    for name in ("user_position", "scene", "path_gain", "los"):
        expected = (users, 3) if name == "user_position" else (users,)
        if name in arrays and arrays[name].shape != expected:
            refuse(f"{name} has shape {arrays[name].shape}, expected {expected}: {LAYOUT[name]}")
    for name, kinds in {"user_position": "iuf", "scene": "iuU", "scene_id": "U", "height": "iuf", "split": "U",
                        "path_gain": "iuf", "los": "b"}.items():  # fmt: skip
        if name in arrays and arrays[name].dtype.kind not in kinds:
            refuse(f"{name} is {arrays[name].dtype}, expected {LAYOUT[name]}")
    for name in ("csi", "user_position", "height", "path_gain"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            where = np.argwhere(~np.isfinite(arrays[name]))[0]
            refuse(f"{name}[{', '.join(map(str, where))}] is not finite; leave such users out")
    with np.errstate(over="ignore"):
        arrays["csi"] = csi.astype(np.complex64)
    if not np.isfinite(arrays["csi"]).all():
        refuse("csi is too large for complex64; expected sqrt(power gain)")
    if "scene" in arrays and arrays["scene"].dtype.kind == "U":
        if "scene_id" in arrays:
            refuse("scene has names already, and there is scene_id too; leave one of them out, or number the scenes")
        arrays["scene_id"], arrays["scene"] = np.unique(arrays["scene"], return_inverse=True)
    scenes = _check_scenes(arrays, refuse)
    height = arrays.get("height", np.zeros((CELLS, CELLS)))
    if height.shape[-1] != height.shape[-2] or height.shape[-1] % PATCH or height.shape[:-2] not in ((), (scenes,)):
        refuse(
            f"height has shape {height.shape}, expected ({scenes}, n, n) or (n, n), n a multiple of {PATCH}: "
            f"{LAYOUT['height']}"
        )
    if height.min() < 0:
        refuse(
            f"height is {height.min():g} m somewhere, expected 0 on open ground and above it where there is a building"
        )
    return arrays


def _check_scenes(arrays: Arrays, refuse: Callable[[str], None]) -> int:
    """Check numbers, names and splits of a file's scenes; returns their number."""
    users = len(arrays["csi"])
    number = arrays.get("scene", np.zeros(users, np.int64))
    scenes = int(number.max()) + 1
    if number.min() < 0 or len(np.unique(number)) < scenes:
        refuse(f"scene has numbers {number.min()} to {number.max()}, some without users; expected 0, 1, 2, ...")
    if "scene_id" in arrays and arrays["scene_id"].shape != (scenes,):
        refuse(f"scene_id has shape {arrays['scene_id'].shape}, expected ({scenes},): {LAYOUT['scene_id']}")
    if "split" in arrays:
        if arrays["split"].shape not in ((scenes,), (users,)):
            refuse(f"split has shape {arrays['split'].shape}, expected ({scenes},) or ({users},): {LAYOUT['split']}")
        wrong = sorted(set(arrays["split"].tolist()) - set(SPLITS))
        if wrong:
            refuse(f"split holds {wrong[0]!r}, expected {', '.join(SPLITS)}")
    return scenes
