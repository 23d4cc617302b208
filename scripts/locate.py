"""How far off the physics localiser is on the users of a store, with nothing trained.

Usage: python scripts/locate.py STORE [--split test] [--patches 16] [--snr 10] [--seed 0] [--users N]
       [--disturb NAME=VALUE] [--json FILE]

Every user is located from its partial, noisy channel and the map (`wavecity.locate`). Printed are the median and the 90 %
quantile of the distance, by kind of user: in line of sight; with a reflected path that holds a tenth of its power or more;
and with diffracted paths only. With `--disturb` something of the map, the panel or its place is wrong: see
`wavecity.model.rays.disturb.Disturbance` for the names. A user whose waves come down nowhere counts with the distance to the
middle of the tile. A height that nobody knows, from 1 m to 2 m: `--disturb user_heights=1,1.25,1.5,1.75,2`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import wavecity
from wavecity.geo.errors import InputError
from wavecity.model.data.noise import add_noise, gaussian
from wavecity.model.data.users import evenly
from wavecity.model.rays.disturb import Disturbance

DIFFRACTION = 8
KINDS = ("line of sight", "reflected", "diffracted only")


def main() -> None:
    """Locate the users of one split, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test", "all"))
    parser.add_argument("--patches", type=int, default=16, help="visible patches of 4 x 4 antennas")
    parser.add_argument("--snr", type=float, default=10.0, help="dB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, help="largest number of users of a scene, evenly spread")
    parser.add_argument("--disturb", action="append", default=[], metavar="NAME=VALUE", help="again for more at once")
    parser.add_argument("--json", type=Path, help="file for every user's error")
    options = parser.parse_args()
    if options.patches < 1:
        parser.error("--patches: give at least 1")
    if options.users is not None and options.users < 1:
        parser.error("--users: give at least 1")
    torch.set_num_threads(1)
    try:
        rows = located(options)
    except InputError as error:
        sys.exit(f"locate: {error}")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def located(options: argparse.Namespace) -> list[dict[str, object]]:
    """City, kind and error in m of every user with a path."""
    data, paths = wavecity.open_store(options.store), wavecity.open_store(options.store, "paths")
    rng, wrong = np.random.default_rng(options.seed), Disturbance.of(options.disturb)
    columns, rows_ = data.sizes["x"] // 4, data.sizes["y"] // 4
    patches = torch.from_numpy(rng.permutation(columns * rows_) < options.patches).view(columns, rows_)
    shown = patches.repeat_interleave(4, 0).repeat_interleave(4, 1)
    done = (data["status"].values == "done") & ((data["split"].values == options.split) | (options.split == "all"))
    records: list[dict[str, object]] = []
    for row in np.flatnonzero(done).tolist():
        start = time.process_time()
        scene = data.isel(scene=row).load()
        served = np.flatnonzero(~scene["outage"].values[: int(scene["n_users"])])
        if not len(served):
            continue
        served = served[evenly(len(served), options.users or len(served)).numpy()]
        of_users = paths.isel(scene=row, user=served).load()
        csi = torch.from_numpy(scene["csi"].values[served])
        # Other draws than the noise's, so that this is the same whatever is wrong.
        other = np.random.default_rng([options.seed, row])
        csi = wrong.channels(csi, of_users, other)
        noise = csi.abs().square().mean((1, 2)) * 10 ** (-options.snr / 10)
        noisy = add_noise(csi, options.snr, gaussian(rng, tuple(csi.shape)))
        surroundings, shift = wrong.surroundings(options.store, row, other)
        found = wavecity.locate(noisy, shown, surroundings, noise).position.numpy()
        west, south, east, north = surroundings.box
        found = np.where(np.isnan(found), [(west + east) / 2, (south + north) / 2], found)
        error = np.linalg.norm(found + shift - scene["user_position"].values[served][:, :2], axis=1)
        kinds = kinds_of(scene["los"].values[served], of_users)
        city = str(scene["city"].values)
        records += [
            {"city": city, "kind": KINDS[kind], "error": float(e)}
            for kind, e in zip(kinds.tolist(), error.tolist(), strict=True)
        ]
        each = 1000 * (time.process_time() - start) / max(len(served), 1)
        print(f"{scene['scene_id'].values}: {len(served)} users, {each:.0f} ms of CPU time each", file=sys.stderr)
    return records


def kinds_of(los: NDArray[np.bool_], paths: xr.Dataset) -> NDArray[np.int64]:
    """Index of each user's kind in `KINDS`."""
    power = np.abs(paths["gain"].values) ** 2
    specular = ~(paths["interactions"].values & DIFFRACTION).any(-1)
    reflected = (power * specular).max(1) > 0.1 * power.sum(1)
    return np.where(los, 0, np.where(reflected, 1, 2))


def table(records: list[dict[str, object]]) -> str:
    """Markdown: a line a city, and one for all."""
    lines = ["| city | users | " + " | ".join(("all", *KINDS)) + " |", "|---" * (3 + len(KINDS)) + "|"]
    for city in [*sorted({str(record["city"]) for record in records}), "all"]:
        of_city = [record for record in records if city in ("all", record["city"])]
        cells = []
        for kind in (None, *KINDS):
            errors = [float(str(record["error"])) for record in of_city if kind in (None, record["kind"])]
            cells.append(f"{np.median(errors):.2f} / {np.quantile(errors, 0.9):.0f} ({len(errors)})" if errors else "")
        lines.append(f"| {city} | {len(of_city)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
