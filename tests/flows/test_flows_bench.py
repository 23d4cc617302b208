"""`wavecity bench`: what it measures is there and right; how fast it was is not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import cli

KEYS = {
    "scenes", "speedup_median", "speedup_min", "paths_missing", "paths_duplicate", "users_per_second", "peak_memory_mb",
    "users_per_second_threads", "users_per_second_processes", "peak_memory_growth_mb", "compile_seconds_ours",
    "compile_seconds_stock", "kernels_compiled_after_first", "energy_difference_median_db", "energy_difference_max_db",
    "energy_extra_max_db", "rays", "depth", "users", "diffraction", "los", "maps", "cores", "version_sionna_rt",
}  # fmt: skip


def wavecity(*arguments, cwd):
    return subprocess.run(
        [str(Path(sys.executable).with_name("wavecity")), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ,
    )


def test_raytrace_on_two_real_tiles(tmp_path):
    out = tmp_path / "figures" / "raytrace.json"
    arguments = ("--scenes", 2, "--rays", 20_000, "--depth", 2, "--users", 30, "--throughput-scenes", 3, "--json", out)
    result = wavecity("bench", "raytrace", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "speed-up" in result.stdout
    figures = json.loads(out.read_text())
    assert set(figures) >= KEYS
    assert [name for name, value in figures.items() if isinstance(value, list | dict)] == ["per_scene"]
    assert (figures["scenes"], figures["tiles"], figures["throughput_scenes"]) == (2, 2, 3)
    assert (figures["rays"], figures["depth"], figures["users"], figures["maps"]) == (20_000, 2, 30, "helsinki")
    assert figures["paths_stock"] > 20
    assert figures["paths_ours"] >= figures["paths_stock"]
    assert (figures["paths_missing"], figures["paths_duplicate"]) == (0, 0)
    assert figures["energy_difference_max_db"] < 0.05
    assert figures["kernels_compiled_after_first"] == 0
    assert min(figures[f"users_per_second{way}"] for way in ("", "_threads", "_processes")) > 0
    assert figures["users_per_second"] in (figures["users_per_second_threads"], figures["users_per_second_processes"])
    assert 50 < figures["peak_memory_mb"] < 10_000
    assert len(figures["per_scene"]) == 2
    for row in figures["per_scene"]:
        assert row["scene"] in result.stdout
        assert row["speedup"] == pytest.approx(row["seconds_stock"] / row["seconds_ours"])
        assert min(row["triangles"], row["chains"], row["paths_ours"]) > 0
    # The file is there whole, and nothing beside it.
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--map", "nowhere.osm.pbf"], "--map nowhere.osm.pbf: no such file"),
        (["--map", "broken.osm.pbf"], "broken.osm.pbf: cannot be read"),
        (["--json", "/proc/nowhere/figures.json"], "/proc/nowhere"),
        (["--json", "."], "--json .: is a folder"),
        (["--rays", "0"], "--rays"),
        (["--depth", "many"], "many"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, words, tmp_path):
    (tmp_path / "broken.osm.pbf").write_bytes(b"this is no map" * 100)
    result = wavecity("bench", "raytrace", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.osm.pbf"]


def test_every_bench_is_in_the_help(tmp_path):
    bench = cli.commands["bench"]
    text = wavecity("bench", "--help", cwd=tmp_path).stdout
    for name, command in bench.commands.items():
        assert name in text
        assert command.help


def test_small_maps_are_made_up_for_by_larger_ones_and_then_by_other_users(shared_osm, tmp_path):
    import numpy as np

    from flows.bench.raytrace import pick_scenes

    maps = ("helsinki", str(next(shared_osm.glob("nyc*"))))
    scenes = pick_scenes(maps, 40, 5, tmp_path)
    assert len(scenes) == len({scene.id for scene in scenes}) == 40
    # In turn while both have tiles left.
    assert [scene.city.startswith("Nyc") for scene in scenes[:4]] == [False, True, False, True]
    first = {scene.id: scene for scene in scenes}
    again = next(scene for scene in scenes if scene.id.endswith("+1"))
    assert not np.array_equal(again.users, first[again.id.removesuffix("+1")].users)
