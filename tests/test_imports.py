"""Who may import whom (read from the sources), and what a light import must not load."""

import ast
from pathlib import Path

import pytest
from processes import python

ROOT = Path(__file__).resolve().parents[1]
OURS = {"geo", "raytrace", "dataset", "model", "flows"}
FORBIDDEN = {
    "geo": {"raytrace", "dataset", "model", "flows", "prefect", "torch", "sionna", "zarr"},
    "raytrace": {"dataset", "model", "flows", "prefect", "torch", "zarr"},
    "dataset": {"model", "flows", "sionna", "mitsuba", "drjit", "prefect"},
    "model": {"geo", "raytrace", "flows", "sionna", "mitsuba", "prefect"},
    "flows": set(),
}
# raytrace knows scenes and recipes, not how scenes are made.
RAYTRACE_MAY = {"geo.scene", "geo.settings", "geo.errors"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("package", sorted(OURS))
def test_import_directions(package):
    for path in (ROOT / package).rglob("*.py"):
        found = imports(path)
        may = {"torch"} if path.name == "torch_channels.py" else set()
        wrong = {name for name in found if name.split(".")[0] in FORBIDDEN[package] - may}
        assert not wrong, f"{path.name} imports {wrong}"
        if package == "raytrace":
            assert {name for name in found if name.split(".")[0] == "geo"} <= RAYTRACE_MAY
        if package == "dataset" and path.name not in ("torch_data.py", "lightning_data.py", "tf_data.py"):
            assert not {name for name in found if name.split(".")[0] in ("torch", "lightning", "tensorflow")}


def test_reading_a_dataset_needs_neither_sionna_nor_prefect_nor_torch():
    code = (
        "import sys, dataset, dataset.reader, dataset.validate, model, geo, raytrace, flows.cli\n"
        "heavy = {'sionna', 'mitsuba', 'drjit', 'prefect', 'torch', 'lightning', 'tensorflow', 'geopandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import dataset as d; print(d.__file__)"
    )
    assert Path(python(code)).parent.parent == ROOT


def test_a_foreign_package_of_the_same_name_is_refused(tmp_path):
    (tmp_path / "dataset.py").write_text("")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import dataset; from flows.cli import check_imports\n"
    code += "try:\n    check_imports()\nexcept ValueError as error:\n    print(error)"
    assert "package 'dataset' comes from" in python(code, tmp_path)


def test_processes_are_started_by_one_helper() -> None:
    """Which ends them whatever happens; see `processes` and `keeper`."""
    allowed = {"processes.py", "keeper.py", "command.py"}
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name not in allowed:
            assert "subprocess" not in imports(path), f"{path.name}: start it with tests/processes.py"
