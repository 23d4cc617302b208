"""Execute the notebooks of docs/ and store what they show, which the site takes as it is.

`python scripts/notebooks.py [NAME ...]`, of all by default: the tutorial takes a minute or two on 2 cores, each other one less
than a minute. They run in one temporary folder, so that a dataset is built once. Needs `wavecity[all]` and nbclient, of which
the extras `docs` and `test` bring the latter.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {
    path.stem: path for path in [ROOT / "docs" / "tutorial.ipynb", *sorted(ROOT.glob("docs/notebooks/*.ipynb"))]
}
# Of a cell; most of them take a second.
SECONDS = 280


def execute(path: Path, work: Path) -> Any:
    """Run a notebook in a folder: its cells with what they show, without warnings, times and paths of this machine."""
    notebook = nbformat.read(path, as_version=4)
    here = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=here).execute()
    notebook.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            kept = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = [_without(output, f"{work.resolve()}/") for output in kept]
    return notebook


def _without(content: Any, folder: str) -> Any:
    """An output without a folder in its texts."""
    if isinstance(content, str):
        return content.replace(folder, "")
    if isinstance(content, dict):
        return nbformat.NotebookNode({name: _without(value, folder) for name, value in content.items()})
    if isinstance(content, list):
        return [_without(value, folder) for value in content]
    return content


def main() -> None:
    """Execute the notebooks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NOTEBOOKS))
    parser.add_argument("--work", type=Path, help="folder in which they run; a temporary one by default")
    parser.add_argument(
        "--out", type=Path, help="folder for the executed notebooks; by default they replace the others"
    )
    given = parser.parse_args()
    if unknown := set(given.names) - NOTEBOOKS.keys():
        parser.error(f"no notebook {', '.join(sorted(unknown))}; there are {', '.join(NOTEBOOKS)}")
    # The kernel, and the commands that a notebook starts, are of this environment and this checkout.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        for name in given.names or NOTEBOOKS:
            executed = execute(NOTEBOOKS[name], work)
            nbformat.write(executed, given.out / f"{name}.ipynb" if given.out else NOTEBOOKS[name])
            print(name, flush=True)


if __name__ == "__main__":
    main()
