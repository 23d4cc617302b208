"""Fixtures of the flows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.bench.prefect_server import prefect_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment that reaches a Prefect server of this test's own."""
    with prefect_server(tmp_path) as environment:
        yield environment
