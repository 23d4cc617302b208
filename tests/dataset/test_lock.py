"""Two builders in one store: one goes on, the other is told."""

import json
import os
import socket
import subprocess
import sys

import pytest

from dataset import InputError, lock
from dataset.files import location
from dataset.lock import builder_lock

HOLD = (
    "import sys\n"
    "from dataset.files import location\n"
    "from dataset.lock import builder_lock\n"
    "with builder_lock(location(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture(params=["disk", "s3"])
def store(request, tmp_path):
    return location(f"{request.getfixturevalue('bucket')}/{tmp_path.name}") if request.param == "s3" else tmp_path


def holder(store):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def leases(store):
    return sorted(path.name for path in (store / ".staging").glob("lease-*"))


def test_the_second_builder_is_refused_and_the_first_is_named(store):
    first = holder(store)
    with (
        pytest.raises(InputError, match=f"process {first.pid} on {socket.gethostname()} is building"),
        builder_lock(store),
    ):
        pass
    first.communicate()
    with builder_lock(store) as lock:
        lock.check()
    assert leases(store) == ["lease-000002.json"]


def test_a_killed_builder_holds_nothing(store):
    first = holder(store)
    first.kill()
    first.communicate()
    with builder_lock(store) as lock:
        assert lock.number == 2
        lock.check()


def test_of_many_that_come_at_once_one_wins(store):
    code = HOLD.replace("with builder_lock", "sys.stdin.readline()\nwith builder_lock")
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    # Losers end by themselves; the winner waits for the end of its input.
    said = [process.stdout.readline() for process in processes]
    assert said.count(b"held\n") == 1
    errors = [process.communicate()[1] for process in processes]
    assert sum(b"is building in this store" in error for error in errors) == 3


def other_host(store, beat):
    folder = store / ".staging"
    if not hasattr(folder, "fs"):
        folder.mkdir(exist_ok=True)
    (folder / "lease-000005.json").write_text(json.dumps({"host": "elsewhere", "pid": 1, "beat": beat}))


def test_a_holder_elsewhere_counts_while_it_beats(store):
    import time

    other_host(store, time.time())
    with pytest.raises(InputError, match="process 1 on elsewhere"), builder_lock(store):
        pass
    other_host(store, time.time() - 2 * lock.LEASE)
    with builder_lock(store) as mine:
        assert mine.number == 6


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
