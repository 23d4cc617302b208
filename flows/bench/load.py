"""`wavecity bench load`: shuffled samples per second of our reader and of three others on the same data.

A sample is all that is stored of a user and its scene: `FIELDS`. Every side gives shuffled batches of whole samples, in
numpy, from one process:

- ours: `wavecity.dataset.loader`, from the compressed shards;
- memmap: the same arrays decoded into plain files, gathered in a globally shuffled order; no decoding, but all the disk
  that the store saves, and no object storage; once into new arrays, as indexing gives them, and once (recycled) into
  memory that is used again, as our reader does it: without that, page faults cost more than the copying;
- naive: `array[scene, user]` of the Zarr arrays in a globally shuffled order;
- webdataset: a tar file of samples, read through a shuffle buffer.

The sides take turns within every round, each cold (its files dropped from the page cache) and then warm.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np

from wavecity.dataset.arrays import Batch, is_per_user, read_scenes
from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.features import scene_arrays
from wavecity.dataset.files import array_of, open_group
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.layout import Layout
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.progress import stage, track
from wavecity.dataset.records import Outcome
from wavecity.dataset.recycler import Recycler
from wavecity.dataset.users import Users, find_users
from wavecity.dataset.writer import write_unit
from wavecity.flows.bench.measure import environment, median, table_of
from wavecity.flows.console import console
from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.raytrace.settings import RadioSettings, SolverSettings

FIELDS = ("csi", "spectrum", "height", "occupancy", "user_position", "los", "best_beam")
SIDES = ("ours", "memmap", "memmap_recycled", "naive", "webdataset")
SPLIT = "train"
CORES = 2
UNIT = 16
USERS_PER_CHUNK = 64
MAX_PATHS = 16
# Of the decoded arrays, while they are copied.
SCENES_AT_A_TIME = 16
# Samples in the buffer through which WebDataset shuffles.
SHUFFLE_BUFFER = 1000
SEED = 0
PACKAGES = ("numpy", "zarr", "numcodecs", "webdataset")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    data : str or None
        Store whose train split is read; None builds one of Helsinki.
    scenes, users : int
        Of the store that is built; users are those of every scene.
    samples : int
        Samples of the tar file; a fifth of them is read naively. The other two read every user.
    batch : int
    window : int
        Units that our reader decodes together.
    rounds : int
    """

    data: str | None = None
    scenes: int = 128
    users: int = 400
    samples: int = 2000
    batch: int = 256
    window: int = 4
    rounds: int = 3


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        Not a store, a store on another machine or without one of the fields, or WebDataset is not installed.
    """
    if util.find_spec("webdataset") is None:
        msg = "bench load needs webdataset for comparison: pip install 'wavecity[test]'"
        raise InputError(msg)
    with tempfile.TemporaryDirectory() as folder, _cores():
        temporary = Path(folder)
        store = options.data or str(build_store(temporary / "store", options.scenes, options.users))
        users = find_users(store, SPLIT)
        if not isinstance(users.path, Path):
            msg = f"--data {store}: is not on this machine, so it cannot be dropped from the page cache; name a local folder"
            raise InputError(msg)
        reader = BatchReader(users, FIELDS, Order(options.batch, SEED, options.window))
        limit = min(options.samples, len(users))
        few = max(limit // 5, 1)
        plain = copy_arrays(reader, temporary / "memmap")
        tar = copy_samples(plain, users, limit, temporary / "samples.tar")
        sides: dict[str, tuple[Callable[[int], Iterator[Batch]], list[Path]]] = {
            "ours": (reader.batches, _files(users.path)),
            "memmap": (lambda turn: memmap_batches(plain, users, options.batch, turn), _files(plain)),
            "memmap_recycled": (
                lambda turn: memmap_batches(plain, users, options.batch, turn, Recycler(3)),
                _files(plain),
            ),
            "naive": (lambda turn: naive_batches(users, options.batch, few, turn), _files(users.path)),
            "webdataset": (lambda turn: webdataset_batches(tar, options.batch), [tar]),
        }
        rates: dict[str, dict[str, list[float]]] = {side: {"cold": [], "warm": []} for side in SIDES}
        with stage("rounds", options.rounds * len(SIDES) * 2, "passes") as bar:
            for turn in range(options.rounds):
                for side in SIDES:
                    batches, files = sides[side]
                    for state in ("cold", "warm"):
                        bar.advance(0, f"{side}, {state}")
                        if state == "cold":
                            drop_from_cache(files)
                        rates[side][state].append(measure(batches(2 * turn + (state == "warm"))))
                        bar.advance()
        store_bytes = sum(path.stat().st_size for name in FIELDS for path in _files(users.path / name))
        memmap_bytes = sum(path.stat().st_size for path in _files(plain))
        sample_bytes = sum(table[0].nbytes for table in open_memmaps(plain).values())
    figures = {
        **summary(rates),
        "scenes": len(np.unique(users.scene_index)),
        "samples": len(users),
        "samples_webdataset": limit,
        "samples_naive": few,
        "sample_bytes": sample_bytes,
        "store_bytes": store_bytes,
        "memmap_bytes": memmap_bytes,
        "batch": options.batch,
        "window": options.window,
        "rounds": options.rounds,
        "cores": min(CORES, os.cpu_count() or 1),
    }
    pipeline = type(next(iter(reader.arrays.values())).async_array.codec_pipeline).__name__
    print_result(figures, pipeline)
    return {
        **figures,
        "data": options.data or "helsinki, built",
        "pipeline": pipeline,
        **environment(*PACKAGES),
    }


def build_store(folder: Path, count: int, users: int) -> Path:
    """A store of real Helsinki scenes with channels of a 32 x 32 array, all of the train split; returns its draft.

    Where the map has fewer tiles, they come again with other users. Few rays: what is measured is reading.
    """
    from wavecity.flows.bench.scenes import pick_scenes

    scenes = pick_scenes(("helsinki",), count, users, folder / "maps")
    radio = RadioSettings()
    layout = Layout(
        scenes=len(scenes),
        users=users,
        columns=radio.columns,
        rows=radio.rows,
        paths=MAX_PATHS,
        bounces=2,
        height_cells=scenes[0].height.shape[0],
        occupancy_patches=scenes[0].occupancy.shape[0],
        unit=UNIT,
        users_per_chunk=USERS_PER_CHUNK,
        with_spectrum=True,
        with_paths=True,
        gain_floor=SolverSettings().gain_floor,
    )
    draft = open_draft(folder, "0" * 64, layout)
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as pool:
        tasks = [
            pool.submit(_fill_unit, draft, unit, [scenes[scene] for scene in layout.scenes_of(unit)])
            for unit in range(layout.units)
        ]
        for task in track(tasks, "store", unit="units"):
            task.result()
    finish_draft(draft, {"frequency_hz": radio.frequency}, {"map": {"name": "helsinki"}})
    return Path(str(draft.data))


def _fill_unit(draft: Draft, unit: int, scenes: list[Scene]) -> None:
    """Trace the scenes of one unit and write it."""
    from wavecity.raytrace import backend

    backend.prepare(threads=1)
    from wavecity.raytrace.channels import csi
    from wavecity.raytrace.simulate import simulate

    radio = RadioSettings()
    solver = SolverSettings(max_depth=2, rays=20_000, max_paths=MAX_PATHS)
    arrays: list[Batch] = []
    outcomes: list[Outcome] = []
    for scene in scenes:
        channels = simulate(scene, radio, solver, SEED)
        arrays.append(scene_arrays(scene, channels, csi(channels, radio)))
        outcomes.append(
            {"scene_id": scene.id, "city": scene.city, "split": SPLIT, "n_users": len(scene.users), "status": "done"}
        )
    write_unit(draft, unit, arrays, outcomes, {"seed": SEED})


def copy_arrays(reader: BatchReader, folder: Path) -> Path:
    """Decode the fields into plain files: of users (N, ...), of scenes (S, ...); returns the folder."""
    folder.mkdir()
    scenes, row = np.unique(reader.users.scene_index, return_inverse=True)
    tables = {}
    for name, array in reader.arrays.items():
        shape = (len(row), *array.shape[2:]) if is_per_user(array) else (len(scenes), *array.shape[1:])
        tables[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", array.dtype, shape)
    for start in track(range(0, len(scenes), SCENES_AT_A_TIME), "copy to memmap"):
        some = scenes[start : start + SCENES_AT_A_TIME]
        first, stop = np.searchsorted(row, [start, start + len(some)])
        for name, values in read_scenes(reader.arrays, some).items():
            if is_per_user(reader.arrays[name]):
                tables[name][first:stop] = values[row[first:stop] - start, reader.users.user_index[first:stop]]
            else:
                tables[name][start : start + len(some)] = values
    for table in tables.values():
        table.flush()
    return folder


def open_memmaps(folder: Path) -> Batch:
    """Memory maps as plain arrays, whose indexing is the quicker one."""
    return {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in FIELDS}


def copy_samples(plain: Path, users: Users, count: int, path: Path) -> Path:
    """Write samples, drawn at random, to a tar file in WebDataset's layout: one `.npy` per field."""
    import webdataset

    tables = open_memmaps(plain)
    _, row = np.unique(users.scene_index, return_inverse=True)
    chosen = np.random.default_rng(SEED).permutation(len(users))[:count]
    with webdataset.TarWriter(str(path)) as writer:
        for index in track(chosen, "copy to tar", unit="samples"):
            sample = {
                f"{name}.npy": table[index if len(table) == len(users) else row[index]]
                for name, table in tables.items()
            }
            writer.write({"__key__": f"{index:08d}", **{name: np.asarray(value) for name, value in sample.items()}})
    return path


