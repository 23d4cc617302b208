"""Fixtures of the flows."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import chromium, look, toy  # noqa: F401
from servers import deploy, workers_of

from wavecity.flows.bench.prefect_server import prefect_server


@pytest.fixture(scope="session")
def deployed_home(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder with the database of a server that has the pools and all deployments: migrated and deployed to once."""

    def make(folder: Path) -> None:
        with prefect_server(folder) as environment:
            deploy(environment)

    return shared("prefect", make)


@pytest.fixture
def deployed_server(deployed_home: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment that reaches a Prefect server of this test's own, with the pools and all deployments."""
    shutil.copytree(deployed_home, tmp_path, dirs_exist_ok=True)
    with prefect_server(tmp_path) as environment:
        yield workers_of(environment, tmp_path)
