"""What `front` finds of the users of a store, kept on disk: a file for each scene and draw, made once."""

import hashlib
import json
import multiprocessing
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset.files import atomic_path
from wavecity.dataset.progress import stage
from wavecity.dataset.reader import open_store
from wavecity.model.path_model.front import Draw, Fronts, front
from wavecity.model.rays.surroundings import surroundings

# Fewer scenes than this are not worth a process.
FEWEST = 4
# Files that a reader keeps open: some megabytes each.
HELD = 256
# Arrays that are kept in half precision.
HALVED = ("log_spectrum",)


class FrontCache:
    """Fronts of the users of one store, computed where they are missing.

    Files lie below `folder` by the store's version, the code of the front end and the size of the CSI patches, so that what
    is stale is never read.

    Parameters
    ----------
    store : str
        Folder of a build, of a version, or a `.zarr`.
    patch : int
        Edge of a CSI patch in antennas.
    folder : Path, optional
        By default `wavecity/fronts` in the user's cache (XDG_CACHE_HOME).
    """

    def __init__(self, store: str, patch: int, folder: Path | None = None) -> None:
        self.store, self.patch = store, patch
        data = open_store(store)
        self.counts = [int(count) for count in data["n_users"].values]
        version = str(data.attrs.get("fingerprint", "")) or str(Path(store).resolve())
        key = hashlib.sha256(json.dumps([version, code(), patch]).encode()).hexdigest()
        self.folder = (folder or _cache()) / key[:20]
        self._held: OrderedDict[Path, Fronts] = OrderedDict()

    def path(self, scene: int, draw: Draw) -> Path:
        """Where the users of a scene are kept."""
        snr = "none" if draw.snr is None else f"{draw.snr:g}dB"
        kind = f"draw{draw.number}" if draw.number else f"{draw.patches}-{snr}"
        return self.folder / f"seed{draw.seed}-{kind}" / f"scene-{scene:06d}.npz"

    def fill(self, scenes: Iterable[int], draws: Sequence[Draw], workers: int = 0) -> None:
        """Compute what is missing, in so many processes (0: one for each core that may be used)."""
        missing: dict[int, list[Draw]] = {}
        for scene in sorted(set(scenes)):
            lacking = [draw for draw in draws if not self.path(scene, draw).exists()]
            if self.counts[scene] and lacking:
                missing[scene] = lacking
        if not missing:
            return
        files = sum(map(len, missing.values()))
        workers = min(workers or len(os.sched_getaffinity(0)), files // FEWEST, len(missing))
        with stage("recover and follow waves", len(missing), "scenes") as progress:
            if workers < 2:
                for scene, lacking in missing.items():
                    self.compute(scene, lacking)
                    progress.advance()
                return
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
                jobs = [pool.submit(self.compute, scene, lacking) for scene, lacking in missing.items()]
                for job in as_completed(jobs):
                    job.result()
                    progress.advance()

    def compute(self, scene: int, draws: Iterable[Draw]) -> None:
        """Compute and keep the users of one scene, whose walls are read once for all draws; those without a path are zeros."""
        around = surroundings(self.store, scene)
        for draw in draws:
            noisy, noise, shown = self.seen(scene, draw)
            served = (noisy != 0).flatten(1).any(1)
            self._keep(scene, draw, front(noisy[served], shown, noise[served], around), served, shown)

    def _keep(self, scene: int, draw: Draw, found: Fronts, served: Tensor, shown: Tensor) -> None:
        arrays = {}
        for name, value in vars(found).items():
            whole = value.new_zeros(len(served), *value.shape[1:])
            whole[served] = value
            arrays[name] = (whole.half() if name in HALVED else whole).numpy()
        arrays["shown"] = shown.numpy()
        path = self.path(scene, draw)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def seen(self, scene: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy channels (N, x, y) of a scene's users, the noise's power (N,), and the antennas that are seen (x, y)."""
        csi = open_store(self.store)["csi"].isel(scene=scene, user=slice(self.counts[scene])).values
        channels = torch.from_numpy(csi)
        noisy, noise = draw.noisy(channels, scene)
        _, columns, rows = channels.shape
        return noisy, noise, draw.shown(scene, columns, rows, self.patch)

    def scene(self, scene: int, draw: Draw) -> Fronts:
        """All users of a scene, which must have been computed."""
        path = self.path(scene, draw)
        if path not in self._held:
            with np.load(path) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files}
            arrays["shown"] = arrays["shown"].expand(len(arrays["found"]), -1, -1)
            self._held[path] = Fronts(
                **{name: value.float() if name in HALVED else value for name, value in arrays.items()}
            )
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(path)
        return self._held[path]

    def users(self, scene: Tensor, user: Tensor, draw: Draw) -> Fronts:
        """Some users: their scenes and their numbers there, int64 (B,) each."""
        order = scene.argsort(stable=True)
        rows, counts = scene[order].unique_consecutive(return_counts=True)
        parts = [
            self.scene(int(row), draw).at(user[index])
            for row, index in zip(rows, order.split(counts.tolist()), strict=True)
        ]
        return Fronts.joined(parts).at(order.argsort())

    def __getstate__(self) -> dict[str, object]:
        # Worker processes read by themselves.
        return {**self.__dict__, "_held": OrderedDict()}


@cache
def code() -> str:
    """SHA-256 of the modules that make fronts."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for path in (here / "front.py", *sorted((here.parent / "rays").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavecity" / "fronts"
