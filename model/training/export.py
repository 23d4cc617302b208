"""The encoder as a file that runs without this package, and that says itself where it comes from and what it takes and gives."""

import json
import logging
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.dataset.files import atomic_path
from wavecity.dataset.schema import ATTRIBUTION, CONVENTIONS, LICENCE
from wavecity.model.data.json_types import Json
from wavecity.model.data.tokens import Statistics, level, patchify, visible_rms
from wavecity.model.data.users import height_patches
from wavecity.model.multimodal.inference import pilots, split_visible
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import FoundationModel, Inputs
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.checkpoint import weights_of
from wavecity.model.training.export_rays import DeployedPathModel, path_metadata_of
from wavecity.model.training.load import load_model, load_rays_model
from wavecity.model.training.pretrained import Pretrained

# Name of the metadata within a `.pt2`.
EXTRA_FILE = "metadata.json"


def metadata_of(pretrained: Pretrained, visible: Tensor) -> Json:
    """Describe an exported encoder that sees CSI patches int64 (v,), JSON-ready; without what a checkpoint lacks.

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


# Largest difference between an exported encoder's outputs and the original's, over their RMS.
TOLERANCE = 1e-4
SUFFIXES = (".pt2", ".onnx")


class DeployedEncoder(nn.Module):
    """From a channel and a height map, as they are, to [PHYSC] and the spatial spectrum; normalisation included.

    Real arithmetic only, so that it can be exported. The location is hidden, nothing of the scene masked. `visible`,
    int64 (v,), are the CSI patches seen, row-major over (x, y); the others may hold anything.
    """

    inputs = ("csi", "height")
    outputs = ("physc", "spectrum")
    visible: Tensor
    hidden: Tensor
    scene: Tensor

    def __init__(
        self, model: FoundationModel, settings: TrainingSettings, statistics: Statistics, visible: Tensor
    ) -> None:
        super().__init__()
        if settings.model.spectrum_from != "encoded":
            msg = "training.model.spectrum_from is 'decoded': only a model with an encoded spectrum can be exported"
            raise InputError(msg)
        self.model = model
        self.statistics = statistics
        self.patch, self.height_patch = settings.model.csi_patch, settings.model.height_patch
        self.by_sample = settings.normalisation == "visible"
        self.kl = settings.losses.spectrum_form == "kl"
        self.visible, self.hidden = (nn.Buffer(part) for part in split_visible(visible, model.csi_patches, 1))
        self.scene = nn.Buffer(torch.arange(model.scene_patches)[None])

    def example(self, batch: int) -> tuple[Tensor, Tensor]:
        """Random inputs of its shapes."""
        return example_inputs(self.model, batch)

    def forward(self, csi: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
        """Encode channels float32 (B, x, y, 2), parts of sqrt(power gain), and maps (B, rows, columns) in m.

        Returns [PHYSC] (B, d) and the spectrum (B, kx, ky): relative power of sum 1 (KL form), or of mean about 1 (eq.
        6).
        """
        batch = csi.shape[0]
        # Gains reach -200 dB: scaled in float64, where squares do not underflow.
        patches = torch.cat([patchify(csi[..., part], self.patch) for part in (0, 1)], -1).double()
        visible, hidden, scene = (part.expand(batch, -1) for part in (self.visible, self.hidden, self.scene))
        rms = visible_rms(patches, visible)
        scale = rms if self.by_sample else torch.full_like(rms, self.statistics.csi_rms)
        inputs = Inputs(
            csi=(patches / scale[:, None, None]).float(),
            level=level(rms, self.statistics),
            height=height_patches(height, self.height_patch, self.statistics),
            location=None,
        )
        mask = Mask(visible, hidden, scene, None, location_visible=False)
        physc = self.model.encode(inputs, mask)[:, 0]
        raw = self.model.spectrum_head(physc)
        spectrum = raw.flatten(1).softmax(-1).view_as(raw) if self.kl else F.softplus(raw)
        return physc, spectrum


def export_model(run: str | Path, out: Path, share: float) -> dict[str, float]:
    """Write a run's encoder or path model as `.pt2` (torch.export) or `.onnx`, after checking that its outputs are the model's.

    The file says itself what it is (`wavecity.model.training.export`).

    Parameters
    ----------
    run : str or Path
        Folder of a pretraining, or a checkpoint.
    out : Path
        The suffix decides.
    share : float
        Share of the CSI patches it sees; the same patches as in the evaluation. A path model takes waves of any.

    Returns
    -------
    dict
        Output -> largest difference from the model's, over its RMS.

    Raises
    ------
    InputError
        Unknown suffix, or no checkpoint.
    """
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out {out}: name a file that ends in {' or '.join(SUFFIXES)}")
    checkpoint = weights_of(run)
    encoder: Deployed
    if checkpoint.card["settings"].get("backbone") == "rays":
        rays = load_rays_model(run, checkpoint)
        encoder, facts = DeployedPathModel(rays.model, rays.card["tile_size"]).eval(), path_metadata_of(rays)
    else:
        pretrained = load_model(run, checkpoint)
        model, settings, statistics, card = pretrained
        visible = pilots(model, share, card["seed"])
        encoder = DeployedEncoder(model, settings, statistics, visible).eval()
        facts = metadata_of(pretrained, visible)
    example = encoder.example(3)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as temporary:
        # The exporters look at the suffix.
        named = temporary.with_name(f".{temporary.name}{out.suffix}")
        try:
            write = write_onnx if out.suffix == ".onnx" else write_exported
            run_exported = write(encoder, named, facts)
            differences = compare(encoder, run_exported, example)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return differences


def example_inputs(model: FoundationModel, batch: int) -> tuple[Tensor, Tensor]:
    """Random channels at -120 dB and heights up to 30 m of a model's shapes."""
    geometry = model.geometry
    draws = torch.Generator().manual_seed(0)
    csi = 1e-6 * torch.randn(batch, geometry.columns, geometry.rows, 2, generator=draws)
    return csi, 30 * torch.rand(batch, geometry.height_cells, geometry.height_cells, generator=draws)


