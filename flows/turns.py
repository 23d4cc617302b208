"""One build per store at a time: what a run does that finds another one building there.

The store's lease decides (`wavecity.dataset.lock`), not a limit of Prefect's: it counts by store, whichever deployment or
command builds there, and ends with the process that holds it.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.states import Cancelled

from wavecity.dataset.files import StorePath
from wavecity.dataset.lock import Lock, StoreBusy, builder_lock, refuse_busy

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

WhenBusy = Literal["fail", "cancel", "wait"]

# Seconds between two attempts of a run that waits.
LOOK = 5.0


class NotItsTurn(StoreBusy):
    """Another process builds in the store, and this run is to be cancelled therefore."""


def await_turn(store: StorePath, when_busy: WhenBusy, say: Callable[[str], None]) -> None:
    """Go on once nobody builds in a store, as `turn`, without taking it."""
    _until_free(lambda: refuse_busy(store), when_busy, say)


@contextmanager
def turn(store: StorePath, when_busy: WhenBusy, say: Callable[[str], None]) -> Iterator[Lock]:
    """Hold a store's lease.

    Parameters
    ----------
    store : StorePath
    when_busy : {"fail", "cancel", "wait"}
        What to do while another process builds there.
    say : callable
        Gets a line when the wait begins, and whenever the holder changes.

    Raises
    ------
    StoreBusy
        Another process builds there; `NotItsTurn` for `cancel`.
    """
    with ExitStack() as held:
        yield _until_free(lambda: held.enter_context(builder_lock(store)), when_busy, say)


def _until_free(attempt: Callable[[], Result], when_busy: WhenBusy, say: Callable[[str], None]) -> Result:
    """Result of an attempt on a store, repeated for as long as it is busy if that is to be waited for."""
    said = ""
    while True:
        try:
            return attempt()
        except StoreBusy as error:
            if when_busy == "fail":
                raise
            if when_busy == "cancel":
                raise NotItsTurn(str(error)) from error
            if str(error) != said:
                said = str(error)
                say(f"waiting: {said.partition(';')[0]}")
        time.sleep(LOOK)


def cancelled_if_busy(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have the flow of a function that raises `NotItsTurn` end as `Cancelled`, not as `Failed`."""

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except (NotItsTurn, CancelledRun) as error:
            state: State[Any] = Cancelled(message=str(error))
            return state

    return run
