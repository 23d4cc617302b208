"""Modules that the command line imports by name, when a command needs them, are there under that name."""

import ast
import importlib.util
from pathlib import Path

FLOWS = Path(__file__).resolve().parents[2] / "flows"


def test_every_module_that_a_command_imports_by_name_exists() -> None:
    names = [
        node.args[0].value
        for path in FLOWS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_extra"
        if isinstance(node.args[0], ast.Constant)
    ]
    assert len(names) > 10
    for name in names:
        assert str(name).startswith("wavecity."), name
        assert importlib.util.find_spec(str(name)), name
