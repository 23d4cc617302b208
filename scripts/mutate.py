"""Change single lines of the code and see whether the tests notice.

Usage: python scripts/mutate.py [--per-folder 12] [--seed 1] [--marks EXPRESSION ...] [--skip NAME ...] [--json FILE]
       python scripts/mutate.py --checkout TREE --also-in TREE [--survivors-of FILE] ...

Draws lines of each folder at random, changes one operator or constant in each in a copy of the tree, and runs the test files
that import the changed module. A mutant is killed where a test fails that passes on the unchanged code. To compare the suites
of two checkouts on the same mutants, run it once for each with `--also-in` the other: only lines that both have are drawn.
`--survivors-of` the first run's file leaves out what that suite killed, which the second cannot do better.
"""

import argparse
import ast
import json
import os
import random
import re
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


def mutants(path: Path, root: Path) -> Iterator[Mutant]:
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
            yield Mutant(str(path.relative_to(root)), node.lineno, text.decode().strip(), after.decode())


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


def module_of(path: str, root: Path) -> str:
    """The name by which tests import a file: `wavecity.geo.heights`."""
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"wavecity.{name}" if (root / "wavecity").exists() else name


def tests_of(module: str, tests: Path, skip: Container[str]) -> list[str]:
    """Test files that import a module (`wavecity.geo.heights`), directly or through a file of helpers."""
    package = module.removeprefix("wavecity.").split(".")[0]
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


def failing(tree: Path, files: list[str], marks: str, seconds: float) -> str | None:
    """The first test that fails, "timed out", or None."""
    # -P: the working folder, which holds the unchanged code, is not searched for modules. The limits of a test are for whole
    # machines, not for one that runs mutants besides.
    command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-o", "cpu_limit=1000"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, "-o", "timeout=300", "-m", marks, *files],
            cwd=Path(files[0].partition("::")[0]).parent,
            env=environment, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timed out"
    if done.returncode in (0, 5):
        return None
    named = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, flags=re.MULTILINE)
    return named[0] if named else "collection"


def outcome(mutant: Mutant, tree: Path, files: list[str], tiers: list[str], seconds: float) -> str:
    """What happens to a mutant: "survived", "timed out", "unclear: ...", or the test that killed it."""
    path = tree / mutant.path
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines(keepends=True)
    lines[mutant.line - 1] = mutant.after + "\n"
    for marks in tiers:
        path.write_text("".join(lines), encoding="utf-8")
        try:
            test = failing(tree, files, marks, seconds)
        finally:
            path.write_text(before, encoding="utf-8")
        if test is None:
            continue
        if test in ("timed out", "collection"):
            return test
        # The same test on the unchanged code: what fails there too has killed nothing. pytest names it from its working folder.
        name = str(Path(files[0]).parent / test)
        return test if failing(tree, [name], marks, seconds) is None else f"unclear: {test}"
    return "survived"


def killed(outcome: str) -> bool:
    """Whether a test failed that passes on the unchanged code."""
    return "::" in outcome and not outcome.startswith("unclear")


def main() -> None:
    """Draw, change, test, and print a line for each mutant and a table by folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-folder", type=int, default=12)
    parser.add_argument("--folders", nargs="*", default=FOLDERS, choices=FOLDERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the tree of which code and tests are taken")
    parser.add_argument("--also-in", type=Path, help="another checkout: only lines that both have are changed")
    parser.add_argument(
        "--marks", nargs="+", default=["not system and not heavy"], help="tiers, in the order they are run"
    )
    parser.add_argument("--skip", nargs="*", default=(), metavar="NAME", help="test files to leave out, e.g. test_kill")
    parser.add_argument("--seconds", type=float, default=400, help="limit of a mutant's tests in one tier")
    parser.add_argument("--survivors-of", type=Path, help="outcomes of another run: only what it did not kill is tried")
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    options = parser.parse_args()
    root = options.checkout.resolve()
    outcomes: list[dict[str, object]] = []
    others = json.loads(options.survivors_of.read_text()) if options.survivors_of else []
    skipped = {(each["path"], each["after"].strip()) for each in others if killed(each["outcome"])}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        # Of today's tree the package, which is a folder of links, too; earlier ones have only the five folders.
        for name in (*FOLDERS, "wavecity"):
            if (root / name).exists():
                shutil.copytree(root / name, tree / name, symlinks=True)
        for name in options.folders:
            for mutant in drawn(root, options.also_in, name, options.per_folder, options.seed):
                if (mutant.path, mutant.after.strip()) in skipped:
                    continue
                files = tests_of(module_of(mutant.path, root), root / "tests", options.skip)
                found = outcome(mutant, tree, files, options.marks, options.seconds)
                outcomes.append({**asdict(mutant), "outcome": found})
                print(f"{mutant.path}:{mutant.line}: {mutant.after.strip()}: {found}", flush=True)
                if options.json:
                    options.json.write_text(json.dumps(outcomes, indent=1))
    for name in options.folders:
        ours = [str(outcome["outcome"]) for outcome in outcomes if str(outcome["path"]).startswith(f"{name}/")]
        print(f"{name}: {sum(map(killed, ours))} of {len(ours)} killed")


def drawn(root: Path, other: Path | None, folder: str, number: int, seed: int) -> list[Mutant]:
    """Mutants of one folder, one a line at most, in an order that does not depend on which of two checkouts is asked."""
    every: dict[tuple[str, str], Mutant] = {}
    for path in sorted((root / folder).rglob("*.py")):
        for mutant in mutants(path, root):
            every[mutant.path, mutant.before] = mutant
    if other is not None:
        lines = {path: text.splitlines() for path, text in _sources(other.resolve() / folder, other.resolve()).items()}
        here = {path: text.splitlines() for path, text in _sources(root / folder, root).items()}
        every = {
            (path, before): mutant
            for (path, before), mutant in every.items()
            # Once in each of them: the line is then surely the same one.
            if all([line.strip() for line in tree.get(path, ())].count(before) == 1 for tree in (lines, here))
        }
    choice = random.Random(f"{seed} {folder}")
    return [every[key] for key in choice.sample(sorted(every), min(number, len(every)))]


def _sources(folder: Path, root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}


if __name__ == "__main__":
    main()
