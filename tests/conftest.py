"""Fixtures of all folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import s3_server
from toy import build_store

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session")
def shared_osm() -> Path:
    """Folder of the extracts that not every checkout has beside it."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("WAVECITY_SHARED", root.parent / "shared")) / "osm"
    if not folder.is_dir():
        pytest.skip("the shared extracts are not here")
    return folder


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published store of six scenes, one of them quarantined. Read only."""
    store = tmp_path_factory.mktemp("toy") / "store"
    build_store(store)
    return store


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket on a real S3-compatible server; its address and credentials are in the environment."""
    with s3_server("wavecity-test") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield "s3://wavecity-test"
