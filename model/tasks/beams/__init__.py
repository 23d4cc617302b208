"""Multi- and single-user precoding: links, receivers, precoders, the two tasks."""
