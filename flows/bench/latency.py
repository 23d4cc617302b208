"""`wavecity bench latency`: how long it takes from a partial channel to where the user is, and what of it the network takes.

Sides, on the same users of one scene, with the same visible patches and noise:

- `front`: waves recovered and followed (`wavecity.model.path_model.front`), without any network;
- `network`: the path model on what `front` gave, with everything that it predicts but occupancy;
- `chain`: one after the other, as `wavecity.load(RUN).predict` does;
- `paper`: the encoder of the paper's profile, from the partial channel and the height map to [PHYSC] and spectrum;
- `physics`: the physics localiser, `wavecity.locate`.

All are PyTorch on the CPU. Networks have random weights, on which their time does not depend. In every round each side runs
once, in turns; with a batch of one, every round has another user, for some have more waves than others. Times are medians over
the rounds.

JSON keys: `milliseconds_<side>_<batch>` of a call, `milliseconds_a_user_<side>_<batch>`, `parameters` and `parameters_paper`,
`front_share_<batch>` of the chain, `walls`, `users`.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset.progress import track
from wavecity.flows.bench.measure import environment, median, table_of
from wavecity.flows.console import console
from wavecity.geo.errors import InputError
from wavecity.model.data.users import Users, WirelessData, evenly, gather, geometry_of, load_data
from wavecity.model.multimodal.network import FoundationModel, count_parameters
from wavecity.model.path_model.front import Draw, Fronts, front
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import PathModel
from wavecity.model.rays.locate import locate
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.export import DeployedEncoder
from wavecity.model.transformer import seeded_weights

SIDES = ("front", "network", "chain", "paper", "physics")
BATCHES = (1, 64)
SEED = 0
PACKAGES = ("torch", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    data : str or None
        Store whose users are taken; None builds a small one of Helsinki.
    scenes : int
        Of the store that is built.
    rounds : int
        In which the sides take turns.
    patches : int
        CSI patches that are seen.
    snr : float
        dB.
    threads : int
        Of torch; 0 for its own choice.
    """

    data: str | None = None
    scenes: int = 8
    rounds: int = 20
    patches: int = 16
    snr: float = 10.0
    threads: int = 1


