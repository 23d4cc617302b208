"""Receivers of several antennas from a real store's paths, and beam pairs, against sums over paths and loops."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from synthetic_results import check_spec
from toy import ATTRIBUTES, make_arrays

from wavecity.dataset import InputError
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.layout import Layout
from wavecity.dataset.writer import write_unit
from wavecity.model.data.users import geometry_of, load_data
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.rows import frame_of, rows_of
from wavecity.model.settings.training import EvaluationSettings, HeadSettings, LinkSettings, TrainingSettings
from wavecity.model.tasks.beams import su_mimo as task
from wavecity.model.tasks.beams import su_pairs
from wavecity.model.tasks.beams.probes import Pool, probe
from wavecity.model.tasks.beams.receivers import panel_channels, receivers
from wavecity.model.tasks.beams.su_precoding import Pairs
from wavecity.raytrace.arrays import dft_codebook

SPLITS = ("train", "train", "validation", "train", "test", "test")
USERS = 14
MODEL = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "height_patch": 20, "spectrum_channels": 4}
HEADS = {"seeds": 2, "steps": 20, "batch_size": 32, "learning_rates": (3e-3, 3e-2)}
HEADS |= {"finetune_steps": 2, "finetune_batch": 4, "finetune_rates": (1e-3,)}
PATHS = ("gain", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth")


def random_paths(rng):
    """Three paths a user, towards the half space before the panel; the last user is in outage."""
    shape = (USERS, 3)
    gain = 1e-5 * (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * [1, 0.5, 0.2]
    gain[-1] = 0
    angles = [rng.uniform(*np.deg2rad(span), shape) for span in ((75, 115), (-150, -30), (60, 100), (-180, 180))]
    return dict(zip(PATHS, [gain.astype(np.complex64), *(angle.astype(np.float32) for angle in angles)], strict=True))


def channels(paths, antennas):
    """Channels (user, antenna, x, y) as sums of plane waves: panel facing south, antennas (R, 3) in wavelengths."""
    departure, arrival = (
        np.stack((np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)), -1)
        for zenith, azimuth in (
            (paths[f"{end}_zenith"].astype(float), paths[f"{end}_azimuth"].astype(float)) for end in ("aod", "aoa")
        )
    )
    place = np.arange(32) - 15.5
    result = np.zeros((*paths["gain"].shape[:1], len(antennas), 32, 32), np.complex128)
    for user, path in np.ndindex(paths["gain"].shape):
        wave = np.exp(1j * np.pi * departure[user, path, 0] * place)[:, None] * np.exp(
            -1j * np.pi * departure[user, path, 2] * place
        )
        phases = np.exp(2j * np.pi * antennas @ arrival[user, path])
        result[user] += paths["gain"][user, path] * phases[:, None, None] * wave
    return result


def write_store(folder, with_paths=True):
    """A finished draft of six scenes, and their paths."""
    layout = Layout(6, USERS, 32, 32, 3, 2, 200, 20, 2, 5, True, with_paths, -200.0)
    draft = open_draft(folder, "0123456789abcdef0123", layout)
    everything = {}
    for unit in range(3):
        scenes, outcomes = [], []
        for scene in layout.scenes_of(unit):
            rng = np.random.default_rng(scene)
            everything[scene] = paths = random_paths(rng)
            arrays = make_arrays(rng, USERS) | {f"paths/{name}": values for name, values in paths.items()}
            arrays["csi"] = channels(paths, np.zeros((1, 3)))[:, 0].astype(np.complex64)
            scenes.append(arrays if with_paths else {name: v for name, v in arrays.items() if "paths/" not in name})
            outcome = {"scene_id": f"s-{scene}", "city": "Toy", "country": "FI", "split": SPLITS[scene]}
            outcome |= {"n_users": USERS, "status": "done", "bs_shift": 0.0}
            outcomes.append(outcome)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    finish_draft(draft, ATTRIBUTES, {"map": {"name": "toy"}})
    return str(draft.folder), everything


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder, paths = write_store(tmp_path_factory.mktemp("su") / "store")
    return load_data(folder), paths


@pytest.fixture(scope="module")
def predictor(stored):
    settings = TrainingSettings.model_validate(
        {"model": MODEL, "losses": {"spectrum_form": "kl"}, "accelerator": "cpu"}
    )
    torch.manual_seed(3)
    model = FoundationModel(settings.model, geometry_of(stored[0], settings.model)).eval()
    return Predictor(model, settings, stored[0].statistics, stored[0], batch_size=16)


def settings_of(heads=(), **changes):
    values = {"ratios": (0.1, 0.5, 1.0)} | changes
    return EvaluationSettings.model_validate({"heads": HEADS | dict(heads), "su_mimo": values})


@pytest.fixture(scope="module")
def findings(predictor, stored):
    return task.su_mimo(predictor, stored[0], settings_of(), 5)


# Receivers


def test_one_isotropic_antenna_has_the_stored_channel(stored):
    data, _ = stored
    for split in ("train", "test"):
        users, csi = receivers(data, split, 10_000, 1, 1)
        assert csi.shape == (len(users), 1, 32, 32)
        scale = users.csi.abs().amax((1, 2), keepdim=True)
        torch.testing.assert_close(csi[:, 0] / scale, users.csi / scale, rtol=0, atol=2e-5)


def test_four_antennas_are_sums_of_plane_waves_over_both_panels(stored):
    """Antenna (column, row) of an upright panel facing east: columns go north, rows go down."""
    data, paths = stored
    users, csi = receivers(data, "test", 10_000, 2, 2)
    # The last user of each scene is in outage.
    assert users.scene.tolist() == [4] * (USERS - 1) + [5] * (USERS - 1)
    panel = np.array([[0, 0.5 * (c - 0.5), -0.5 * (r - 0.5)] for c in (0, 1) for r in (0, 1)])
    expected = np.concatenate([channels(paths[scene], panel)[:-1] for scene in (4, 5)])
    np.testing.assert_allclose(csi.numpy() / 1e-5, expected / 1e-5, atol=2e-4)
    flat = panel_channels(data, np.array([5, 4, 5]), np.array([3, 2, 0]), 3, 1)
    row = np.array([[0, 0.5 * (c - 1), 0] for c in range(3)])
    expected = np.stack([channels(paths[scene], row)[user] for scene, user in ((5, 3), (4, 2), (5, 0))])
    np.testing.assert_allclose(flat / 1e-5, expected / 1e-5, atol=2e-4)


def test_a_limit_takes_users_of_all_scenes(stored):
    users, csi = receivers(stored[0], "train", 9, 2, 1)
    assert csi.shape == (9, 2, 32, 32)
    assert users.scene.unique().tolist() == [0, 1, 3]
    # The panel's centre is the stored position: two antennas half a wavelength apart, up to the phase of each path.
    single = users.csi.abs().square().mean((1, 2))
    assert (csi.abs().square().mean((1, 2, 3)) < 12 * single).all()


def test_a_store_without_paths_is_named(tmp_path, stored):
    folder, _ = write_store(tmp_path / "plain", with_paths=False)
    with pytest.raises(InputError, match=r"stores no paths.*features\.paths: true"):
        receivers(load_data(folder), "test", 5, 2, 2)
    attributes = stored[0].attributes | {"fingerprint": "another"}
    with pytest.raises(InputError, match="was published since another was opened; evaluate again"):
        receivers(dataclasses.replace(stored[0], attributes=attributes), "test", 5, 2, 2)


# Labels, features and accuracies


def test_magnitudes_are_those_of_all_beam_pairs_of_the_zero_filled_channel(stored):
    _, csi = receivers(stored[0], "test", 4, 2, 2)
    shown = torch.zeros(32, 32, dtype=torch.bool)
    shown[4:12, 8:12] = True
    found = task.pair_magnitudes(csi, shown, (2, 2)).numpy()
    assert found.shape == (len(csi), 1024 + 8)
    transmit, receive = dft_codebook(32, 32).reshape(1024, -1).T, dft_codebook(2, 2).reshape(4, -1).T
    for user, h in enumerate(torch.where(shown, csi, torch.zeros(())).numpy().reshape(len(csi), 4, -1)):
        pairs = np.abs(receive.conj().T @ h.conj() @ transmit)
        pairs /= np.linalg.norm(pairs)
        parts = np.split(found[user], [1024, 1028])
        sums = (np.linalg.norm(pairs, axis=0), np.linalg.norm(pairs, axis=1), pairs.max(1))
        for part, expected in zip(parts, sums, strict=True):
            # The order of features is free.
            np.testing.assert_allclose(np.sort(part), np.sort(expected), atol=1e-5)


def greedy_pairs(h, snr):
    """Two pairs of one channel h (R, x, y) by eq. 25 with numpy's determinants: transmit beams, receive beams."""
    transmit, receive = dft_codebook(32, 32).reshape(1024, -1).T / 32, dft_codebook(2, 2).reshape(4, -1).T / 2
    table = receive.conj().T @ h.reshape(4, -1).conj() @ transmit
    rx, tx = np.unravel_index(np.abs(table).argmax(), table.shape)
    best, value = None, -1.0
    for r in set(range(4)) - {rx}:
        others = np.delete(np.arange(1024), tx)
        blocks = table[[rx, r]][:, np.stack((np.full(1023, tx), others), 1)].transpose(1, 0, 2)
        gains = np.linalg.det(np.eye(2) + snr / 2 * blocks @ blocks.conj().transpose(0, 2, 1)).real
        if gains.max() > value:
            best, value = (others[gains.argmax()], r), gains.max()
    return [tx, best[0]], [rx, best[1]]


