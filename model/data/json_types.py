"""Types of what is read from and written to JSON and checkpoints."""

from typing import Any

# A JSON object whose keys its writer documents: settings, attributes of a store, the card of a checkpoint.
Json = dict[str, Any]
