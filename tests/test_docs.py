"""The documentation works as it stands there: links, commands, keys, the Python of its pages, the tutorial."""

import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from processes import finished
from test_imports import FLOORS

import wavecity
from wavecity.flows.cli import cli
from wavecity.flows.help import keys_of
from wavecity.flows.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]
    if "_build" not in path.parts
)
TUTORIAL = "docs/tutorial.ipynb"
ATTRIBUTION = "© OpenStreetMap contributors"


def cells(page: str, kind: str) -> list[str]:
    """Sources of a notebook's cells of a kind."""
    notebook = json.loads((ROOT / page).read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def markdown(page: str) -> str:
    """The page's text; of a notebook, its text and code as one page."""
    if page.endswith(".ipynb"):
        code = (f"```ipython\n{source}\n```" for source in cells(page, "code"))
        return "\n\n".join([*cells(page, "markdown"), *code])
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of the blocks of code of a page."""
    return re.findall(r"^```(\S*)[^\n]*\n(.*?)^```", markdown(page), re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", markdown(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """Ids of the headings of a page, as MyST and GitHub make them, and those that it names itself."""
    text = prose(page)
    headings = [
        re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)
    ]
    return {*headings, *re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)}


def command_lines(page: str) -> Iterator[list[str]]:
    """Words of every `wavecity ...` in a page, without what only shows that something stands there."""
    joined = [block.replace("\\\n", " ") for language, block in blocks(page) if language in ("", "text", "ipython")]
    lines = [line for block in joined for line in block.splitlines()]
    found = [line.lstrip("!$ ") for line in lines] + re.findall(r"`(wavecity [^`]+)`", prose(page))
    for line in found:
        if line.startswith("wavecity "):
            yield shlex.split(re.sub(r"  +.*| #.*| [0-9]?>.*", "", line))[1:]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT))), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    folders = "geo|raytrace|dataset|model|flows|tests|scripts|docker|docs"
    for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(page)):
        made_by_the_user = (ROOT / name).with_name(f"{Path(name).name}.example").exists() or "_build" in name
        assert (ROOT / name).exists() or made_by_the_user, f"{page}: {name}"
    for name in re.findall(r"`wavecity((?:\.\w+)+)", prose(page)):
        if name in (".dataset.published", ".yaml"):  # an event, a file
            continue
        # Looked up in the sources: importing them all takes longer than all other tests here.
        path, rest = ROOT / "wavecity", name.split(".")[1:]
        while rest and (path / rest[0]).is_dir():
            path /= rest.pop(0)
        source = path / "__init__.py"
        if rest and (path / f"{rest[0]}.py").is_file():
            source = path / f"{rest.pop(0)}.py"
        for part in rest[:1]:
            assert re.search(rf"\b{part}\b", source.read_text(encoding="utf-8")), f"{page}: wavecity{name}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page: str) -> None:
    keys = {key for recipe in ("quickstart", "temporal") for key, *_ in keys_of(load_recipe(recipe))}
    parts = {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, 9)}
    for words in command_lines(page):
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            given = words.pop(0)
            names = [given] if given in command.commands else given.split("|")
            if given in ("COMMAND", "..."):
                break
            for name in names:
                assert name in command.commands, f"{page}: wavecity {name}"
            command = command.commands[names[0]]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
        for position, word in enumerate(words):
            if word.startswith("--"):
                assert word in options, f"{page}: {word} of {command.name}"
            if word == "--set" and "=" in (key := words[position + 1]) and "$" not in key:
                name = key.partition("=")[0]
                # Pages name what sets are called themselves: `shifted.azimuth`.
                assert name in parts or name.rpartition(".")[0] in keys, f"{page}: {key}"


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_compiles(page: str) -> None:
    for language, block in blocks(page):
        if language == "python":
            compile(block, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_whose_maps_and_which_paper(page: str) -> None:
    text = markdown(page)
    if re.search(r"scene\.png|tiles\.png|losses\.png", text):
        assert ATTRIBUTION in text
    if re.search(r"\bthe paper\b", text, re.IGNORECASE):
        assert re.search(r"arXiv:\d{4}\.\d{5}|index\.md#papers|^\(papers\)=", text, re.MULTILINE), page


@pytest.mark.parametrize("package", FLOORS)
def test_the_architecture_lists_the_sub_packages_in_their_order(package: str) -> None:
    section = markdown("docs/architecture.md").split(f"### Inside `{package}/`")[1].split("\n#")[0]
    assert re.findall(r"^\| `(\w+)/`", section, re.MULTILINE) == list(FLOORS[package][1:])


def test_every_public_name_is_in_the_reference() -> None:
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto\w+:: (\w+)", reference, re.MULTILINE)
    assert sorted(documented) == sorted(set(wavecity.__all__) - {"__version__"})
    assert "`wavecity.__version__`" in reference


def test_the_release_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.*?)\]", changelog, re.MULTILINE)[:2] == ["Unreleased", version]
    papers = set(re.findall(r"arXiv:(\d{4}\.\d{5})", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert {paper["identifiers"][0]["value"].removeprefix("arXiv:") for paper in citation["references"]} == papers


class Trainer:
    """In Lightning's place: takes one batch."""

    def fit(self, model: Any, datamodule: Any) -> None:
        assert next(iter(datamodule.train_dataloader()))["csi"].shape[1:] == (32, 32)


@pytest.mark.parametrize(
    "pages", [["README.md"], ["docs/howto/read.md", "docs/howto/views.md"]], ids=["readme", "howto"]
)
def test_the_examples_run(pages: list[str], toy_store: Path) -> None:
    names: dict[str, Any] = {"trainer": Trainer(), "model": None}
    found = [block for page in pages for language, block in blocks(page) if language == "python"]
    assert len(found) >= 2
    for block in found:
        code = block.replace("runs/quickstart/store", str(toy_store)).replace('"STORE', f'"{toy_store}')
        code = code.replace("Helsinki", "Toy").replace("helsinki-", "toy-")
        code = "\n".join(line for line in code.splitlines() if "s3://" not in line)
        exec(code, names)
    if "small" in names:
        assert names["small"].shape[-2:] == (8, 8)
        assert names["wide"].sizes["subcarrier"] == 64
        assert names["noisy"].isel(scene=0).compute().shape == names["small"].shape[1:]
        batch = next(iter(names["train"]))
        assert batch["observed"].shape == batch["csi"].shape
        assert names["csi"].shape[1:] == names["derive"].shape == (64, 8, 8)
        assert set(names["part"]["city"].values) == {"Toy"}


# Runs cells as Jupyter does, `!command` and `%matplotlib` included, in this order and without a server.
CELLS = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for source in json.load(sys.stdin):
    shell.run_cell(source).raise_error()
print("embedded", shell.user_ns["embedding"].shape, len(shell.user_ns["test"]))
"""


@pytest.mark.system
def test_the_tutorial_runs(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    given = json.dumps(cells(TUTORIAL, "code")).encode()
    run = finished([sys.executable, "-c", CELLS], environment, tmp_path, given, seconds=280)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    users = re.search(r"^embedded torch\.Size\(\[(\d+), 64\]\) \1$", run.stdout, re.MULTILINE)
    assert users, run.stdout[-2000:]
    assert int(users[1]) > 0
    for name in ("tiles.png", "scene.png", "store/latest.zarr", "run/pretrain.json"):
        assert (tmp_path / "tutorial" / name).exists(), name


def test_the_tutorial_carries_its_outputs() -> None:
    """The site shows them, and executes nothing."""
    notebook = json.loads((ROOT / TUTORIAL).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    pictures = [output for cell in code for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert (ROOT / TUTORIAL).stat().st_size < 2_000_000


@pytest.mark.system
def test_the_site_is_built_whole_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the site's packages come with `make docs`")
    options = ["--builder", "html", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = finished([sys.executable, "-m", "sphinx", *options, DOCS, tmp_path], environment, ROOT)
    assert run.returncode == 0, run.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len([page for page in PAGES if page.startswith("docs/")])
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)", html)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"([^\"]+)", html)
        assert not [name for name in loaded if re.match(r"(https?:)?//", name)], page.name
    for sheet in (tmp_path / "_static").rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name
