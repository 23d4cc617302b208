"""How errors stand in the log of a run."""

import io
import logging
from collections.abc import Iterator

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed
from pydantic import ValidationError

from wavecity.flows.dispatch import _can_pass, build_unit
from wavecity.flows.recipe import Recipe
from wavecity.flows.run_log import LOGGERS, one_line, shorten_errors
from wavecity.geo.errors import InputError, MapError

pytestmark = pytest.mark.filterwarnings("ignore:.*attempted to send logs to the API:UserWarning")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What Prefect's loggers write, as text with tracebacks."""
    shorten_errors()
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    yield written
    for logger in loggers:
        logger.removeHandler(handler)


def fail(error: Exception, *loggers: str) -> None:
    """Log an error as Prefect does where it passes through."""
    for name in loggers:
        try:
            raise error
        except type(error) as raised:
            logging.getLogger(name).exception("Encountered exception during execution: %r", raised)


def test_an_error_that_explains_itself_is_one_line_once(log: io.StringIO) -> None:
    fail(MapError("town.osm: no such file"), "prefect.task_runs", "prefect.flow_runs", "prefect.flow_runs")
    assert log.getvalue().splitlines() == ["town.osm: no such file"]
    fail(InputError("another one"), "prefect.flow_runs")
    assert log.getvalue().splitlines()[1:] == ["another one"]


def test_a_store_that_does_not_answer_is_one_line_and_asked_again(log: io.StringIO) -> None:
    gone = EndpointConnectionError(endpoint_url="http://10.0.0.5:8333/wavecity")
    fail(gone, "prefect.task_runs", "prefect.flow_runs")
    (line,) = log.getvalue().splitlines()
    assert line.startswith(
        'the store does not answer: Could not connect to the endpoint URL: "http://10.0.0.5:8333/wavecity"; '
    )
    for error, again in (
        (gone, True),
        (ConnectionResetError(), True),
        (NoCredentialsError(), False),
        (OSError(), False),
    ):
        assert _can_pass(build_unit, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_a_bug_keeps_its_traceback(log: io.StringIO) -> None:
    fail(ZeroDivisionError("division by zero"), "prefect.task_runs", "prefect.flow_runs")
    assert log.getvalue().count("Traceback") == 2


def test_wrong_parameters_are_one_line(log: io.StringIO) -> None:
    with pytest.raises(ValidationError) as found:
        Recipe.model_validate({"name": "mine", "area": {"min_coverage": 0.9}})
    wrong = ParameterTypeError.from_validation_error(found.value)
    logging.getLogger("prefect.flows").error("Parameter validation failed for flow %r: %s", "build-dataset", "...")
    logging.getLogger("prefect.engine").error("%s %s", "Validation of flow parameters failed with error:", wrong)
    fail(wrong, "prefect.flow_runs")
    assert log.getvalue().splitlines() == ["area: min_coverage 0.9 must be below max_coverage 0.6"]


def test_other_records_pass_unchanged() -> None:
    record = logging.LogRecord("prefect.flow_runs", logging.INFO, __file__, 1, "Finished in %s", ("Completed",), None)
    assert one_line(record)
    assert record.getMessage() == "Finished in Completed"
