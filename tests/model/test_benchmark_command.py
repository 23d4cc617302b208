"""The benchmark as a command: encoders of a user's module, results files, tables, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from command import wavecity as command
from small_benchmark import protocol

import wavecity
from wavecity.dataset import InputError
from wavecity.model.benchmark import run as runs
from wavecity.model.benchmark import table
from wavecity.model.benchmark.encoder import load_encoder
from wavecity.model.benchmark.protocol import DECISIVE, FILE, read_protocol, shipped_protocol

ROOT = Path(__file__).resolve().parents[2]


PAGE = ROOT / "docs" / "howto" / "benchmark.md"


MODULE = """
import numpy as np

class Level:
    calls = 0

    def embed(self, batch):
        Level.calls += 1
        return 20 * np.log10(np.abs(batch.csi).max((1, 2)) + 1e-30)[:, None]

class Other:
    def embed(self, batch):
        return np.abs(batch.csi).reshape(len(batch.csi), -1)[:, :1] + 1

class Row:
    def embed(self, batch):
        return np.ones(len(batch.csi))

class Few:
    def embed(self, batch):
        return np.ones((len(batch.csi) - 1, 2))

class Growing:
    width = 1

    def embed(self, batch):
        self.width += 1
        return np.ones((len(batch.csi), self.width))

class Infinite:
    def embed(self, batch):
        return np.full((len(batch.csi), 2), np.inf)

class Complex:
    def embed(self, batch):
        return batch.csi.reshape(len(batch.csi), -1)

class Ragged:
    def embed(self, batch):
        return [[1.0], [1.0, 2.0]]

class Failing:
    def embed(self, batch):
        return undefined

class Empty:
    pass

class Needing:
    def __init__(self, path):
        pass

def made():
    return Level()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a module of the user's and settings for the toy store."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "encoders_of_mine.py").write_text(MODULE)
    (folder / "broken_of_mine.py").write_text("import nothing_of_that_name\n")
    heads = {"seeds": 2, "steps": 5, "learning_rates": [0.01], "finetune_steps": 0}
    tiny = protocol(
        heads=heads,
        localization={"labels": [2], "test_share": 0.5},
        mu_mimo={"cluster": 2, "ratios": [0.8]},
        su_mimo={"ratios": [0.8], "columns": 2, "rows": 1},
    ).model_dump(mode="json")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return folder


def run_of(folder, toy_store, name, *more):
    return command("benchmark", "run", name, "--data", toy_store, "--protocol", "tiny.yaml", *more, cwd=folder)


