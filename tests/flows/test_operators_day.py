"""The page with an operator's day can be written again: everything in it is run."""

import re
import sys
from pathlib import Path

import pytest
from processes import finished
from servers import ROOT


@pytest.mark.heavy
def test_the_day_runs_again(tmp_path: Path, shared_osm: Path) -> None:
    page = tmp_path / "day.md"
    made = finished([sys.executable, ROOT / "scripts" / "operators_day.py", page, "--maps", shared_osm], seconds=1800)
    assert made.returncode == 0, made.stderr
    sections = [
        re.findall(r"^##? .*", text.read_text(), re.MULTILINE) for text in (page, ROOT / "docs/operations/day.md")
    ]
    assert sections[0] == sections[1]
    # No place of this machine.
    assert str(tmp_path) not in page.read_text()
    assert "/tmp/" not in page.read_text()
