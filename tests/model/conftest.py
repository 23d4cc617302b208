"""Fixtures of the model's tests."""

from street import street_cache, street_store  # noqa: F401
from synthetic import data, linked, one_thread, tiny, trained  # noqa: F401
