"""The files of versions against pyproject.toml, the Makefile's two steps, and where torch comes from."""

import functools
import importlib.util
import os
import re
import shutil
import socket
import ssl
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from processes import finished, python

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
LOWEST = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8")
PYTHONS = ("3.11", "3.12", "3.13")
RUN_TIME = ("generate", "train", "onnx", "cloud", "exchange")


def requirements(*extras: str) -> list[Requirement]:
    """What the project and these extras name, other extras of its own left out."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return [requirement for line in lines if (requirement := Requirement(line)).name != "wavecity"]


def pins(text: str, python: str) -> dict[str, Version]:
    """Version of every package on Linux with this Python."""
    environment = {
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }
    found: dict[str, Version] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} twice on {python}"
            found[name] = Version(specifier.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_constraints_satisfy_the_project(python: str) -> None:
    pinned = pins(CONSTRAINTS, python)
    for requirement in requirements(*PROJECT["optional-dependencies"]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}, pinned {version}"


def test_the_constraints_leave_torchs_build_open() -> None:
    assert all(version.local is None for version in pins(CONSTRAINTS, "3.11").values())
    assert re.search(r"^torch==[0-9.]+$", CONSTRAINTS, re.MULTILINE)
    assert re.search(r"^torch==[0-9.]+$", LOWEST, re.MULTILINE)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="not an environment of `make setup-test`")
def test_the_constraints_cover_whatever_gets_installed() -> None:
    """Follows the installed packages' own requirements from ours to the last one."""
    pinned = pins(CONSTRAINTS, default_environment()["python_version"])
    # What the site needs is installed by `make docs`, which goes first in continuous integration; DeepMIMO wants another
    # numpy than the constraints have.
    apart = {"docs": "sphinx", "deepmimo": "deepmimo"}
    extras = [name for name in PROJECT["optional-dependencies"] if importlib.util.find_spec(apart.get(name, "pytest"))]
    named = requirements(*extras)
    seen = closure([(r.name, extra) for r in named for extra in (*r.extras, "")])
    # pip is left out, so that no installation replaces the pip that runs it.
    assert {name for name, _ in seen} - pinned.keys() <= {"pip"}
    assert len(seen) > 200


def test_the_lowest_versions_are_those_the_project_names() -> None:
    """Or a bound is lower than what can be installed, and nobody has tried it."""
    pinned = pins(LOWEST, "3.11")
    for requirement in requirements(*RUN_TIME):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version)
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                assert (
                    version.release[: len(Version(specifier.version).release)] == Version(specifier.version).release
                ), f"{requirement}: the lowest that can be had is {version}"


