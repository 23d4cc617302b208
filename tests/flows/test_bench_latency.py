"""`wavecity bench latency` at a small size: all figures, JSON-ready, of sides that do what they are said to do."""

import json

import pytest
import street
import torch

from wavecity.flows.bench import latency
from wavecity.geo.errors import InputError
from wavecity.model.rays.surroundings import surroundings


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return street.build(str(tmp_path_factory.mktemp("street") / "store"))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(latency, "TrainingSettings", street.settings_of)
    monkeypatch.setattr(latency, "BATCHES", (1, 3))


def test_all_figures_are_there(store):
    result = json.loads(json.dumps(latency.run(latency.Options(data=store, rounds=1, patches=3))))
    for side in latency.SIDES:
        for batch in (1, 3):
            assert result[f"milliseconds_{side}_{batch}"] > 0
            each = result[f"milliseconds_a_user_{side}_{batch}"]
            assert each == pytest.approx(result[f"milliseconds_{side}_{batch}"] / batch)
    assert result["front_share_3"] == pytest.approx(result["milliseconds_front_3"] / result["milliseconds_chain_3"])
    assert result["users"] == 8
    assert result["walls"] == 4  # the toy's block


def test_sides_see_the_same_users_and_do_what_they_are_said_to(store):
    bench = latency.prepare(store, latency.Options(data=store, patches=3))
    assert int(bench.shown.sum()) == 3 * 16
    # The paper's encoder sees the patches that the others see: one antenna of each is shown.
    assert bench.paper.visible.flatten().tolist() == [
        number for number in range(4) if bench.shown[4 * (number // 2), 4 * (number % 2)]
    ]
    index = torch.tensor([0, 5])
    with torch.no_grad():
        said = {side: call() for side, call in bench.calls(index).items()}
    assert torch.equal(said["chain"].physc, said["network"].physc)
    assert torch.equal(said["front"].place[:, 0], torch.nan_to_num(said["physics"].position).float())
    assert said["paper"][0].shape == (2, 128)
    assert bench.around.radio == surroundings(store, int(bench.users.scene[0])).radio


def test_more_patches_than_there_are_is_wrong_input(store):
    with pytest.raises(InputError, match="--patches 5: the array has 4 of 4 x 4 antennas"):
        latency.run(latency.Options(data=store, patches=5))
