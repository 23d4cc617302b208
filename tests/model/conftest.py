"""Fixtures of the model's tests."""

from synthetic import data, one_thread, tiny  # noqa: F401
