"""Fixtures of the model's tests."""

from synthetic import data, linked, one_thread, tiny, trained  # noqa: F401
