"""The command line `wavecity` in the tests: in this process, and as a process of its own."""

import contextlib
import io
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

from processes import Finished, finished

PROGRAM = Path(sys.executable).with_name("wavecity")


def wavecity(*arguments: object, cwd: Path | None = None, **environment: str) -> Finished:
    """Run the entry point in this process: what it printed, and the exit code it would end with.

    For everything but `build` and `run`, which start Prefect and Dask for as long as their process lives.
    """
    from wavecity.flows.cli import main

    command = ["wavecity", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return CompletedProcess(command, code, out.getvalue(), err.getvalue())


def wavecity_process(*arguments: object, cwd: Path | None = None, **environment: str) -> Finished:
    """Run the installed program as users do."""
    return finished([PROGRAM, *map(str, arguments)], env={**os.environ, **environment}, cwd=cwd)
