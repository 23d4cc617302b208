"""What a command is doing, on standard error: bars on a terminal; elsewhere a line per stage and one every 30 s.

Standard output stays free for results. Every stage of every command goes through here, so that no two bars compete.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

# Seconds between two lines where there is no terminal.
INTERVAL = 30.0

Item = TypeVar("Item")
# Called with every stage that has ended.
LISTENERS: "list[Callable[[Stage], None]]" = []


class Tracker(Protocol):
    """Wraps an iteration, e.g. to show how far it is, and yields the same items."""

    def __call__(self, items: Iterable[Item], /) -> Iterable[Item]:
        """Iterate over the items."""


@dataclass(eq=False)
class Stage:
    """A stage under way.

    Attributes
    ----------
    text : str
        What is done, `build 2/4: trace`.
    total : int or None
        Number of its items, where it is known.
    unit : str
        What the items are, in the plural.
    done : int
        Items done.
    note : str
        Further text, e.g. the loss.
    """

    text: str
    total: int | None = None
    unit: str = ""
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count items that are done; without a note the old one stays."""
        self.done += count
        self.note = self.note if note is None else note
        _DISPLAY.update(self)

    def count(self) -> str:
        """`3 of 16 scenes`, `3 scenes` where the total is not known."""
        if self.total is None:
            return f"{self.done:,} {self.unit}".rstrip() if self.done else ""
        return f"{self.done:,} of {self.total:,} {self.unit}".rstrip()

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        parts = [self.count(), f"{self.seconds:.0f} s", self.note]
        return f"{self.text}: {', '.join(part for part in parts if part)}"


@contextmanager
def stage(text: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Stage]:
    """Show a stage for as long as the block runs; stages may be nested.

    Parameters
    ----------
    text : str
        What is done, `build 2/4: trace`.
    total : int, optional
        Number of its items, if the block calls `advance`.
    unit : str
        What the items are, in the plural.
    done : int
        Items that were done before.

    Yields
    ------
    Stage

    Examples
    --------
    >>> with stage("copy", total=2, unit="files") as copying:
    ...     copying.advance()
    """
    opened = Stage(text, total, unit, done)
    _DISPLAY.open(opened)
    try:
        yield opened
    finally:
        _DISPLAY.close(opened)
        for listener in LISTENERS:
            listener(opened)


def track(items: Iterable[Item], text: str, total: int | None = None, unit: str = "") -> Iterator[Item]:
    """Show a stage while `items` are iterated over; an item counts once the next one is requested.

    Examples
    --------
    >>> for file in track(files, "check", unit="files"):
    ...     check(file)
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with stage(text, total, unit) as tracked:
        for item in items:
            yield item
            tracked.advance()


def say(text: str) -> None:
    """Write one line, above the bars if there are any."""
    _DISPLAY.say(text)


class _Display:
    """Open stages of this process: rich's bars on a terminal, else lines."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[Stage] = []
        self._bars: Progress | None = None
        self._rows: dict[Stage, TaskID] = {}
        self._ended = threading.Event()
        self._spoken: set[Stage] = set()

    def open(self, opened: Stage) -> None:
        """Show a stage."""
        with self._lock:
            if not self._open:
                self._start()
            self._open.append(opened)
            if self._bars is None:
                size = f" ({opened.total:,} {opened.unit}".rstrip() + ")" if opened.total and opened.total > 1 else ""
                _write(f"{opened.text}{size}")
                return
            row = self._bars.add_task(opened.text, total=opened.total, completed=opened.done, count="", note="")
            self._rows[opened] = row
            self.update(opened)

    def update(self, stage: Stage) -> None:
        """Show how far a stage is."""
        with self._lock:
            if self._bars is not None and (row := self._rows.get(stage)) is not None:
                self._bars.update(row, completed=stage.done, count=stage.count(), note=stage.note)

    def close(self, closed: Stage) -> None:
        """End a stage."""
        with self._lock:
            self._open.remove(closed)
            if self._bars is not None:
                row = self._rows.pop(closed)
                # A bar without a total would go on pulsing for as long as another one is open.
                self._bars.update(row, total=closed.total or 1, completed=closed.done if closed.total else 1)
                self._bars.stop_task(row)
            elif closed in self._spoken:
                # Its last line is older than its end.
                self._spoken.discard(closed)
                _write(str(closed))
            if not self._open:
                self._stop()

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        with self._lock:
            if self._bars is None:
                _write(text)
            else:
                self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def beat(self) -> None:
        """Write where the innermost stage stands."""
        with self._lock:
            if self._open:
                self._spoken.add(self._open[-1])
                _write(str(self._open[-1]))

    def _start(self) -> None:
        """Start the bars, or the clock of the lines."""
        console = Console(stderr=True)
        if console.is_terminal:
            # Not redirected: a worker forked meanwhile would inherit the console's lock with its standard error.
            self._bars = Progress(
                SpinnerColumn(finished_text=" "),
                TextColumn("{task.description}", markup=False),
                BarColumn(24),
                TextColumn("{task.fields[count]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=console,
                redirect_stdout=False,
                redirect_stderr=False,
                refresh_per_second=4,
            )
            self._bars.start()
            return
        self._ended = threading.Event()
        threading.Thread(target=self._beat_until, args=(self._ended,), name="progress", daemon=True).start()

    def _stop(self) -> None:
        """Stop the bars, or the clock."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
        self._ended.set()

    def _beat_until(self, ended: threading.Event) -> None:
        """Write a line at every interval."""
        while not ended.wait(INTERVAL):
            with self._lock:
                # Closed while this thread waited for the lock: the open stage may be one of the next clock.
                if not ended.is_set():
                    self.beat()


_DISPLAY = _Display()


def _write(line: str) -> None:
    """Write a line to standard error; if nobody reads it any more, the work goes on."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr, flush=True)
