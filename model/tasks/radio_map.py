"""Radio maps of unseen scenes: from height map and base station by a U-Net, from a hundredth of the cells, from distance alone.

The run's own model has no part in it: what is compared are baselines for models of radio maps, on a dataset that has them.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.dataset.radio_map_data import RadioMapDataset
from wavecity.model.data.users import evenly
from wavecity.model.learning.radio_maps import (
    FLOOR,
    Cells,
    DistanceFit,
    UNet,
    cells_of,
    kriging,
    radial_basis,
    squared_error,
)
from wavecity.model.learning.selection import TrainAt, train_seeds, train_selected
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Facts, Findings, Record
from wavecity.model.settings.tasks import Backbone, TaskName
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.transformer import seeded_weights

TASK: TaskName = "radio-map"
# Share of the open cells that interpolation knows, and the least number of them.
SHARE, FEWEST = 0.01, 5
# Largest numbers of scenes: tested, held back to choose rate and step, and that the fit by distance is made of.
TESTED, HELD_BACK, FITTED = 64, 16, 128
# Cells in a step of the network; each takes some 1.5 kB.
STEP_CELLS = 2**18
# Steps from one look at the scenes held back to the next; streams of random numbers.
LOOK, KNOWN, BATCHES = 25, 41, 42

Interpolate = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
INTERPOLATIONS: dict[Method, Interpolate] = {Method.RBF: radial_basis, Method.KRIGING: kriging}


def radio_map(store: str, settings: EvaluationSettings, seed: int) -> Findings:
    """Path gain of the open cells of test scenes, by all methods on the same cells: those that interpolation is not given.

    Of the settings `heads` counts: seeds, and the steps, batches and rates of fine-tuning, with which the U-Net is trained from
    random weights on the train split; scenes of the validation split choose rate and step. Without such steps it is left out.

    Parameters
    ----------
    store : str
        Built with `features.radio_map`, the path gain among its metrics.
    settings : EvaluationSettings
    seed : int
        Of the cells that interpolation is given.

    Raises
    ------
    InputError
        A store without radio maps of the path gain, or a split without scenes.
    """
    splits = {name: RadioMapDataset(store, name, ("path_gain",)) for name in ("train", "validation", "test")}
    train, test = splits["train"], splits["test"]
    fit = _fit(train)
    rows = evenly(len(test), min(TESTED, len(test))).tolist()
    known = {row: _known(_cells(test, [row]), seed, int(test.scene_index[row])) for row in rows}
    tested = sum(int((_cells(test, [row]).open & ~known[row]).sum()) for row in rows)
    errors = {Method.DISTANCE_FIT: _errors(test, known, lambda cells, _: fit(cells.distance))}
    for method, interpolate in INTERPOLATIONS.items():
        errors[method] = _errors(test, known, partial(_interpolated, interpolate=interpolate))
    records = [record for method, error in errors.items() for record in _records(method, error, seed)]
    if settings.heads.finetune_steps:
        for trained in train_seeds(
            settings.heads.seeds, settings.heads.finetune_rates, _trainer(splits, fit, settings.heads)
        ):
            with torch.no_grad():
                error = _errors(test, known, partial(_by_network, network=trained.network))
            records += _records(Method.UNET, error, trained.seed)
    trained_in = set(train.cities)
    facts: Facts = {
        "test_scenes": len(rows),
        "test_cities": sorted({test.cities[row] for row in rows}),
        "test_cities_trained_on": sorted({test.cities[row] for row in rows} & trained_in),
        "train_scenes": len(train),
        "tested_cells": tested,
        "known_cells": sum(int(shown.sum()) for shown in known.values()),
        "cell_m": test.attrs["radio_map"]["spacing_m"],
        "floor_db": FLOOR,
        "path_loss_exponent": round(-fit.slope / 10, 3),
        "gain_at_1_m_db": round(fit.intercept, 2),
    }
    return Findings(records, facts)


def _cells(maps: RadioMapDataset, rows: list[int]) -> Cells:
    """Cells of some scenes."""
    grid = maps.attrs["radio_map"]
    return cells_of([maps[row] for row in rows], grid["spacing_m"], grid["receiver_height_m"])


def _fit(train: RadioMapDataset) -> DistanceFit:
    """Fit of the path gain by distance alone, over training scenes."""
    distance, gain = [], []
    for row in evenly(len(train), min(FITTED, len(train))).tolist():
        cells = _cells(train, [row])
        distance.append(cells.distance[cells.open].numpy())
        gain.append(cells.gain[cells.open].numpy())
    if not sum(map(len, gain)):
        msg = "no cell of the training scenes is on open ground; give other scenes"
        raise InputError(msg)
    return DistanceFit.of(np.concatenate(distance), np.concatenate(gain))


def _known(cells: Cells, seed: int, scene: int) -> Tensor:
    """Cells that interpolation is given, bool (1, rows, columns): a share of the open ones, at random."""
    places = cells.open.flatten().nonzero()[:, 0].numpy()
    count = min(max(round(SHARE * len(places)), FEWEST), len(places))
    chosen = np.random.default_rng([seed, KNOWN, scene]).choice(places, count, replace=False)
    known = torch.zeros(cells.open.numel(), dtype=torch.bool)
    known[torch.from_numpy(chosen)] = True
    return known.view(cells.open.shape)


def _interpolated(cells: Cells, known: Tensor, interpolate: Interpolate) -> Tensor:
    """Path gain of all cells of a scene from some of it: what differs from a fit by distance to these is interpolated."""
    fit = DistanceFit.of(cells.distance[known].numpy(), cells.gain[known].numpy())
    rest = (cells.gain - fit(cells.distance))[known].double().numpy()
    found = fit(cells.distance)
    added = interpolate(cells.place[known].double().numpy(), rest, cells.place[cells.open].double().numpy())
    found[cells.open] += torch.from_numpy(added).float()
    return found.clamp_min(FLOOR)


def _by_network(cells: Cells, known: Tensor, network: UNet) -> Tensor:
    """Path gain of all cells of a scene by the U-Net, which is not given those that are known."""
    found: Tensor = network(cells)
    return found.clamp_min(FLOOR)


def _errors(
    test: RadioMapDataset, known: dict[int, Tensor], predict: Callable[[Cells, Tensor], Tensor]
) -> NDArray[np.float64]:
    """Errors in dB of the cells of all test scenes that are open and not given to interpolation."""
    errors = []
    for row, shown in known.items():
        cells = _cells(test, [row])
        tested = cells.open & ~shown
        errors.append((predict(cells, shown) - cells.gain)[tested].double().numpy())
    return np.concatenate(errors)


def _records(method: Method, errors: NDArray[np.float64], seed: int) -> list[Record]:
    values = {
        Metric.RADIO_MAP_RMSE: float(np.sqrt(np.mean(errors**2))),
        Metric.RADIO_MAP_MAE: float(np.mean(np.abs(errors))),
    }
    return [Record(metric, method, value, seed, len(errors)) for metric, value in values.items()]


def _trainer(
    splits: dict[str, RadioMapDataset], fit: DistanceFit, settings: HeadSettings
) -> Callable[[int], TrainAt[UNet]]:
    """Make of a seed the function that trains the U-Net at a rate, on whole scenes of the train split."""
    train, validation = splits["train"], splits["validation"]
    held_back = evenly(len(validation), min(HELD_BACK, len(validation))).tolist()
    batch = max(1, min(settings.finetune_batch, STEP_CELLS // train[0]["radio_map"][0].numel()))

    def prepare(seed: int) -> TrainAt[UNet]:
        def train_at(rate: float) -> tuple[float, UNet]:
            rng = np.random.default_rng([seed, BATCHES])
            with seeded_weights(seed):
                network = UNet(fit)

            def batch_loss() -> Tensor:
                cells = _cells(train, rng.permutation(len(train))[:batch].tolist())
                return squared_error(network(cells), cells)

            @torch.no_grad()
            def held_back_loss() -> float:
                network.eval()
                parts = [_cells(validation, [row]) for row in held_back]
                return float(np.mean([float(squared_error(network(cells), cells)) for cells in parts]))

            return train_selected(network, batch_loss, held_back_loss, rate, settings.finetune_steps, LOOK), network

        return train_at

    return prepare


BACKBONES: tuple[Backbone, ...] = ("multimodal", "temporal", "rays")
SPECS = tuple(
    TaskSpec(
        TASK,
        backbone,
        "Radio maps",
        radio_map,
        frozenset({"heads"}),
        (Method.KRIGING, Method.RBF, Method.DISTANCE_FIT),
        without_model=True,
    )
    for backbone in BACKBONES
)