def memmap_batches(plain: Path, users: Users, batch: int, turn: int, memory: Recycler | None = None) -> Iterator[Batch]:
    """Batches in a globally shuffled order, gathered as our reader gathers them."""
    # Mapped anew for every pass: what is mapped cannot be dropped from the page cache.
    tables = open_memmaps(plain)
    memory = memory or Recycler(0)
    _, row = np.unique(users.scene_index, return_inverse=True)
    order = np.random.default_rng([SEED, turn]).permutation(len(users))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        gathered = {}
        for name, table in tables.items():
            rows = chosen if len(table) == len(users) else row[chosen]
            out = memory.empty(name, (len(rows), *table.shape[1:]), table.dtype)
            gathered[name] = np.take(table, rows, axis=0, out=out, mode="clip")
        del out
        yield gathered
        del gathered


def naive_batches(users: Users, batch: int, count: int, turn: int) -> Iterator[Batch]:
    """Batches of the first `count` users of a globally shuffled order, one indexing each."""
    group = open_group(users.path)
    arrays = {name: array_of(group, name) for name in FIELDS}
    order = np.random.default_rng([SEED, turn]).permutation(len(users))[:count]
    for start in range(0, count, batch):
        samples = []
        for index in order[start : start + batch]:
            scene, user = int(users.scene_index[index]), int(users.user_index[index])
            samples.append(
                {name: array[scene, user] if is_per_user(array) else array[scene] for name, array in arrays.items()}
            )
        yield {name: np.stack([np.asarray(sample[name]) for sample in samples]) for name in FIELDS}