def test_the_zero_filled_channel_is_searched_at_the_gain_of_the_whole_array(predictor, stored):
    users, csi = receivers(stored[0], "test", 12, 2, 2)
    users = dataclasses.replace(users, noise=torch.zeros(len(users), dtype=torch.float64))
    visible = predictor.pilots(0.05, 1)
    shown = predictor.shown(visible)
    link = task.link_of(LinkSettings(power_dbm=2))
    found = dict(task._unlabelled(predictor, users, csi, (2, 2), visible, link))[Method.ZERO_FILLED_BEAM]
    seen = torch.where(shown, csi, torch.zeros(())).numpy().astype(complex)
    snr = link.power / link.noise
    expected = [greedy_pairs(h * 64 / 3, snr) for h in seen]
    assert [[tx, rx] for tx, rx in zip(found.tx.tolist(), found.rx.tolist(), strict=True)] == [
        [list(map(int, tx)), list(map(int, rx))] for tx, rx in expected
    ]
    # At this power it matters.
    assert any(greedy_pairs(h, snr) != pairs for h, pairs in zip(seen, expected, strict=True))


def test_accuracies_of_pairs_counted_by_hand():
    label = Pairs(torch.tensor([[5, 9], [1, 2], [3, 4]]), torch.tensor([[0, 1], [2, 3], [1, 0]]))
    found = Pairs(torch.tensor([[9, 5], [1, 7], [8, 9]]), torch.tensor([[0, 1], [2, 0], [3, 2]]))
    assert su_pairs.found_share(found.tx, label.tx) == pytest.approx((2 + 1 + 0) / 6)
    assert su_pairs.found_share(found.rx, label.rx) == pytest.approx((2 + 1 + 0) / 6)
    csi = torch.randn(3, 4, 4, 4, dtype=torch.complex64)
    served = task.ServedUsers(csi, (2, 2), task.link_of(LinkSettings()))
    served.label = label
    served.add(Method.PHYSC_PROBE, found, 0.5, 1)
    values = {record.metric: record.value for record in served.records}
    # Only the second user's dominant beams are right at both labels.
    assert values[Metric.BEAM_PAIR] == pytest.approx(100 / 3)
    assert values[Metric.TRANSMIT_TOP2] == pytest.approx(50)
    rates = []
    for user, h in enumerate(csi.numpy().astype(complex)):
        # Eqs 27-29 with distinct orthogonal beams: singular values over normalised beams, half of the power each.
        beams = dft_codebook(4, 4).reshape(16, -1)[found.tx[user]].T / 4
        combiners = dft_codebook(2, 2).reshape(4, -1)[found.rx[user]].T / 2
        singular = np.linalg.svd(combiners.conj().T @ h.reshape(4, -1).conj() @ beams, compute_uv=False)
        rates.append(np.log2(1 + served.link.power / served.link.noise / 2 * singular**2).sum())
    assert values[Metric.SU_RATE] == pytest.approx(np.mean(rates), rel=1e-6)


