"""The path model as a file that runs without this package: from what `front` makes of users to where they are, and more."""

from importlib import metadata

import torch
from torch import Tensor, nn

from wavecity.dataset.schema import ATTRIBUTION, LICENCE
from wavecity.model.data.json_types import Json
from wavecity.model.path_model.front import PLACE_FEATURES, PLACES, WAVE_FEATURES, Fronts
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import PathModel
from wavecity.model.rays.waves import WAVES
from wavecity.model.training.pretrained import PretrainedRays

# Name, sizes after the batch, unit and meaning of what `front` gives and of the maps; `x`, `y`, `cells` are the data's.
INPUTS: tuple[tuple[str, tuple[int | str, ...], str, str], ...] = (
    ("wave", (WAVES, WAVE_FEATURES), "1", "features of the waves"),
    ("found", (WAVES,), "1", "1 where there is a wave, else 0"),
    ("direction", (WAVES, 2), "1", "direction cosines along the panel and down"),
    ("gain", (WAVES,), "sqrt(power gain)", "magnitude of the waves"),
    ("landing", (WAVES, 2), "m", "where they come down by mirrors alone, 0 where they do not"),
    ("place", (PLACES, 2), "m", "where the user may be, the physics' own estimate first"),
    ("place_features", (PLACES, PLACE_FEATURES), "1", "features of the places"),
    ("usable", (PLACES,), "1", "1 where there is a place, else 0"),
    ("prior", (PLACES,), "nats", "how well the waves agree on a place"),
    ("spread", (), "m", "standard deviation of the physics' own estimate"),
    ("log_spectrum", ("x", "y"), "nats", "spectrum of the recovered channel, of mean 1"),
    ("noise", (), "dB", "noise over what is seen"),
    ("height", ("cells", "cells"), "m", "highest building at the cell centre, 0 on open ground"),
    ("bs", (2,), "m", "base station in the scene's frame, east and north"),
)
OUTPUTS: tuple[tuple[str, str, str], ...] = (
    ("physc", "1", "[PHYSC], the embedding of the link"),
    ("log_weight", "nats", "weights of the mixture's components"),
    ("centre", "m", "their centres relative to the base station"),
    ("log_scale", "nats of m", "their scales: density exp(-r / scale) / (2 pi scale^2)"),
    ("spectrum", "nats", "logarithm of the spectrum, up to a constant"),
    ("gate", "1", "factor of each wave"),
)


class DeployedPathModel(nn.Module):
    """The path model on tensors of `INPUTS`, real ones only, so that it can be exported."""

    inputs = tuple(name for name, *_ in INPUTS)
    outputs = tuple(name for name, *_ in OUTPUTS)

    def __init__(self, model: PathModel, size: float) -> None:
        super().__init__()
        self.model, self.size = model, size

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Random inputs of its shapes."""
        draws = torch.Generator().manual_seed(0)
        found = {}
        for name, shape, *_ in INPUTS:
            found[name] = torch.rand(batch, *self.sizes(shape), generator=draws)
        found["found"][:] = found["usable"][:] = 1.0
        found["gain"] *= 1e-6
        found["height"] *= 30
        return tuple(found.values())

    def sizes(self, shape: tuple[int | str, ...]) -> list[int]:
        """A shape of `INPUTS` in numbers."""
        geometry = self.model.geometry
        known = {"x": geometry.columns, "y": geometry.rows, "cells": geometry.height_cells}
        return [known[size] if isinstance(size, str) else size for size in shape]

    def forward(
        self,
        wave: Tensor,
        found: Tensor,
        direction: Tensor,
        gain: Tensor,
        landing: Tensor,
        place: Tensor,
        place_features: Tensor,
        usable: Tensor,
        prior: Tensor,
        spread: Tensor,
        log_spectrum: Tensor,
        noise: Tensor,
        height: Tensor,
        bs: Tensor,
    ) -> tuple[Tensor, ...]:
        """`OUTPUTS` of a batch."""
        fronts = Fronts(
            wave, found > 0, direction, found > 0, gain, landing, place, place_features, usable > 0, prior, spread,
            log_spectrum, log_spectrum > 0, noise,
        )  # fmt: skip
        row = torch.arange(height.shape[0], device=height.device)
        outputs = self.model(fronts, Sites(height, row, bs, self.size))
        return (outputs.physc, *outputs.location, outputs.spectrum, outputs.gate)


def path_metadata_of(pretrained: PretrainedRays) -> Json:
    """Describe an exported path model, JSON-ready; entries as in `wavecity.model.training.export.metadata_of`."""
    model, _, card = pretrained
    data = card.get("data", {})
    deployed = DeployedPathModel(model, card["tile_size"])
    shapes = {
        name: list(value.shape[1:])
        for name, value in zip(deployed.outputs, deployed(*deployed.example(1)), strict=True)
    }
    facts = {
        "name": f"wavecity-path-model-{data.get('recipe', card['fingerprint'][:12])}",
        "version": metadata.version("wavecity"),
        "description": "Path model: waves recovered from a partial channel, and the map, to location, spectrum and [PHYSC].",
        "training_fingerprint": card["fingerprint"],
        "seed": card["seed"],
        "trained_with": card["versions"],
        "recipe": data.get("recipe"),
        "dataset_fingerprint": card["dataset_version"],
        "dataset_manifest_sha256": data.get("manifest"),
        "inputs": [_port(name, deployed.sizes(shape), unit, meaning) for name, shape, unit, meaning in INPUTS],
        "outputs": [_port(name, shapes[name], unit, meaning) for name, unit, meaning in OUTPUTS],
        "radio": card["radio"],
        "tile_size_m": card["tile_size"],
        "licence": data.get("licence", LICENCE),
        "attribution": data.get("attribution", ATTRIBUTION),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _port(name: str, shape: list[int], unit: str, meaning: str) -> Json:
    return {"name": name, "dtype": "float32", "shape": ["batch", *shape], "unit": unit, "meaning": meaning}