@pytest.mark.system
def test_the_command_runs_all_tasks_once_and_goes_on(folder, toy_store, monkeypatch):
    first = run_of(folder, toy_store, "encoders_of_mine:Level", "--out", "level.json", "--task", "mu-mimo")
    assert first.returncode == 0, first.stderr
    assert list(json.loads((folder / "level.json").read_text())["tasks"]) == ["mu-mimo"]
    monkeypatch.setitem(runs.RUN, "mu-mimo", None)  # would fail
    second = run_of(folder, toy_store, "encoders_of_mine:Level", "--out", "level.json")
    assert second.returncode == 0, second.stderr
    result = json.loads((folder / "level.json").read_text())
    assert set(result["tasks"]) == {"localization", "cross-localization", "mu-mimo", "su-mimo"}
    assert result["encoder"]["name"] == "Level"
    assert result["encoder"]["parameters"] is None
    opened = wavecity.open_store(toy_store)
    assert result["dataset"]["fingerprint"] == opened.attrs["fingerprint"]
    scenes = sorted(zip(opened.scene_id.values.tolist(), opened.channel_checksum.values.tolist(), strict=True))
    text = "".join(f"{scene} {checksum}\n" for scene, checksum in scenes if checksum)
    assert result["dataset"]["channels_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    for task in result["tasks"].values():
        assert task["width"] == 1
        for figure in task["figures"]:
            values = list(figure["values"].values())
            assert np.isfinite(values).all()
            assert figure["mean"] == pytest.approx(np.mean(values))
            assert len(values) == (2 if figure["labels"] is not None else 1)
    assert "| Level |" in second.stdout
    # Nothing is repeated, and a factory gives the same.
    for task in result["tasks"]:
        monkeypatch.setitem(runs.RUN, task, None)
    assert run_of(folder, toy_store, "encoders_of_mine:Level", "--out", "level.json").returncode == 0
    # Another encoder, other settings.
    other = run_of(folder, toy_store, "encoders_of_mine:Other", "--out", "level.json", "--name", "Level")
    assert other.returncode == 2
    assert "holds results of another encoder" in other.stderr
    changed = (folder / "tiny.yaml").read_text().replace("seed: 3", "seed: 4")
    (folder / "changed.yaml").write_text(changed)
    again = command("benchmark", "run", "encoders_of_mine:Level", "--data", toy_store, "--protocol", "changed.yaml",
                    "--out", "level.json", cwd=folder)  # fmt: skip
    assert again.returncode == 2
    assert "holds results of another benchmark" in again.stderr


def test_an_encoder_that_changed_under_its_name_is_another_one(folder, toy_store, monkeypatch):
    assert run_of(folder, toy_store, "encoders_of_mine:made", "--out", "made.json", "--task", "mu-mimo").returncode == 0
    level, other = (type(load_encoder(f"encoders_of_mine:{name}")) for name in ("Level", "Other"))
    monkeypatch.setattr(level, "embed", other.embed)
    refused = run_of(folder, toy_store, "encoders_of_mine:made", "--out", "made.json")
    assert refused.returncode == 2
    assert "gives other embeddings" in refused.stderr
    replaced = run_of(
        folder, toy_store, "encoders_of_mine:made", "--out", "made.json", "--task", "mu-mimo", "--overwrite"
    )
    assert replaced.returncode == 0, replaced.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoders_of_mine:Row", "embed returned shape (4,), expected (4, d)"),
        ("encoders_of_mine:Few", "embed returned shape (3, 2), expected (4, d)"),
        ("encoders_of_mine:Growing", "embed returned 4 numbers for each user, but 3 before"),
        ("encoders_of_mine:Infinite", "values that are not finite, of 4 of 4 users"),
        ("encoders_of_mine:Complex", "embed returned complex64, expected real numbers (4, d)"),
        ("encoders_of_mine:Failing", "NameError: name 'undefined' is not defined; encoders_of_mine.py, line 44"),
        ("encoders_of_mine:Ragged", "embed failed (ValueError: "),
        ("encoders_of_mine:Empty", "no method embed(batch)"),
        ("encoders_of_mine:Needing", "cannot be made without arguments (TypeError"),
        ("encoders_of_mine:Nobody", "encoders_of_mine has no Nobody"),
        ("broken_of_mine:Any", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("absent_of_mine:Any", "cannot be imported (ModuleNotFoundError: No module named 'absent_of_mine'"),
    ],
)
def test_what_is_wrong_with_an_encoder_is_one_line(folder, toy_store, name, message):
    ended = run_of(folder, toy_store, name, "--out", "wrong.json")
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"wavecity: encoder {name}: ")
    assert message in last
    assert "Traceback" not in ended.stderr
    assert not (folder / "wrong.json").exists()


def test_evaluate_takes_an_encoder_in_place_of_a_run(folder, toy_store, monkeypatch):
    own = read_protocol(folder / "tiny.yaml")
    monkeypatch.setattr("wavecity.model.benchmark.protocol.shipped_protocol", lambda: own)
    given = ("evaluate", "encoders_of_mine:Level", "--task", "localization", "--data", toy_store)
    shown = command(*given, cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "Localisation, median error (m), 2 labels" in shown.stdout
    assert set(json.loads(command(*given, "--json", cwd=folder).stdout)["tasks"]) == {"localization"}
    wrong = command("evaluate", "encoders_of_mine:Level", "--task", "latency", "--data", toy_store, cwd=folder)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 2)
    assert "task latency: benchmark small has localization" in wrong.stderr
    changed = command(*given, "--set", "seed=1", cwd=folder)
    assert changed.returncode == 2
    assert "--protocol" in changed.stderr