def webdataset_batches(tar: Path, batch: int) -> Iterator[Batch]:
    """Batches of the tar file, shuffled through WebDataset's buffer."""
    import webdataset

    names = [f"{name}.npy" for name in FIELDS]
    samples = webdataset.WebDataset(str(tar), shardshuffle=False).shuffle(SHUFFLE_BUFFER).decode().to_tuple(*names)
    for columns in samples.batched(batch):
        yield {name: np.asarray(column) for name, column in zip(FIELDS, columns, strict=True)}


def measure(batches: Iterator[Batch]) -> float:
    """Samples per second, from asking for the first batch to the end of the last."""
    start = time.perf_counter()
    count = sum(len(batch["csi"]) for batch in batches)
    return count / (time.perf_counter() - start)


def drop_from_cache(files: list[Path]) -> None:
    """Drop the files from the page cache, after writing what is not on disk yet."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # not on macOS, where cold is as warm
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def summary(rates: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Medians of the rounds, and ratios of those.

    Parameters
    ----------
    rates : dict
        Side -> `cold` and `warm` -> samples per second of every round.
    """
    medians = {side: {state: median(values) for state, values in of.items()} for side, of in rates.items()}
    figures: dict[str, float] = {}
    for state, prefix in (("warm", ""), ("cold", "cold_")):
        figures[f"{prefix}samples_per_second"] = medians["ours"][state]
        for side in SIDES[1:]:
            figures[f"{prefix}samples_per_second_{side}"] = medians[side][state]
            figures[f"{prefix}ratio_to_{side}"] = medians["ours"][state] / medians[side][state]
    return figures


def print_result(result: dict[str, float], pipeline: str) -> None:
    """Print the table of sides and the summary."""
    table = table_of(("side",), ("samples/s warm", "ours / it", "samples/s cold", "ours / it"))
    for side in SIDES:
        suffix = "" if side == "ours" else f"_{side}"
        cells = [side]
        for prefix in ("", "cold_"):
            ratio = result.get(f"{prefix}ratio_to_{side}")
            cells += [f"{result[f'{prefix}samples_per_second{suffix}']:.0f}", f"{ratio:.2f}x" if ratio else ""]
        table.add_row(*cells)
    console.print(table)
    console.print(
        f"{result['samples']} samples of {result['scenes']} scenes, {result['sample_bytes'] / 1e3:.0f} kB each; store "
        f"{result['store_bytes'] / 1e6:.0f} MB, memmap {result['memmap_bytes'] / 1e6:.0f} MB; {result['cores']} cores, "
        f"{pipeline}",
        soft_wrap=True,
    )


def _files(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


@contextmanager
def _cores() -> Iterator[None]:
    """Run on `CORES` cores, where the system lets a process choose."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
