"""Small heads on frozen representations: localisation and beam prediction, each beside its raw-CSI baseline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.baselines import nearest_neighbours, omp, visible_antennas
from model.data import Users, WirelessData, gather
from model.foundation import FoundationModel
from model.inference import Predictor, add_noise, beams_of_spectrum, top_k_hits
from model.losses import spectrum
from model.reconstruction import fingerprint
from model.results import Row
from model.settings import EvaluationSettings
from model.tokens import csi_patches, take

# Share of the labelled users that decides when a head stops.
HELD_BACK = 0.2
PROBE_BATCH = 256


class LocationHead(nn.Module):
    """Paper's head: d -> 64 -> 64 -> 2, ReLU, tanh, scaled to the tile."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2), nn.Tanh()
        )
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(B, d) to (B, 2), m."""
        return self.scale * self.layers(features)


class LocationCnn(nn.Module):
    """Paper's raw-CSI baseline: conv-BN-ReLU-maxpool of 16, 32, 64 channels, average, 64 -> 32 -> 2, tanh."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((2, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh()
        )
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, x, y) to (B, 2), m."""
        return self.scale * self.layers(image)


def fit(
    build: Callable[[], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    train: tuple[Tensor, Tensor],
    held_back: tuple[Tensor, Tensor],
    settings: EvaluationSettings,
    seed: int,
) -> nn.Module:
    """Train a head; the step with the least loss on the held-back users wins. The same budget for every head.

    Parameters
    ----------
    build : callable
        Makes the head; called under the seed.
    loss : callable
        (output, label) -> scalar.
    train, held_back : (features, labels)
    settings : EvaluationSettings
    seed : int
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = build()
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.probe_learning_rate, weight_decay=1e-2)
    rng = np.random.default_rng([seed, 20])
    features, labels = train
    best, best_weights = float("inf"), {name: value.clone() for name, value in head.state_dict().items()}
    for step in range(1, settings.probe_steps + 1):
        head.train()
        index = torch.from_numpy(rng.permutation(len(features))[:PROBE_BATCH])
        optimiser.zero_grad()
        loss(head(features[index]), labels[index]).backward()
        optimiser.step()
        if step % 10 == 0 or step == settings.probe_steps:
            head.eval()
            with torch.no_grad():
                value = float(loss(head(held_back[0]), held_back[1]))
            if value < best:
                best, best_weights = value, {name: value.clone() for name, value in head.state_dict().items()}
    head.load_state_dict(best_weights)
    return head.eval()


