"""Import of channels that were measured or simulated elsewhere."""
