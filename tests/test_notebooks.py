"""The notebooks of docs/notebooks run, show what they say, and carry the outputs of a run."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import finished

from wavecity.dataset.metadata import STORE_SCHEMA
from wavecity.dataset.reader import open_store

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
FIRST = "explore-a-dataset"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
STORED = [ROOT / "docs" / "tutorial.ipynb", *(FOLDER / f"{name}.ipynb" for name in NAMES)]


def outputs(path: Path) -> list[dict[str, Any]]:
    """What the cells of a notebook show, in their order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]


def shown(path: Path) -> str:
    """All that a notebook shows as text."""
    texts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in outputs(path)]
    return "\n".join("".join(text) for text in texts)


def table(path: Path) -> list[list[str]]:
    """Rows of the one table of pandas that a notebook shows, its head first; labels of several rows are in the first only."""
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs(path)]
    (page,) = [page for page in pages if 'class="dataframe"' in page]
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def columns(path: Path) -> dict[str, dict[str, float]]:
    """That table of numbers, by column and row."""
    (_, *names), *rows = table(path)
    return {name: {row[0]: float(row[1 + place]) for row in rows} for place, name in enumerate(names)}


def pictures(path: Path) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(path))


def execute(name: str, folder: Path) -> Path:
    """Run a notebook in a folder; gives its executed copy there."""
    command = [sys.executable, ROOT / "scripts" / "notebooks.py", "--work", folder, "--out", folder, name]
    run = finished(command, {**os.environ, "OMP_NUM_THREADS": "1"}, ROOT, seconds=280)
    assert run.returncode == 0, run.stdout[-1000:] + run.stderr[-3000:]
    return folder / f"{name}.ipynb"


@pytest.fixture(scope="session")
def explored(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Where the first notebook ran: its executed copy, and the store that it built for the others."""
    return shared("notebooks", lambda folder: execute(FIRST, folder))


@pytest.fixture
def run(explored: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Runs another notebook next to that store."""

    def there(name: str) -> Path:
        (tmp_path / "store").symlink_to(explored / "store")
        return execute(name, tmp_path)

    return there


@pytest.mark.system
def test_a_dataset_is_explored(explored: Path) -> None:
    """The table of splits is that of the store, counted user by user."""
    path, data = explored / f"{FIRST}.ipynb", open_store(explored / "store")
    counted: dict[str, list[int]] = {}
    for row in range(data.sizes["scene"]):
        real = int(data.n_users.values[row])
        entry = counted.setdefault(str(data.split.values[row]), [0, 0, 0])
        entry[0] += real
        entry[1] += sum(map(bool, data.los.values[row, :real]))
        entry[2] += sum(map(bool, data.outage.values[row, :real]))
    found = {row[-5]: list(map(int, row[-4:-1])) for row in table(path)[2:]}
    assert found == counted
    assert pictures(path) == 3


@pytest.mark.system
def test_a_beam_predictor_is_trained(run: Callable[[str], Path]) -> None:
    path = run("train-a-beam-predictor")
    lost = columns(path)["power lost, median (dB)"]
    assert min(lost.values()) >= 0
    # As the page says.
    assert lost["network"] < lost["middle of the strongest wide beam"]
    assert pictures(path) == 1


@pytest.mark.system
def test_an_encoder_is_probed(run: Callable[[str], Path]) -> None:
    path = run("bring-your-own-encoder")
    found = columns(path)
    sight = found["line of sight, balanced accuracy (%)"]
    assert list(sight) == ["no channel", "angular power", "raw channel", "random projection"]
    assert np.isfinite([value for column in found.values() for value in column.values()]).all()
    # As the page says.
    assert sight["angular power"] > sight["no channel"]
    assert pictures(path) == 1


@pytest.mark.system
def test_a_map_becomes_channels(tmp_path: Path) -> None:
    path = execute("from-a-map-to-channels", tmp_path)
    text = shown(path)
    watertight = re.search(r"\((True|False), '([\d,]+) m³", text)
    assert watertight is not None
    assert watertight[1] == "True"
    excess = re.search(r"line of sight: ([+-][\d.]+) dB from free space", text)
    assert excess is not None
    assert abs(float(excess[1])) < 3
    assert pictures(path) == 4


@pytest.mark.parametrize("path", STORED, ids=[path.stem for path in STORED])
def test_a_notebook_carries_the_outputs_of_a_run(path: Path) -> None:
    """The site shows them and executes nothing; a store's attributes in them are those of today's schema."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(path) >= 1
    text = shown(path)
    assert not [
        output for output in outputs(path) if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert not re.search(r"(?<![\w.])/(tmp|home|root|work)/", json.dumps(outputs(path)))
    for version in re.findall(r"schema_version: +(\S+)", text):
        assert version == STORE_SCHEMA
    assert path.stat().st_size < 2_000_000


def test_the_pages_list_every_notebook() -> None:
    assert len(NAMES) == 4
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\(([\w-]+)\.ipynb\)", index)
    contents = re.search(r"```{toctree}\n:hidden:\n\n(.*?)\n```", index, re.DOTALL)
    assert contents is not None
    assert contents[1].split() == listed
    assert sorted(listed) == NAMES
