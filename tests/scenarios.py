"""A DeepMIMO v4 scenario as another ray tracer leaves it, and what its channels are."""

import json
from pathlib import Path

import numpy as np
import pytest

C = 299_792_458.0
CARRIER = 3.5e9
TX = np.array([50.0, 80.0, 12.0])


def write_scenario(
    folder: Path, users: int = 12, tx: np.ndarray = TX, ending: str = "npz", rx: np.ndarray | None = None, **rt_params
) -> dict:
    """A scenario as another ray tracer leaves it: line of sight, ground reflection; the last user has no path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(users)
    if rx is None:
        rx = tx + np.column_stack(
            [rng.uniform(-70, 90, users), rng.uniform(-120, 60, users), np.full(users, 1.5 - tx[2])]
        )
    image = rx * [1, 1, -1]
    ways = np.stack([rx - tx, image - tx], 1)
    length = np.linalg.norm(ways, axis=-1)
    gain = C / (4 * np.pi * CARRIER * length) * [1, -0.6] * np.exp(-2j * np.pi * CARRIER * length / C)
    matrices = {
        "power": 20 * np.log10(np.abs(gain)),
        "phase": np.angle(gain, deg=True),
        "delay": length / C,
        "aod_az": np.degrees(np.arctan2(ways[..., 1], ways[..., 0])),
        "aod_el": np.degrees(np.arccos(ways[..., 2] / length)),
        "aoa_az": np.degrees(np.arctan2(-ways[..., 1], -ways[..., 0])),
        "aoa_el": np.degrees(np.arccos(-ways[..., 2] / length * [1, -1])),
        "inter": np.tile([0.0, 1.0], (users, 1)),
    }
    for matrix in matrices.values():
        matrix[-1] = np.nan
    files = {**matrices, "rx_pos": rx, "tx_pos": tx[None]}
    for name, matrix in files.items():
        path, values = folder / f"{name}_t000_tx000_r001", matrix.astype(np.float32)
        if ending == "mat":
            pytest.importorskip("scipy.io").savemat(f"{path}.mat", {name: values})
        elif ending == "npy":
            np.save(path, values)
        else:
            np.savez_compressed(path, **{name: values})
    box = np.array([[x, y, z] for z in (0, 9) for y in (20, 60) for x in (10, 40)], float)
    faces = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [1, 3, 7, 5], [3, 2, 6, 7], [2, 0, 4, 6]]
    np.savez_compressed(folder / "vertices.npz", vertices=box)
    one = {"name": "b", "label": "buildings", "id": 0, "face_vertex_idxs": faces, "face_material_idxs": [0] * 6}
    (folder / "objects.json").write_text(json.dumps([one]))
    points = {"id_orig": 0, "num_ant": 1, "dual_pol": False, "num_active_points": 1}
    params = {
        "version": "4.0.5",
        "rt_params": {"frequency": CARRIER, "raytracer_name": "Remcom Wireless Insite", "raw_params": {}, **rt_params},
        "txrx_sets": {
            "txrx_set_0": {"name": "bs", "id": 0, "is_tx": True, "is_rx": False, "num_points": 1, **points},
            "txrx_set_1": {"name": "ue", "id": 1, "is_tx": False, "is_rx": True, "num_points": users, **points},
        },
        "scene": {"num_scenes": 1},
        "materials": {"material_0": {"id": 0, "name": "m", "permittivity": 5.0, "conductivity": 0.1}},
    }
    (folder / "params.json").write_text(json.dumps(params))
    return {"gain": gain, "ways": ways / length[..., None], "position": rx - tx}


def plane_waves(truth: dict, columns: int, rows: int, azimuth: float) -> np.ndarray:
    """Channels of the scenario of a panel around the transmitter, in double precision."""
    a = np.deg2rad(azimuth)
    x = (np.arange(columns) - (columns - 1) / 2) * 0.5
    y = (np.arange(rows) - (rows - 1) / 2) * 0.5
    place = x[:, None, None] * np.array([-np.sin(a), np.cos(a), 0]) + y[:, None] * np.array([0, 0, -1.0])
    turns = np.einsum("upc,xyc->upxy", truth["ways"], place)
    csi = np.einsum("up,upxy->uxy", truth["gain"], np.exp(2j * np.pi * turns))
    csi[-1] = 0
    return csi
