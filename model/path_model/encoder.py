"""The path model on users whose noisy channels a task hands over, as `wavecity.model.learning.task_model.TaskModel` has it."""

import copy
import hashlib
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset.progress import stage, track
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import TINY, Statistics, squared, visible_antennas
from wavecity.model.data.users import Users, WirelessData, gather
from wavecity.model.multimodal.inference import Predictions, pilot_patches
from wavecity.model.path_model.front import SPARSE_ANTENNAS, Fronts, front
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import Outputs, PathModel, channel_of
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.results.names import Method
from wavecity.model.transformer import seeded_weights

# Users of a scene whose waves are recovered at a time: some seconds.
CHUNK = 32
# Fewer such chunks than this are not worth a process.
FEWEST = 16
# Of more batches than this the network's progress is shown.
MANY = 30
# Users whose levels are the scale of levels where a dataset has no statistics.
LEVELS = 1000


class SeenFronts:
    """Fronts of users by what is seen of them, computed once and kept in memory: 7 kB a user of 32 x 32 antennas.

    Parameters
    ----------
    store : str
        Whose scenes the users stand in.
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self._row: dict[bytes, int] = {}
        self._kept: Fronts | None = None

    def of(self, users: Users, shown: Tensor) -> Fronts:
        """Fronts of users, of whose noisy channels the antennas `shown`, bool (x, y), are seen."""
        keys = _keys(users, shown)
        missing = {key: row for row, key in enumerate(keys) if key not in self._row}
        if missing:
            self._add(list(missing), users.at(torch.tensor(list(missing.values()))), shown)
        assert self._kept is not None
        return self._kept.at(torch.tensor([self._row[key] for key in keys]))

    def _add(self, keys: list[bytes], users: Users, shown: Tensor) -> None:
        chunks = [
            part for row in users.scene.unique() for part in (users.scene == row).nonzero()[:, 0].split(CHUNK)
        ]  # int64 (n,) each, of one scene
        found: dict[int, Fronts] = {}
        with stage("recover and follow waves", len(users), "users") as progress:
            for number, fronts in self._computed([users.at(index) for index in chunks], shown):
                found[number] = fronts
                progress.advance(len(fronts))
        kept = [] if self._kept is None else [self._kept]
        self._kept = Fronts.joined([*kept, *(found[number] for number in range(len(chunks)))])
        for row in torch.cat(chunks).tolist():
            self._row[keys[row]] = len(self._row)

    def _computed(self, chunks: list[Users], shown: Tensor) -> Iterator[tuple[int, Fronts]]:
        """Number and fronts of chunks of users, in any order; in several processes where there are many."""
        workers = min(len(os.sched_getaffinity(0)), len(chunks) // FEWEST)
        if workers < 2:
            for number, users in enumerate(chunks):
                scene = _surroundings(self.store, int(users.scene[0]))
                yield number, front(users.csi, shown, _noise(users), scene)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            jobs = {
                pool.submit(
                    _front, self.store, int(users.scene[0]), users.csi.numpy(), shown.numpy(), _noise(users).numpy()
                ): number
                for number, users in enumerate(chunks)
            }
            for job in as_completed(jobs):
                found = {name: torch.from_numpy(values) for name, values in job.result().items()}
                yield jobs[job], Fronts(**found)


def _keys(users: Users, shown: Tensor) -> list[bytes]:
    """What the fronts of users depend on, in short."""
    where, seen = shown.numpy().tobytes(), users.csi[:, shown].numpy()
    return [
        hashlib.blake2b(where + repr(one).encode() + csi.tobytes(), digest_size=16).digest()
        for one, csi in zip(zip(users.scene.tolist(), _noise(users).tolist(), strict=True), seen, strict=True)
    ]


def _noise(users: Users) -> Tensor:
    return torch.zeros(len(users), dtype=torch.float64) if users.noise is None else users.noise


def _front(
    store: str, scene: int, csi: NDArray[np.complex64], shown: NDArray[np.bool_], noise: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Fronts of users of one scene, as arrays: tensors would go between processes through open files, too many of them."""
    seen, antennas, power = torch.from_numpy(csi), torch.from_numpy(shown), torch.from_numpy(noise)
    found = front(seen, antennas, power, _surroundings(store, scene))
    return {name: values.numpy() for name, values in vars(found).items()}


@lru_cache(maxsize=4)
def _surroundings(store: str, scene: int) -> Surroundings:
    return surroundings(store, scene)


