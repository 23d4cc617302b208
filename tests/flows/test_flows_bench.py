"""`wavecity bench`: what it measures is there and right; how fast it was is not tested."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from command import wavecity, wavecity_process

from wavecity.flows.cli import cli

KEYS = {
    "scenes", "speedup_median", "speedup_min", "paths_missing", "paths_duplicate", "users_per_second", "peak_memory_mb",
    "users_per_second_threads", "users_per_second_processes", "peak_memory_growth_mb", "compile_seconds_ours",
    "compile_seconds_stock", "kernels_compiled_after_first", "energy_difference_median_db", "energy_difference_max_db",
    "energy_extra_max_db", "rays", "depth", "users", "diffraction", "los", "maps", "cores", "version_sionna_rt",
}  # fmt: skip


@pytest.mark.system
def test_raytrace_on_two_real_tiles(tmp_path):
    out = tmp_path / "figures" / "raytrace.json"
    arguments = ("--scenes", 2, "--rays", 20_000, "--depth", 2, "--users", 30, "--throughput-scenes", 3, "--json", out)
    result = wavecity_process("bench", "raytrace", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "speed-up" in result.stdout
    figures = json.loads(out.read_text())
    assert set(figures) >= KEYS
    assert [name for name, value in figures.items() if isinstance(value, list | dict)] == ["per_scene", "stock_modes"]
    assert (figures["scenes"], figures["tiles"], figures["throughput_scenes"]) == (2, 2, 3)
    assert (figures["rays"], figures["depth"], figures["users"], figures["maps"]) == (20_000, 2, 30, "helsinki")
    assert figures["paths_stock"] > 20
    assert figures["paths_ours"] >= figures["paths_stock"]
    assert (figures["paths_missing"], figures["paths_duplicate"]) == (0, 0)
    assert figures["energy_difference_max_db"] < 0.05
    assert figures["kernels_compiled_after_first"] == 0
    assert min(figures[f"users_per_second{way}"] for way in ("", "_threads", "_processes", "_exhaustive")) > 0
    assert figures["users_per_second"] in (figures["users_per_second_threads"], figures["users_per_second_processes"])
    assert 50 < figures["peak_memory_mb"] < 10_000
    assert len(figures["per_scene"]) == 2
    for row in figures["per_scene"]:
        assert row["scene"] in result.stdout
        assert row["speedup"] == pytest.approx(row["seconds_stock"] / row["seconds_ours"])
        assert min(row["triangles"], row["chains"], row["paths_ours"]) > 0
    released, deterministic = figures["stock_modes"]
    assert (released["mode"], deterministic["mode"]) == ("as released", "deterministic")
    first = figures["per_scene"][0]
    for row in (released, deterministic):
        assert row["mode"] in result.stdout
        assert (row["users"], row["missing"], row["paths_ours"]) == (30, 0, first["paths_ours"])
        assert row["stock_missing"] == row["paths_ours"] - row["paths_stock"]
        assert row["memory_stock_mb"] >= 0
        assert row["energy_difference_max_db"] < 0.05
    # What the hash table of the other mode loses and doubles.
    assert deterministic["stock_missing"] <= released["stock_missing"]
    # The file is there whole, and nothing next to it.
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.system
def test_a_mode_that_does_not_fit_is_tried_with_fewer_users(monkeypatch, capsys):
    """Killed as the kernel kills a process that runs out of memory."""
    from wavecity.flows.bench import stock_modes

    scene = SimpleNamespace(users=np.zeros((40, 3)))
    monkeypatch.setattr(stock_modes, "run_mode", out_of_memory)
    assert [row.users for row in stock_modes.measure_modes(scene, 1000, 1, diffraction=False)] == [20, 20]
    assert "as released: 40 users and 1,000 rays do not fit into memory" in capsys.readouterr().err


def out_of_memory(scene, mode, users, *_):
    """In place of `run_mode`, in its process: more than 20 users are too many."""
    if users > 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return SimpleNamespace(users=users)


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


def test_geo_on_two_real_tiles(tmp_path):
    out = tmp_path / "figures" / "geo.json"
    result = wavecity("bench", "geo", "--tiles", 2, "--json", out, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "speed-up" in result.stdout
    figures = json.loads(out.read_text())
    assert set(figures) >= {
        "speedup", "speedup_median", "speedup_min", "speedup_without_reading", "tiles_per_second", "buildings_per_second",
        "tiles_per_second_reference", "buildings_per_second_reference", "convert_seconds", "maps", "version_triangle",
    }  # fmt: skip
    assert [name for name, value in figures.items() if isinstance(value, list | dict)] == ["per_tile"]
    assert (figures["tiles"], figures["maps"], len(figures["per_tile"])) == (2, "helsinki", 2)
    ours = sum(row["seconds_ours"] for row in figures["per_tile"])
    assert figures["tiles_per_second"] == pytest.approx(2 / ours)
    assert figures["speedup"] == pytest.approx(sum(row["seconds_reference"] for row in figures["per_tile"]) / ours)
    for row in figures["per_tile"]:
        assert row["tile"] in result.stdout
        assert min(row["seconds_reference"], row["seconds_reference_reading"]) > 0
        # Both see the same town: the other one counts a building once, ours every part.
        assert 0.3 < row["buildings_ours"] / row["buildings_reference"] < 4
    assert list(out.parent.iterdir()) == [out]


def test_geo_reference_writes_what_such_a_pipeline_writes(tmp_path):
    """Its meshes are closed prisms too, so that the comparison is of equals."""
    import trimesh

    from wavecity.flows.bench.geo import convert_map, pick_tiles
    from wavecity.flows.bench.geo_reference import build_tile

    path, source, _ = convert_map("helsinki", tmp_path / "cache")
    tile = pick_tiles("helsinki", source, 1)[0]
    count = build_tile(path, tile.latitude, tile.longitude, tile.size, tmp_path / "reference")
    files = sorted((tmp_path / "reference" / "meshes").glob("building_*.ply"))
    assert len(files) >= count > 3
    xml = (tmp_path / "reference" / "scene.xml").read_text()
    for file in files:
        assert f"meshes/{file.name}" in xml
        solid = trimesh.load(file)
        assert solid.is_watertight
        assert solid.volume > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--map", "nowhere.osm.pbf"], "--map nowhere.osm.pbf: no such file"),
        (["--reader", "osmnx"], "--map helsinki: osmnx reads .osm files only"),
        (["--tiles", "0"], "--tiles"),
    ],
)
def test_geo_names_what_is_wrong(arguments, words, tmp_path):
    result = wavecity("bench", "geo", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.system  # reads two whole extracts twice, by two readers
def test_geo_on_a_region_read_by_osmnx(shared_osm, tmp_path):
    maps = [argument for name in ("berlin", "sofia") for argument in ("--map", next(shared_osm.glob(f"{name}*.osm")))]
    out = tmp_path / "geo.json"
    result = wavecity("bench", "geo", "--region", "--reader", "osmnx", "--tiles", 1, *maps, "--json", out, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    assert (figures["tiles"], figures["region"], figures["reader"]) == (2, True, "osmnx")
    assert {row["map"] for row in figures["per_tile"]} == {"region.osm"}
    assert len({row["tile"].rsplit("-", 1)[0] for row in figures["per_tile"]}) == 2


def test_every_bench_is_in_the_help(tmp_path):
    bench = cli.commands["bench"]
    text = wavecity("bench", "--help", cwd=tmp_path).stdout
    for name, command in bench.commands.items():
        assert name in text
        assert command.help


@pytest.mark.system  # forty real scenes
def test_small_maps_are_made_up_for_by_larger_ones_and_then_by_other_users(shared_osm, tmp_path):
    import numpy as np

    from wavecity.flows.bench.scenes import pick_scenes

    maps = ("helsinki", str(next(shared_osm.glob("nyc*"))))
    scenes = pick_scenes(maps, 40, 5, tmp_path)
    assert len(scenes) == len({scene.id for scene in scenes}) == 40
    # In turn while both have tiles left.
    assert [scene.city.startswith("Nyc") for scene in scenes[:4]] == [False, True, False, True]
    first = {scene.id: scene for scene in scenes}
    again = next(scene for scene in scenes if scene.id.endswith("+1"))
    assert not np.array_equal(again.users, first[again.id.removesuffix("+1")].users)
