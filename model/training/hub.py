"""Models as folders that other libraries know: weights as safetensors, `config.json`, a model card; and on the Hugging Face Hub.

The only module that imports huggingface_hub and safetensors (`wavecity[hub]`).
"""

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.dataset.schema import ATTRIBUTION, LICENCE
from wavecity.model.data.json_types import Json
from wavecity.model.training.checkpoint import CONFIG, WEIGHTS, Checkpoint
from wavecity.model.training.small import shared_card

try:
    from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
except ImportError as error:
    msg = f"models as folders, and the hub, need {error.name}: pip install 'wavecity[hub]'"
    raise InputError(msg) from error

if TYPE_CHECKING:
    from wavecity.model.training.pretrained import Pretrained, PretrainedRays, PretrainedTemporal

    AnyPretrained = Pretrained | PretrainedTemporal | PretrainedRays

TAGS = ["wireless", "channel-state-information", "mimo", "beamforming", "localization", "foundation-model"]
LICENCES = {"ODbL-1.0": "odbl", "CC-BY-4.0": "cc-by-4.0", "CC0-1.0": "cc0-1.0"}
# What each model takes and gives.
INTERFACES = {
    "multimodal": (
        "features = model.embed(csi, height)",
        "Channels complex (N, {columns}, {rows}), sqrt(power gain), x along the panel's horizontal axis; height maps "
        "({cells}, {cells}) in m, row 0 = north. Both in physical units: scaling is part of the model. The embedding is "
        "float32 (N, {width}).",
    ),
    "temporal": (
        "features = model.embed(csi)",
        "Channels complex (N, snapshots, {subcarriers}, {antennas}) of users that move, sqrt(power gain), every "
        "{interval_ms:g} ms, subcarriers {spacing_khz:g} kHz apart. Scaling is part of the model. The embedding is float32 "
        "(N, {width}).",
    ),
    "rays": (
        "features = model.embed(csi, shown, scene, height)",
        "Channels complex (N, {columns}, {rows}), sqrt(power gain), of which only the entries `shown` are read; the walls of "
        "the scene (`wavecity.surroundings`); height maps ({cells}, {cells}) in m, row 0 = north.",
    ),
}


