"""The log of a run, as Prefect keeps it: an error that its message explains is one line, without a traceback."""

import logging
from functools import cache

from prefect.exceptions import ParameterTypeError

from wavecity.dataset.files import outage
from wavecity.geo.errors import CommandFailed, InputError

# Loggers of Prefect's that report how a run ended: on the run's page, and in the process of a deployed run.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine", "prefect.flows")


@cache
def shorten_errors() -> None:
    """Have Prefect log errors of the user as one line each; once per process."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(one_line)


def explained(error: object) -> str:
    """The message of an error that explains itself; of anything else nothing.

    Examples
    --------
    >>> explained(InputError("area.source: town.osm: no such file"))
    'area.source: town.osm: no such file'
    >>> explained(ZeroDivisionError("division by zero"))
    ''
    """
    if isinstance(error, ParameterTypeError):
        # pydantic's lines, without what Prefect and pydantic put before them.
        lines = [line.removeprefix(" - ").replace("Value error, ", "") for line in str(error).splitlines()[1:]]
        return "; ".join(lines) or str(error)
    return str(error) if isinstance(error, InputError | CommandFailed) else outage(error)


def one_line(record: logging.LogRecord) -> bool:
    """Reduce the record of an explained error to its message; False for one that only repeats it.

    Prefect logs an error where a task fails, where the flow fails, and where the process of a deployed run ends.
    """
    arguments = record.args if isinstance(record.args, tuple) else ()
    if record.exc_info is None:
        # Of wrong parameters: a record that has the exception follows.
        wrong = any(isinstance(argument, ParameterTypeError) for argument in arguments)
        return not wrong and not str(record.msg).startswith("Parameter validation failed for flow")
    error = record.exc_info[1]
    text = explained(error)
    if not text:
        return True
    assert error is not None
    known = vars(error).get("_logged", False)
    vars(error)["_logged"] = True
    record.msg, record.args, record.exc_info, record.exc_text = text, None, None, None
    return not known
