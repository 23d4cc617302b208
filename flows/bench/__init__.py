"""`wavecity bench`: ratios, measured side by side on this machine."""
