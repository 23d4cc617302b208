"""The task `radio-map`: its methods against closed formulas, and its records."""

from pathlib import Path

import numpy as np
import pytest
import torch
from radio_map_store import build_map_store, centres
from synthetic import stored
from toy import BASE, FREQUENCY

from wavecity.dataset.radio_map_data import RadioMapDataset
from wavecity.geo.errors import InputError
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
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import read_outcomes
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.radio_map import radio_map
from wavecity.model.training.pretrain import pretrain
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

HEADS = {"seeds": 2, "finetune_steps": 6, "finetune_rates": [0.003], "finetune_batch": 2}


@pytest.fixture(scope="module")
def toy(shared) -> Path:
    return shared("toy-radio-maps", lambda folder: build_map_store(folder / "store")) / "store"


def cells(toy: Path) -> Cells:
    return cells_of(list(RadioMapDataset(toy, "test", ("path_gain",))), 5.0, 1.5)


def test_cells_are_where_they_are(toy: Path) -> None:
    found = cells(toy)
    where = torch.from_numpy(centres(40) - BASE).float()
    torch.testing.assert_close(found.place[0], where[..., :2])
    torch.testing.assert_close(found.distance[1], where.norm(dim=-1))
    assert found.gain[found.open].min() == FLOOR  # the shadow, -200 in the store
    # The block is 12 m high over rows 40 to 75 and columns 20 to 60 of 200.
    assert found.height[0, 8:15, 4:12].unique().tolist() == [12.0]
    assert found.height.sum() == 2 * 12 * 7 * 8
    assert not found.open[:, 8:15, 4:12].any()


def test_a_fit_by_distance_finds_free_space() -> None:
    distance = np.geomspace(10, 200, 50)
    fit = DistanceFit.of(distance, 20 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * FREQUENCY * distance)))
    assert fit.slope == pytest.approx(-20)
    assert fit.intercept == pytest.approx(20 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * FREQUENCY)))
    assert DistanceFit.of(np.full(3, 10.0), np.full(3, -80.0))(torch.tensor([100.0])).item() == pytest.approx(-100)


@pytest.mark.parametrize("interpolate", [radial_basis, kriging])
def test_interpolation_goes_through_what_is_known_and_is_smooth_between(interpolate) -> None:
    rng = np.random.default_rng(0)
    known = rng.uniform(-50, 50, (80, 2))

    def hills(place: np.ndarray) -> np.ndarray:
        return 10 * np.sin(place[:, 0] / 20) + 5 * np.cos(place[:, 1] / 15)

    between = rng.uniform(-40, 40, (50, 2))
    assert np.abs(interpolate(known, hills(known), known) - hills(known)).max() < 0.5
    error = np.sqrt(np.mean((interpolate(known, hills(known), between) - hills(between)) ** 2))
    assert error < 0.35 * hills(between).std()


@pytest.mark.parametrize("count", [40, 37])
def test_the_network_starts_at_the_fit_and_learns_shadows(toy: Path, count: int) -> None:
    part = cells(toy)
    part = Cells(*(value[:, :count, :count] if value.ndim > 1 else value for value in vars(part).values()))
    fit = DistanceFit(-61.5, -20.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(fit, widths=(8, 8, 8))
    start = network(part)
    torch.testing.assert_close(start, fit(part.distance))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    before = squared_error(start, part).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = squared_error(network(part), part)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * before


def test_every_method_is_judged_on_the_same_cells(toy: Path) -> None:
    settings = EvaluationSettings.model_validate({"heads": HEADS})
    found = radio_map(str(toy), settings, seed=3)
    rmse = [record for record in found.records if record.metric is Metric.RADIO_MAP_RMSE]
    assert {record.method for record in rmse} == {Method.UNET, Method.DISTANCE_FIT, Method.RBF, Method.KRIGING}
    assert {record.n for record in rmse} == {found.facts["tested_cells"]}
    assert sorted(record.seed for record in rmse if record.method is Method.UNET) == [0, 1]
    assert found.facts["test_cities"] == ["Dd", "Ee"]
    assert found.facts["test_cities_trained_on"] == []
    # One per cent of 1,544 open cells of each of the two scenes.
    assert found.facts["known_cells"] == 30
    # By hand: all scenes are the same, so that the fit's error is the residual of a straight line over the tested cells.
    part = cells(toy)
    distance, gain = (values[part.open].double().numpy() for values in (part.distance, part.gain))
    residual = gain - np.polyval(np.polyfit(np.log10(distance), gain, 1), np.log10(distance))
    (line,) = [record.value for record in rmse if record.method is Method.DISTANCE_FIT]
    assert line == pytest.approx(np.sqrt(np.mean(residual**2)), rel=0.03)
    again = radio_map(str(toy), settings, seed=3)
    assert again.records == found.records


def test_without_steps_there_is_no_network(toy: Path) -> None:
    settings = EvaluationSettings.model_validate({"heads": HEADS | {"finetune_steps": 0}})
    assert Method.UNET not in {record.method for record in radio_map(str(toy), settings, seed=3).records}


def test_it_runs_where_it_is_named(
    toy: Path, data, tiny: TrainingSettings, tmp_path: Path, toy_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's model has no part in it, so that its array need not be the store's, and no channel is read."""
    pretrain(stored(data), tiny, tmp_path, seed=1)
    monkeypatch.delattr("wavecity.model.tasks.evaluate.load_data")
    heads = {**tiny.evaluation.heads.model_dump(), **HEADS, "seeds": 1, "finetune_steps": 2}
    settings = TrainingSettings.model_validate(
        {**tiny.model_dump(), "evaluation": {**tiny.evaluation.model_dump(), "heads": heads}}
    )
    result = evaluate(tmp_path, str(toy), "radio-map", settings, 1)
    assert result["facts"]["test_scenes"] == 2
    (row, _) = read_outcomes(tmp_path)["radio-map"].rows
    assert row.best(True) is Method.UNET
    with pytest.raises(InputError, match=r"radio-map is not possible: .*build it with features.radio_map"):
        evaluate(tmp_path, str(toy_store), "radio-map", settings, 1)
