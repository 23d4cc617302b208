"""Change single lines of the code and see whether the tests notice.

Usage: python scripts/mutate.py [--per-folder 12] [--seed 1] [--tests TREE] [--marks EXPRESSION] [--skip NAME ...] [--json FILE]

Draws lines of each folder at random, changes one operator or constant in each in a copy of the tree, and runs the test files
that import the changed module. `--tests` takes the tests of another checkout, to compare two suites on the same mutants.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("geo", "raytrace", "dataset", "model", "flows")
SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: a file, a line, and the line before and after."""

    path: str
    line: int
    before: str
    after: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of one operator or number within functions of a file."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    nodes = {id(node): node for function in functions for statement in function.body for node in ast.walk(statement)}
    for node in nodes.values():
        changed = _changed(node)
        # A change within one line leaves all other lines, comments included, as they are.
        if changed is None or node.lineno != node.end_lineno:
            continue
        text = lines[node.lineno - 1].encode()
        after = text[: node.col_offset] + ast.unparse(changed).encode() + text[node.end_col_offset :]
        if after != text:
            yield Mutant(str(path.relative_to(ROOT)), node.lineno, text.decode().strip(), after.decode())


def _changed(node: ast.AST) -> ast.expr | None:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPS:
        return ast.Compare(node.left, [SWAPS[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        # The parentheses keep the precedence of what stands around it.
        return ast.parse(f"({ast.unparse(ast.BinOp(node.left, SWAPS[type(node.op)](), node.right))})").body[0].value  # type: ignore[attr-defined]
    if isinstance(node, ast.BoolOp):
        return ast.BoolOp(SWAPS[type(node.op)](), node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return node.operand
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return ast.Constant(node.value + 1)
    return None


def tests_of(module: str, tests: Path, skip: Container[str]) -> list[str]:
    """Test files that import a module (`geo.heights`), directly or through a file of helpers."""
    package = module.split(".")[0]
    imported = {}
    for path in sorted(path for path in tests.rglob("*.py") if path.stem not in skip):
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        imported[path] = found
    helpers = {path.stem for path, found in imported.items() if module in found and not path.name.startswith("test_")}
    direct = [path for path, found in imported.items() if path.name.startswith("test_") and module in found]
    through = [path for path, found in imported.items() if path.name.startswith("test_") and helpers & found]
    chosen = direct or through or [path for path in imported if path.match(f"{package}/test_*")]
    return [str(path) for path in chosen]


def killed(mutant: Mutant, tree: Path, files: list[str], marks: str, seconds: float) -> bool:
    """Whether a test fails with the change."""
    path = tree / mutant.path
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    lines[mutant.line - 1] = mutant.after + "\n"
    path.write_text("".join(lines), encoding="utf-8")
    # -P: the working folder, which holds the unchanged code, is not searched for modules.
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", marks, *files]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=Path(files[0]).parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode not in (0, 5)
    except subprocess.TimeoutExpired:
        return True  # it hangs, which is noticed
    finally:
        path.write_text(before, encoding="utf-8")


def main() -> None:
    """Draw, change, test, and print a line for each mutant and a table by folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-folder", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", type=Path, default=ROOT, help="checkout whose tests/ is run")
    parser.add_argument("--marks", default="not system and not heavy")
    parser.add_argument("--skip", nargs="*", default=(), metavar="NAME", help="test files to leave out, e.g. test_kill")
    parser.add_argument("--seconds", type=float, default=400, help="limit of a mutant's tests")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    options = parser.parse_args()
    outcomes: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for name in FOLDERS:
            shutil.copytree(ROOT / name, tree / name)
        tests = options.tests.resolve() / "tests"
        for name in FOLDERS:
            choice = random.Random(f"{options.seed} {name}")
            every = [mutant for path in sorted((ROOT / name).rglob("*.py")) for mutant in mutants(path)]
            for mutant in choice.sample(every, options.per_folder):
                files = tests_of(mutant.path.removesuffix(".py").replace("/", "."), tests, options.skip)
                found = killed(mutant, tree, files, options.marks, options.seconds)
                outcomes.append({**asdict(mutant), "killed": found})
                print(
                    "killed  " if found else "SURVIVED",
                    f"{mutant.path}:{mutant.line}",
                    mutant.after.strip(),
                    flush=True,
                )
    for name in FOLDERS:
        ours = [outcome["killed"] for outcome in outcomes if str(outcome["path"]).startswith(f"{name}/")]
        print(f"{name}: {sum(map(bool, ours))} of {len(ours)} killed")
    if options.json:
        options.json.write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    main()
