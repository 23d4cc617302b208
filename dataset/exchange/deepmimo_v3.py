"""DeepMIMO v3 scenarios (PyPI `DeepMIMOv3`), which the public code of LWM loads: MATLAB files of each user's paths."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wavecity.dataset.exchange.deepmimo_paths import rotation, to_deepmimo
from wavecity.dataset.exchange.deepmimo_v4 import array_settings
from wavecity.dataset.exchange.exporter import Item
from wavecity.dataset.exchange.scenario_files import (
    about,
    plain_name,
    radio_of,
    scenario_items,
    scene_lines,
    several_lines,
)
from wavecity.dataset.exchange.selection import Scene, Selection, Station, needed, with_paths
from wavecity.dataset.records import Content
from wavecity.dataset.schema import Arrays
from wavecity.raytrace.settings import RadioSettings

# Rows of a path's column in a v3 file; then 1 for the line of sight.
ROWS = ("phase", "delay", "power", "aoa_az", "aoa_el", "aod_az", "aod_el")
# Rows of LWM's table of scenarios for all scenes of an export.
TABLE = "lwm_scenarios.json"


class Scenarios:
    """The format `deepmimo-v3`."""

    def __init__(self, store: str, array: str | None) -> None:
        with_paths(store)
        needed("scipy.io", "exchange", "--to deepmimo-v3")
        self.radio = array_settings(store, array)

    def settings(self) -> dict[str, object]:
        """The array of the phases."""
        return self.radio.model_dump(mode="json")

    def items(self, selection: Selection) -> list[Item]:
        """A scenario for each scene."""
        return scenario_items(selection, {scene.id: v3_name(scene.id) for scene in selection.scenes})

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write a scenario's folder."""
        from scipy.io import savemat

        (scene,) = item.scenes
        path.mkdir()
        links: list[tuple[Station, Arrays]] = []
        for number, station in enumerate(selection.stations(scene), 1):
            values = selection.read(scene, station.number)
            savemat(
                path / f"BS{number}_UE_0-{scene.users}.mat", self._users(scene, station, values), do_compression=True
            )
            links.append((station, {name: values[name] for name in ("height", "paths/power_cut")}))
        params = {
            "carrier_freq": self.radio.frequency,
            "transmit_power": 0.0,
            "num_BS": len(links),
            # A single row of users: first row, last row, users in a row.
            "user_grids": np.array([[1, 1, scene.users]]),
            "doppler_available": 0,
            "dual_polar_available": 0,
            "version": 3,
            "attribution": selection.attributes["attribution"],
            "licence": selection.attributes["licence"],
            "wavecity": json.dumps(about(selection, scene, self.radio, links), ensure_ascii=False),
        }
        savemat(path / "params.mat", params)

    def _users(self, scene: Scene, station: Station, values: Arrays) -> Content:
        """Variables of the file of a base station."""
        matrices = to_deepmimo(values, radio_of(self.radio, station))
        channels = np.empty((1, scene.users), object)
        for user in range(scene.users):
            there = np.isfinite(matrices["power"][user])
            rows = [matrices[name][user, there] for name in ROWS]
            channels[0, user] = {"p": np.stack([*rows, (matrices["inter"][user, there] == 0).astype(np.float64)])}
        with np.errstate(divide="ignore"):
            # Coherent, of isotropic antennas, as DeepMIMO has it; it differs from the store's path gain.
            amplitude = np.nansum(10 ** (matrices["power"] / 20) * np.exp(1j * np.deg2rad(matrices["phase"])), axis=1)
            loss = -20 * np.log10(np.abs(amplitude))
        position = values["user_position"].astype(np.float64)
        distance = np.linalg.norm(position, axis=1)
        return {
            "channels": channels,
            "rx_locs": np.column_stack([position + station.position, distance, loss]),
            "tx_loc": station.position,
        }

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """The rows of LWM's table, and the page that says how to load the scenarios."""
        rows = {item.name: {"n_rows": 1, "n_per_row": item.scenes[0].users} for item in items}
        (out / TABLE).write_text(json.dumps(rows, indent=1), encoding="utf-8")
        radio = self.radio
        paths = next(array.shape[2] for name, array in selection.arrays.items() if name.endswith("paths/gain"))
        first = selection.stations(items[0].scenes[0])
        return "\n".join(
            [
                "# DeepMIMO v3 scenarios",
                "",
                selection.attributes["attribution"],
                "",
                "```python",
                "import DeepMIMOv3",
                "import numpy as np",
                "",
                "settings = DeepMIMOv3.default_params()",
                f'settings["dataset_folder"] = "{out.resolve()}"',
                f'settings["scenario"] = "{items[0].name}"',
                'settings["user_rows"] = np.arange(1)',
                f'settings["num_paths"] = {paths}',
                f'settings["bs_antenna"]["shape"] = np.array([{radio.columns}, {radio.rows}])',
                f'settings["bs_antenna"]["spacing"] = {radio.spacing}',
                f'settings["bs_antenna"]["rotation"] = np.array({rotation(radio_of(radio, first[0]))})',
                'settings["ue_antenna"]["shape"] = np.array([1, 1])',
                'settings["enable_BS2BS"] = False',
                'channel = DeepMIMOv3.generate_data(settings)[0]["user"]["channel"]  # (user, 1, antenna, subcarrier)',
                "```",
                "",
                *several_lines(selection),
                *(_all_lines(radio, first) if len(first) > 1 else []),
                f"Phases are those of antenna (0, 0) of an array of {radio.columns} x {radio.rows} antennas, "
                f"{radio.spacing} wavelengths apart; export again with --array for another. Antennas are counted along the "
                "row first, rows from the bottom up. DeepMIMO divides by the square root of the number of subcarriers.",
                "",
                "## LWM",
                "",
                f"Add the rows of `{TABLE}` to LWM's table of scenarios (`row_column_users`), use base station 1, and "
                f"replace its rotation of -135 degrees by {rotation(radio_of(radio, first[0]))}. LWM has an array of 32 x 1: "
                "export with `--array 32x1`.",
                "",
                *scene_lines(items),
                "",
            ]
        )


def _all_lines(radio: RadioSettings, stations: Sequence[Station]) -> list[str]:
    """How to load all base stations of the first scenario."""
    turned = ", ".join(str(rotation(radio_of(radio, station))) for station in stations)
    return [
        "DeepMIMO counts them from 1 on. Channels of all of the first scenario:",
        "",
        "```python",
        f'settings["active_BS"] = np.arange(1, {len(stations) + 1})',
        f"rotations = [{turned}]",
        'settings["bs_antenna"] = [{**settings["bs_antenna"], "rotation": np.array(one)} for one in rotations]',
        'channels = [link["user"]["channel"] for link in DeepMIMOv3.generate_data(settings)]',
        "```",
        "",
    ]


def v3_name(scene: str) -> str:
    """Name of a scene's scenario.

    DeepMIMO v3 takes a scenario with `dyn` in its name, as Gdynia has, for one that moves, and LWM cuts names at `_v`.
    """
    return plain_name(scene).replace("_", "-").replace("dyn", "d-yn")
