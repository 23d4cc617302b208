"""What `front` finds of the users of a store, kept on disk: a file for each scene and draw, made once."""

import hashlib
import json
import multiprocessing
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from wavecity.dataset.files import atomic_path
from wavecity.dataset.height_maps import height_map_of
from wavecity.dataset.progress import stage
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.model.path_model.front import Draw, Fronts, front
from wavecity.model.path_model.maps import Sites
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings, buildings_of, radio_of, surroundings

# Fewer scenes than this are not worth a process.
FEWEST = 4
# Files that a reader keeps open: some megabytes each.
HELD = 256
# Arrays that are kept in half precision.
HALVED = ("log_spectrum",)
# Of the files: another where what is kept changes.
FORMAT = 2
# What is kept of a `DisturbedScene`, in its order.
DISTURBED = ("believed_shift", "believed_height", "panel_csi")


@dataclass(frozen=True)
class DisturbedScene:
    """A scene that is not as it is believed to be, or whose panel is not.

    Attributes
    ----------
    shift : float32 (2,)
        Where the base station is believed to be, from where it is, m.
    height : float32 (rows, columns) or None
        Height map, m; None where it is the store's.
    csi : complex64 (N, x, y) or None
        Channels of the scene's users at the panel as it is, without noise; None where they are the store's.
    """

    shift: Tensor
    height: Tensor | None
    csi: Tensor | None


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
        self._datasets: dict[str | None, xr.Dataset] = {}
        data = self._opened()
        self.counts = [int(count) for count in data["n_users"].values]
        self.size, self.cells = float(data.attrs["tile_size_m"]), data.sizes["row"]
        version = str(data.attrs.get("fingerprint", "")) or str(Path(store).resolve())
        key = hashlib.sha256(json.dumps([version, code(), patch, FORMAT]).encode()).hexdigest()
        self.folder = (folder or _cache()) / key[:20]
        self._held: OrderedDict[Path, Fronts] = OrderedDict()
        self._disturbed: OrderedDict[Path, DisturbedScene | None] = OrderedDict()

    def path(self, scene: int, draw: Draw) -> Path:
        """Where the users of a scene are kept."""
        snr = "none" if draw.snr is None else f"{draw.snr:g}dB"
        kind = f"draw{draw.number}" if draw.number else f"{draw.patches}-{snr}"
        if draw.wrong.key:
            kind += f"-wrong{draw.wrong.key}" + (f"-{draw.share:g}" if draw.number else "")
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
        true = surroundings(self.store, scene)
        for draw in draws:
            around, disturbed = self._disturb(scene, draw, true)
            noisy, noise, shown = self.seen(scene, draw)
            served = (noisy != 0).flatten(1).any(1)
            # A turned panel may serve nobody of a scene: then one is followed for the shapes alone.
            some = served if served.any() else torch.arange(len(served)) == 0
            found = front(noisy[some], shown, noise[some], around).at(served[some].nonzero()[:, 0])
            self._keep(scene, draw, found, served, shown, disturbed)

    def _disturb(self, scene: int, draw: Draw, true: Surroundings) -> tuple[Surroundings, DisturbedScene | None]:
        """A scene as it is believed to be under a draw, and what is wrong in it; None where nothing is."""
        wrong = draw.wrong_in(scene, true.radio)
        if not wrong.key:
            return true, None
        around, shift = wrong.surroundings(self.store, scene, draw.beliefs(scene))
        height = None
        if wrong.of_map:
            buildings = wrong.map(buildings_of(self.store, scene), draw.beliefs(scene))
            height = torch.from_numpy(height_map_of(buildings, self.size, self.cells))
        other = wrong.needs_paths or wrong.phase or wrong.gain
        csi = self.channels(scene, draw).to(torch.complex64) if other else None
        return around, DisturbedScene(torch.from_numpy(shift).float(), height, csi)

    def _keep(
        self,
        scene: int,
        draw: Draw,
        found: Fronts,
        served: Tensor,
        shown: Tensor,
        disturbed: DisturbedScene | None,
    ) -> None:
        arrays = {}
        for name, value in vars(found).items():
            whole = value.new_zeros(len(served), *value.shape[1:])
            whole[served] = value
            arrays[name] = (whole.half() if name in HALVED else whole).numpy()
        arrays["shown"] = shown.numpy()
        if disturbed is not None:
            parts = zip(DISTURBED, vars(disturbed).values(), strict=True)
            arrays |= {name: part.numpy() for name, part in parts if part is not None}
        path = self.path(scene, draw)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def channels(self, scene: int, draw: Draw) -> Tensor:
        """Channels (N, x, y) of a scene's users at the panel as it is under a draw, without noise."""
        data, users = self._opened(), slice(self.counts[scene])
        channels = torch.from_numpy(data["csi"].isel(scene=scene, user=users).values)
        if not draw.wrong.key:
            return channels
        wrong = draw.wrong_in(scene, self.radio)
        paths = self._opened("paths").isel(scene=scene, user=users).load() if wrong.needs_paths else None
        spacing = float(attributes_of(data.attrs)["array"]["spacing_wavelengths"])
        return wrong.channels(channels, paths, draw.errors(scene), spacing)

    def seen(self, scene: int, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy channels (N, x, y) of a scene's users, the noise's power (N,), and the antennas that are seen (x, y)."""
        channels = self.channels(scene, draw)
        noisy, noise = draw.noisy(channels, scene)
        _, columns, rows = channels.shape
        return noisy, noise, draw.shown(scene, columns, rows, self.patch)

    @property
    def radio(self) -> Radio:
        """True constants of the store's links."""
        return radio_of({**attributes_of(self._opened().attrs)}, self.store)

    def _opened(self, group: str | None = None) -> xr.Dataset:
        """The store, opened once: that takes as long as some hundred users of it."""
        if group not in self._datasets:
            self._datasets[group] = open_store(self.store, group)
        return self._datasets[group]

    def scene(self, scene: int, draw: Draw) -> Fronts:
        """All users of a scene, which must have been computed."""
        path = self.path(scene, draw)
        if path not in self._held:
            with np.load(path) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files if name not in DISTURBED}
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

    def disturbed(self, scene: int, draw: Draw) -> DisturbedScene | None:
        """What is wrong in a scene, which must have been computed, under a draw; None where nothing is."""
        if not draw.wrong.key:
            return None
        path = self.path(scene, draw)
        if path not in self._disturbed:
            with np.load(path) as file:
                parts = [torch.from_numpy(file[name]) if name in file else None for name in DISTURBED]
            shift, height, csi = parts
            self._disturbed[path] = None if shift is None else DisturbedScene(shift, height, csi)
            while len(self._disturbed) > HELD:
                self._disturbed.popitem(last=False)
        return self._disturbed[path]

    def received(self, csi: Tensor, scene: Tensor, user: Tensor, draw: Draw) -> Tensor:
        """Channels (B, x, y) of some users at the panel as it is under a draw, without noise; `csi` are the store's.

        `scene` and `user` are their scenes and their numbers there, int64 (B,) each.
        """
        if not draw.wrong.key:
            return csi
        csi = csi.clone()
        for row in scene.unique().tolist():
            disturbed = self.disturbed(row, draw)
            if disturbed is not None and disturbed.csi is not None:
                of = scene == row
                csi[of] = disturbed.csi[user[of].cpu()].to(csi)  # files are read to the CPU
        return csi

    def believed(self, sites: Sites, scene: Tensor, draw: Draw) -> tuple[Sites, Tensor]:
        """Maps and base stations as they are believed to be under a draw, and how far off the base stations are.

        Parameters
        ----------
        sites : Sites
            As they are.
        scene : int64 (B,)
            Of the users, in the store.

        Returns
        -------
        sites : Sites
        shift : float32 (B, 2)
            From where the base station is to where it is believed to be, m: a place relative to the latter is as far from
            the former as the two together.
        """
        if not draw.wrong.key:
            return sites, torch.zeros_like(sites.bs)
        rows, index = scene.cpu().unique(return_inverse=True)
        shifts, heights = [], []
        for number, row in enumerate(rows.tolist()):
            wrong = self.disturbed(row, draw)
            own = sites.height[sites.row[(index == number).nonzero()[0, 0]]]
            heights.append(own if wrong is None or wrong.height is None else wrong.height.to(own))
            shifts.append(torch.zeros(2) if wrong is None else wrong.shift)
        shift = torch.stack(shifts)[index].to(sites.bs)
        return Sites(torch.stack(heights), index.to(sites.row), sites.bs + shift, sites.size), shift

    def __getstate__(self) -> dict[str, object]:
        # Worker processes read by themselves.
        return {**self.__dict__, "_held": OrderedDict(), "_disturbed": OrderedDict(), "_datasets": {}}


@cache
def code() -> str:
    """SHA-256 of the modules that make fronts."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    settings = here.parent / "settings" / "disturbance.py"
    for path in (here / "front.py", settings, *sorted((here.parent / "rays").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavecity" / "fronts"
