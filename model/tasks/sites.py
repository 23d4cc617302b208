"""Users of one scene and what localisation methods see of them: noisy visible patches, the same for every method."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.feasible import NotPossible, room_of, too_few_to_label
from wavecity.model.data.noise import add_noise, gaussian, noise_power
from wavecity.model.data.tokens import level, visible_rms
from wavecity.model.data.users import Samples, Users, WirelessData, collate, evenly
from wavecity.model.learning.baselines import nearest_neighbours
from wavecity.model.learning.finetune import EncoderWithHead, finetuned
from wavecity.model.learning.heads import Loss, distance
from wavecity.model.learning.selection import Trained
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Record
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.untrained import LEFT_OUT, physics_places

# Weight of a standard deviation of the level next to a fingerprint of norm 1; held-back labels choose.
LEVEL_WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
# Users that get noise, or become fingerprints, at a time.
CHUNK = 4096
# Streams of random numbers.
SPLIT, LABELS = 30, 31


@dataclass(frozen=True)
class Site:
    """Users of one scene with their noisy channels, in random order."""

    name: str  # Of the scene
    row: int  # Of the scene table
    users: Users
    tested: int  # The first so many are tested on; the others may be labelled
    seed: int

    @property
    def noise(self) -> Tensor:
        """Mean power of the noise of an entry, float64 (N,)."""
        return noise_of(self.users)

    @property
    def test(self) -> Users:
        """Users that are never labelled."""
        return self.users.at(torch.arange(self.tested))

    def labelled(self, count: int, head_seed: int) -> Tensor:
        """Users labelled for a seed, int64 (count,), in random order; more labels contain the fewer."""
        rng = np.random.default_rng([self.seed, LABELS, self.row, head_seed])
        return self.tested + torch.from_numpy(rng.permutation(len(self.users) - self.tested)[:count])


@dataclass(frozen=True)
class Views:
    """What the methods see of users, all from the same visible antennas."""

    physc: Tensor  # float32 (N, d); [PHYSC] of the pretrained model
    # float32 (N, v, 2); real and imaginary parts at the v visible antennas, scaled to an RMS of exp(level / 2): a CNN
    # can still read the level that the model is given, but weak users are not lost next to strong ones
    entries: Tensor
    prints: Tensor  # float32 (N, x * y); |DFT| of the zero-filled channel, norm 1
    level: Tensor  # float32 (N, 1); standardised level of the visible antennas, as the model is given it
    # float32 (N, d + 3); [PHYSC], where the model puts users and how unsure it is, if a head is to start from that
    placed: Tensor | None


class ZeroFilled(nn.Module):
    """Entries of visible antennas (B, v, 2) as an image (B, 2, x, y), zero elsewhere."""

    def __init__(self, shown: Tensor) -> None:
        super().__init__()
        self._index = shown.flatten().nonzero()[:, 0]
        self._shape = tuple(shown.shape)

    def forward(self, entries: Tensor) -> Tensor:
        """Lay out a batch."""
        image = entries.new_zeros(len(entries), 2, self._shape[0] * self._shape[1])
        image[:, :, self._index] = entries.transpose(1, 2)
        # Channels last: convolutions on a CPU take two thirds of the time.
        return image.unflatten(2, self._shape).contiguous(memory_format=torch.channels_last)


class Errors:
    """Distances between predicted and true places, and their medians as records of a metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._found: dict[tuple[Method, float, int], dict[str, Tensor]] = {}

    def add(self, method: Method, x: float, seed: int, site: Site, place: Tensor) -> None:
        """Note a method's places (tested, 2) of the tested users of a scene."""
        truth = site.users.position[: site.tested]
        self._found.setdefault((method, float(x), seed), {})[site.name] = (place - truth).norm(dim=-1)

    def add_physics(
        self, predictor: TaskModel, data: WirelessData, sites: Sequence[Site], visible: Tensor, most: int
    ) -> Facts:
        """Note where the physics localiser places them; or as a fact why it cannot, then of no scene."""
        users = Users.joined([site.test for site in sites])
        places, why = predictor.physics(users, visible), ""
        if places is None:
            places, why = physics_places(data, users, predictor.shown(visible), noise_of(users), most)
        if places is None:
            return {LEFT_OUT: why}
        for site, place in zip(sites, places.split([site.tested for site in sites]), strict=True):
            self.add(Method.PHYSICS, math.nan, 0, site, place)
        return {}

    def add_location_head(self, predictor: TaskModel, site: Site, visible: Tensor) -> None:
        """Note where the model's own location head places them, if it has learned to."""
        place = predictor.predict(site.test, visible, fill_csi=False).location
        if place is not None:
            self.add(Method.MODEL_LOCATION_HEAD, math.nan, 0, site, place)

    def records(self) -> list[Record]:
        """Medians over all scenes, then scene by scene, in m."""
        scenes = [None, *dict.fromkeys(name for found in self._found.values() for name in found)]
        records = []
        for scene in scenes:
            for (method, x, seed), found in self._found.items():
                errors = torch.cat(list(found.values())) if scene is None else found.get(scene)
                if errors is not None:
                    value, where = float(errors.median()), Condition(scene=scene)
                    records.append(Record(self._metric, method, value, seed, len(errors), x, where))
        return records


