"""Make a virtual environment with pip, also where Debian's python3-venv (and so ensurepip) is not installed.

Usage: python3 scripts/make_venv.py FOLDER
"""

import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path


def main(folder: str) -> None:
    """Create `folder`; fetch pip's wheel from PyPI when the interpreter has no ensurepip."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python {version} found; 3.11, 3.12 or 3.13 is needed. Name one: make setup PYTHON=python3.12")
    if (Path(folder) / "bin" / "pip").exists():
        return
    try:
        import ensurepip  # noqa: F401

        venv.create(folder, with_pip=True)
    except ImportError:
        venv.create(folder, with_pip=False)
        install_pip(Path(folder) / "bin" / "python")


def install_pip(python: Path) -> None:
    """Install pip with its own wheel, fetched from PyPI."""
    with urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=60) as answer:
        wheel = next(file for file in json.load(answer)["urls"] if file["packagetype"] == "bdist_wheel")
        url = urllib.parse.urljoin(answer.url, wheel["url"])  # a mirror's addresses may be relative
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / wheel["filename"]
        urllib.request.urlretrieve(url, path)
        subprocess.run([python, f"{path}/pip", "install", "--quiet", path], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
