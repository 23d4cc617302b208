"""Reading checkpoints: where a run keeps its own, its card and weights, and those that another training starts from."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.json_types import Json
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.run_folder import CHECKPOINT, read_state, weights_sha256

# Files of a saved model (`wavecity.model.training.hub`).
CONFIG, WEIGHTS = "config.json", "model.safetensors"
# Small checkpoints (`wavecity.model.training.small`), `NAME.ckpt`.
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
# Owner and name on the hub, with a revision after an @.
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class Checkpoint(NamedTuple):
    """What a checkpoint holds, read once."""

    card: Json  # Fingerprint, settings, sizes, dataset version, seed, package versions
    weights: dict[str, Tensor]  # The model's tensors, by their names in the model


def checkpoint_file(checkpoint: str | Path) -> Path:
    """File that a run folder, its folder of checkpoints, the file itself or a shipped name means; it need not be there."""
    path = Path(checkpoint)
    if not path.exists():
        return shipped().get(str(checkpoint), path)
    if not path.is_dir():
        return path
    return next((file for file in (path / CHECKPOINT, path / CHECKPOINT.name) if file.is_file()), path / CHECKPOINT)


def shipped() -> dict[str, Path]:
    """Names of the small checkpoints that come with the package, and their files."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.ckpt"))}


def weights_of(checkpoint: str | Path) -> Checkpoint:
    """Card and weights of a checkpoint, of that of a run folder, or of a saved model; the file is read once.

    Raises
    ------
    InputError
        No checkpoint, or none of this package.

    Examples
    --------
    >>> card, weights = weights_of("runs/quickstart")
    """
    saved = _saved(checkpoint)
    if saved is not None:
        return saved
    path = checkpoint_file(checkpoint)
    state = read_state(path)
    if "wavecity" not in state:
        raise InputError(f"{path}: no readable checkpoint of a pretraining; run `wavecity pretrain` first")
    return Checkpoint(dict(state["wavecity"]), model_weights(state))


def _saved(name: str | Path) -> Checkpoint | None:
    """A model in the folder that `save_pretrained` wrote, or on the hub; None for anything else."""
    folder = Path(name)
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        from wavecity.model.training.hub import read_folder

        return read_folder(folder)
    if folder.exists() or not HUB_NAME.fullmatch(str(name)):
        return None
    try:
        from wavecity.model.training.hub import download, read_folder
    except InputError:
        # Without huggingface_hub it can only be a run that is not there.
        return None
    return read_folder(download(str(name)))


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


# Of the architecture what decides memory or time, but no output.
FREE = {"recovery_antennas", "recompute"}
# Differences that a message names.
NAMED = 3


@dataclass(frozen=True)
class Initial:
    """A checkpoint to start from."""

    path: Path  # Where it was found: a run folder or a file
    card: Json  # Its card
    weights: dict[str, Tensor]

    @property
    def digest(self) -> str:
        """SHA-256 of names, shapes and values of the weights: the file's own would change with its timings."""
        return weights_sha256(self.weights)

    def check(self, settings: TrainingSettings, sizes: dict[str, int]) -> None:
        """Refuse weights of another backbone, architecture or size of data; the message names the first differences."""
        theirs = TrainingSettings.model_validate(self.card["settings"])
        if theirs.backbone != settings.backbone:
            found = [f"training.backbone {theirs.backbone} (here {settings.backbone})"]
        else:
            pairs = [(_architecture(theirs), _architecture(settings)), (sizes_of(self.card), sizes)]
            found = [
                f"{name} {old[name]} (here {new[name]})" for old, new in pairs for name in new if old[name] != new[name]
            ]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            raise InputError(
                f"training.init_from {self.path}: a model of another architecture: {', '.join(found[:NAMED])}{more}; "
                "set them to the same values, or start from another run"
            )

    def record(self) -> dict[str, str]:
        """What the new run's card says of it."""
        return {
            "path": str(self.path),
            "weights": self.digest,
            "fingerprint": self.card["fingerprint"],
            "dataset_version": self.card["dataset_version"],
        }


def sizes_of(card: Json) -> dict[str, int]:
    """Sizes of the data that decide the shape of the weights, from a checkpoint's card."""
    if "geometry" in card:
        return {f"data: {name}": size for name, size in card["geometry"].items()}
    # The number of snapshots decides none.
    _, angles, delays = card["grid"]
    return {"data: antennas": angles, "training.temporal.delays": delays}


def _architecture(settings: TrainingSettings) -> Json:
    part, name = {
        "multimodal": (settings.model, "model"),
        "temporal": (settings.temporal.model, "temporal.model"),
        "rays": (settings.rays.model, "rays.model"),
    }[settings.backbone]
    return {f"training.{name}.{key}": value for key, value in part.model_dump(mode="json", exclude=FREE).items()}