def choose_scenes(
    samples: Samples, wanted: int, limit: int, labels: Sequence[int], tested: float, name: str, key: str
) -> tuple[list[int], tuple[int, ...]]:
    """Scenes with users enough for the most numbers of labels, and the numbers that every one of them can give.

    Of the test split's samples, `wanted` scenes, evenly spread over those that are as large as needed, as rows of the
    scene table; of each at most `limit` users, of which a share `tested` is never labelled. The numbers of labels
    ascend; where not one can be met, `name` is the dataset, and `key` where they stand in the recipe, below
    `training.evaluation`, in the error.
    """
    rows, users = np.unique(samples.scene_index, return_counts=True)
    if why := too_few_to_label(users, limit, labels, tested, key):
        raise NotPossible(f"{name}: {why}")
    asked = np.unique(labels)
    met = (asked <= room_of(users, limit, tested)[:, None]).sum(1)
    least = max(np.sort(met)[::-1][min(wanted, len(met)) - 1], 1)
    large = np.flatnonzero(met >= least)
    picked = large[evenly(len(large), wanted).numpy()]
    return [int(row) for row in rows[picked]], tuple(int(count) for count in asked[: met[picked].min()])


def site_facts(
    sites: Sequence[Site], counts: Sequence[int], asked: Sequence[int], settings: EvaluationSettings
) -> Facts:
    """Sample sizes of an evaluation on sites, with `counts` of the label numbers `asked` for."""
    return {
        "scenes": [site.name for site in sites],
        "users_a_scene": [len(site.users) for site in sites],
        "test_users_a_scene": [site.tested for site in sites],
        "labels_a_scene": list(counts),
        "labels_left_out": sorted(set(asked) - set(counts)),
        "held_back_share_of_labels": settings.heads.held_back,
        "snr_db": settings.localization.snr,
        "head_seeds": settings.heads.seeds,
    }


def silhouettes(facts: Facts) -> list[Record]:
    """Records of how well groups of users are separated in [PHYSC] and in raw CSI, where there is a silhouette."""
    found = {Method.PHYSC: facts["silhouette_physc"], Method.RAW: facts["silhouette_raw"]}
    return [
        Record(Metric.SILHOUETTE, method, value, 0, facts["tsne_users"])
        for method, value in found.items()
        if value is not None
    ]


def make_site(data: WirelessData, row: int, limit: int, tested: float, snr: float, seed: int) -> Site:
    """Draw users of a test scene, their noise, and those that are tested on."""
    samples = data.splits["test"]
    rng = np.random.default_rng([seed, SPLIT, row])
    index = rng.permutation(np.flatnonzero(samples.scene_index == row))[:limit]
    clean = collate(samples.__getitems__([int(user) for user in index]))
    users, count = with_noise(clean, snr, rng), max(round(tested * len(clean)), 1)
    return Site(data.scenes.names[row], row, users, count, seed)


def with_noise(users: Users, snr: float, rng: np.random.Generator) -> Users:
    """Add noise to the users' channels."""
    parts = users.csi.split(CHUNK)
    noisy = torch.cat([add_noise(part, snr, gaussian(rng, part.shape)) for part in parts])
    return replace(users, csi=noisy, noise=torch.cat([noise_power(part, snr) for part in parts]))


def noise_of(users: Users) -> Tensor:
    """Mean power of the noise of an entry, float64 (N,), of users who got some."""
    assert users.noise is not None
    return users.noise


def viewer(predictor: TaskModel, visible: Tensor) -> Callable[[Users], Views]:
    """Function from users to what the methods see of them."""
    shown = predictor.shown(visible)

    def look(users: Users) -> Views:
        seen = users.csi[:, shown]
        parts = torch.view_as_real(seen)
        # One "patch" of all visible entries: the level is the one that the model is given.
        rms = visible_rms(parts.flatten(1)[:, None], torch.zeros(len(users), 1, dtype=torch.int64))
        standardised = level(rms, predictor.statistics)
        scale = (standardised / 2).exp() / rms[:, None].float()
        return Views(
            physc=predictor.encode(users, visible),
            entries=parts * scale[..., None],
            prints=torch.cat([fingerprint(part, shown) for part in users.csi.split(CHUNK)]),
            level=standardised,
            placed=predictor.placed(users, visible),
        )

    return look


def trained_together(
    predictor: TaskModel,
    build: Callable[[], nn.Module],
    loss: Callable[[Tensor], Loss],
    draw: Callable[[int], tuple[Users, Tensor, Tensor]],
    visible: Tensor,
    settings: HeadSettings,
) -> Iterator[tuple[Method, Trained[EncoderWithHead]]]:
    """Encoder and head, `finetuned` from the pretrained model and from random weights; neither without steps."""
    starts = {Method.PHYSC_FINE_TUNED: lambda _: predictor, Method.TWIN: predictor.untrained}
    for method, start in starts.items() if settings.finetune_steps else ():
        for trained in finetuned(start, build, loss, draw, visible, settings):
            yield method, trained


def csi_facts(predictor: TaskModel, visible: Tensor) -> Facts:
    """How much of the CSI is seen."""
    return {"csi_patches_seen": len(visible), "csi_patches": predictor.csi_patches}


def with_level(view: Views, weight: float) -> Tensor:
    """Fingerprints with the weighted level as one more feature, (N, x * y + 1)."""
    return torch.cat((view.prints, weight * view.level), 1)


def level_weight(view: Views, position: Tensor, known: Tensor, held_back: Tensor) -> float:
    """Weight of the level with which the neighbours among `known` place the held-back users best."""

    def loss(weight: float) -> float:
        prints = with_level(view, weight)
        places = nearest_neighbours(prints[known], position[known], prints[held_back])
        return float(distance(places, position[held_back]))

    return min(LEVEL_WEIGHTS, key=loss)
