"""Plugin of the test suite: no test runs for ever, none leaves a process behind, none that is not marked takes long.

pytest-timeout interrupts a test at its limit, so that its fixtures and blocks end what they started. What cannot be
interrupted, a wait in C or a teardown that hangs, is ended by the watcher: a process of its own that is notified of each test
when it begins, and that outlives this one. Whatever ends this process, `kill -9` included, the watcher then kills every
process that carries this run's mark in its environment.
"""

import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import GROUPS
from watcher import marked

MARK = "WAVECITY_TEST_RUN"
# Helpers of Python's own, which stay as long as the process that uses them.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
# Fixtures that are servers of their own: what uses them belongs to the system tier.
SERVERS = {"bucket", "deployed_server"}
# Seconds a process may take to be gone after the test that ended it.
GONE = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("cpu_limit", "CPU seconds that a test without the mark `system` or `heavy` may take", default="10")
    parser.addini("grace", "seconds between a test's limit and the end of the whole process", default="60")
    parser.addini("system_timeout", "limit of a test marked `system`, in seconds", default="300")
    parser.addini("heavy_timeout", "limit of a test marked `heavy`, in seconds", default="3600")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts its background jobs with SIGINT ignored, which every process started from here would inherit.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(each) is signal.SIG_IGN:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    config.pluginmanager.register(
        Keeper(float(config.getini("grace")), float(config.getini("cpu_limit"))), "keeper-run"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tiers and their limits; a test may have a limit of its own."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("system")
        for tier in ("heavy", "system"):
            if item.get_closest_marker(tier) and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(float(config.getini(f"{tier}_timeout"))))


class Keeper:
    """Holds the watcher, which ends with this process."""

    def __init__(self, grace: float, cpu_limit: float) -> None:
        self.grace, self.cpu_limit = grace, cpu_limit
        self.mark = os.environ[MARK] = uuid.uuid4().hex
        # Without the mark: the watcher must not end itself.
        environment = {key: value for key, value in os.environ.items() if key != MARK}
        self.watcher = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("watcher.py")), MARK, self.mark, str(os.getpid())],
            stdin=subprocess.PIPE, env=environment, start_new_session=True,
        )  # fmt: skip

    def tell(self, line: str) -> None:
        assert self.watcher.stdin is not None
        self.watcher.stdin.write(line.encode() + b"\n")
        self.watcher.stdin.flush()

    def left(self) -> list[psutil.Process]:
        """Processes that carry the mark and belong to no block that is open."""
        found = []
        for pid in marked(MARK, self.mark):
            try:
                each = psutil.Process(pid)
                if (
                    each.status() != psutil.STATUS_ZOMBIE
                    and not {os.getpgid(pid), os.getsid(pid)} & GROUPS
                    and not any(name in " ".join(each.cmdline()) for name in HELPERS)
                ):
                    found.append(each)
            except (psutil.Error, OSError):
                continue
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        marker = item.get_closest_marker("timeout")
        limit = float(marker.args[0]) if marker and marker.args else float(item.config.getini("timeout") or 0)
        self.tell(f"{limit + self.grace} {item.nodeid}")
        try:
            return (yield)
        finally:
            self.tell("0")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        before = _cpu_seconds()
        result = yield
        spent = _cpu_seconds() - before
        if spent > self.cpu_limit and not any(item.get_closest_marker(tier) for tier in ("system", "heavy")):
            pytest.fail(
                f"took {spent:.1f} s of CPU time, a test of `make test` may take {self.cpu_limit:g}: make it smaller, "
                "or mark it `system` if it needs servers, workers or whole commands",
                pytrace=False,
            )
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        result = yield
        deadline = time.monotonic() + GONE
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            shown = [f"{each.pid}: {' '.join(_command(each))[:200]}" for each in left]
            for each in left:
                each.kill()
            pytest.fail("left running, and killed now:\n" + "\n".join(shown), pytrace=False)
        return result

    def pytest_unconfigure(self) -> None:
        assert self.watcher.stdin is not None
        self.watcher.stdin.close()
        self.watcher.wait(30)


def _cpu_seconds() -> float:
    """Of this process and of those it started and waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _command(each: psutil.Process) -> list[str]:
    try:
        return each.cmdline()
    except psutil.Error:
        return ["(gone)"]
