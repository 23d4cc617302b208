"""Stages on standard error: lines without a terminal, bars on one."""

import io
import sys
from collections.abc import Iterator

import pytest

from wavecity.dataset import progress


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that come by the clock come when a test asks for them."""
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)


@pytest.mark.usefixtures("no_beats")
def test_without_a_terminal_a_stage_is_a_line_and_one_every_interval(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.stage("build 2/4: trace", 16, "scenes") as tracing:
        assert capsys.readouterr().err == "build 2/4: trace (16 scenes)\n"
        tracing.advance(4)
        assert capsys.readouterr().err == ""
        progress._DISPLAY.beat()
        assert capsys.readouterr().err.startswith("build 2/4: trace: 4 of 16 scenes, ")
        with progress.stage("inner"):
            progress._DISPLAY.beat()
            assert capsys.readouterr().err.splitlines()[-1] == "inner: 0 s"
        tracing.advance(12, "loss 3")
    out, err = capsys.readouterr()
    # One that lasted long enough for a line says at its end how long it took.
    assert out == ""
    assert err.splitlines()[-1].startswith("build 2/4: trace: 16 of 16 scenes, ")
    assert err.splitlines()[-1].endswith(", loss 3")


@pytest.mark.usefixtures("no_beats")
def test_lines_come_by_the_clock(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    beats = progress.threading.Event()
    real = progress._DISPLAY.beat

    def beat() -> None:
        real()
        beats.set()

    monkeypatch.setattr(progress._DISPLAY, "beat", beat)
    with progress.stage("wait"):
        assert beats.wait(60)
    assert "wait: 0 s" in capsys.readouterr().err


@pytest.mark.usefixtures("no_beats")
def test_items_are_counted_as_they_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    def items() -> Iterator[int]:
        yield from range(3)

    assert list(progress.track(items(), "plan", unit="cities")) == [0, 1, 2]
    assert list(progress.track([5, 6], "plan", unit="cities")) == [5, 6]
    assert capsys.readouterr().err == "plan\nplan (2 cities)\n"


def test_on_a_terminal_it_is_a_bar_and_standard_output_stays_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.stage("validate", 2, "units") as validating, progress.stage("unit"):
        validating.advance(2, "note")
        progress.say("a line [of mine]")
        print("a result")
    assert capsys.readouterr().out == "a result\n"
    shown = terminal.getvalue()
    for words in ("validate", "2 of 2 units", "note", "a line [of mine]"):
        assert words in shown


@pytest.mark.usefixtures("no_beats")
def test_a_stage_that_fails_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), progress.stage("fail"):
        raise ValueError("broken")
    progress._DISPLAY.beat()
    assert capsys.readouterr().err == "fail\n"


def test_lines_that_nobody_reads_do_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Unread())
    with progress.stage("count", total=2) as counting:
        counting.advance(2)
    progress.say("a line")
    assert counting.done == 2
