"""Beam pairs for a user of several antennas and the rate of two streams (section 4.1, Appendix C.2; Figure 7).

Labels are two pairs of a transmit and a receive beam by greedy exhaustive search over the whole channel
(`su_precoding.su_labels`). The methods see a few CSI patches of every receive antenna, the same ones for all; the model, made
for users of one antenna, gives a [PHYSC] token for each, and the tokens are concatenated. Test users are in scenes that
no method was trained on.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from wavecity.model.data.users import Users, WirelessData, with_antennas
from wavecity.model.figures.curves import draw_su
from wavecity.model.figures.parts import BARS, Part
from wavecity.model.learning.baselines import omp
from wavecity.model.learning.heads import classifier
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.results.claims import ABOUT, OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Findings
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.beams.link import Link
from wavecity.model.tasks.beams.mu_mimo import FEW_PATHS
from wavecity.model.tasks.beams.probes import label_counts, label_facts
from wavecity.model.tasks.beams.receivers import in_chunks, link_facts, link_of, raw_entries, receivers, seen_at
from wavecity.model.tasks.beams.su_pairs import SHARES, PairLabels, ServedUsers, pair_magnitudes, two_probes
from wavecity.model.tasks.beams.su_precoding import Pairs, su_bound, su_labels
from wavecity.model.tasks.paths import of_paths
from wavecity.model.tasks.sites import csi_facts, trained_together
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.untrained import sparse_channels


def su_mimo(predictor: TaskModel, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Accuracy of beams and rate against the share of the training labels that is used.

    Top-2 accuracy is the mean share of the two labelled beams that are among the two with the highest scores, in any
    order; the dominant pair is right where the highest score at either end is that of the first labelled pair. Rates
    are means over users (`su_precoding.su_rate`). Methods that take no labels have one record (x is not a number); of the
    path model these are also searches on the channels that it fills in, and on the recovered waves.
    Encoder and heads are not trained together when `heads.finetune_steps` is 0. Of the settings `su_mimo` and `heads`
    count. The seed is that of pilots; the heads' seeds choose labels, weights and batches.

    Raises
    ------
    InputError
        A store without paths, or no share gives labels enough.
    """
    config = settings.su_mimo
    shape = (config.columns, config.rows)
    link = link_of(config.link)
    train, train_csi = receivers(data, "train", config.users, *shape)
    test, test_csi = receivers(data, "test", config.test_users, *shape)
    counts = label_counts(config.ratios, len(train), data.name, "su_mimo.ratios")
    visible = predictor.pilots(config.csi, seed)
    served = ServedUsers(test_csi, shape, link)
    labels = PairLabels.of(su_labels(train_csi, shape, link), train_csi, seed)

    (train_seen, train_noise), (test_seen, test_noise) = (
        seen_at(csi, config.snr, seed, part) for part, csi in enumerate((train_csi, test_csi))
    )
    train, test = replace(train, noise=train_noise), replace(test, noise=test_noise)
    views = [_views(predictor, users, csi, shape, visible) for users, csi in ((train, train_seen), (test, test_seen))]

    def build() -> nn.Module:
        return classifier(train_csi.shape[1] * predictor.width, (), labels.outputs)

    def learned() -> Iterator[tuple[Method, float, int, Pairs, float | dict[str, float]]]:
        """Method, share of the labels, head seed, beams of the test users and learning rates of all that is trained."""
        for ratio, count in counts.items():
            for method in views[0]:
                features = (views[0][method], views[1][method])
                for head_seed, pairs, chosen in two_probes(features, labels, count, settings.heads):
                    yield method, ratio, head_seed, pairs, chosen

            def draw(head_seed: int, count: int = count) -> tuple[Users, Tensor, Tensor]:
                index = labels.transmit.labelled(count, head_seed)
                return train.at(index), train_seen[index], labels.label[index]

            for method, one in trained_together(predictor, build, labels.loss, draw, visible, settings.heads):
                yield method, ratio, one.seed, labels.pairs(one.network.outputs(test, test_seen)), one.rate

    rates: dict[Method, dict[str, float | dict[str, float]]] = {}
    for method, ratio, head_seed, pairs, rate in learned():
        served.add(method, pairs, ratio, head_seed)
        if head_seed == 0:
            rates.setdefault(method, {})[f"{ratio:g}"] = rate
    for method, pairs in _unlabelled(predictor, test, test_seen, shape, visible, link):
        served.add(method, pairs)
    served.add_rate(Method.EXHAUSTIVE_SEARCH, served.label)

    facts = {
        **label_facts(train, test, counts, config.ratios, settings.heads),
        "receive_antennas": f"{config.columns} x {config.rows}, half a wavelength apart, isotropic, facing east",
        "transmit_beams": labels.transmit.codebook,
        "transmit_beams_of_training_users": len(labels.transmit.classes),
        "receive_beams": labels.receive.codebook,
        "top_2_accuracy": "mean share of the two labelled beams that are among the two predicted",
        "target_shares_of_first_and_second_pair": list(SHARES),
        **csi_facts(predictor, visible),
        "feature_width": {name: values.shape[1] for name, values in views[0].items()},
        "learning_rates": rates,
        "split": "labels of users of training scenes, at random; tested on scenes of the test split",
        "snr_of_csi_db": config.snr,
        **link_facts(config.link, test.csi),
        "fully_digital_bound": float(su_bound(test_csi, link).mean()),
    }
    return Findings(served.records, facts)


