"""Requests to servers: user agent, temporary and permanent failures, waiting times."""

import importlib.metadata
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
import urllib3

# A server that asks for a longer wait than this is given up: a build must not wait for hours.
LONGEST_WAIT = 900.0
# Statuses of temporary failures; all other 4xx are permanent.
PASSING = {408, 425, 429, 500, 502, 503, 504}

# Names of this module, so that tests can replace the clock.
sleep = time.sleep
clock = time.time


class TemporaryFailure(Exception):
    """A temporary failure: connection lost, server busy, answer cut short.

    Attributes
    ----------
    wait : float
        Seconds that the server asks us to wait (`Retry-After`); 0 when it does not.
    no_answer : bool
        Whether there was no answer at all.
    """

    def __init__(self, reason: str, wait: float = 0.0, no_answer: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.no_answer = no_answer


class PermanentFailure(Exception):
    """A permanent failure: not found, forbidden."""


def user_agent() -> str:
    """User agent with version: operators of servers ask clients to identify themselves."""
    try:
        version = importlib.metadata.version("wavecity")
    except importlib.metadata.PackageNotFoundError:
        version = "source"
    return (
        f"wavecity/{version} (city maps for radio simulation) python-requests/{importlib.metadata.version('requests')}"
    )


def backoff(failures: int) -> float:
    """Seconds to wait after a number of successive failures: 2, 4, 8 ... 60, half of them random."""
    return min(60.0, 2.0**failures) * random.uniform(0.5, 1.0)


def check_status(response: requests.Response) -> None:
    """Raise `TemporaryFailure` or `PermanentFailure` unless the status is below 400."""
    code = response.status_code
    if code < 400:
        return
    reason = f"HTTP {code} {response.reason}".strip()
    if code in PASSING or code >= 500:
        raise TemporaryFailure(reason, retry_after(response))
    raise PermanentFailure(reason)


def retry_after(response: requests.Response) -> float:
    """Seconds that the header `Retry-After` (a number or a date) asks for; 0 without one."""
    text = response.headers.get("Retry-After", "")
    if text.strip().isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.fromtimestamp(clock(), UTC)).total_seconds())


def explain(error: requests.RequestException | urllib3.exceptions.HTTPError) -> str:
    """Short description of a failed request."""
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError)):
        return "the answer broke off"
    if isinstance(error, requests.ConnectionError):
        return "the connection failed or broke off"
    return type(error).__name__
