"""A transcript of a store's scene in the hands of DeepMIMO 4, DeepMIMO 3, and LWM's steps.

`python scripts/deepmimo_transcript.py STORE SCENE` in an environment with `wavecity[exchange,generate]` and the dependency
group `deepmimo`. Every line is executed as it stands; the store needs a panel of 32 x 32 antennas that faces south.
"""

import code
import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

from wavecity.dataset.exchange.exporter import export_dataset

V4 = """
import deepmimo as dm, numpy as np, wavecity
dm.config.set("scenarios_folder", "v4")
scenario = dm.load("{name}", max_paths=32)
scenario.power.shape, len(scenario.scene.get_objects("buildings"))
array = {{"shape": [32, 32], "spacing": 0.5, "rotation": [0, 0, -90]}}
channel = scenario.compute_channels(dm.ChannelParameters(num_paths=32, bs_antenna=array))
channel.shape
csi = channel[:, 0, :, 0].reshape(-1, 32, 32)[:, ::-1].swapaxes(1, 2) * np.sqrt(512)
stored = wavecity.open_store("store").sel(scene="{scene}").isel(user=slice(len(csi)))
error = np.abs(csi - stored.csi.values) ** 2
round(float(10 * np.log10(error.sum() / (np.abs(stored.csi.values) ** 2).sum())))  # dB
np.array_equal(scenario.los == 1, stored.los.values & ~stored.outage.values)
"""
V3 = """
import DeepMIMOv3, numpy as np, wavecity
settings = DeepMIMOv3.default_params() | {{"dataset_folder": "v3", "scenario": "{name}", "user_rows": np.arange(1)}}
settings |= {{"num_paths": 32, "enable_BS2BS": False}}
settings["bs_antenna"] |= {{"shape": np.array([32, 32]), "rotation": np.array([0, 0, -90])}}
settings["ue_antenna"]["shape"] = np.array([1, 1])
users = DeepMIMOv3.generate_data(settings)[0]["user"]
users["channel"].shape
csi = users["channel"][:, 0, :, 0].reshape(-1, 32, 32)[:, ::-1].swapaxes(1, 2) * np.sqrt(512)
stored = wavecity.open_store("store").sel(scene="{scene}").csi.values[: len(csi)]
round(float(10 * np.log10((np.abs(csi - stored) ** 2).sum() / (np.abs(stored) ** 2).sum())))  # dB
"""
# What LWM's `input_preprocess.py` does with a scenario: its parameters, its samples, its cleaning, its patches of 16.
LWM = """
import json, DeepMIMOv3, numpy as np
from DeepMIMOv3.utils import uniform_sampling
table = json.load(open("lwm/lwm_scenarios.json"))["{name}"]
settings = DeepMIMOv3.default_params() | {{"dataset_folder": "lwm", "scenario": "{name}", "num_paths": 20}}
settings |= {{"user_rows": np.arange(table["n_rows"]), "enable_BS2BS": False}}
settings["bs_antenna"] |= {{"shape": np.array([32, 1]), "rotation": np.array([0, 0, -90])}}
settings["ue_antenna"]["shape"] = np.array([1, 1])
settings["OFDM"] |= {{"subcarriers": 32, "selected_subcarriers": np.arange(32), "bandwidth": 32 * 30e3 / 1e9}}
users = DeepMIMOv3.generate_data(settings)[0]["user"]
chosen = uniform_sampling([1, 1], table["n_rows"], table["n_per_row"])
heard = users["LoS"][chosen] != -1
channel = users["channel"][chosen][heard] * 1e6
channel.shape
flat = channel.reshape(len(channel), -1).astype(np.csingle)
np.hstack([flat.real, flat.imag]).reshape(len(channel), -1, 16).shape  # patches
"""

TYPED = {"v4": V4, "v3": V3, "lwm": LWM}


def typed(lines: str) -> None:
    """Print lines as they are typed, each with what Python answers; not what the packages say on the way."""
    interpreter = code.InteractiveInterpreter({})
    for line in lines.strip().splitlines():
        print(f">>> {line}", flush=True)
        said = io.StringIO()
        # A value goes through the display hook, which prints as the last one.
        shown: list[object] = []
        sys.displayhook = shown.append
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            interpreter.runsource(line)
        if "Traceback" in said.getvalue():
            sys.exit(said.getvalue())
        print(*(f"{value!r}\n" for value in shown if value is not None), sep="", end="")


def main(store: str, scene: str) -> None:
    """Export a scene in three ways, and load it."""
    with tempfile.TemporaryDirectory() as temporary:
        exported = {"v4": ("deepmimo", None), "v3": ("deepmimo-v3", None), "lwm": ("deepmimo-v3", "32x1")}
        for folder, (to, array) in exported.items():
            export_dataset(store, to, Path(temporary) / folder, scenes=[scene], array=array)
        os.symlink(Path(store).resolve(), Path(temporary) / "store")
        os.chdir(temporary)
        for folder, lines in TYPED.items():
            (name,) = (path.name for path in Path(folder).iterdir() if path.is_dir())
            print(f"{'' if folder == 'v4' else chr(10)}# {folder}")
            typed(lines.format(name=name, scene=scene))


if __name__ == "__main__":
    main(*sys.argv[1:])
