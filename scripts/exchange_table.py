"""The table of docs/howto/exchange.md: exports a store in every format, reads it with that format's package, compares.

`python scripts/exchange_table.py STORE` in an environment with `wavecity[exchange,generate,deepmimo]` and webdataset. The
store needs paths and a panel that is upright.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.exchange.deepmimo_paths import csi_of, rotation
from wavecity.dataset.exchange.deepmimo_v4 import array_settings, scenario_csi
from wavecity.dataset.exchange.exporter import export_dataset
from wavecity.dataset.exchange.scenarios import import_scenarios
from wavecity.dataset.exchange.selection import Selection, select
from wavecity.dataset.reader import open_store
from wavecity.dataset.views import derived_csi

Channels = dict[str, NDArray[np.complexfloating]]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what DeepMIMO prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def difference(found: Channels, right: Channels) -> str:
    """Squared error relative to the squared channels in dB, of all users and of the worst one."""
    error, power = np.zeros(0), np.zeros(0)
    for name, csi in right.items():
        axes = tuple(range(1, csi.ndim))
        error = np.append(error, (np.abs(found[name] - csi).astype(np.float64) ** 2).sum(axes))
        power = np.append(power, (np.abs(csi).astype(np.float64) ** 2).sum(axes))
    if not error.any():
        return "the same bits"
    worst = (error[power > 0] / power[power > 0]).max()
    return f"{10 * np.log10(error.sum() / power.sum()):.0f} dB (worst user {10 * np.log10(worst):.0f} dB)"


def with_v4(folder: Path, selection: Selection, paths: int, *array: float) -> Channels:
    """Channels as DeepMIMO v4 computes them."""
    import deepmimo

    deepmimo.config.set("scenarios_folder", str(folder))
    with quiet():
        loaded = {scene.id: deepmimo.load(scene.id.lower(), max_paths=paths) for scene in selection.scenes}
        return {name: scenario_csi(scenario, *array) for name, scenario in loaded.items()}


def with_v3(folder: Path, selection: Selection, paths: int) -> Channels:
    """Channels as DeepMIMO v3 computes them."""
    import DeepMIMOv3

    radio, found = array_settings(selection.store, None), {}
    for scene in selection.scenes:
        settings = DeepMIMOv3.default_params()
        settings |= {"dataset_folder": str(folder), "scenario": scene.id, "user_rows": np.arange(1)}
        settings |= {"num_paths": paths, "enable_BS2BS": False}
        antennas = {"shape": np.array([radio.columns, radio.rows]), "rotation": np.array(rotation(radio))}
        settings["bs_antenna"] |= {**antennas, "spacing": radio.spacing}
        settings["ue_antenna"]["shape"] = np.array([1, 1])
        with quiet():
            channel = DeepMIMOv3.generate_data(settings)[0]["user"]["channel"]
        found[scene.id] = csi_of(channel, radio.columns, radio.rows, 512)[:, 0]
    return found


def with_h5py(folder: Path, selection: Selection) -> Channels:
    """Channels of `data.h5`."""
    import h5py

    with h5py.File(folder / "data.h5") as file:
        return {scene.id: file["csi"][row, : scene.users] for row, scene in enumerate(selection.scenes)}


def with_scipy(folder: Path, selection: Selection) -> Channels:
    """Channels of the MATLAB files."""
    from scipy.io import loadmat

    return {scene.id: loadmat(folder / f"{scene.id}.mat")["csi"] for scene in selection.scenes}


def with_webdataset(folder: Path, selection: Selection) -> Channels:
    """Channels of the tar shards."""
    import webdataset

    users: dict[str, dict[int, NDArray[np.complexfloating]]] = {}
    shards = sorted(map(str, folder.glob("*.tar")))
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        users.setdefault(sample["json"]["scene_id"], {})[sample["json"]["user"]] = sample["csi.npy"]
    return {name: np.stack([csi[user] for user in sorted(csi)]) for name, csi in users.items()}


def main(store: str) -> None:
    """Print a line of the table for every format, then those of other arrays and of the way back."""
    selection = select(store, ("csi",))
    right: Channels = {scene.id: selection.read(scene)["csi"] for scene in selection.scenes}
    paths = int(open_store(store, "paths").sizes["path"])
    readers: dict[str, Callable[[Path], Channels]] = {
        "deepmimo": lambda folder: with_v4(folder, selection, paths),
        "deepmimo-v3": lambda folder: with_v3(folder, selection, paths),
        "hdf5": lambda folder: with_h5py(folder, selection),
        "mat": lambda folder: with_scipy(folder, selection),
        "webdataset": lambda folder: with_webdataset(folder, selection),
    }
    with tempfile.TemporaryDirectory() as temporary:
        for to, read in readers.items():
            # Once to import what the format needs.
            export_dataset(store, to, Path(temporary) / "first" / to, scenes=[selection.scenes[0].id])
            start, folder = time.process_time(), Path(temporary) / to
            done = export_dataset(store, to, folder)
            speed = done.users / (time.process_time() - start)
            print(
                f"{to}: {done.bytes / 1e6:.1f} MB, {speed:,.0f} users/s, {difference(read(folder), right)}", flush=True
            )
        for array in ((8, 4, 0.5), (16, 1, 0.7)):
            view = derived_csi(store, columns=array[0], rows=array[1], spacing=array[2])
            other: Channels = {scene.id: view[scene.row, : scene.users].values for scene in selection.scenes}
            found = with_v4(Path(temporary) / "deepmimo", selection, paths, *array)
            print(
                f"deepmimo, {array[0]} x {array[1]} antennas {array[2]} apart: {difference(found, other)}", flush=True
            )
        back = select(str(import_scenarios([Path(temporary) / "deepmimo"], f"{temporary}/back", {}).folder), ("csi",))
        returned: Channels = {scene.id: back.read(scene)["csi"] for scene in back.scenes}
        print(f"deepmimo and back: {difference(returned, right)}")


if __name__ == "__main__":
    main(sys.argv[1])
