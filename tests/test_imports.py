"""Who may import whom (read from the sources), and what a light import must not load."""

import ast
import tomllib
from pathlib import Path

import pytest
from processes import python

import wavecity

ROOT = Path(__file__).resolve().parents[1]
OURS = ("geo", "raytrace", "dataset", "model", "flows")
FORBIDDEN = {
    "geo": {"raytrace", "dataset", "model", "flows", "prefect", "torch", "sionna", "zarr"},
    "raytrace": {"dataset", "model", "flows", "prefect", "torch", "zarr"},
    "dataset": {"model", "flows", "sionna", "mitsuba", "drjit", "prefect"},
    "model": {"geo", "raytrace", "flows", "sionna", "mitsuba", "prefect"},
    "flows": set(),
}
# raytrace knows scenes and recipes, not how scenes are made.
RAYTRACE_MAY = {"geo.scene", "geo.settings", "geo.errors"}
# Sub-packages from the ground up: each may import those before it, and the modules that lie in the folder itself are "".
FLOORS = {
    "dataset": ("", "card", "preview", "checks", "importing", "exchange"),
    "model": (
        "", "settings", "results", "data", "rays", "multimodal", "path_model", "temporal", "learning", "training",
        "equivariance", "figures", "tasks", "benchmark", "report",
    ),
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Names of the modules that a file imports, ours without `wavecity.` (`geo.scene`)."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from wavecity.flows import planning` imports a module, `from wavecity.dataset import InputError` a name.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("wavecity.") for name in names}


@pytest.mark.parametrize("package", OURS)
def test_import_directions(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        found = imports(path)
        may = {"torch"} if path.name == "torch_channels.py" else set()
        wrong = {name for name in found if name.split(".")[0] in FORBIDDEN[package] - may}
        assert not wrong, f"{path.name} imports {wrong}"
        if package == "raytrace":
            modules = {".".join(name.split(".")[:2]) for name in found if name.split(".")[0] == "geo"}
            assert modules - {"geo"} <= RAYTRACE_MAY
        if package == "dataset" and path.name not in (
            "torch_data.py",
            "torch_batches.py",
            "radio_map_data.py",
            "lightning_data.py",
            "tf_data.py",
        ):
            assert not {name for name in found if name.split(".")[0] in ("torch", "lightning", "tensorflow")}


@pytest.mark.parametrize("package", FLOORS)
def test_no_sub_package_imports_one_above_it(package: str) -> None:
    floors = FLOORS[package]
    assert {path.parent.name for path in (ROOT / package).glob("*/__init__.py")} == set(floors) - {""}
    for path in (ROOT / package).rglob("*.py"):
        inside = path.relative_to(ROOT / package).parts
        floor = inside[0] if len(inside) > 1 else ""
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == package and len(parts) > 1:
                below = parts[1] if parts[1] in floors else ""
                assert floors.index(below) <= floors.index(floor), f"{path.relative_to(ROOT)} imports {name}"


def test_every_sub_package_is_installed() -> None:
    """The list in pyproject.toml is written by hand: a search would find each under two names."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {path.parent.relative_to(ROOT).parts for name in OURS for path in (ROOT / name).rglob("__init__.py")}
    assert sorted(listed) == sorted({"wavecity", *(".".join(("wavecity", *parts)) for parts in found)})


def test_our_modules_have_one_name() -> None:
    """A `dataset.py` of the user's is never ours, and ours never his."""
    for path in [*(ROOT / "tests").rglob("*.py"), *(path for name in OURS for path in (ROOT / name).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & set(OURS), f"{path}: {names}"


def test_reading_a_dataset_needs_neither_sionna_nor_prefect_nor_torch() -> None:
    code = (
        "import sys, wavecity, wavecity.dataset.reader, wavecity.dataset.checks.validate, wavecity.model, wavecity.geo\n"
        "import wavecity.raytrace, wavecity.flows.cli\n"
        "heavy = {'sionna', 'mitsuba', 'drjit', 'prefect', 'torch', 'lightning', 'tensorflow', 'geopandas'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(wavecity.__file__)"
    )
    assert Path(python(code)) == ROOT / "wavecity" / "__init__.py"


def test_the_public_names_are_there_and_nothing_is_loaded_before_one_is_used() -> None:
    light = python(
        "import sys, wavecity; h = {'zarr', 'numpy', 'torch', 'prefect', 'sionna'}; print(sorted(h & set(sys.modules)))"
    )
    assert light == "[]"
    assert all(getattr(wavecity, name) is not None for name in wavecity.__all__)
    with pytest.raises(AttributeError, match="module 'wavecity' has no attribute 'opn_store'"):
        wavecity.opn_store  # noqa: B018


def test_processes_are_started_by_one_helper() -> None:
    """Which ends them whatever happens; see `processes` and `keeper`."""
    allowed = {"processes.py", "keeper.py", "command.py"}
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name not in allowed:
            assert "subprocess" not in imports(path), f"{path.name}: start it with tests/processes.py"


@pytest.mark.parametrize("package", ["geo", "raytrace", "dataset"])
def test_any_is_rare(package: str) -> None:
    """Most of it stands for objects of untyped libraries, and for JSON as it is read."""
    names = [
        node
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "Any") or (isinstance(node, ast.alias) and node.name == "Any")
    ]
    assert len(names) <= 40