@dataclass(frozen=True)
class PathEncoder:
    """A path model with the fronts of a task's users, and the scale of their levels."""

    predictor: PathPredictor
    statistics: Statistics
    fronts: SeenFronts

    @classmethod
    def of(cls, predictor: PathPredictor, data: WirelessData) -> "PathEncoder":
        """For the tasks on a dataset. Where it has no statistics of training users, levels are scaled by its own users."""
        statistics = data.statistics
        if not math.isfinite(statistics.csi_rms_db_mean):
            users = gather(next(iter(data.splits.values())), LEVELS)
            power = squared(users.csi.to(torch.complex128)).mean((1, 2))
            decibel = 10 * (power + TINY).log10()
            statistics = replace(
                statistics,
                csi_rms=float(power.mean().sqrt()),
                csi_rms_db_mean=float(decibel.mean()),
                csi_rms_db_std=float(decibel.std(correction=0)),
            )
        return cls(predictor, statistics, SeenFronts(predictor.cache.store))

    @property
    def model(self) -> PathModel:
        """The network."""
        return self.predictor.model

    @property
    def geometry(self) -> Geometry:
        """Sizes of the data."""
        return self.model.geometry

    @property
    def width(self) -> int:
        """Width d of [PHYSC]."""
        return self.model.settings.width

    @property
    def patch(self) -> int:
        """Edge of a CSI patch in antennas."""
        return self.predictor.cache.patch

    @property
    def csi_patches(self) -> int:
        """Number of CSI patches of a channel."""
        return self.geometry.columns * self.geometry.rows // self.patch**2

    @property
    def size(self) -> float:
        """Edge of a tile, m."""
        return self.predictor.scenes.size

    @property
    def sparse_antennas(self) -> float:
        """Largest number of visible antennas at which sparse Bayesian learning is compared with: as in the front end."""
        return SPARSE_ANTENNAS

    def pilots(self, share: float, seed: int) -> Tensor:
        """Draw the visible CSI patches, int64 (v,), sorted: a share of all, at least one."""
        return pilot_patches(self.csi_patches, share, seed)

    def shown(self, visible: Tensor) -> Tensor:
        """Antennas of visible CSI patches int64 (v,), bool (x, y)."""
        return visible_antennas(visible, self.geometry.columns, self.geometry.rows, self.patch)

    def seen(self, users: Users, visible: Tensor) -> Fronts:
        """What the network is shown of users."""
        return self.fronts.of(users, self.shown(visible))

    def outputs(self, users: Users, visible: Tensor) -> tuple[Fronts, Outputs]:
        """What the network is shown of a batch, and what it says."""
        scenes, fronts = self.predictor.scenes, self.seen(users, visible)
        rows, index = users.scene.unique(return_inverse=True)
        sites = Sites(scenes.height[rows], index, scenes.bs[users.scene], scenes.size)
        return fronts, self.model(fronts, sites)

    def physc(self, users: Users, visible: Tensor) -> Tensor:
        """[PHYSC] of a batch, float32 (B, d), with gradients."""
        return self.outputs(users, visible)[1].physc

    def encode(self, users: Users, visible: Tensor) -> Tensor:
        """[PHYSC] of any number of users, without gradients."""
        return self.predict(users, visible).physc

    @torch.no_grad()
    def predict(self, users: Users, visible: Tensor, *, fill_csi: bool = False) -> Predictions:
        """[PHYSC], logarithm of the spectrum and best place of any number of users; neither CSI nor occupancy."""
        parts = []
        for _, outputs in self._batches(users, visible):
            parts.append(Predictions(outputs.physc, outputs.spectrum, None, outputs.location.best(), None))
        return Predictions.joined(parts)

    @torch.no_grad()
    def placed(self, users: Users, visible: Tensor) -> Tensor:
        """[PHYSC], where the model itself puts users, and how unsure it is of that, in m, float32 (N, d + 3)."""
        parts = []
        for _, outputs in self._batches(users, visible):
            location = outputs.location
            parts.append(torch.cat((outputs.physc, location.best(), location.spread()[:, None]), 1))
        return torch.cat(parts)

    def physics(self, users: Users, visible: Tensor) -> Tensor:
        """Where the physics localiser puts users, float32 (N, 2) in m; the middle of the tile where no wave comes down."""
        fronts = self.seen(users, visible)
        return torch.where(fronts.usable[:, :1], fronts.place[:, 0], -self.predictor.scenes.bs[users.scene])

    @torch.no_grad()
    def channels(self, users: Users, visible: Tensor) -> dict[Method, Tensor]:
        """Channels complex64 (N, x, y) that the model fills in, and those that the recovered waves make up."""
        filled, waves, radio = [], [], self.model.radio
        for fronts, outputs in self._batches(users, visible):
            filled.append(channel_of(fronts, outputs.gate, radio))
            waves.append(channel_of(fronts, fronts.found.float(), radio))
        return {Method.MODEL_FILLED_CSI: torch.cat(filled), Method.WAVES: torch.cat(waves)}

    def _batches(self, users: Users, visible: Tensor) -> Iterator[tuple[Fronts, Outputs]]:
        self.seen(users, visible)  # of all users at once, in several processes where they are many
        batches = torch.arange(len(users)).split(self.predictor.batch_size)
        for index in track(batches, "run the path model", unit="batches") if len(batches) > MANY else batches:
            yield self.outputs(users.at(index), visible)

    def copied(self) -> "PathEncoder":
        """The same with a copy of the network, whose weights may be changed; the fronts are shared."""
        return self.with_model(copy.deepcopy(self.model))

    def untrained(self, seed: int) -> "PathEncoder":
        """The same with random weights: what the architecture and the front end give without pretraining."""
        with seeded_weights(seed + 1):
            return self.with_model(PathModel(self.model.settings, self.geometry, self.model.radio).eval())

    def with_model(self, model: PathModel) -> "PathEncoder":
        """The same with another network of the same settings."""
        return replace(self, predictor=replace(self.predictor, model=model))
