"""Results of the evaluation tasks: their table, the files they are kept in, and measures over them."""
