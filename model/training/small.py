"""Small checkpoints: a model's weights in half precision and its card, some MB, for releases and for this package."""

import json
from pathlib import Path

import torch

from wavecity.dataset import InputError
from wavecity.dataset.files import atomic_path, make_folder
from wavecity.model.data.json_types import Json
from wavecity.model.training.checkpoint import weights_of


def write_small(run: str | Path, out: Path) -> int:
    """Write a run's model as a checkpoint in float16, which `wavecity.load` takes; returns its size in bytes.

    Raises
    ------
    InputError
        No checkpoint in `run`, or weights that float16 cannot hold.

    Examples
    --------
    >>> write_small("runs/quickstart-paper", Path("small.ckpt"))
    1043456
    """
    card, weights = weights_of(run)
    half = {}
    for name, value in weights.items():
        half[f"model.{name}"] = value.half() if value.is_floating_point() else value
        if not bool(torch.isfinite(half[f"model.{name}"]).all()):
            raise InputError(f"{run}: {name} has values that float16 cannot hold, up to {float(value.abs().max()):.3g}")
    make_folder(out.parent)
    with atomic_path(out) as temporary:
        torch.save({"wavecity": {**shared_card(card), "precision": "float16"}, "state_dict": half}, temporary)
    return out.stat().st_size


def shared_card(card: Json) -> Json:
    """The card without what is of this machine alone: where a checkpoint lay that the training started from."""
    shared = json.loads(json.dumps(card))
    shared["settings"]["init_from"] = None
    shared.get("init_from", {}).pop("path", None)
    return dict(shared)