def untrained(predictor: Predictor, data: WirelessData, seed: int) -> Predictor:
    """Build the same encoder with random weights: what the architecture gives without pretraining."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        model = FoundationModel(predictor.settings.model, predictor.model.geometry).eval()
    return Predictor(model, predictor.settings, predictor.statistics, data, predictor.batch_size)


def localization(
    predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int
) -> tuple[list[Row], dict[str, Any], dict[str, Any]]:
    """Scene-specific localisation on test scenes: a head for each scene, from some users of it with known positions.

    The scene and a share of the CSI at some signal-to-noise ratio are seen, the location is not; nothing of the scene
    is masked, so no mask can tell where a user is.
    """
    users = gather(data.splits["test"], None)
    rng = np.random.default_rng([seed, 30])
    visible = predictor.visible_patches(1 - settings.localization_csi, seed)
    geometry = predictor.model.geometry
    shown = visible_antennas(visible, geometry.columns, geometry.rows, predictor.settings.model.csi_patch)
    random_encoder = untrained(predictor, data, seed)
    errors: dict[str, list[Tensor]] = {}
    labels = tested = heads = 0
    scenes = [int(scene) for scene in users.scene.unique()][: settings.localization_scenes]
    for scene in scenes:
        here = torch.nonzero(users.scene == scene)[:, 0]
        here = here[torch.from_numpy(rng.permutation(len(here)))][: settings.max_users]
        if len(here) < 10:
            continue
        group = users.at(here)
        group = group.replace(csi=add_noise(group.csi, settings.localization_snr, rng), position=group.position)
        known = max(round(settings.localization_labels * len(group)), 5)
        labels, tested, heads = labels + known, tested + len(group) - known, heads + 1
        places = _localise(predictor, random_encoder, group, known, visible, shown, settings, seed)
        for name, place in places.items():
            errors.setdefault(name, []).append((place - group.position[known:]).norm(dim=-1))
    medians = {name: float(torch.cat(values).median()) for name, values in errors.items()}
    condition = (
        f"a head a scene, {settings.localization_csi:.0%} of the CSI at {settings.localization_snr:g} dB, "
        f"{labels / max(heads, 1):.0f} labels a scene"
    )
    rows = [Row("Localisation, median error", condition, "m", "lower", medians)] if medians else []
    facts = {"test_scenes": heads, "labels": labels, "test_users": tested}
    arrays = {f"error_{number}": torch.cat(values).numpy() for number, values in enumerate(errors.values())}
    return rows, facts, {**arrays, "names": np.array(list(errors))}


def _localise(
    predictor: Predictor,
    random_encoder: Predictor,
    group: Users,
    known: int,
    visible: Tensor,
    shown: Tensor,
    settings: EvaluationSettings,
    seed: int,
) -> dict[str, Tensor]:
    """Positions of the users after the first `known` of one scene, by every method."""
    scale = predictor.scenes.size
    stop = max(known - max(round(HELD_BACK * known), 1), 1)
    label = group.position

    def head_on(build: Callable[[int], nn.Module], features: Tensor) -> Tensor:
        features = _standardised(features, features[:stop])
        width = features.shape[1]
        head = fit(
            lambda: build(width),
            lambda place, truth: (place - truth).norm(dim=-1).mean(),
            (features[:stop], label[:stop]),
            (features[stop:known], label[stop:known]),
            settings,
            seed,
        )
        with torch.no_grad():
            return head(features[known:])

    predictions = predictor.predict(group, visible, fill_csi=False)
    masked = torch.where(shown, group.csi, torch.zeros((), dtype=group.csi.dtype))
    rms = masked[:, shown].abs().square().mean(1).sqrt().clamp_min(1e-30)
    image = torch.view_as_real(masked / rms[:, None, None]).permute(0, 3, 1, 2).contiguous()
    prints = fingerprint(group.csi, shown)
    places = {
        "[PHYSC] + MLP": head_on(lambda width: LocationHead(width, scale), predictions.physc),
        "raw CSI + CNN": head_on(lambda _: LocationCnn(scale), image),
        "untrained [PHYSC] + MLP": head_on(
            lambda width: LocationHead(width, scale), random_encoder.predict(group, visible, fill_csi=False).physc
        ),
        "kNN on |DFT|": nearest_neighbours(prints[:known], label[:known], prints[known:]),
        "mean of labelled users": label[:known].mean(0).expand(len(group) - known, -1),
    }
    if predictions.location is not None:
        places["model's location head, no labels"] = predictions.location[known:]
    return places


def _standardised(features: Tensor, reference: Tensor) -> Tensor:
    """Zero mean and unit deviation by the reference rows; images keep their scale (their RMS is one already)."""
    if features.ndim > 2:
        return features
    return (features - reference.mean(0)) / reference.std(0, correction=0).clamp_min(1e-6)


def beams(
    predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int
) -> tuple[list[Row], dict[str, Any], dict[str, Any]]:
    """Strongest of the DFT beams on test scenes, from a few CSI patches: linear probes with labels of training scenes.

    The location is hidden and nothing of the scene masked. Every user shows the same patches, as with fixed pilots.
    """
    train = _with_beam(gather(data.splits["train"], settings.beam_labels))
    held_back = _with_beam(gather(data.splits["validation"], settings.max_users))
    test = _with_beam(gather(data.splits["test"], settings.max_users))
    visible = predictor.visible_patches(settings.beam_mask, seed)
    geometry, patch = predictor.model.geometry, predictor.settings.model.csi_patch
    shown = visible_antennas(visible, geometry.columns, geometry.rows, patch)
    random_encoder = untrained(predictor, data, seed)
    predictions = [predictor.predict(users, visible, fill_csi=False) for users in (train, held_back, test)]

    def raw(users: Users) -> Tensor:
        patches = take(csi_patches(users.csi, patch), visible.expand(len(users), -1)).flatten(1)
        return patches / patches.square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)

    splits = (train, held_back, test)
    features = {
        "[PHYSC], linear probe": [prediction.physc for prediction in predictions],
        "raw visible CSI, linear probe": [raw(users) for users in splits],
        "|zero-filled DFT|, linear probe": [fingerprint(users.csi, shown) for users in splits],
        "untrained [PHYSC], linear probe": [
            random_encoder.predict(users, visible, fill_csi=False).physc for users in splits
        ],
    }
    scores = {name: _beam_probe(values, splits, settings, seed) for name, values in features.items()}
    if predictions[2].spectrum.shape[-2:] == (geometry.columns, geometry.rows):
        scores["model's spectrum, no labels"] = beams_of_spectrum(predictions[2].spectrum)
    zero_filled = torch.where(shown, test.csi, torch.zeros((), dtype=test.csi.dtype))
    rms = zero_filled.abs().square().sum((-2, -1), keepdim=True).sqrt().clamp_min(1e-30)
    scores["zero-filled DFT, no labels"] = beams_of_spectrum(spectrum(zero_filled / rms))
    for atoms in sorted({4, settings.omp_atoms}):
        scores[f"OMP, {atoms} paths, no labels"] = beams_of_spectrum(omp(test.csi, shown, atoms)[1])

    condition = f"{len(visible)} of {predictor.model.csi_patches} CSI patches, {len(train)} labels in training scenes"
    rows = []
    for k in (1, 5):
        hits = {name: 100 * top_k_hits(value, test.best_beam, k) for name, value in scores.items()}
        rows.append(
            Row(f"Strongest of {geometry.columns * geometry.rows} beams, top {k}", condition, "%", "higher", hits)
        )
    facts = {
        "labels": len(train),
        "classes_labelled": len(train.best_beam.unique()),
        "test_users": len(test),
        "test_scenes": len(test.scene.unique()),
        "feature_width": {name: values[0].shape[1] for name, values in features.items()},
    }
    return rows, facts, {}


def _with_beam(users: Users) -> Users:
    return users.at(torch.nonzero(users.best_beam >= 0)[:, 0])


def _beam_probe(
    features: list[Tensor], splits: tuple[Users, Users, Users], settings: EvaluationSettings, seed: int
) -> Tensor:
    """Scores (N, beams) of the test users by a linear probe with class-weighted cross-entropy.

    Only beams that some labelled user has get an output; the others score minus infinity.
    """
    train, held_back, test = (_standardised(values, features[0]) for values in features)
    classes, label, counts = splits[0].best_beam.unique(return_inverse=True, return_counts=True)
    weight = (1 / counts.float()) / (1 / counts.float()).mean()
    seen = torch.isin(splits[1].best_beam, classes)
    # With no labelled beam among the held-back users, the labelled ones decide when to stop.
    check = (held_back[seen], torch.searchsorted(classes, splits[1].best_beam[seen])) if seen.any() else (train, label)
    head = fit(
        lambda: nn.Linear(train.shape[1], len(classes)),
        lambda logits, truth: F.cross_entropy(logits, truth, weight),
        (train, label),
        check,
        settings,
        seed,
    )
    columns = max(int(users.best_beam.max()) for users in splits) + 1
    scores = torch.full((len(test), columns), float("-inf"))
    with torch.no_grad():
        scores[:, classes] = head(test)
    return scores