# Without huggingface_hub its classes have no types.
class HubModel(  # type: ignore[call-arg,misc]
    nn.Module,
    PyTorchModelHubMixin,
    library_name="wavecity",
    tags=TAGS,
):
    """A pretrained model with the methods of huggingface_hub: `save_pretrained`, `from_pretrained`, `push_to_hub`.

    Parameters
    ----------
    card : dict
        Of the checkpoint: settings, sizes, scales; what `config.json` holds.
    weights : dict of Tensor, optional
        By their names in the model; `from_pretrained` brings them.

    Attributes
    ----------
    pretrained : Pretrained, PretrainedTemporal or PretrainedRays
        What `wavecity.load` returns.

    Examples
    --------
    >>> HubModel.from_pretrained("someone/wavecity-small").pretrained.embed(csi, height)
    """

    def __init__(self, card: Json, weights: dict[str, Tensor] | None = None) -> None:
        from wavecity.model.training.load import rebuilt

        super().__init__()
        self.pretrained = rebuilt(Checkpoint(card, weights or {}), "the model")
        self.model = self.pretrained.model

    @classmethod
    def of(cls, pretrained: "AnyPretrained") -> "HubModel":
        """Of a model that was loaded."""
        return cls(card=shared_card(pretrained.card), weights=dict(pretrained.model.state_dict()))

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in self.model.state_dict().items()}
        save_file(tensors, save_directory / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **model_kwargs: Any,
    ) -> "HubModel":
        """As the mixin calls it: `card` among the last ones is from `config.json`."""
        folder = Path(model_id)
        path = str(folder / WEIGHTS)
        if not folder.is_dir():
            path = hf_hub_download(
                model_id,
                WEIGHTS,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return cls(card=model_kwargs["card"], weights=load_file(path))

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """Model card with what it takes and gives, how it was trained, and whom to name."""
        return ModelCard(card_text(self.pretrained))


def read_folder(path: Path) -> Checkpoint:
    """Card and weights of a saved model.

    Raises
    ------
    InputError
        Not one of this package, or its files are damaged.
    """
    try:
        card = json.loads((path / CONFIG).read_text(encoding="utf-8"))["card"]
        return Checkpoint(dict(card), load_file(path / WEIGHTS))
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"{path}: not a model that wavecity saved ({type(error).__name__}: {reason})"
        raise InputError(msg) from error


def download(name: str) -> Path:
    """Folder in the hub's cache that holds a model, `owner/name` or `owner/name@revision`; downloaded where it is not there.

    Raises
    ------
    InputError
        No such model, or the hub cannot be reached.
    """
    repository, _, revision = name.partition("@")
    try:
        for file in (WEIGHTS, CONFIG):
            path = hf_hub_download(repository, file, revision=revision or None)
    except (OSError, ValueError) as error:  # the hub's own errors are one of these
        reason = str(error).strip().splitlines()[0]
        msg = f"{name}: neither a run or a saved model here, nor a model that the hub gives ({reason})"
        raise InputError(msg) from error
    return Path(path).parent


def save_pretrained(pretrained: "AnyPretrained", folder: str | Path) -> Path:
    """Write `config.json`, `model.safetensors` and the card `README.md` of a model."""
    # The methods are the mixin's, which torch's annotations hide.
    model: Any = HubModel.of(pretrained)
    model.save_pretrained(folder)
    return Path(folder)


def push_to_hub(pretrained: "AnyPretrained", name: str, **options: Any) -> str:
    """Upload a model as `owner/name`; returns the address of the commit. Options are those of huggingface_hub."""
    model: Any = HubModel.of(pretrained)
    return str(model.push_to_hub(name, **options))


def card_text(pretrained: "AnyPretrained") -> str:
    """Model card as the hub has it: a header in YAML, then Markdown."""
    card = pretrained.card
    kind = card["settings"].get("backbone", "multimodal")
    data = card.get("data", {})
    licence = data.get("licence", LICENCE)
    call, takes = INTERFACES[kind]
    header = ModelCardData(
        library_name="wavecity",
        license=LICENCES.get(licence, "other"),
        license_name=None if licence in LICENCES else licence,
        tags=[*TAGS, kind],
    )
    count = sum(value.numel() for value in pretrained.model.parameters())
    scale = data.get("frequency_hz")
    facts = {
        "kind": kind,
        "parameters": f"{count:,}",
        "carrier": f"{scale / 1e9:g} GHz" if scale else "",
        "array": ", ".join(f"{name} {value:g}" for name, value in data.get("array", {}).items()),
        "trained on": f"dataset {card.get('dataset_version', '')[:16]}"
        + (f", recipe {data['recipe']}" if "recipe" in data else ""),
        "training": f"fingerprint {card['fingerprint'][:16]}, seed {card['seed']}",
        "normalisation": card["settings"].get("normalisation", "") if kind == "multimodal" else "",
        "packages": ", ".join(f"{name} {value}" for name, value in card.get("versions", {}).items()),
        "written by": f"wavecity {metadata.version('wavecity')}",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value)
    return f"""---
{header.to_yaml()}
---

# Wavecity: {kind} model

```python
import wavecity

model = wavecity.load("OWNER/NAME")  # or the folder that this file is in
{call}
```

{takes.format(**_sizes(pretrained, kind))}

| | |
|---|---|
{rows}

It was trained on simulated channels; how it does on measured ones is not known. Shapes must be those of the training.
`config.json` holds all settings and scales, `model.safetensors` the weights.

Data: {licence}. {data.get("attribution", ATTRIBUTION)}
"""


def _sizes(pretrained: "AnyPretrained", kind: str) -> dict[str, Any]:
    """Sizes that the text of `INTERFACES` names."""
    card, settings = pretrained.card, pretrained.settings
    if kind == "temporal":
        of = card["trajectory"]
        return {
            "subcarriers": of["subcarriers"],
            "antennas": card["grid"][1],
            "interval_ms": 1e3 * of["interval_s"],
            "spacing_khz": of["subcarrier_spacing_hz"] / 1e3,
            "width": settings.temporal.model.width,
        }
    geometry = card["geometry"]
    return {
        "columns": geometry["columns"],
        "rows": geometry["rows"],
        "cells": geometry["height_cells"],
        "width": settings.model.width,
    }