def test_another_dataset_is_refused(folder, toy_store):
    ended = command("benchmark", "run", "encoders_of_mine:Level", "--data", toy_store, "--out", "no.json", cwd=folder)
    assert ended.returncode == 2
    assert "split train has Toy; benchmark six-cities 1 is on Berlin, Cairo, Rio de Janeiro" in ended.stderr


def test_the_benchmark_is_frozen():
    """Whoever changes what results depend on, a default too, raises the version and this hash."""
    shipped = shipped_protocol()
    assert (shipped.version, shipped.sha256[:16]) == (1, "27e861bb499d1330")
    written = yaml.safe_load((ROOT / "model" / "benchmark" / FILE).read_text())
    assert set(written["evaluation"]) == DECISIVE
    full = shipped.decisive()["evaluation"]
    for section, values in full.items():
        if isinstance(values, dict):
            assert set(written["evaluation"][section]) == set(values), section


def test_a_wrong_benchmark_file_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, message in (
        ("tasks: [", "not valid YAML"),
        ("- a", "this is list"),
        (yaml.safe_dump({**protocol().model_dump(mode="json"), "tasks": ["latency"]}), "there is no latency"),
        (yaml.safe_dump({**protocol().model_dump(mode="json"), "seeds": 3}), "seeds: Extra inputs"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_protocol(path)


def results(name, value, **changes):
    figure = {"metric": "location_error", "method": "encoder", "labels": 10.0, "unit": "m", "better": "lower",
              "mean": value, "deviation": 1.0, "values": {"0": value - 1, "1": value + 1}, "n": 7}  # fmt: skip
    mean = {**figure, "method": "mean_labelled", "mean": 50.0, "values": {"0": 50.0, "1": 50.0}}
    content = {
        "form": runs.FORM,
        "encoder": {"name": name, "given_as": f"mine:{name}", "parameters": 1234, "marks": []},
        "benchmark": {"name": "small", "version": 1, "sha256": "a" * 64},
        "dataset": {"channels_sha256": "b" * 64, "attribution": "© OpenStreetMap contributors"},
        "tasks": {"localization": {"width": 3, "figures": [figure, mean]}},
    }
    return content | changes


def test_tables_are_sorted_and_of_one_benchmark_and_dataset(tmp_path):
    paths = [tmp_path / f"{name}.json" for name in ("far", "near")]
    for path, distance in zip(paths, (40.0, 12.0), strict=True):
        path.write_text(json.dumps(results(path.stem, distance)))
    text = table.tables(paths)
    rows = [line for line in text.splitlines() if line.endswith(" |") and "±" in line]
    assert rows == ["| near | 12.0 ± 1.4 |", "| far | 40.0 ± 1.4 |", "| *mean of labelled users* | 50.0 ± 0.0 |"]
    assert "| far | `mine:far` | 3 | 1,234 |" in text
    assert "Tested: 7 users." in text
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    for _ in range(2):
        assert command("benchmark", "table", *paths, "--into", page).returncode == 0
        assert page.read_text() == f"before\n{table.BEGIN}\n\n{text}\n{table.END}\nafter\n"
    for changes, message in (
        ({"dataset": {"channels_sha256": "c" * 64, "attribution": ""}}, "another dataset"),
        ({"benchmark": {"name": "small", "version": 2, "sha256": "d" * 64}}, "another benchmark"),
        ({"encoder": results("far", 1.0)["encoder"]}, "far is the name of several encoders"),
        ({"form": 0}, "no results file"),
    ):
        paths[1].write_text(json.dumps(results("near", 12.0, **changes)))
        with pytest.raises(InputError, match=message):
            table.tables(paths)


def test_the_page_has_the_table_of_the_results_next_to_it():
    paths = sorted((ROOT / "docs" / "benchmark").glob("*.json"))
    within = PAGE.read_text(encoding="utf-8").split(table.BEGIN)[1].split(table.END)[0]
    assert within.strip() == (table.tables(paths).strip() if paths else "")
    for path in paths:
        assert json.loads(path.read_text())["benchmark"]["sha256"] == shipped_protocol().sha256
