"""Recipes, flows and the command line: connects geo, raytrace, dataset and model.

Importing it makes Prefect quiet and patient and threads that wait yield their core, unless the environment says otherwise;
that must come before Prefect and before torch.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The server that Prefect starts for a run; its own 20 seconds are not enough for a slow machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# A thread of torch that waits for another spins by default: where other processes want the cores too, two threads then take
# several times as long as one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
