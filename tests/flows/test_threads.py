"""Threads of torch that wait leave their core to others."""

import os
import sys

import pytest

from tests.processes import finished


@pytest.mark.parametrize(("asked", "spins"), [(None, False), ("ACTIVE", True)])
def test_a_waiting_thread_does_not_spin_unless_the_environment_asks_for_it(asked: str | None, spins: bool) -> None:
    # GNU's OpenMP itself says how long its threads spin.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    env |= {"OMP_DISPLAY_ENV": "VERBOSE"} | ({"OMP_WAIT_POLICY": asked} if asked else {})
    result = finished([sys.executable, "-c", "import wavecity.flows, torch; torch.ones(9).sum()"], env=env)
    counts = [line.split("'")[1] for line in result.stderr.splitlines() if "GOMP_SPINCOUNT" in line]
    if not counts:
        pytest.skip("torch runs on another OpenMP here")
    assert [int(count) > 0 for count in counts] == [spins] * len(counts)