@dataclass(frozen=True)
class Bench:
    """Users of one scene, and the models that are timed on them."""

    users: Users
    noise: Tensor  # float64 (N,)
    shown: Tensor  # bool (x, y)
    around: Surroundings
    height: Tensor  # float32 (rows, columns)
    bs: Tensor  # float32 (2,)
    size: float
    model: PathModel
    paper: DeployedEncoder

    def calls(self, index: Tensor) -> dict[str, Callable[[], object]]:
        """Each side as a function without arguments, of some users."""
        csi, noise, count = self.users.csi[index], self.noise[index], len(index)
        sites = Sites(self.height[None], torch.zeros(count, dtype=torch.int64), self.bs.expand(count, -1), self.size)
        parts, maps = torch.view_as_real(csi).contiguous(), self.height.expand(count, -1, -1)
        known = self.front(csi, noise)
        return {
            "front": lambda: self.front(csi, noise),
            "network": lambda: self.model(known, sites),
            "chain": lambda: self.model(self.front(csi, noise), sites),
            "paper": lambda: self.paper(parts, maps),
            "physics": lambda: locate(csi, self.shown, self.around, noise),
        }

    def front(self, csi: Tensor, noise: Tensor) -> Fronts:
        """What the path model is shown."""
        return front(csi, self.shown, noise, self.around)


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        Not a store, or one whose waves cannot be followed.
    """
    # Not above: Lightning, and Prefect for a build, take seconds to import.
    from wavecity.model.training.trainer import cpu_threads

    with tempfile.TemporaryDirectory() as folder, cpu_threads(options.threads), torch.no_grad():
        store = options.data or _built(Path(folder) / "store", options.scenes)
        bench = prepare(store, options)
        figures: dict[str, float] = {}
        for batch in BATCHES:
            for side, seconds in times(bench, batch, options.rounds).items():
                figures[f"milliseconds_{side}_{batch}"] = 1e3 * seconds
                figures[f"milliseconds_a_user_{side}_{batch}"] = 1e3 * seconds / batch
            figures[f"front_share_{batch}"] = (
                figures[f"milliseconds_front_{batch}"] / figures[f"milliseconds_chain_{batch}"]
            )
        figures |= {
            "parameters": count_parameters(bench.model),
            "parameters_paper": count_parameters(bench.paper.model),
            "walls": len(bench.around.walls.start),
            "users": len(bench.users),
            "patches": options.patches,
            "snr": options.snr,
            "rounds": options.rounds,
            "threads": options.threads or torch.get_num_threads(),
        }
    data = options.data or "helsinki, built"
    print_result(figures, data)
    return {**figures, "data": data, **environment(*PACKAGES)}


def _built(folder: Path, scenes: int) -> str:
    from wavecity.flows.bench.train import build_store

    return str(build_store(folder, scenes))


def prepare(store: str, options: Options) -> Bench:
    """The users of the test scene that has the most, and models of the default sizes."""
    settings = TrainingSettings()
    data = load_data(store, ("train", "test"))
    geometry = geometry_of(data, settings.model)
    scene = fullest(data)
    users = gather(data.splits["test"])
    users = users.at((users.scene == scene).nonzero()[:, 0])
    draw, patch = Draw(SEED, options.patches, options.snr), settings.model.csi_patch
    patches = geometry.columns * geometry.rows // patch**2
    if options.patches > patches:
        raise InputError(f"--patches {options.patches}: the array has {patches} of {patch} x {patch} antennas")
    noisy, noise = draw.noisy(users.csi, scene)
    shown = draw.shown(scene, geometry.columns, geometry.rows, patch)
    around = surroundings(store, scene)
    with seeded_weights(SEED):
        model = PathModel(settings.rays.model, geometry, around.radio).eval()
        encoder = FoundationModel(settings.model, geometry).eval()
    # One antenna of each patch, row by row.
    seen = shown[::patch, ::patch].flatten().nonzero()[:, 0]
    paper = DeployedEncoder(encoder, settings, data.statistics, seen).eval()
    where = (data.scenes.height[scene], data.scenes.bs[scene], data.scenes.size)
    return Bench(Users(noisy, *list(vars(users).values())[1:]), noise, shown, around, *where, model, paper)


def fullest(data: WirelessData) -> int:
    """The test scene with the most users, the first of equals."""
    rows, counts = np.unique(data.splits["test"].scene_index, return_counts=True)
    return int(rows[counts.argmax()])


def times(bench: Bench, batch: int, rounds: int) -> dict[str, float]:
    """Median seconds of a call of each side, with so many users in it."""
    count = len(bench.users)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    # The first round warms up.
    for number in track(range(rounds + 1), f"batch of {batch}"):
        # With fewer users than a batch has, some are in it more than once.
        index = evenly(count, batch) if batch <= count else torch.arange(batch) % count
        calls = bench.calls((index + number) % count)
        for side in SIDES if number % 2 else reversed(SIDES):
            started = time.perf_counter()
            calls[side]()
            seconds[side].append(time.perf_counter() - started)
    return {side: median(values[1:]) for side, values in seconds.items()}


def print_result(result: dict[str, float], data: str) -> None:
    """Print the table of sides and batches, and the summary."""
    table = table_of(("side",), (*(f"batch of {batch}, ms" for batch in BATCHES), "a user of these, ms"))
    for side in SIDES:
        cells = [f"{result[f'milliseconds_{side}_{batch}']:.1f}" for batch in BATCHES]
        table.add_row(side, *cells, f"{result[f'milliseconds_a_user_{side}_{BATCHES[-1]}']:.2f}")
    console.print(table)
    console.print(
        f"{result['parameters'] / 1e6:.2f} M parameters (paper's profile {result['parameters_paper'] / 1e6:.2f} M), "
        f"{result['patches']} patches at {result['snr']:g} dB, {result['walls']} walls, {result['threads']} thread(s), medians "
        f"of {result['rounds']} rounds; the front end takes {100 * result['front_share_1']:.0f} % of the chain with one user, "
        f"{100 * result[f'front_share_{BATCHES[-1]}']:.0f} % with {BATCHES[-1]}; {data}",
        soft_wrap=True,
    )
