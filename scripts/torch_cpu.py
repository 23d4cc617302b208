"""Install torch's CPU build on a machine without a GPU, where PyTorch's index can be reached.

PyPI's torch brings gigabytes of CUDA libraries. The installation that follows keeps the torch that it finds. Where this step
can do nothing it says so in one line: it never fails an installation, nor holds it up for more than a few seconds.

Usage: .venv/bin/python scripts/torch_cpu.py constraints.txt
"""

import re
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 3.0  # seconds that the index may take to answer
PIP = [sys.executable, "-m", "pip"]


def main(constraints: str, index: str = INDEX) -> None:
    """Install the torch that the file `constraints` pins from `index`, if it is wanted and can be had."""
    version = pinned_version(Path(constraints).read_text(encoding="utf-8"))
    if version is None or sys.platform != "linux" or installed_version() == version:
        return
    if has_gpu():
        say("NVIDIA GPU found: torch comes with CUDA.")
        return
    if sources := own_sources():
        say(
            f"torch comes from where your pip is set to look ({', '.join(sources)}). Should that be a build with CUDA: "
            f"add PIP_EXTRA_INDEX_URL={index}."
        )
        return
    if not answers(f"{index}/torch/"):
        say(f"no GPU, but {index} cannot be reached: {fallback()}")
        return
    say(f"no GPU: torch {version} comes from {index}.")
    # Without dependencies: that index has old copies of some. The installation that follows takes them from PyPI.
    command = [*PIP, "install", "--no-deps", "--index-url", index, f"torch=={version}"]
    if subprocess.run(command).returncode != 0:
        say(f"{index} did not give torch {version}: {fallback()}")


def pinned_version(constraints: str) -> str | None:
    """Version of torch for every Python, None where there is none."""
    pin = re.search(r"^torch==([^\s;+]+)\s*$", constraints, re.MULTILINE)
    return pin[1] if pin else None


def installed_version() -> str | None:
    """Version of torch in this environment, without its build (`+cpu`)."""
    try:
        return metadata.version("torch").partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def has_gpu() -> bool:
    """Whether NVIDIA's driver is there: only its GPUs run PyPI's build."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def own_sources() -> list[str]:
    """Settings of the user's (files, PIP_* variables) that say where pip finds packages: not to be overruled."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True).stdout
    names = re.findall(r"^[^.\s]+\.(index-url|extra-index-url|find-links|no-index)=", listed, re.MULTILINE)
    return sorted(set(names))


def answers(url: str, patience: float = PATIENCE) -> bool:
    """Whether `url` can be read within `patience` seconds, which looking up its name counts to."""
    found = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=patience).close()
        except urllib.error.URLError as error:
            # pip may have certificates that Python does not know of.
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                return
        except (OSError, ValueError):
            return
        found.set()

    # A name that does not resolve may hold up a thread for a minute, whatever the timeout: nobody waits for this one.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    return found.is_set()


def fallback() -> str:
    """What happens without the CPU index, and what can be done."""
    return (
        "torch comes from PyPI, with gigabytes of CUDA libraries. To save them, stop here, "
        f"`{sys.executable} -m pip install` a CPU wheel of torch, and give the command again."
    )


def say(line: str) -> None:
    """Print `line` before what pip prints next."""
    print(f"torch_cpu: {line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
