"""What the benchmarks share: the time of a call, a call in a process of its own, rounds, medians, tables."""

import multiprocessing
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from rich import box
from rich.table import Table

from wavecity.flows.console import console
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, SplitSettings

Item = TypeVar("Item")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Result and seconds of a call.

    Examples
    --------
    >>> total, seconds = timed(lambda: sum(range(1000)))
    """
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def apart(call: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
    """Call a function of a module in a fresh process, and return what it returns: its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments, **options).result()


def rotated(items: tuple[Item, ...], turn: int) -> tuple[Item, ...]:
    """The items in the same order, beginning with another one in every round.

    Examples
    --------
    >>> rotated(("ours", "theirs"), 1)
    ('theirs', 'ours')
    """
    turn %= len(items)
    return items[turn:] + items[:turn]


def median(values: Iterable[float]) -> float:
    """Median of some rounds: ratios of sides are those of their medians."""
    return float(np.median(list(values)))


def environment(*packages: str) -> dict[str, str]:
    """Keys of every benchmark's JSON: `machine`, `version_python`, and `version_<package>` of those that matter."""
    versions = {f"version_{name.replace('-', '_')}": metadata.version(name) for name in packages}
    return {"machine": platform.machine(), "version_python": platform.python_version(), **versions}


def table_of(words: Iterable[str], numbers: Iterable[str]) -> Table:
    """An empty table with columns of words, and columns of numbers to the right of them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def print_figures(figures: dict[str, str]) -> None:
    """Print lines of a name and what there is to say of it."""
    for name, text in figures.items():
        console.print(f"{name:12} {text}", soft_wrap=True)


def area_of(name: str, scenes: int | None = None) -> AreaSettings:
    """Settings of a map that was given by `--map`: `helsinki`, or the path of an extract."""
    area = AreaSettings(source=name, city=Path(name).name.split(".")[0].capitalize(), country="XX")
    return area.model_copy(update={"split": SplitSettings(by="scene"), **({"scenes": scenes} if scenes else {})})


@contextmanager
def named_by_option() -> Iterator[None]:
    """Have errors name the option `--map`, where those of `wavecity.geo.sources` name a recipe's field."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("area.source:", "--map", 1)) from error
