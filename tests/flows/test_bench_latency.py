"""`wavecity bench latency` at a small size: all figures, JSON-ready, of sides that do what they are said to do."""

import json
import sys
from pathlib import Path

import pytest
import torch

from wavecity.flows.bench import latency
from wavecity.geo.errors import InputError

sys.path.append(str(Path(__file__).resolve().parents[1] / "model"))
import street  # noqa: E402
