"""What makes a dataset's bytes change: every module that makes data is known, and only what it says counts."""

import ast
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import finished
from test_imports import imports

from wavecity.flows import drafts
from wavecity.flows.fingerprint import DATA, FEATURES, NOT_DATA, code_fingerprint, fingerprint_below
from wavecity.flows.recipe import load_recipe
from wavecity.flows.reuse import scene_parts

ROOT = Path(__file__).resolve().parents[2]
# What a build hands a scene to, in the order in which it happens.
STAGES = (
    "geo.sources",
    "geo.plan",
    "geo.build",
    "geo.base_stations",
    "raytrace.simulate",
    "raytrace.moving",
    "raytrace.radio_map",
    "dataset.features",
    "dataset.writer",
)
MODULES = [(folder, name) for folder, names in DATA.items() for name in names]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in DATA:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_what_a_build_imports_is_listed() -> None:
    """Read from the sources: also what is imported only on a machine of another kind."""
    todo, found = list(STAGES), set()
    while todo:
        name = todo.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name not in found and path.is_file() and name.split(".")[0] in DATA:
            found.add(name)
            todo += imports(path)
    tables = (DATA, NOT_DATA, *FEATURES.values())
    listed = {f"{folder}.{name}" for lists in tables for folder, names in lists.items() for name in names}
    assert found - {"dataset.__init__"} <= listed
    assert not {name for name in listed if not (ROOT / f"{name.replace('.', '/')}.py").is_file()}


@pytest.mark.parametrize(("folder", "name"), MODULES, ids=lambda part: str(part))
def test_a_change_of_what_a_module_says_changes_it(tree: Path, folder: str, name: str) -> None:
    before = fingerprint_below(tree)
    path = tree / folder / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source + "\nCHANGED = 1\n", encoding="utf-8")
    assert fingerprint_below(tree) != before
    # A number or a name somewhere within it.
    nodes = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.lineno == node.end_lineno
    ]
    node = nodes[len(nodes) // 2]
    lines = source.splitlines(keepends=True)
    line = lines[node.lineno - 1].encode()
    lines[node.lineno - 1] = (line[: node.col_offset] + b"other_name" + line[node.end_col_offset :]).decode()
    path.write_text("".join(lines), encoding="utf-8")
    assert fingerprint_below(tree) != before


def test_comments_docstrings_and_layout_change_nothing(tree: Path) -> None:
    before = fingerprint_below(tree)
    for folder, name in MODULES:
        path = tree / folder / f"{name}.py"
        parsed = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(parsed):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Another docstring."))
        # Without comments, and laid out by Python itself.
        path.write_text(f"# A comment.\n{ast.unparse(parsed)}\n", encoding="utf-8")
    assert fingerprint_below(tree) == before


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_another_version_of_python_finds_the_same(version: str) -> None:
    """Trees differ between versions in fields that are empty."""
    other = shutil.which(f"python{version}")
    if other is None or finished([other, "--version"]).returncode != 0:
        pytest.skip(f"no Python {version} on this machine")
    code = "import sys; exec(open(sys.argv[1]).read()); print(fingerprint_below(Path(sys.argv[2])))"
    run = finished([other, "-c", code, str(ROOT / "flows" / "fingerprint.py"), str(ROOT)])
    assert run.stdout.strip() == fingerprint_below(ROOT), run.stderr


def test_other_metadata_make_another_version_and_leave_the_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes are taken over where their parts are the same (`wavecity.flows.reuse`)."""
    recipe, plan = load_recipe("quickstart"), SimpleNamespace(sources={})
    before, scene = drafts.dataset_fingerprint(recipe, plan), scene_parts(recipe, code_fingerprint())
    monkeypatch.setattr(drafts, "STORE_SCHEMA", "1.99")
    assert drafts.dataset_fingerprint(recipe, plan) != before
    assert scene_parts(recipe, code_fingerprint()) == scene
