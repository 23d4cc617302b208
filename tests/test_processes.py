"""The helper that starts processes, and the plugin that ends what hangs and finds what was left behind."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from processes import PIPE, ROOT, Finished, finished, process, python

# Ignores the request to end, and has a child that does too.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
    print(child.pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> Path:
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    return script


def test_what_ignores_the_request_to_end_is_killed_with_its_children(stubborn: Path, tmp_path: Path) -> None:
    with process([sys.executable, stubborn], tmp_path / "log", patience=0.2, stdout=PIPE) as started:
        assert started.stdout is not None
        child = psutil.Process(int(started.stdout.readline()))
    assert started.returncode == -signal.SIGKILL
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_what_is_asked_to_end_may_end_by_itself(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(1); time.sleep(1000)"
    with process([sys.executable, "-uc", code], tmp_path / "log", stdout=PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
    assert started.returncode == 7


def test_signals_that_this_process_ignores_or_blocks_have_their_defaults_there() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        shown = python(
            "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
            "signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        )
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGTERM}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        signal.signal(signal.SIGINT, before)
    assert shown == "True set()"


def test_a_failing_test_shows_the_end_of_the_log(tmp_path: Path) -> None:
    code = "for n in range(100): print('line', n)"

    def fail() -> None:
        with process([sys.executable, "-c", code], tmp_path / "log") as started:
            started.wait()
            msg = "not enough"
            raise AssertionError(msg)

    with pytest.raises(AssertionError, match="not enough") as caught:
        fail()
    (note,) = caught.value.__notes__
    assert note.endswith("line 98\nline 99")
    assert "line 10\n" not in note


def test_output_input_and_exit_code_of_what_ends() -> None:
    code = "import sys; print(sys.stdin.read()); print('warn', file=sys.stderr); sys.exit(3)"
    run = finished([sys.executable, "-c", code], input=b"hello")
    assert (run.returncode, run.stdout, run.stderr) == (3, "hello\n", "warn\n")


def suite(folder: Path, code: str, **limits: float) -> Finished:
    """Run a small test file with the plugin in a pytest of its own."""
    (folder / "test_small.py").write_text("import os, signal, subprocess, sys, time\nimport pytest\n" + code)
    limits = {"timeout": 50, "grace": 60, "cpu_limit": 10, **limits}
    lines = [f"{name} = {value}" for name, value in limits.items()]
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    system\n    heavy\n" + "\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "keeper", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # With CI set pytest repeats whole messages in its summary.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS")
    }
    return finished(command, {**environment, "PYTHONPATH": str(ROOT / "tests")}, folder, seconds=120)


def assert_gone(folder: Path) -> None:
    """The process that the small suite has left a note of is there no more."""
    pid = int((folder / "pid").read_text())
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=30)
    assert not psutil.pid_exists(pid)


START = "open('pid', 'w').write(str(subprocess.Popen([sys.executable, {script!r}, 'child']).pid))\n"


@pytest.mark.system
def test_what_a_test_leaves_running_fails_it_and_is_killed(stubborn: Path, tmp_path: Path) -> None:
    code = f"def test_one():\n    {START.format(script=str(stubborn))}\ndef test_two():\n    pass\n"
    run = suite(tmp_path, code)
    assert run.returncode == 1
    assert "left running, and killed now" in run.stdout
    assert "2 passed, 1 error" in run.stdout
    assert_gone(tmp_path)


@pytest.mark.system
def test_a_limit_ends_the_test_and_its_processes(stubborn: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\nfrom processes import process\n"
        "def test_one():\n"
        f"    with process([sys.executable, {str(stubborn)!r}, 'child'], Path('log'), patience=0.1) as started:\n"
        "        open('pid', 'w').write(str(started.pid))\n        started.wait()\n"
        "def test_two():\n    pass\n"
    )
    run = suite(tmp_path, code, timeout=2)
    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout
    assert_gone(tmp_path)


@pytest.mark.system
def test_what_cannot_be_interrupted_is_ended_from_outside(stubborn: Path, tmp_path: Path) -> None:
    code = (
        f"def test_one():\n    {START.format(script=str(stubborn))}"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM,))\n    time.sleep(1000)\n"
    )
    run = suite(tmp_path, code, timeout=1, grace=1)
    assert run.returncode == -signal.SIGABRT
    assert "test_small.py::test_one: did not end at its limit" in run.stderr
    assert 'test_small.py", line 6 in test_one' in run.stderr, "where it hung"
    assert_gone(tmp_path)


@pytest.mark.system
def test_the_end_of_the_test_process_is_the_end_of_what_it_started(stubborn: Path, tmp_path: Path) -> None:
    code = f"def test_one():\n    {START.format(script=str(stubborn))}    os.kill(os.getpid(), signal.SIGKILL)\n"
    assert suite(tmp_path, code).returncode == -signal.SIGKILL
    assert_gone(tmp_path)


@pytest.mark.system
def test_long_tests_are_named_by_their_cpu_time_and_marked_ones_may_take_longer(tmp_path: Path) -> None:
    code = (
        "def spin():\n    end = time.process_time() + 0.4\n    while time.process_time() < end: pass\n"
        "def test_long():\n    spin()\n"
        "def test_child():\n    subprocess.run([sys.executable, '-c', 'while __import__(\"time\").process_time() < 0.4: 1'])\n"
        "def test_waits():\n    time.sleep(0.5)\n"
        "@pytest.mark.system\ndef test_system():\n    spin()\n"
        "def test_server(deployed_server):\n    spin()\n"
        "@pytest.fixture\ndef deployed_server():\n    pass\n"
    )
    run = suite(tmp_path, code, cpu_limit=0.3)
    assert "2 failed, 3 passed" in run.stdout
    assert run.stdout.count("s of CPU time, a test of `make test` may take 0.3") == 2


@pytest.mark.system
def test_a_suite_started_with_sigint_ignored_starts_what_can_be_interrupted(tmp_path: Path) -> None:
    """As a shell starts its background jobs."""
    code = (
        "def test_one():\n"
        "    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "    child = subprocess.run([sys.executable, '-c', 'import signal; print(signal.getsignal(signal.SIGINT))'],\n"
        "                           capture_output=True, text=True)\n"
        "    assert 'default_int_handler' in child.stdout\n"
    )
    (tmp_path / "run.py").write_text(
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    (tmp_path / "test_small.py").write_text("import os, signal, subprocess, sys, time\n" + code)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    system\n    heavy\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "keeper", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    run = finished([sys.executable, tmp_path / "run.py", *words], environment, tmp_path)
    assert run.returncode == 0, run.stdout