def closure(waiting: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Packages, each with an extra or none, and all that they need by the metadata of what is installed."""
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name, further) for further in (*needed.extras, "")]
    return seen


def test_the_base_install_inspects_and_validates(toy_store: Path) -> None:
    """With every package hidden that `pip install wavecity` does not bring."""
    base = {name for name, _ in closure([(r.name, extra) for r in requirements() for extra in (*r.extras, "")])}
    hidden = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not base & {canonicalize_name(owner) for owner in owners} and "wavecity" not in owners
    ]
    assert {"shapely", "geopandas", "pyarrow", "prefect", "torch", "upath"} <= set(hidden)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[2].split(',')))\n"
        "from wavecity.flows import cli\n"
        "for command in ('inspect', 'validate'):\n"
        "    cli.cli.main([command, sys.argv[1]], standalone_mode=False)\n"
    )
    assert "pip install 'wavecity[generate]'" in python(
        code, toy_store, ",".join(hidden)
    )  # what was not checked is said


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(
    ("target", "extras"), [("setup", ["all"]), ("quickstart", ["all"]), ("test", ["all", "all,test"])]
)
def test_the_quickstart_installs_only_what_it_runs_on(target: str, extras: list[str], tmp_path: Path) -> None:
    command = ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = finished(command, environment, ROOT)
    installs = [line for line in done.stdout.splitlines() if "pip install" in line]
    assert [re.findall(r'-e "\.\[(.*)\]"', line) for line in installs] == [[extra] for extra in extras], done.stderr
    # At the tested versions, and one sees it.
    assert all("-c constraints.txt" in line and "quiet" not in line for line in installs)


# torch's CPU build


def there_is(module: ModuleType, torch: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script sees installed."""

    def version(name: str) -> str:
        assert name == "torch"
        if torch is None:
            raise metadata.PackageNotFoundError(name)
        return torch

    stub = SimpleNamespace(version=version, PackageNotFoundError=metadata.PackageNotFoundError)
    monkeypatch.setattr(module, "metadata", stub)


@pytest.fixture
def torch_cpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a Linux machine without torch, GPU and settings of pip."""
    spec = importlib.util.spec_from_file_location("torch_cpu", ROOT / "scripts" / "torch_cpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    there_is(module, None, monkeypatch)
    return module


@pytest.fixture
def constraints(tmp_path: Path) -> str:
    """A file of versions with one torch."""
    path = tmp_path / "constraints.txt"
    path.write_text("numpy==2.4.6\ntorch==2.13.0\ntorchmetrics==1.9.0\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index with two empty torches of one build, as PyTorch's CPU index has them."""
    folder = tmp_path / "whl" / "cpu" / "torch"
    folder.mkdir(parents=True)
    for version in ("2.13.0+cpu", "2.14.0+cpu"):
        info = f"torch-{version}.dist-info"
        with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder and logs nothing."""

    def log_message(self, *_: Any) -> None:
        return


def test_a_machine_without_a_gpu_gets_the_cpu_build(
    torch_cpu: ModuleType, constraints: str, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "packages"))
    torch_cpu.main(constraints, index)
    assert [path.name for path in (tmp_path / "packages").glob("torch-*")] == ["torch-2.13.0+cpu.dist-info"]


@pytest.fixture
def installs(torch_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would install something; each of them fails."""
    called: list[list[str]] = []
    really = torch_cpu.subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        if "install" not in command:
            return really(command, timeout=60, **options)
        called.append(command)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(torch_cpu, "subprocess", SimpleNamespace(run=run))
    return called


@pytest.mark.parametrize("installed", ["2.13.0", "2.13.0+cpu", "2.13.0+cu130"])
def test_a_torch_that_is_there_stays(
    torch_cpu: ModuleType,
    constraints: str,
    index: str,
    installs: list[list[str]],
    installed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there_is(torch_cpu, installed, monkeypatch)
    torch_cpu.main(constraints, index)
    assert capsys.readouterr().out == ""
    assert installs == []
    # Another version would be replaced by the installation that follows, so it is ours to choose the build.
    there_is(torch_cpu, "2.12.1", monkeypatch)
    torch_cpu.main(constraints, index)
    assert len(installs) == 1


def test_a_gpu_gets_cuda(
    torch_cpu: ModuleType,
    constraints: str,
    index: str,
    installs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch_cpu, "has_gpu", lambda: True)
    torch_cpu.main(constraints, index)
    assert "CUDA" in capsys.readouterr().out
    assert installs == []


@pytest.mark.parametrize(
    ("by", "setting", "value"),
    [
        ("variable", "index-url", "https://packages.example.org/simple"),
        ("variable", "find-links", "/srv/wheels"),
        ("file", "extra-index-url", "https://packages.example.org/simple"),
        ("file", "no-index", "true"),
    ],
)
def test_the_users_own_sources_go_first(
    torch_cpu: ModuleType,
    constraints: str,
    index: str,
    installs: list[list[str]],
    by: str,
    setting: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if by == "variable":
        monkeypatch.setenv(f"PIP_{setting.replace('-', '_').upper()}", value)
    else:
        (tmp_path / "pip.conf").write_text(f"[global]\n{setting} = {value}\n", encoding="utf-8")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    torch_cpu.main(constraints, index)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"({setting})" in line
    assert f"PIP_EXTRA_INDEX_URL={index}" in line
    assert installs == []


def test_other_settings_of_pip_do_not_count(
    torch_cpu: ModuleType, constraints: str, index: str, installs: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "180")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    torch_cpu.main(constraints, index)
    assert len(installs) == 1


def test_an_index_that_does_not_answer_fails_nothing(
    torch_cpu: ModuleType,
    constraints: str,
    index: str,
    installs: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch_cpu, "answers", functools.partial(torch_cpu.answers, patience=0.2))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        torch_cpu.main(constraints, address)  # takes the connection and says nothing
    # Nobody listens there any more; no such folder; no such name (RFC 6761).
    for gone in (address, f"{index}/elsewhere", "http://nowhere.invalid/whl/cpu"):
        torch_cpu.main(constraints, gone)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("cannot be reached" in line and "pip install` a CPU wheel" in line for line in lines)
    assert installs == []


def test_a_name_that_takes_long_to_look_up_is_not_waited_for(
    torch_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def look_up(*_: Any, **__: Any) -> None:
        released.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(torch_cpu.urllib.request, "urlopen", look_up)
    assert not torch_cpu.answers("https://download.pytorch.org/whl/cpu/torch/", patience=0.05)
    # Had it been waited for, the answer would have come after the release.
    assert not released.is_set()
    released.set()


def test_certificates_are_pips_own_matter(torch_cpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def distrust(*_: Any, **__: Any) -> None:
        raise URLError(ssl.SSLCertVerificationError("self-signed certificate in certificate chain"))

    monkeypatch.setattr(torch_cpu.urllib.request, "urlopen", distrust)
    assert torch_cpu.answers("https://download.pytorch.org/whl/cpu/torch/")


def test_an_index_without_the_version_fails_nothing(
    torch_cpu: ModuleType,
    constraints: str,
    index: str,
    installs: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch_cpu.main(constraints, index)
    assert [command[-1] for command in installs] == ["torch==2.13.0"]
    assert "did not give torch 2.13.0" in capsys.readouterr().out.splitlines()[-1]


def test_without_a_pin_nothing_is_chosen(
    torch_cpu: ModuleType, index: str, installs: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "none.txt").write_text("numpy==2.4.6\ntorchmetrics==1.9.0\n", encoding="utf-8")
    torch_cpu.main(str(tmp_path / "none.txt"), index)
    assert installs == []
