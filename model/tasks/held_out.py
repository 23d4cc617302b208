"""The terms of eq. 7 on held-out users: the model's, and those of simple predictors put through the same loss functions."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wavecity.model.data.tokens import csi_patches, patchify, take, unpatchify
from wavecity.model.data.users import Users
from wavecity.model.learning.baselines import neighbour_mean, omp
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.inputs import loss_terms
from wavecity.model.multimodal.losses import coarse_spectrum, spectrum
from wavecity.model.multimodal.masking import Mask
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

    Simple predictors know the `train` users, and `prior`, float32 (rows, columns): the share of the training scenes in
    which a patch is occupied.
    """
    visible = predictor.visible_patches(CSI_MASK, seed)
    shown = predictor.shown(visible)
    decoys = np.random.default_rng([seed, DECOYS])
    place = train.position.mean(0) / predictor.statistics.position_scale
    sums: dict[tuple[str, Method], float] = {}
    for index in torch.arange(len(test)).split(predictor.batch_size):
        users = test.at(index)
        mask = predictor.mask(users, visible, False, settings.scene_mask, decoys)
        prepared, occupied = predictor.prepared(users, mask), predictor.scenes.occupancy(users.scene)
        outputs = predictor.model(prepared.inputs, mask)
        pursued, power = omp(prepared.csi, shown, settings.omp_atoms)
        zero_filled = spectrum(torch.where(shown, prepared.csi, torch.zeros((), dtype=prepared.csi.dtype)))
        masked_csi = take(csi_patches(pursued, predictor.settings.model.csi_patch), mask.csi_masked)
        size = outputs.spectrum.shape[-1]
        guesses = {
            Method.MODEL: outputs,
            Method.OMP: replace(
                outputs, csi=masked_csi, spectrum=_raw_spectrum(coarse_spectrum(power, size), predictor)
            ),
            Method.ZEROS: replace(outputs, csi=torch.zeros_like(masked_csi)),
            Method.ZERO_FILLED: replace(outputs, spectrum=_raw_spectrum(coarse_spectrum(zero_filled, size), predictor)),
            Method.MEAN_TRAINING: replace(outputs, location=place.expand(len(occupied), -1)),
        }
        for method, guess in _occupancy(predictor, mask, occupied, prior).items():
            guesses[method] = replace(outputs, occupancy=guess)
        for method, guess in guesses.items():
            for term, value in loss_terms(guess, prepared, mask, occupied, predictor.settings.losses).items():
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


def _occupancy(predictor: Predictor, mask: Mask, occupied: Tensor, prior: Tensor) -> dict[Method, Tensor]:
    """Logits of the masked patches' cells by their visible neighbours, and by the prior."""
    cell, edge = predictor.model.occupancy_patch, predictor.model.geometry.occupancy_patches
    masked = mask.scene_masked
    assert masked is not None
    hidden = torch.zeros(occupied.shape[:2], dtype=torch.bool).scatter(1, masked, True)
    seen = unpatchify(~hidden[..., None].expand_as(occupied), cell, edge, edge)
    truth = unpatchify(occupied.float(), cell, edge, edge)
    guesses = {Method.NEIGHBOUR_MEAN: neighbour_mean(truth, seen), Method.OCCUPANCY_PRIOR: prior.expand_as(truth)}
    return {
        method: take(torch.logit(patchify(guess, cell).clamp(FLOOR, 1 - FLOOR)), masked)
        for method, guess in guesses.items()
    }


def _raw_spectrum(power: Tensor, predictor: Predictor) -> Tensor:
    """What the spectrum head would have to put out for this spectrum: its logarithm, or the inverse of softplus."""
    power = power.clamp_min(FLOOR)
    if predictor.settings.losses.spectrum_form == "kl":
        return power.log()
    return power + torch.log(-torch.expm1(-power))
