"""`wavecity bench raytrace --diffuse`: what it compares is right; how fast it was is not tested."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import wavecity_process

from wavecity.flows.bench import diffuse
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.world import build_world

sys.path.append(str(Path(__file__).resolve().parents[1] / "raytrace"))

from raytrace_helpers import SOURCE, mesh_of


def test_both_scatter_the_same_power():
    """Over open ground, where neither misses a shadow."""
    world = build_world(mesh_of([]), 60.0, RadioSettings(scattering=0.4))
    users = np.array([[10.0, -20.0, 1.5], [-30.0, 5.0, 3.0], [0.0, 40.0, 2.0]])
    row = diffuse.compare("ground", world, SOURCE * [0, 0, 1], users, 40_000)
    assert row.users == 3
    assert row.errors_ours_db["rms"] < 0.05
    assert row.errors_ours_db["largest"] >= row.errors_ours_db["rms"] >= row.errors_ours_db["median"]
    assert abs(row.sum_db) < 0.05
    # Their lattice has a few rays around each receiver.
    assert row.errors_stock_db["rms"] < 0.5
    assert abs(row.mean_db) < 0.1 + 4 * row.mean_error_db
    assert 0 < row.mean_error_db < 1
    assert row.paths_ours > 50
    assert row.paths_stock > row.paths_ours


def test_wrong_power_is_seen(monkeypatch):
    world = build_world(mesh_of([]), 60.0, RadioSettings(scattering=0.4))
    found = diffuse.scattered_paths

    def twice(*arguments):
        paths = found(*arguments)
        return replace(paths, coefficient=paths.coefficient * np.float32(np.sqrt(2)))

    monkeypatch.setattr(diffuse, "scattered_paths", twice)
    row = diffuse.compare("ground", world, SOURCE * [0, 0, 1], np.array([[10.0, -20.0, 1.5]]), 20_000)
    assert row.mean_db > 2


@pytest.mark.system
def test_the_option(tmp_path):
    out = tmp_path / "figures.json"
    arguments = ("--scenes", 1, "--rays", 20_000, "--depth", 1, "--users", 10, "--diffuse", "--json", out)
    result = wavecity_process("bench", "raytrace", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    (row,) = figures["diffuse_per_scene"]
    assert row["scene"] in result.stdout
    assert row["seconds_ours"] > 0
    assert row["speedup"] == figures["diffuse_speedup_median"]
    assert abs(row["mean_db"]) == figures["diffuse_mean_db_max"]
