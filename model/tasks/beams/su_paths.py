"""SU-MIMO of the path model: beam pairs from the channels and the [PHYSC] tokens of a user's antennas.

As `wavecity.model.tasks.beams.su_mimo`: the same users, labels, antennas and rates. The model sees the antennas of a user one by
one. Without a label the pairs are searched on the channels that it fills in, as on those of every other estimator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.data.tokens import visible_antennas
from wavecity.model.data.users import Rows, Users, WirelessData, with_antennas
from wavecity.model.learning.baselines import omp
from wavecity.model.multimodal.inference import pilot_patches
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.path_model.front import SPARSE_ANTENNAS, Fronts, front
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import channel_of
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.results.names import Method
from wavecity.model.results.records import Findings
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.beams.mu_mimo import FEW_PATHS
from wavecity.model.tasks.beams.probes import label_counts, label_facts
from wavecity.model.tasks.beams.receivers import in_chunks, link_facts, link_of, receivers, seen_at
from wavecity.model.tasks.beams.su_pairs import PairLabels, ServedUsers, pair_magnitudes, two_probes
from wavecity.model.tasks.beams.su_precoding import su_bound, su_labels


@dataclass(frozen=True)
class Seen(Rows):
    """What is made of N channels, one for each antenna of a user."""

    physc: Tensor  # float32 (N, d)
    filled: Tensor  # complex64 (N, x, y); what the model fills in
    waves: Tensor  # complex64 (N, x, y); what the recovered waves make up


def su_mimo_of_paths(predictor: PathPredictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Accuracy of beams and rate of two streams, without labels and with shares of the training labels.

    The seed is that of pilots; the heads' seeds choose labels, weights and batches. Waves are recovered for every antenna of
    every user, of which `su_mimo.users` are trained on at most.

    Raises
    ------
    InputError
        A store without paths, or no share gives labels enough.
    """
    config = settings.su_mimo
    shape, link = (config.columns, config.rows), link_of(config.link)
    train, train_csi = receivers(data, "train", config.users, *shape)
    test, test_csi = receivers(data, "test", config.test_users, *shape)
    counts = label_counts(config.ratios, len(train), data.name, "su_mimo.ratios")
    labels = PairLabels.of(su_labels(train_csi, shape, link), train_csi, seed)
    _, _, columns, rows = test_csi.shape
    patch = predictor.cache.patch
    visible = pilot_patches(columns * rows // patch**2, config.csi, seed)
    shown = visible_antennas(visible, columns, rows, patch)
    (train_seen, train_noise), (test_seen, noise) = (
        seen_at(csi, config.snr, seed, part) for part, csi in enumerate((train_csi, test_csi))
    )
    tested = seen_of(predictor, test, test_seen, noise, shown)
    served = ServedUsers(test_csi, shape, link)
    for method, estimate in _estimates(tested, test_seen, noise, shown):
        served.add(method, su_labels(estimate.unflatten(0, test_csi.shape[:2]), shape, link))
    served.add_rate(Method.EXHAUSTIVE_SEARCH, served.label)

    trained = seen_of(predictor, train, train_seen, train_noise, shown)
    features = {
        Method.PHYSC_PROBE: tuple(
            part.physc.reshape(len(csi), -1) for part, csi in ((trained, train_csi), (tested, test_csi))
        ),
        Method.DFT_PROBE: tuple(
            in_chunks(lambda part: pair_magnitudes(part, shown, shape), csi) for csi in (train_seen, test_seen)
        ),
    }
    rates: dict[Method, dict[str, dict[str, float]]] = {}
    for ratio, count in counts.items():
        for method, (known, queries) in features.items():
            for head_seed, pairs, rate in two_probes((known, queries), labels, count, settings.heads):
                served.add(method, pairs, ratio, head_seed)
                if head_seed == 0:
                    rates.setdefault(method, {})[f"{ratio:g}"] = rate
    facts = {
        **label_facts(train, test, counts, config.ratios, settings.heads),
        "receive_antennas": f"{config.columns} x {config.rows}, half a wavelength apart, isotropic, facing east",
        "csi_patches_seen": len(visible),
        "csi_patches": columns * rows // patch**2,
        "learning_rates": rates,
        "split": "labels of users of training scenes, at random; tested on scenes of the test split",
        "snr_of_csi_db": config.snr,
        **link_facts(config.link, test.csi),
        "fully_digital_bound": float(su_bound(test_csi, link).mean()),
    }
    return Findings(served.records, facts)


@torch.no_grad()
def seen_of(predictor: PathPredictor, users: Users, csi: Tensor, noise: Tensor, shown: Tensor) -> Seen:
    """What the front end and the model make of users with noisy channels (N, R, x, y), antenna by antenna: N * R rows.

    The noise, float64 (N,), is the same of all antennas of a user; `shown` is bool (x, y).
    """
    antennas, levels = with_antennas(users, csi), noise.repeat_interleave(csi.shape[1])
    order = [(antennas.scene == scene).nonzero()[:, 0] for scene in antennas.scene.unique().tolist()]
    parts = []
    for index in order:
        scene = int(antennas.scene[index[0]])
        around = surroundings(predictor.cache.store, scene)
        for some in index.split(predictor.batch_size):
            fronts = front(antennas.csi[some], shown, levels[some], around)
            parts.append(_said(predictor, fronts, scene))
    return Seen.joined(parts).at(torch.cat(order).argsort())


def _said(predictor: PathPredictor, fronts: Fronts, scene: int) -> Seen:
    scenes, count = predictor.scenes, len(fronts)
    sites = Sites(
        scenes.height[scene][None],
        torch.zeros(count, dtype=torch.int64),
        scenes.bs[scene].expand(count, -1),
        scenes.size,
    )
    outputs, radio = predictor.model(fronts, sites), predictor.model.radio
    return Seen(outputs.physc, channel_of(fronts, outputs.gate, radio), channel_of(fronts, fronts.found.float(), radio))


def _estimates(seen: Seen, csi: Tensor, noise: Tensor, shown: Tensor) -> Iterator[tuple[Method, Tensor]]:
    """Method and channels (N * R, x, y) of what needs no label, from channels (N, R, x, y) of which `shown` is seen."""
    flat = csi.flatten(0, 1)
    yield Method.MODEL_FILLED_CSI, seen.filled
    yield Method.WAVES, seen.waves
    # Brought to the gain of the whole array: how strong the second pair must be depends on it.
    gain = shown.numel() / int(shown.sum())
    yield Method.ZERO_FILLED_BEAM, torch.where(shown, gain * flat, torch.zeros((), dtype=flat.dtype))
    yield Method.OMP_4_BEAM, in_chunks(lambda part: omp(part, shown, FEW_PATHS)[0], flat)
    if int(shown.sum()) <= SPARSE_ANTENNAS:
        yield Method.SBL_BEAM, sparse_bayesian(flat, shown, noise.repeat_interleave(csi.shape[1]))