def test_probes_find_both_beams_and_which_one_leads():
    """Features say the two beams and their order; the target shares make the first one's output the highest."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 5, 400)
    second = (first + rng.integers(1, 5, 400)) % 5
    pairs = torch.from_numpy(np.stack((first, second), 1))
    features = torch.from_numpy(np.eye(5)[first] + 0.5 * np.eye(5)[second] + 0.03 * rng.normal(size=(400, 5))).float()
    pool = Pool.of(pairs[:300], 16, task.SHARES, 0)
    heads = HeadSettings(seeds=1, steps=200, learning_rates=(3e-2,))
    ((_, scores, _),) = probe((features[:300], features[300:]), pool, 300, heads)
    found = su_pairs.best_two(scores, scores).tx
    assert su_pairs.found_share(found, pairs[300:]) > 0.97
    assert (found == pairs[300:]).float().mean() > 0.95


def test_classifiers_that_stand_side_by_side_have_the_losses_of_two():
    pairs = Pairs(torch.tensor([[3, 5], [5, 9], [3, 9], [5, 3]]), torch.tensor([[0, 1], [2, 3], [1, 0], [0, 2]]))
    labels = task.PairLabels.of(pairs, torch.zeros(4, 4, 4, 4, dtype=torch.complex64), 0)
    assert labels.outputs == 3 + 4
    outputs = torch.randn(4, 7)
    transmit, receive = torch.zeros(4, 3), torch.zeros(4, 4)
    for user in range(4):
        for place, share in enumerate((2 / 3, 1 / 3)):
            transmit[user, [3, 5, 9].index(int(pairs.tx[user, place]))] += share
            receive[user, pairs.rx[user, place]] += share
    count = torch.tensor([3.0, 3.0, 2.0])
    weights = transmit / count.sqrt()
    expected = -(weights * outputs[:, :3].log_softmax(1)).sum() / weights.sum()
    expected = expected + torch.nn.functional.cross_entropy(outputs[:, 3:], receive)
    torch.testing.assert_close(labels.loss(labels.label)(outputs, labels.label), expected)
    best = labels.pairs(outputs)
    assert best.tx[:, 0].tolist() == [(3, 5, 9)[k] for k in outputs[:, :3].argmax(1).tolist()]
    assert best.rx[:, 0].tolist() == outputs[:, 3:].argmax(1).tolist()


# The task


def test_every_method_is_measured_at_every_ratio_with_labels_enough(findings):
    check_spec(task.SPECS[0], findings)
    frame = frame_of(findings.records)
    assert not frame.duplicated(["metric", "condition", "method", "x", "seed"]).any()
    assert frame["value"].notna().all()
    labelled, free = (
        {Method.PHYSC_PROBE, Method.PHYSC_FINE_TUNED, Method.RAW_PROBE, Method.DFT_PROBE, Method.TWIN},
        {Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.SBL_BEAM},
    )
    for metric in (Metric.RECEIVE_TOP2, Metric.TRANSMIT_TOP2, Metric.BEAM_PAIR, Metric.SU_RATE):
        here = frame[frame["metric"] == metric]
        by_method = dict(list(here.groupby("method")))
        assert set(by_method) == labelled | free | ({Method.EXHAUSTIVE_SEARCH} if metric == Metric.SU_RATE else set())
        for name in labelled:
            found = sorted(zip(by_method[name]["x"], by_method[name]["seed"], strict=True))
            assert found == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
        for name in free:
            assert by_method[name]["x"].isna().all()
    assert len(rows_of(frame)) == 4 * 2


def test_facts_are_plain_and_say_what_was_left_out(findings):
    facts = json.loads(json.dumps(findings.facts))
    assert facts["train_users"] == 3 * (USERS - 1)
    assert facts["test_users"] == 2 * (USERS - 1)
    assert facts["ratios_left_out"] == [0.1]
    assert facts["feature_width"] == {Method.PHYSC_PROBE: 64, Method.RAW_PROBE: 4 * 97, Method.DFT_PROBE: 1032}
    assert set(facts["learning_rates"][Method.PHYSC_PROBE]["0.5"]) == {"transmit", "receive"}
    rates = [record.value for record in findings.records if record.metric == Metric.SU_RATE]
    assert max(rates) <= facts["fully_digital_bound"]


def test_all_of_the_channel_gives_the_labels_without_labels(predictor, stored):
    settings = settings_of({"finetune_steps": 0, "seeds": 1}, csi=1.0, ratios=(1.0,))
    found = task.su_mimo(predictor, stored[0], settings, 0)
    values = {(record.metric, record.method): record.value for record in found.records}
    for metric in (Metric.RECEIVE_TOP2, Metric.TRANSMIT_TOP2, Metric.BEAM_PAIR):
        assert values[metric, Method.ZERO_FILLED_BEAM] == 100
    assert values[Metric.SU_RATE, Method.ZERO_FILLED_BEAM] == pytest.approx(
        values[Metric.SU_RATE, Method.EXHAUSTIVE_SEARCH]
    )
    # Three plane waves a user, all antennas seen: four waves of the pursuit come near.
    assert values[Metric.TRANSMIT_TOP2, Method.OMP_4_BEAM] > 80
    assert not {Method.PHYSC_FINE_TUNED, Method.TWIN} & {method for _, method in values}


def test_too_few_labels_are_named(predictor, stored):
    with pytest.raises(
        InputError,
        match=r"training\.evaluation\.su_mimo\.ratios: the largest, 0\.1, gives 4 labels of 39 training users",
    ):
        task.su_mimo(predictor, stored[0], settings_of(ratios=(0.1,)), 0)