Run = Callable[..., tuple[Any, ...]]
Deployed = DeployedEncoder | DeployedPathModel


def write_exported(encoder: Deployed, path: Path, facts: Json | None = None) -> Run:
    """Write a `.pt2` of any batch size, `facts` as its extra file `metadata.json`; returns its own program, read back."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(
        encoder, encoder.example(2), dynamic_shapes={name: {0: batch} for name in encoder.inputs}
    )
    torch.export.save(
        program, path, extra_files={EXTRA_FILE: json.dumps(facts, indent=1, ensure_ascii=False)} if facts else None
    )
    module = torch.export.load(path).module()
    return module


def write_onnx(encoder: Deployed, path: Path, facts: Json | None = None) -> Run:
    """Write an `.onnx` of any batch size, `facts` as its metadata; returns a session of ONNX Runtime on the file."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX needs {error.name}: pip install 'wavecity[onnx]'") from error
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        # Of the exporter's own code.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            encoder,
            encoder.example(2),
            path,
            input_names=list(encoder.inputs),
            output_names=list(encoder.outputs),
            dynamic_shapes={name: {0: batch} for name in encoder.inputs},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if facts:
        # Not through the exporter, whose versions differ in what they let one set.
        model = onnx.load(path)
        describe_onnx(model, facts)
        onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda *given: session.run(
        None, {name: value.numpy() for name, value in zip(encoder.inputs, given, strict=True)}
    )


@torch.no_grad()
def compare(encoder: Deployed, run: Run, example: tuple[Tensor, ...]) -> dict[str, float]:
    """Largest difference of every output, over the RMS of the model's; RuntimeError if one is above `TOLERANCE`."""
    differences = {}
    for name, ours, theirs in zip(encoder.outputs, encoder(*example), run(*example), strict=True):
        difference = (torch.as_tensor(theirs) - ours).abs().max() / ours.square().mean().sqrt()
        differences[name] = float(difference)
        if not difference <= TOLERANCE:
            msg = f"the exported encoder's {name} is off by {float(difference):.1e}, more than {TOLERANCE:g}"
            raise RuntimeError(msg)
    return differences
