"""Checks of a whole store: bytes, values and physics."""