def _views(
    predictor: TaskModel, users: Users, csi: Tensor, shape: tuple[int, int], visible: Tensor
) -> dict[Method, Tensor]:
    """What the probes read of users with channels (N, R, x, y), by method: float32 (N, width) each."""
    shown = predictor.shown(visible)
    antennas = with_antennas(users, csi)
    return {
        Method.PHYSC_PROBE: predictor.encode(antennas, visible).reshape(len(users), -1),
        Method.RAW_PROBE: raw_entries(predictor, antennas.csi, visible).reshape(len(users), -1),
        Method.DFT_PROBE: in_chunks(lambda part: pair_magnitudes(part, shown, shape), csi),
    }


def _unlabelled(
    predictor: TaskModel, users: Users, csi: Tensor, shape: tuple[int, int], visible: Tensor, link: Link
) -> Iterator[tuple[Method, Pairs]]:
    """Method and beams of what needs no labels: the labels' search, on channels estimated from what is seen (N, R, x, y)."""
    shown, antennas = predictor.shown(visible), with_antennas(users, csi)
    for method, channels in predictor.channels(antennas, visible).items():
        yield method, su_labels(channels.unflatten(0, csi.shape[:2]), shape, link)
    # Brought to the gain of the whole array: how strong the second pair must be depends on it.
    gain = shown.numel() / int(shown.sum())
    yield (
        Method.ZERO_FILLED_BEAM,
        su_labels(torch.where(shown, gain * csi, torch.zeros((), dtype=csi.dtype)), shape, link),
    )
    estimate = in_chunks(lambda part: omp(part, shown, FEW_PATHS)[0], antennas.csi)
    yield Method.OMP_4_BEAM, su_labels(estimate.unflatten(0, csi.shape[:2]), shape, link)
    sparse = sparse_channels(predictor, antennas.csi, shown, antennas.noise)
    if sparse is not None:
        yield Method.SBL_BEAM, su_labels(sparse.unflatten(0, csi.shape[:2]), shape, link)


TASK: TaskName = "su-mimo"
# The model at two receivers: fine-tuned as in the paper, or frozen where fine-tuning was left out.
_MODEL, _RAW = (Method.PHYSC_FINE_TUNED, Method.PHYSC_PROBE), (Method.RAW_PROBE,)
_FREE = (Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.SBL_BEAM)
_SIMPLE = (Method.DFT_PROBE, *_FREE)
CLAIMS = (
    Claim("su-receive", "7", "section 4.2, Figure 7a", "The receive beams are found more often than from raw CSI.",
          "points with the fewest labels", TASK, "gain",
          Select(Metric.RECEIVE_TOP2, _MODEL, _RAW, at="fewest", kind="absolute")),
    Claim("su-transmit", "7", "section 4.2, Figure 7b",
          "With few labels the transmit beams are found about 20 points more often.", "points with the fewest labels", TASK,
          "gain", Select(Metric.TRANSMIT_TOP2, _MODEL, _RAW, at="fewest", kind="absolute"), 20 * ABOUT),
    Claim("su-pair", "7", "section 4.2, Figure 7c",
          "With few labels the dominant pair of beams is found about 20 points more often.",
          "points with the fewest labels", TASK, "gain",
          Select(Metric.BEAM_PAIR, _MODEL, _RAW, at="fewest", kind="absolute"), 20 * ABOUT),
    Claim("su-rate", "7", "section 4.2, Figure 7d", "With 10 % of the data the sum-rate is nearly 42 % higher.",
          "relative gain with 10 % of the labels", TASK, "gain", Select(Metric.SU_RATE, _MODEL, _RAW, at=0.1), 42 * ABOUT),
    Claim("su-simple", "7", OURS,
          "The sum-rate is also above those of |zero-filled DFT|, the zero-filled DFT itself, OMP and SBL.",
          "relative gain over the best of the four, mean over the training ratios", TASK, "gain",
          Select(Metric.SU_RATE, _MODEL, _SIMPLE)),
    Claim("su-twin", "7", OURS, "Pretraining helps: the same encoder from scratch, with the same budget, is behind.",
          "relative gain in sum-rate, mean over the training ratios", TASK, "gain",
          Select(Metric.SU_RATE, _MODEL, (Method.TWIN,))),
)  # fmt: skip
# Of the path model besides.
PATH_CLAIMS = (
    *CLAIMS,
    Claim("su-filled", "7", OURS,
          "Without a label, beams searched on the channels that the path model fills in beat those of OMP, SBL and the "
          "zero-filled DFT.",
          "relative gain in sum-rate over the best of the three", TASK, "gain",
          Select(Metric.SU_RATE, (Method.MODEL_FILLED_CSI,), _FREE), seeds=1),
)  # fmt: skip
FIGURES = (
    Part("7", "Single-user MIMO", TASK,
         f"Top-2 accuracy is the mean share of the two labelled beams that are among the two predicted. {BARS}",
         draw_su, metric=Metric.SU_RATE, over_labels=True),
)  # fmt: skip
SPECS = (
    TaskSpec(TASK, "multimodal", "Beam pairs and rate of one user with several antennas", su_mimo,
             frozenset({"batch_size", "heads", "su_mimo"}),
             (Method.RAW_PROBE, Method.TWIN, *_SIMPLE, Method.EXHAUSTIVE_SEARCH), CLAIMS, FIGURES),
    TaskSpec(TASK, "rays", "Beam pairs and rate of one user with several antennas", of_paths(su_mimo),
             frozenset({"batch_size", "heads", "su_mimo"}),
             (Method.RAW_PROBE, Method.TWIN, Method.WAVES, *_SIMPLE, Method.EXHAUSTIVE_SEARCH), PATH_CLAIMS, FIGURES),
)  # fmt: skip
