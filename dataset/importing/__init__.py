"""Channels of one's own, measured or simulated elsewhere, as a store."""
