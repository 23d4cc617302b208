"""Anyone's encoder on the downstream tasks: what it is given, the frozen settings, results files and their table."""
