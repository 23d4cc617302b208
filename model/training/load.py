"""Pretrained models from their checkpoints."""

from pathlib import Path

from wavecity.dataset import InputError
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.json_types import Json
from wavecity.model.data.tokens import Statistics
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.path_model.network import PathModel
from wavecity.model.rays.radio import Radio
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.training.checkpoint import Checkpoint, load_weights, weights_of
from wavecity.model.training.pretrained import Pretrained, PretrainedRays, PretrainedTemporal


def load(run: str | Path) -> Pretrained | PretrainedTemporal | PretrainedRays:
    """Rebuild the model of a run, whichever it is: `load_model`, `load_temporal_model` or `load_rays_model`.

    Parameters
    ----------
    run : str or Path
        A run folder, its folder `checkpoints`, or the file; a folder that `save_pretrained` wrote, or the name of a model
        on the Hugging Face Hub, `owner/name` or `owner/name@revision` (both need `wavecity[hub]`); or the name of a
        small checkpoint that comes with the package (`model/checkpoints/NAME.ckpt`).

    Returns
    -------
    Pretrained, PretrainedTemporal or PretrainedRays
        Its `embed` takes channels as they are, static ones or channels along trajectories.

    Raises
    ------
    InputError
        No checkpoint, none of this package, or one of another version of the model.

    Examples
    --------
    >>> model = load("runs/quickstart-paper")
    >>> features = model.embed(csi, height)  # complex (N, 32, 32), m (N, 200, 200) -> (N, d)
    """
    return rebuilt(weights_of(run), run)


def rebuilt(checkpoint: Checkpoint, run: str | Path) -> Pretrained | PretrainedTemporal | PretrainedRays:
    """The model of a checkpoint; `run` is what messages name."""
    match checkpoint.card["settings"].get("backbone"):
        case "temporal":
            return load_temporal_model(run, checkpoint)
        case "rays":
            return load_rays_model(run, checkpoint)
        case _:
            return load_model(run, checkpoint)


def load_model(run: str | Path, checkpoint: Checkpoint | None = None) -> Pretrained:
    """Rebuild the multi-modal model from a checkpoint alone, in evaluation mode, on the CPU.

    As `load`, but refuses a temporal model; `checkpoint` is what was read of it before.

    Examples
    --------
    >>> model = load_model("runs/quickstart-paper")
    >>> features = model.embed(csi, height)  # complex (N, 32, 32), m (N, 200, 200) -> (N, d)
    """
    card, weights = checkpoint or weights_of(run)
    settings = _settings_of(card, "multimodal", run)
    model = FoundationModel(settings.model, Geometry(**card["geometry"]))
    load_weights(model, weights, run)
    return Pretrained(model.eval(), settings, Statistics.from_dict(card["statistics"]), card)


def load_temporal_model(run: str | Path, checkpoint: Checkpoint | None = None) -> PretrainedTemporal:
    """As `load_model`, of the temporal model; refuses a multi-modal one."""
    card, weights = checkpoint or weights_of(run)
    settings = _settings_of(card, "temporal", run)
    snapshots, angles, delays = card["grid"]
    model = TemporalModel(settings.temporal.model, (snapshots, angles, delays))
    load_weights(model, weights, run)
    return PretrainedTemporal(model.eval(), settings, card)


def load_rays_model(run: str | Path, checkpoint: Checkpoint | None = None) -> PretrainedRays:
    """As `load_model`, of the path model; refuses others."""
    card, weights = checkpoint or weights_of(run)
    settings = _settings_of(card, "rays", run)
    model = PathModel(settings.rays.model, Geometry(**card["geometry"]), Radio.from_dict(card["radio"]))
    load_weights(model, weights, run)
    return PretrainedRays(model.eval(), settings, card)


def _settings_of(card: Json, backbone: str, run: str | Path) -> TrainingSettings:
    """Settings that a model was trained with; those of another backbone are refused."""
    settings = TrainingSettings.model_validate(card["settings"])
    if settings.backbone != backbone:
        raise InputError(f"{run}: a {settings.backbone} model; a run with training.backbone {backbone} is needed here")
    return settings
