"""From users and a mask to the model's inputs, and from its outputs to the terms of eq. 7."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics, complex_entries, csi_patches, level, take, unpatchify, visible_rms
from wavecity.model.data.users import ScenePatches
from wavecity.model.multimodal import losses
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import Inputs, Outputs
from wavecity.model.settings.training import LossSettings, ModelSettings, TrainingSettings


@dataclass(frozen=True)
class Prepared:
    """A batch, normalised."""

    inputs: Inputs
    csi: Tensor  # complex (B, x, y); the whole channel over `scale`
    # float64 (B,); RMS of the visible patches (or of the dataset): predictions times this are in the dataset's unit
    scale: Tensor


def prepare(
    csi: Tensor,
    position: Tensor,
    scene: Tensor,
    mask: Mask,
    scenes: ScenePatches,
    mirror: Tensor | None = None,
) -> Prepared:
    """Normalise a batch by what the mask leaves visible; `mirror` marks samples whose maps still need mirroring."""
    height = None if mask.scene_visible is None else scenes.height(scene, mirror)
    return normalise(csi, height, position, mask, scenes.settings, scenes.statistics)


def normalise(
    csi: Tensor,
    height: Tensor | None,
    position: Tensor | None,
    mask: Mask,
    settings: TrainingSettings,
    statistics: Statistics,
    dtype: torch.dtype = torch.float32,
) -> Prepared:
    """As `prepare`, of height patches float32 (B, Q, patch^2) instead of scenes; `dtype` is the model's precision."""
    patch = settings.model.csi_patch
    rms = visible_rms(csi_patches(csi, patch), mask.csi_visible)
    scale = rms if settings.normalisation == "visible" else torch.full_like(rms, statistics.csi_rms)
    # Divided in float64: gains reach -200 dB. The quotient is of order one.
    normalised = (csi.to(torch.complex128) / scale[:, None, None]).to(dtype.to_complex())
    inputs = Inputs(
        csi=csi_patches(normalised, patch),
        level=level(rms, statistics).to(dtype),
        height=height,
        location=None if position is None else position / statistics.position_scale,
    )
    return Prepared(inputs, normalised, scale)


def masked_on_grid(entries: Tensor, mask: Mask, settings: ModelSettings, geometry: Geometry) -> Tensor:
    """Lay out the masked patches' entries, complex (B, m, patch^2), on the array, zero elsewhere: (B, x, y)."""
    count = mask.csi_visible.shape[1] + mask.csi_masked.shape[1]
    patches = entries.new_zeros(len(entries), count, entries.shape[2])
    patches = patches.scatter(1, mask.csi_masked[..., None].expand_as(entries), entries)
    return unpatchify(patches, settings.csi_patch, geometry.columns, geometry.rows)


def loss_terms(
    outputs: Outputs, prepared: Prepared, mask: Mask, occupied: Tensor | None, settings: LossSettings
) -> dict[str, Tensor]:
    """Losses of a step (eqs 2, 3, 4 and 6): those of the modalities that were masked, and the spectrum's.

    `occupied`, uint8 (B, Q, c), is the occupancy of every height patch.
    """
    terms: dict[str, Tensor] = {}
    if outputs.csi is not None:
        target = complex_entries(take(prepared.inputs.csi, mask.csi_masked)).flatten(1)
        terms["csi"] = losses.CSI_FORMS[settings.csi_form](complex_entries(outputs.csi).flatten(1), target)
    if outputs.location is not None and prepared.inputs.location is not None:
        terms["location"] = losses.location_rmse(outputs.location.float(), prepared.inputs.location)
    if outputs.occupancy is not None and occupied is not None and mask.scene_masked is not None:
        target = take(occupied, mask.scene_masked)
        terms["occupancy"] = losses.occupancy_bce(outputs.occupancy.float(), target, settings.positive_weight)
    spectrum = losses.coarse_spectrum(losses.spectrum(prepared.csi), outputs.spectrum.shape[-1])
    terms["spectrum"] = losses.spectrum_loss(outputs.spectrum.float(), spectrum, settings)
    return terms
