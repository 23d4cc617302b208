"""Reading checkpoints: where a run keeps its own, its card and weights, and weights put into a model."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.json_types import Json
from wavecity.model.training.run_folder import CHECKPOINT, read_state


class Checkpoint(NamedTuple):
    """What a checkpoint holds, read once."""

    card: Json  # Fingerprint, settings, sizes, dataset version, seed, package versions
    weights: dict[str, Tensor]  # The model's tensors, by their names in the model


def checkpoint_file(checkpoint: str | Path) -> Path:
    """File that a run folder, its folder of checkpoints, or the file itself means; it need not be there."""
    path = Path(checkpoint)
    if not path.is_dir():
        return path
    return next((file for file in (path / CHECKPOINT, path / CHECKPOINT.name) if file.is_file()), path / CHECKPOINT)


def weights_of(checkpoint: str | Path) -> Checkpoint:
    """Card and weights of a checkpoint, or of that of a run folder; the file is read once.

    Raises
    ------
    InputError
        No checkpoint, or none of this package.

    Examples
    --------
    >>> card, weights = weights_of("runs/quickstart")
    """
    path = checkpoint_file(checkpoint)
    state = read_state(path)
    if "wavecity" not in state:
        raise InputError(f"{path}: no readable checkpoint of a pretraining; run `wavecity pretrain` first")
    return Checkpoint(dict(state["wavecity"]), model_weights(state))


def model_weights(state: Json) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint, by their names in the model."""
    return {name.removeprefix("model."): value for name, value in state["state_dict"].items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor], checkpoint: str | Path) -> None:
    """Put the weights of a checkpoint into a model; refuses those of a model with other parts, of another version."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        msg = f"{checkpoint}: weights of another version of the model ({first}); run `wavecity pretrain` again, with a new --out"
        raise InputError(msg) from error
