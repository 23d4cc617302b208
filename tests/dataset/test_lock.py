"""Two builders in one store: one goes on, the other is told."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from botocore.exceptions import EndpointConnectionError
from processes import PIPE, ROOT, Process, process, wait_until

from wavecity.dataset import InputError, lock
from wavecity.dataset.files import location
from wavecity.dataset.lock import builder_lock

HOLD = (
    "import sys\n"
    "from wavecity.dataset.files import location\n"
    "from wavecity.dataset.lock import builder_lock\n"
    "with builder_lock(location(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.system)])
def store(request, tmp_path):
    if request.param == "s3":
        return location(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return tmp_path / "store"


@contextmanager
def holder(store, tmp_path, code=HOLD) -> Iterator[Process]:
    """A process that holds the store's lock until its input ends."""
    log = tmp_path / "holder.log"
    with process([sys.executable, "-c", code, str(store)], log, cwd=ROOT, stdin=PIPE, stdout=PIPE) as started:
        yield started


def leases(store):
    return sorted(path.name for path in (store / ".staging").glob("lease-*"))


def test_the_second_builder_is_refused_and_the_first_is_named(store, tmp_path):
    with holder(store, tmp_path) as first:
        assert first.stdout.readline() == b"held\n"
        words = f"process {first.pid} on {socket.gethostname()} is building"
        with pytest.raises(InputError, match=words), builder_lock(store):
            pass
        first.communicate()
    with builder_lock(store) as lock:
        lock.check()
    assert leases(store) == ["lease-000002.json"]


def test_a_killed_builder_holds_nothing(store, tmp_path):
    with holder(store, tmp_path) as first:
        assert first.stdout.readline() == b"held\n"
        first.kill()
        first.communicate()
    with builder_lock(store) as lock:
        assert lock.number == 2
        lock.check()


def test_of_many_that_come_at_once_one_wins(store, tmp_path):
    code = HOLD.replace("with builder_lock", "sys.stdin.readline()\nwith builder_lock")
    with ExitStack() as stack:
        many = [stack.enter_context(holder(store, tmp_path / str(number), code)) for number in range(4)]
        for each in many:
            each.stdin.write(b"go\n")
            each.stdin.flush()
        # Losers end by themselves; the winner waits for the end of its input.
        said = [each.stdout.readline() for each in many]
        assert said.count(b"held\n") == 1
        for each in many:
            each.communicate()
    logs = [(tmp_path / str(number) / "holder.log").read_text() for number in range(4)]
    assert sum("is building in this store" in log for log in logs) == 3


def other_host(store, beat):
    folder = store / ".staging"
    if not hasattr(folder, "fs"):
        folder.mkdir(parents=True, exist_ok=True)
    (folder / "lease-000005.json").write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": beat}))


def test_a_holder_elsewhere_counts_while_it_beats(store):
    other_host(store, time.time())
    with pytest.raises(InputError, match="process 1 on elsewhere"), builder_lock(store):
        pass
    other_host(store, time.time() - 2 * lock.LEASE)
    with builder_lock(store) as mine:
        assert mine.number == 6


@pytest.mark.parametrize(
    ("known", "busy"), [({"started": "1"}, False), ({}, True), ({"started": ""}, True), (None, True)]
)
def test_another_process_of_the_same_number_is_not_the_holder(tmp_path, known, busy):
    """As in a container that is started again; leases of earlier versions do not say when their process began."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": str(lock._started(os.getpid()))}
    given = mine if known is None else {"host": mine["host"], "pid": mine["pid"], **known}
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "lease-000005.json").write_text(json.dumps({**given, "beat": time.time()}))
    if busy:
        with pytest.raises(InputError, match=f"process {os.getpid()} on "), builder_lock(tmp_path):
            pass
    else:
        with builder_lock(tmp_path) as held:
            assert held.number == 6


def test_the_start_of_a_process_is_the_kernels():
    import psutil

    ticks = int(lock._started(os.getpid()))
    assert psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK") == pytest.approx(
        psutil.Process().create_time(), abs=0.1
    )
    assert lock._started(2**22 + 1) == ""  # beyond the largest number that the kernel gives


def test_who_was_suspended_for_too_long_is_told(store):
    with builder_lock(store) as mine:
        other = {"host": "elsewhere", "pid": os.getpid(), "beat": 0}
        (store / ".staging" / f"lease-{mine.number + 1:06d}.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match="took this store over"):
            mine.check()
    assert json.loads((store / ".staging" / "lease-000002.json").read_text()) == other


def test_a_store_that_cannot_be_written_gets_one_line(bucket):
    with pytest.raises(InputError, match="cannot be written") as error, builder_lock(location("s3://no-such-bucket/a")):
        pass
    assert "\n" not in str(error.value)


def test_the_lease_outlasts_a_store_that_does_not_answer_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE", 0.06)
    # What s3fs raises then, which is no OSError.
    failures = [EndpointConnectionError(endpoint_url="http://10.0.0.5:8333")] * 3
    highest = lock._highest

    def ask(folder):
        if failures:
            raise failures.pop()
        return highest(folder)

    with builder_lock(tmp_path) as mine:
        monkeypatch.setattr(lock, "_highest", ask)
        wait_until(lambda: not failures, 30)
        last = mine.path.read_text()
        wait_until(lambda: mine.path.read_text() != last, 30)
