"""Recipes, flows and the command line: connects geo, raytrace, dataset and model.

Importing it makes Prefect quiet and patient, unless the environment says otherwise; that must come before Prefect itself.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The server that Prefect starts for a run; its own 20 seconds are not enough for a slow machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
