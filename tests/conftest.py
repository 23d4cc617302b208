"""Fixtures of all folders."""

import os
from pathlib import Path

import pytest
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
