"""The terms of eq. 7 on held-out users: the model's, and those of simple predictors put through the same loss functions."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wavecity.model.data.tokens import csi_patches, patchify, take, unpatchify
from wavecity.model.data.users import Users
from wavecity.model.learning.baselines import neighbour_mean, omp, visible_antennas
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.inputs import Prepared, loss_terms, prepare
from wavecity.model.multimodal.losses import coarse_spectrum, spectrum
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import Outputs
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Record
from wavecity.model.settings.training import EvaluationSettings

CSI_MASK = 0.7
# Stream of random numbers for the decoys.
DECOYS = 13
# Simple predictors of a probability or of a spectrum of mean 1 must not say never.
FLOOR = 0.01
LOSSES = {
    "csi": Metric.CSI_LOSS,
    "location": Metric.LOCATION_LOSS,
    "occupancy": Metric.OCCUPANCY_LOSS,
    "spectrum": Metric.SPECTRUM_LOSS,
}


@torch.no_grad()
def loss_records(
    predictor: Predictor, test: Users, train: Users, prior: Tensor, settings: EvaluationSettings, seed: int
) -> list[Record]:
    """Loss of each term: CSI and scene masked (along a decoy's link), the location hidden.

    Parameters
    ----------
    test, train : Users
        Held-out users, and those the simple predictors know.
    prior : float32 (rows, columns)
        Share of the training scenes in which a patch is occupied.
    """
    visible = predictor.visible_patches(CSI_MASK, seed)
    decoys = np.random.default_rng([seed, DECOYS])
    place = train.position.mean(0) / predictor.statistics.position_scale
    sums: dict[tuple[str, Method], float] = {}
    for index in torch.arange(len(test)).split(predictor.batch_size):
        users = test.at(index)
        mask = predictor.mask(users, visible, False, settings.scene_mask, decoys)
        scenes, trained_with = predictor.scenes, predictor.settings
        prepared = prepare(users.csi, users.position, users.scene, mask, scenes, trained_with, predictor.statistics)
        occupied = scenes.occupancy(users.scene)
        outputs = predictor.model(prepared.inputs, mask)
        guesses = {
            Method.MODEL: outputs,
            **_simple(predictor, outputs, prepared, mask, occupied, place, prior, settings, visible),
        }
        for method, guess in guesses.items():
            for term, value in loss_terms(guess, prepared, mask, occupied, trained_with.losses).items():
                if term in PREDICTED.get(method, LOSSES):
                    sums[term, method] = sums.get((term, method), 0.0) + float(value) * len(users) / len(test)
    condition = Condition(csi_masked=CSI_MASK, scene_masked=settings.scene_mask)
    return [
        Record(metric, method, value, seed, len(test), condition=condition)
        for term, metric in LOSSES.items()
        for (of, method), value in sums.items()
        if of == term
    ]


# Terms that a simple predictor speaks of.
PREDICTED = {
    Method.OMP: ("csi", "spectrum"),
    Method.ZEROS: ("csi",),
    Method.ZERO_FILLED: ("spectrum",),
    Method.MEAN_TRAINING: ("location",),
    Method.NEIGHBOUR_MEAN: ("occupancy",),
    Method.OCCUPANCY_PRIOR: ("occupancy",),
}


def _simple(
    predictor: Predictor,
    outputs: Outputs,
    prepared: Prepared,
    mask: Mask,
    occupied: Tensor,
    place: Tensor,
    prior: Tensor,
    settings: EvaluationSettings,
    visible: Tensor,
) -> dict[Method, Outputs]:
    """The model's outputs with those replaced that a simple predictor speaks of."""
    geometry, patch = predictor.model.geometry, predictor.settings.model.csi_patch
    cell, edge = predictor.model.occupancy_patch, geometry.occupancy_patches
    shown = visible_antennas(visible, geometry.columns, geometry.rows, patch)
    pursued, power = omp(prepared.csi, shown, settings.omp_atoms)
    zero_filled = spectrum(torch.where(shown, prepared.csi, torch.zeros((), dtype=prepared.csi.dtype)))
    masked = mask.scene_masked
    assert masked is not None
    hidden = torch.zeros(occupied.shape[:2], dtype=torch.bool).scatter(1, masked, True)
    seen = unpatchify(~hidden[..., None].expand_as(occupied), cell, edge, edge)
    truth = unpatchify(occupied.float(), cell, edge, edge)

    def logits(probability: Tensor) -> Tensor:
        cells = patchify(probability, cell).clamp(FLOOR, 1 - FLOOR)
        return take(torch.logit(cells), masked)

    def raw(full: Tensor) -> Tensor:
        return _raw_spectrum(coarse_spectrum(full, outputs.spectrum.shape[-1]), predictor)

    masked_csi = take(csi_patches(pursued, patch), mask.csi_masked)
    return {
        Method.OMP: replace(outputs, csi=masked_csi, spectrum=raw(power)),
        Method.ZEROS: replace(outputs, csi=torch.zeros_like(masked_csi)),
        Method.ZERO_FILLED: replace(outputs, spectrum=raw(zero_filled)),
        Method.MEAN_TRAINING: replace(outputs, location=place.expand(len(occupied), -1)),
        Method.NEIGHBOUR_MEAN: replace(outputs, occupancy=logits(neighbour_mean(truth, seen))),
        Method.OCCUPANCY_PRIOR: replace(outputs, occupancy=logits(prior.expand_as(truth))),
    }


def _raw_spectrum(power: Tensor, predictor: Predictor) -> Tensor:
    """What the spectrum head would have to put out for this spectrum: its logarithm, or the inverse of softplus."""
    power = power.clamp_min(FLOOR)
    if predictor.settings.losses.spectrum_form == "kl":
        return power.log()
    return power + torch.log(-torch.expm1(-power))
