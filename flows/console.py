"""Where tables of the command line and of the benchmarks are printed."""

import sys

from rich.console import Console

# Tables stay readable when piped to a file, where rich would assume 80 columns.
console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)
