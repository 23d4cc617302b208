"""The wheel in an environment of its own, next to files of the user's that have the names of our folders."""

import json
import os
import shutil
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import recipe_with
from processes import Finished, finished, process, wait_until
from servers import ask, prefect, small_recipe
from small import SMALL

from wavecity.flows.bench.prefect_server import prefect_server
from wavecity.model.training.pretrain import pretrain
from wavecity.raytrace.backend import LIBRARY_VARIABLE, find_llvm

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
import dataset, geo, model  # the user's own

assert (dataset.MINE, geo.MINE, model.MINE) == ("dataset", "geo", "model")
import wavecity

assert wavecity.__file__.startswith(sys.prefix), wavecity.__file__
store, run = sys.argv[1:]
data = wavecity.open_store(store)
assert data.csi.dims == ("scene", "user", "x", "y")
users = wavecity.ChannelDataset(store, split="train", fields=("csi", "user_position"))
assert users[0]["csi"].shape == data.csi.shape[2:]
batches = wavecity.ShuffledChannels(store, "train", batch_size=4)
assert next(iter(batches))["csi"].shape[0] == 4
scene = data.isel(scene=0)
embedded = wavecity.load(run).embed(scene.csi[:2].values, scene.height.values)
print(json.dumps([len(users), len(embedded)]))
"""
DEPLOYMENT = """
import model
from prefect.flows import EntrypointType

import wavecity

# Prefect starts each run in a process that imports this file again.
if __name__ == "__main__":
    assert model.MINE == "model"
    wavecity.build.serve(name="own", entrypoint_type=EntrypointType.MODULE_PATH, print_starting_message=False)
"""


@pytest.fixture(scope="module")
def environment(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder `venv` into which the wheel was installed, and a folder `user` with files of the user's."""

    def make(folder: Path) -> None:
        copy = folder / "source"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs", "tests")
        # The links of `wavecity/` stay links, as in a checkout and in an archive of one.
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        wheel = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
        built = finished(wheel, cwd=folder)
        assert built.returncode == 0, built.stderr
        venv.create(folder / "venv")
        (file,) = folder.glob("*.whl")
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        assert {top for top in {name.split("/")[0] for name in names} if not top.endswith(".dist-info")} == {"wavecity"}
        for checkpoint in (ROOT / "model" / "checkpoints").glob("*.ckpt"):
            assert f"wavecity/model/checkpoints/{checkpoint.name}" in names
        python = str(folder / "venv" / "bin" / "python")
        installed = finished([*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", str(file)])
        assert installed.returncode == 0, installed.stderr
        # What ours needs lies in the environment of the tests: a line of a .pth file adds the folder alone, and not the
        # editable installation that another .pth file in it names.
        paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        (Path(sysconfig.get_path("purelib", vars=paths)) / "needs.pth").write_text(sysconfig.get_path("purelib"))
        (folder / "user").mkdir()
        for name in ("dataset", "geo", "model"):
            (folder / "user" / f"{name}.py").write_text(f"MINE = {name!r}\n")

    return shared("wheel", make)


def in_environment(environment: Path, code: str, *arguments: object) -> Finished:
    """Run a script that lies next to the user's files."""
    script = environment / "user" / "script.py"
    script.write_text(code)
    command = [str(environment / "venv" / "bin" / "python"), str(script), *map(str, arguments)]
    return finished(command, without_ours(os.environ), environment / "user")


def without_ours(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Environment without the path to our packages, and with the compiler that karellen-llvm-core has laid in ours."""
    rest = {key: value for key, value in environment.items() if key != "PYTHONPATH"}
    return {**rest, LIBRARY_VARIABLE: str(find_llvm())}


def test_readers_and_a_trained_model(environment: Path, toy_store: Path, tmp_path: Path) -> None:
    settings = recipe_with("quickstart-paper", SMALL).training
    pretrain(str(toy_store), settings, tmp_path, seed=1)
    done = in_environment(environment, SCRIPT, toy_store, tmp_path)
    assert done.returncode == 0, done.stderr
    users, embedded = json.loads(done.stdout)
    assert users > 4
    assert embedded == 2


def test_the_command(environment: Path, toy_store: Path) -> None:
    (entry,) = (environment / "venv" / "bin").glob("wavecity")
    done = finished([str(entry), "inspect", str(toy_store)], without_ours(os.environ), environment / "user")
    assert done.returncode == 0, done.stderr
    assert "toy-0003: scene: SceneError: toy" in done.stdout


def test_a_deployment_builds(environment: Path, maps: Path, tmp_path: Path) -> None:
    script = environment / "user" / "deployment.py"
    script.write_text(DEPLOYMENT)
    command = [str(environment / "venv" / "bin" / "python"), str(script)]
    with prefect_server(tmp_path) as server:
        settings = {**without_ours(server), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        log = tmp_path / "runner.log"
        with process(command, log, settings, environment / "user"):
            wait_until(lambda: ask(server, "deployments/filter", {}), 120, log.read_text)
            parameters = {"recipe": small_recipe("small"), "store": str(tmp_path / "store"), "maps": str(maps)}
            words = [word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")]
            built = prefect(server, "deployment", "run", "build-dataset/own", "--watch", *words)
            assert built.returncode == 0, built.stdout + built.stderr + log.read_text()
    assert (tmp_path / "store" / "versions" / "v1" / "data.zarr").is_dir()
