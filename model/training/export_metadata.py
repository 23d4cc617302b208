"""What an exported encoder says of itself: where it comes from, what goes in and out, in which units, under which licence."""

import json
from importlib import metadata
from typing import Any

from torch import Tensor

from wavecity.dataset.schema import ATTRIBUTION, CONVENTIONS, LICENCE
from wavecity.model.data.json_types import Json
from wavecity.model.training.load import Pretrained

# Name of the metadata within a `.pt2`.
EXTRA_FILE = "metadata.json"


def metadata_of(pretrained: Pretrained, visible: Tensor) -> Json:
    """Describe an exported encoder that sees CSI patches int64 (v,), JSON-ready; of what an older checkpoint lacks,
    nothing.

    `name`, `version` (of Wavecity); `training_fingerprint`, `seed`, `trained_with` (versions), `dataset_fingerprint`,
    `dataset_manifest_sha256`, `recipe`; `inputs` and `outputs` (name, dtype, shape, unit, meaning); `conventions`;
    `frequency_hz`, `array`, `tile_size_m`; `csi_patch`, `visible_csi_patches`; `normalisation` (done by the encoder
    itself); `licence`, `attribution`.
    """
    model, settings, statistics, card = pretrained
    geometry, data = model.geometry, card.get("data", {})
    edge = geometry.height_cells
    kl = settings.losses.spectrum_form == "kl"
    facts = {
        "name": f"wavecity-encoder-{data.get('recipe', card['fingerprint'][:12])}",
        "version": metadata.version("wavecity"),
        "description": "Encoder of a multi-modal wireless foundation model: channel and height map to [PHYSC] and spectrum.",
        "training_fingerprint": card["fingerprint"],
        "seed": card["seed"],
        "trained_with": card["versions"],
        "recipe": data.get("recipe"),
        "dataset_fingerprint": card["dataset_version"],
        "dataset_manifest_sha256": data.get("manifest"),
        "inputs": [
            _port("csi", ["batch", geometry.columns, geometry.rows, 2], "sqrt(power gain)", "real and imaginary part"),
            _port("height", ["batch", edge, edge], "m", "highest building at the cell centre, 0 on open ground"),
        ],
        "outputs": [
            _port("physc", ["batch", settings.model.width], "1", "encoded [PHYSC] token, the embedding of the channel"),
            _port(
                "spectrum",
                ["batch", settings.model.spectrum_size, settings.model.spectrum_size],
                "1",
                "relative power a DFT bin, " + ("of sum 1" if kl else "of mean about 1"),
            ),
        ],
        "conventions": {name: CONVENTIONS[name] for name in ("csi", "height", "spectrum")},
        "frequency_hz": data.get("frequency_hz"),
        "array": data.get("array"),
        "tile_size_m": data.get("tile_size_m"),
        "csi_patch": settings.model.csi_patch,
        "visible_csi_patches": visible.tolist(),
        "normalisation": {"csi_scale": settings.normalisation, **statistics.to_dict()},
        # Checkpoints that do not say it were all trained on maps of OpenStreetMap.
        "licence": data.get("licence", LICENCE),
        "attribution": data.get("attribution", ATTRIBUTION),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def describe_onnx(model: Any, facts: Json) -> None:
    """Put the description into an `onnx.ModelProto`: one entry of its metadata each, JSON where it is no text."""
    model.producer_name, model.producer_version = "wavecity", facts["version"]
    model.doc_string = f"{facts['description']} {facts['attribution']}"
    for name, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    ports = {port["name"]: port for port in (*facts["inputs"], *facts["outputs"])}
    for value in (*model.graph.input, *model.graph.output):
        port = ports[value.name]
        value.doc_string = f"{port['meaning']}; unit {port['unit']}"


def _port(name: str, shape: list[str | int], unit: str, meaning: str) -> Json:
    return {"name": name, "dtype": "float32", "shape": shape, "unit": unit, "meaning": meaning}
