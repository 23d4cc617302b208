"""Users and trajectories as training sees them: samples, batches, tokens, domains."""
