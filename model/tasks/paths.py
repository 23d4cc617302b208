"""The path model in the downstream tasks of the multi-modal one: as their `TaskModel`, and trained as a whole on their labels.

Its networks learn by what they say themselves, place or spectrum, from the pretrained weights or from scratch; the multi-modal
model's learn by a new head on [PHYSC].
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecity.dataset.progress import stage
from wavecity.model.data.users import Users, WirelessData
from wavecity.model.learning.heads import Correction, Standardiser, apply, tuned
from wavecity.model.learning.selection import Trained
from wavecity.model.multimodal.inference import beams_of_spectrum
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.results.names import Method
from wavecity.model.results.records import Findings
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks.few_labels_networks import (
    NetworkLoss,
    PathWithHead,
    Says,
    Whole,
    beam_loss,
    beams_of,
    place_loss,
    place_of,
)

Run = Callable[[PathPredictor, WirelessData, EvaluationSettings, int], Findings]
# Gives for a head's seed the users that are labelled, int64 (n,), in random order.
Labelled = Callable[[int], Tensor]


def of_paths(task: Callable[[PathEncoder, WirelessData, EvaluationSettings, int], Findings]) -> Run:
    """A task of any `TaskModel` as one of the path model."""

    def run(predictor: PathPredictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
        return task(PathEncoder.of(predictor, data), data, settings, seed)

    run.__doc__ = task.__doc__
    return run


def trained_places(
    encoder: PathEncoder, users: Users, visible: Tensor, labelled: Labelled, settings: HeadSettings
) -> Iterator[tuple[Method, Trained[PathWithHead]]]:
    """Networks trained on the places of labelled users; neither without steps."""
    return _trained(encoder, users, visible, users.position, labelled, place_loss, settings)


def trained_beams(
    encoder: PathEncoder, users: Users, visible: Tensor, beam: Tensor, labelled: Labelled, settings: HeadSettings
) -> Iterator[tuple[Method, Trained[PathWithHead]]]:
    """Networks trained on the best beams, int64 (N,), of labelled users; neither without steps."""
    return _trained(encoder, users, visible, beam, labelled, beam_loss, settings)


def _trained(
    encoder: PathEncoder,
    users: Users,
    visible: Tensor,
    label: Tensor,
    labelled: Labelled,
    loss: NetworkLoss,
    settings: HeadSettings,
) -> Iterator[tuple[Method, Trained[PathWithHead]]]:
    whole = Whole(encoder.predictor, settings)
    shown = whole.shown(encoder.seen(users, visible), users.scene)
    if not settings.finetune_steps:
        return
    with stage("train the path model as a whole", 2 * settings.seeds, "networks") as progress:
        for method, pretrained in ((Method.PHYSC_FINE_TUNED, True), (Method.TWIN, False)):
            for one in whole.trained(pretrained, shown, label, labelled, loss):
                progress.advance()
                yield method, one


def places_by(encoder: PathEncoder, network: PathWithHead, users: Users, visible: Tensor) -> Tensor:
    """Where a network puts users, float32 (N, 2)."""
    return _said(encoder, network, users, visible, place_of)


def scores_by(encoder: PathEncoder, network: PathWithHead, users: Users, visible: Tensor) -> Tensor:
    """Scores of all beams by a network, float32 (N, beams)."""
    return _said(encoder, network, users, visible, beams_of)


def _said(encoder: PathEncoder, network: PathWithHead, users: Users, visible: Tensor, says: Says) -> Tensor:
    whole = Whole(encoder.predictor, HeadSettings())
    return whole.says(network, whole.shown(encoder.seen(users, visible), users.scene), says)


def with_beams(encoder: PathEncoder, users: Users, visible: Tensor) -> Tensor:
    """[PHYSC], and the scores of all beams by the model's own spectrum, float32 (N, d + beams)."""
    said = encoder.predict(users, visible)
    return torch.cat((said.physc, beams_of_spectrum(said.spectrum)), 1)


def corrected_beams(
    features: tuple[Tensor, Tensor], width: int, beam: Tensor, labelled: Labelled, settings: HeadSettings
) -> Iterator[tuple[int, Tensor, float]]:
    """Head seed, scores (M, beams) of the test users and learning rate of heads that correct the model's own spectrum.

    `features` are those of `with_beams`, of training users, whose best beams are `beam`, int64 (N,), and of M test users; `width`
    is d.
    """
    known, queries = features
    beams = known.shape[1] - width

    def draw(head_seed: int) -> tuple[Tensor, Tensor]:
        index = labelled(head_seed)
        return Standardiser.of(known[index], beams)(known[index]), beam[index]

    def build() -> Correction:
        return Correction(width, beams, 1.0)

    for head_seed, head, rate in tuned(build, lambda _: F.cross_entropy, draw, settings):
        yield head_seed, apply(head, Standardiser.of(known[labelled(head_seed)], beams)(queries)), rate
