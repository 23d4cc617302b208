"""The command line as a user meets it: exit codes and one clear line."""

import sqlite3

import pytest
from command import wavecity, wavecity_process

from wavecity.flows.cli import cli


def test_help_names_every_command():
    text = wavecity_process("--help").stdout
    commands = {
        "run", "plan", "build", "validate", "inspect", "preview", "publish", "pretrain", "evaluate", "report",
        "export-model",
    }  # fmt: skip
    assert commands <= set(cli.commands)
    for command in commands:
        assert command in text
        assert cli.commands[command].help


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["run", "quickstart", "--set", "radio.rows=-1"], "radio.rows = -1"),
        (["build", "quickstart", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["plan", "quickstart", "--set", "area.source=missing.osm.pbf"], "missing.osm.pbf"),
        (["validate", "nothing-here"], "nothing-here: no such store"),
        (["inspect", "."], "not a Wavecity store"),
        (["publish", "."], "nothing to publish"),
        (["report", "nothing-here"], "nothing-here"),
        (["evaluate", "nothing-here", "--task", "mu-mimo", "--data", "x"], "not a run folder"),
        (["evaluate", "x", "--task", "juggling", "--data", "x"], "juggling"),
        (["export-model", "nothing-here", "--out", "encoder.onnx"], "no readable checkpoint"),
        (["export-model", "nothing-here", "--out", "encoder.bin"], "name a file that ends in .pt2 or .onnx"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(arguments, words, tmp_path):
    result = wavecity(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_extract_is_one_clear_line(tmp_path):
    (tmp_path / "broken.osm.pbf").write_bytes(b"this is no map" * 100)
    result = wavecity("plan", "quickstart", "--set", "area.source=broken.osm.pbf", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "broken.osm.pbf" in result.stderr
    assert "Traceback" not in result.stderr


def test_validate_and_inspect_a_store(toy_store):
    result = wavecity("validate", toy_store)
    assert result.returncode == 0, result.stderr
    assert "valid" in result.stdout
    shown = wavecity("inspect", toy_store).stdout
    assert "toy-0003: scene: SceneError: toy" in shown
    assert "OpenStreetMap" in shown


def test_preview_draws_a_picture(toy_store, tmp_path):
    result = wavecity("preview", toy_store, "--scene", "toy-0001", "--out", tmp_path / "scene.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "scene.png").read_bytes().startswith(b"\x89PNG")
    assert wavecity("preview", toy_store, "--scene", "toy-0003", "--out", tmp_path / "x.png").returncode == 2


@pytest.mark.system
def test_a_database_of_another_prefect_version_does_not_matter(tmp_path):
    """Prefect refuses a database that a newer version migrated; ours is not the one in PREFECT_HOME."""
    with sqlite3.connect(tmp_path / "prefect.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('from-the-future')")
    arguments = ("build", "quickstart", "--out", tmp_path / "store", "--set", "area.source=missing.osm.pbf")
    result = wavecity_process(
        *arguments, PREFECT_HOME=str(tmp_path), PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="30"
    )
    # The flow started: the build got as far as the map that is not there.
    assert result.returncode == 2, result.stderr
    assert "missing.osm.pbf" in result.stderr
