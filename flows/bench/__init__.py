"""`wavecity bench`: speed and memory, compared with alternatives on this machine."""
