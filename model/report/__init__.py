"""The report of a run: page, claims, figures."""
