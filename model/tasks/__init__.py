"""Downstream tasks, one module each, and `evaluate`, which runs them."""
