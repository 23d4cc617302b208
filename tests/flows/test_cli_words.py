"""What the command line says: its first line, help, completion, and one line for what is wrong."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import click
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from processes import python
from toy import build_store, make_layout

from wavecity.dataset.records import attributes_of
from wavecity.flows import cli as command_line
from wavecity.flows.cli import cli
from wavecity.flows.recipe_tables import print_plan
from wavecity.flows.result_tables import print_result
from wavecity.geo.cities import City
from wavecity.geo.errors import InputError
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.tiles import Tile
from wavecity.model.settings.tasks import TASKS


def invoke(*arguments: object) -> Result:
    """Run a command in this process; what it sets in the environment is undone."""
    with mock.patch.dict(os.environ):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="wavecity")


def leaves(group: click.Group, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        path = (*prefix, name)
        found |= leaves(command, path) if isinstance(command, click.Group) else {path: command}
    return found


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in the folder of a run. Read only."""
    store = tmp_path_factory.mktemp("run") / "store"
    build_store(store, make_layout(scenes=2, unit=2, users=12))
    return store


def test_help_shows_every_command_whole_and_by_subject() -> None:
    text = invoke("--help").stdout
    assert "..." not in text.replace("[ARGS]...", "")
    words = " ".join(text.split())
    for name, command in cli.commands.items():
        assert re.search(rf"^  {name}  ", text, re.MULTILINE), name
        sentence = " ".join((command.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
        assert sentence in words
    for title in ("Data:", "Models:", "Examples:"):
        assert re.search(rf"^{title}$", text, re.MULTILINE)
    assert "  wavecity run quickstart\n" in text
    assert "Other commands:" not in text
    bench = invoke("bench", "--help").stdout
    assert "..." not in bench.replace("[ARGS]...", "")
    assert "attention" in bench


def test_a_command_of_no_subject_is_listed_too() -> None:
    with mock.patch.dict(cli.commands, {"new": click.Command("new", help="Something new.")}):
        assert re.search(r"^Other commands:\n  new  +Something new$", invoke("--help").stdout, re.MULTILINE)


def test_tasks_are_listed_one_a_line() -> None:
    text = invoke("evaluate", "--help").stdout
    for task in TASKS:
        assert re.search(rf"^  {task}  +\w", text, re.MULTILINE), task
    assert "localization|" not in text


@pytest.mark.parametrize("path", leaves(cli))
def test_every_command_has_help_and_options_with_words(path: tuple[str, ...]) -> None:
    command = leaves(cli)[path]
    assert command.help
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help or option.name == "rays", option.name


SILENT = {("recipe",), ("completion",)}


@pytest.mark.parametrize("path", [path for path in leaves(cli) if path not in SILENT])
def test_the_first_line_says_what_a_command_does_before_it_imports_anything(path: tuple[str, ...]) -> None:
    command = leaves(cli)[path]
    arguments = ["X" for one in command.params if isinstance(one, click.Argument)]
    options = []
    for option in command.params:
        if isinstance(option, click.Option) and option.required:
            value = {"name": "latency", "frequency": "28.5e9", "to": "mat"}.get(option.name or "", "Y")
            options += [option.opts[0], value]
    seen: list[str] = []

    def callback(**_: object) -> None:
        seen.append("ran")

    with mock.patch.object(command, "callback", callback):
        result = invoke(*path, *arguments, *options)
    assert result.exit_code == 0, result.output
    assert seen == ["ran"]
    assert result.stdout == ""
    assert result.stderr.startswith(f"wavecity {' '.join([*path, *arguments])}: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_command_line_and_its_first_line_import_nothing_heavy() -> None:
    """What takes seconds to import is imported by a command after its first line."""
    code = (
        "import sys, wavecity.dataset.progress, wavecity.flows.cli\n"
        "heavy = {'torch', 'prefect', 'sionna', 'numpy', 'pandas', 'zarr', 'xarray', 'distributed', 'shapely', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code) == "[]"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script_and_nothing_else(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "_WAVECITY_COMPLETE" in result.stdout


def completed(words: str, **more: str) -> list[str]:
    environment = {"_WAVECITY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
    result = CliRunner().invoke(cli, [], prog_name="wavecity", env=environment | more)
    return [line.split(",", 1)[1] for line in result.stdout.splitlines()]


def test_commands_recipes_and_tasks_complete() -> None:
    with mock.patch.dict(os.environ):
        assert "evaluate" in completed("wavecity")
        assert set(completed("wavecity run")) >= {"quickstart", "pretrain-10k", "temporal"}
        assert completed("wavecity evaluate runs/x --task") == list(TASKS)


def test_the_keys_of_a_recipe_are_listed_with_their_meanings() -> None:
    everything = invoke("recipe", "quickstart")
    assert everything.exit_code == 0, everything.output
    for key in ("seed", "area.split.validation", "solver.max_depth", "training.evaluation.localization.labels"):
        assert key in everything.stdout
    solver = invoke("recipe", "quickstart", "solver", "--set", "solver.max_depth=5").stdout
    assert re.search(r"solver\.max_depth +│ 5 +│ Largest number of interactions", solver)
    assert "area." not in solver
    assert isinstance(wrong := invoke("recipe", "quickstart", "solvers").exception, InputError)
    assert "solvers" in str(wrong)
    assert "solver," in str(wrong)


def test_a_missing_store_is_reported_once_and_without_credentials() -> None:
    error = invoke("inspect", "nothing-here").exception
    assert isinstance(error, InputError)
    assert str(error).count("nothing-here") == 1
    assert "credentials" not in str(error)


@pytest.mark.parametrize("command", ["validate", "inspect", "publish"])
def test_the_folder_of_a_run_suggests_the_store_in_it(command: str, small_store: Path) -> None:
    error = invoke(command, small_store.parent).exception
    assert isinstance(error, InputError)
    assert str(small_store) in str(error)


def test_a_build_does_not_fill_the_folder_of_a_run(small_store: Path) -> None:
    before = sorted(small_store.parent.iterdir())
    error = invoke("build", "quickstart", "--out", small_store.parent).exception
    assert isinstance(error, InputError)
    assert str(small_store) in str(error)
    assert sorted(small_store.parent.iterdir()) == before


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_a_prefect_server_that_does_not_answer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = "http://127.0.0.1:9/api"  # the discard port, where nothing listens
    monkeypatch.setattr(sys, "argv", ["wavecity", "build", "quickstart", "--out", str(tmp_path / "store")])
    with (
        mock.patch.dict(os.environ, {"PREFECT_API_URL": url}),
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(SystemExit) as ended,
    ):
        command_line.main()
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"wavecity: PREFECT_API_URL={url}: no Prefect server answers there")
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def town() -> CityPlan:
    """Three tiles side by side: accepted, rejected, not needed."""
    where = [(60.0, 25.0), (60.0, 25.004), (60.0, 25.008)]
    outcomes = [("accepted", ""), ("rejected", "coverage 5.1 % below 10 %"), ("rejected", "not needed")]
    tiles = [
        Tile(f"town-{number}", "Town", "FI", *place, 200.0, status=status, reason=reason)
        for number, (place, (status, reason)) in enumerate(zip(where, outcomes, strict=True))
    ]
    return CityPlan(City("Town", "FI", "town.osm", None, None, 1000.0, 1), tiles)


def test_tiles_that_were_not_needed_are_not_called_rejected(town: CityPlan, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(Plan([town]))
    lines = capsys.readouterr().out.splitlines()
    assert "rejected: coverage below 10 % 1" in lines
    assert "not needed, so not looked at: 1" in lines


def test_only_tiles_that_were_looked_at_are_listed(town: CityPlan, capsys: pytest.CaptureFixture[str]) -> None:
    empty = replace(town.tiles[2], id="town-3", reason="no buildings")
    plan = Plan([replace(town, tiles=[*town.tiles, empty])])
    print_plan(plan)
    assert listed(capsys.readouterr().out) == ["town-0", "town-1"]
    print_plan(plan, every=True)
    assert listed(capsys.readouterr().out) == ["town-0", "town-1", "town-2", "town-3"]
    print_plan(Plan([replace(town, tiles=[empty])]))
    shown = capsys.readouterr().out
    assert not listed(shown)
    assert "latitude" not in shown
    assert "rejected: no buildings 1" in shown


def listed(shown: str) -> list[str]:
    return re.findall(r"town-\d", shown)


def test_tiles_that_were_not_needed_are_not_drawn_as_rejected(town: CityPlan) -> None:
    from matplotlib.colors import to_hex

    from wavecity.flows.map_picture import OUTCOMES, _draw_city

    fills = {}
    for collection in _draw_city(town).axes[0].collections:
        for outline in collection.get_paths():
            for tile in town.tiles:
                if outline.contains_point((tile.longitude, tile.latitude)):
                    fills[tile.id] = collection.get_facecolor()
    assert to_hex(fills["town-0"][0]) == OUTCOMES["accepted"].lower()
    assert to_hex(fills["town-1"][0]) == OUTCOMES["rejected"].lower()
    assert len(fills["town-2"]) == 0 or fills["town-2"][0][3] == 0


def test_inspect_shows_words_and_units_instead_of_names(small_store: Path) -> None:
    shown = invoke("inspect", small_store).stdout
    for words in ("train users with a path", "RMS of a user, mean", " dB ", "scale of heights", "50 m"):
        assert words in shown
    for name in attributes_of(xr.open_zarr(small_store / "latest.zarr").attrs)["statistics"]:
        assert name not in shown


def test_a_result_says_what_was_swept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from wavecity.model.results.names import Method, Metric
    from wavecity.model.results.records import Record, write_records

    places = {
        Metric.LOCATION_ERROR: 6.0,
        Metric.SU_RATE: 0.05,
        Metric.EQUIVARIANCE_ERROR: 3.0,
        Metric.LATENCY: float("nan"),
    }
    records = [
        Record(metric, method, value, seed=0, n=9, x=x)
        for metric, x in places.items()
        for method, value in ((Method.MODEL, 1.0), (Method.KNN, 2.0), (Method.GRU, float("nan")))
    ]
    write_records(tmp_path / "t.parquet", records, "localization", "c", "v")
    result = {"task": "localization", "seeds": 1, "seconds": 2.0, "facts": {}, "table": "t.parquet"}
    print_result(result, tmp_path)
    shown = capsys.readouterr().out
    for words in (
        "6 labels",
        "5 % of the labels",
        "shift, bins: 3",
        "1 m (model)",
        "2 m (kNN on |DFT|)",
        "ahead of kNN",
    ):
        assert words in shown
    assert " x " not in shown
