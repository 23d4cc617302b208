"""The how-to pages about models work as they stand there: their Python and their commands, from top to bottom."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wavecity.dataset.importing.channel_files import LAYOUT
from wavecity.flows.cli import cli
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.export import metadata_of
from wavecity.model.training.load import load_model

ROOT = Path(__file__).resolve().parents[2]
HOWTO = ROOT / "docs" / "howto"
MODELS, EXPORT, OWN = (
    (HOWTO / f"{name}.md").read_text(encoding="utf-8") for name in ("models", "export", "own-channels")
)
# In the order in which they build on each other: another training starts from channels of one's own.
BEFORE, START, AFTER = MODELS.partition("## Start from a checkpoint")
PAGE = "\n".join([BEFORE, EXPORT, OWN, START, AFTER])


def rows_of(heading: str) -> set[str]:
    """Names in the first column of the table whose head starts so."""
    table = PAGE.split(f"| {heading}")[1].split("\n\n")[0]
    return {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}


@pytest.fixture(scope="module")
def recipe(tiny: TrainingSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the place of recipe `quickstart-paper`: seconds instead of minutes."""
    heads = {**tiny.evaluation.heads.model_dump(), "seeds": 1, "steps": 4, "finetune_steps": 0}
    evaluation = {**tiny.evaluation.model_dump(), "heads": heads, "localization": {"labels": [4]}}
    training = TrainingSettings.model_validate({**tiny.model_dump(), "evaluation": evaluation, "epochs": 1})
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(json.dumps({"name": "small", "training": training.model_dump(mode="json")}))
    return path


@pytest.fixture
def here(recipe: Path, toy_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in it."""
    monkeypatch.chdir(tmp_path)
    cli.main(
        ["pretrain", str(recipe), "--data", str(toy_store), "--out", "runs/quickstart-paper"], standalone_mode=False
    )
    return tmp_path


@pytest.mark.system
def test_the_pages_work_from_top_to_bottom(here: Path, recipe: Path, toy_store: Path) -> None:
    names: dict[str, Any] = {}
    # How the models of the package were made takes a real dataset and minutes.
    page = re.sub(r"## What comes with the package.*?(?=\n## )", "", PAGE, flags=re.DOTALL)
    for language, block in re.findall(r"```(\w*)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(block.replace("runs/quickstart-paper/store", str(toy_store)), names)
        for line in block.splitlines():
            if not language and line.startswith("wavecity ") and "RUN" not in line:
                arguments = shlex.split(line.replace(" quickstart-paper ", f" {recipe} "))[1:]
                cli.main(arguments, standalone_mode=False)
    assert names["place"].shape == (15, 2)
    # The exported encoder is the model before it was fine-tuned above, which nobody wrote back.
    untouched = load_model("runs/quickstart-paper")
    csi, height = names["test"]["csi"], names["test"]["height"]
    np.testing.assert_allclose(names["physc"], untouched.embed(csi, height, share=0.25), atol=2e-5)
    assert float((names["model"].embed(csi, height) - untouched.embed(csi, height)).abs().max()) > 1e-4
    assert rows_of("entry") >= names["about"].keys()
    assert rows_of("entry") >= json.loads(names["extra"]["metadata.json"]).keys()
    result = json.loads((here / "runs" / "site" / "results" / "localization.json").read_text())
    assert result["trained_on"] == result["dataset_version"]
    assert load_model("runs/site").card["init_from"]["path"] == str(here / "runs" / "quickstart-paper")
    assert rows_of("entry") >= metadata_of(load_model("runs/site"), names["torch"].arange(2)).keys()


def test_the_tables_name_everything_there_is() -> None:
    assert rows_of("array of the file") - {"train", "validation", "test"} == set(LAYOUT)
