"""Fixtures of all folders; what is expensive is made once a session, whichever process needs it first."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from s3_server import s3_server
from toy import build_store

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

pytest_plugins = ["keeper"]

ONE_SCENE = {
    "area.scenes": 1,
    "seed": 3,  # a tile with all four sources of heights, and paths of every kind
    "solver.rays": 20_000,
    "solver.diffraction": "true",
    "radio.columns": 4,
    "radio.rows": 4,
    "users.minimum": 40,
    "users.maximum": 50,
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`shared(name, make)` -> a folder filled by `make(folder)`, once for all processes of the session. Read only."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        # Waits as long as the maker works; a limit would be one for slow machines.
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a maker that failed or was ended
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def shared_osm() -> Path:
    """Folder of the extracts that not every checkout has beside it."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("WAVECITY_SHARED", root.parent / "shared")) / "osm"
    if not folder.is_dir():
        pytest.skip("the shared extracts are not here")
    return folder


@pytest.fixture(scope="session")
def maps(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder of fetched maps that holds the packaged Helsinki, read and planned."""

    def make(folder: Path) -> None:
        from wavecity.flows.planning import plan_scenes
        from wavecity.flows.recipe import load_recipe

        plan_scenes(load_recipe("quickstart"), folder)

    return shared("maps", make)


@pytest.fixture(scope="session")
def toy_store(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A published store of six scenes, one of them quarantined. Read only."""
    return shared("toy", lambda folder: build_store(folder / "store")) / "store"


@pytest.fixture(scope="session")
def helsinki_store(shared: Callable[[str, Callable[[Path], object]], Path], maps: Path) -> Path:
    """A published store of one real scene of Helsinki, with diffraction. Read only."""

    def make(folder: Path) -> None:
        from builds import build_version, recipe_with

        build_version(recipe_with("quickstart", ONE_SCENE), folder / "store", maps)

    return shared("helsinki", make) / "store"


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a bucket on a real S3-compatible server; its address and credentials are in the environment."""
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with s3_server("wavecity-test", log) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://wavecity-test"
