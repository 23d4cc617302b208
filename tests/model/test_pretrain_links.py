"""Pretraining of the multi-modal model on the links of several base stations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from base_station_store import STATIONS, build_links_store

from wavecity.dataset.reader import open_store
from wavecity.geo.errors import InputError
from wavecity.model.data.snapshots import before_panel
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.backbones import Multimodal
from wavecity.model.training.pretrain import pretrain


@pytest.fixture(scope="module")
def store(shared):
    return shared("toy-links", lambda folder: build_links_store(folder / "store")) / "store"


@pytest.fixture
def settings(tiny: TrainingSettings) -> TrainingSettings:
    content = tiny.model_dump() | {"links": "all", "augment": {"mirror": False}, "epochs": 1, "batch_size": 8}
    content["model"] |= {"csi_patch": 2, "spectrum_size": 4, "spectrum_map": 2, "spectrum_channels": 2}
    return TrainingSettings.model_validate(content)


def test_users_straight_ahead_of_any_panel_are_south_of_it() -> None:
    azimuth = torch.tensor([-90.0, 0.0, 90.0, -135.0, 71.6])
    ahead = 50 * torch.stack([torch.deg2rad(azimuth).cos(), torch.deg2rad(azimuth).sin()], -1)
    torch.testing.assert_close(
        before_panel(ahead, azimuth), torch.tensor([[0.0, -50.0]]).repeat(5, 1), atol=1e-4, rtol=0
    )
    # To the left of the panel stays to its left: east of one that faces south.
    left = torch.stack([-ahead[:, 1], ahead[:, 0]], -1)
    torch.testing.assert_close(before_panel(left, azimuth), torch.tensor([[50.0, 0.0]]).repeat(5, 1), atol=1e-4, rtol=0)


def test_a_batch_knows_where_each_base_station_stands_and_faces(store: Path, settings: TrainingSettings) -> None:
    backbone = Multimodal.load(str(store), settings)
    backbone.check()
    data = open_store(store, bs="all")
    heard = ~data["outage"].values[:, data["split"].values == "train"]
    assert len(backbone.data.splits["train"]) == heard.sum()
    seen = set()
    for batch in backbone.batches(seed=1).train_dataloader():
        for row, scene in enumerate(batch.scene.tolist()):
            east, north, azimuth = batch.station[scene].tolist()
            number = next(k for k, (place, _) in enumerate(STATIONS) if np.allclose(place[:2], (east, north)))
            assert azimuth == pytest.approx(STATIONS[number][1], abs=1e-4)
            seen.add(number)
            found = np.abs(data["user_position"].values[number][..., :2] - batch.position[row].numpy()).max(-1) < 1e-6
            where = tuple(np.argwhere(found)[0])
            np.testing.assert_array_equal(batch.csi[row], data["csi"].values[number][where])
    assert seen == {0, 1, 2}


def test_it_trains(store: Path, settings: TrainingSettings, tmp_path: Path) -> None:
    pretrain(str(store), settings, tmp_path, seed=1)
    summary = json.loads((tmp_path / "pretrain.json").read_text())
    train = open_store(store, bs="all")
    assert summary["train_users"] == int((~train["outage"].values[:, train["split"].values == "train"]).sum())
    assert summary["train_scenes"] == 2
    assert all(np.isfinite(value) for value in summary["losses"].values())


def test_settings_without_them_are_written_as_before(tiny: TrainingSettings, toy_store: Path) -> None:
    assert "links" not in tiny.model_dump(mode="json")
    for wrong, words in (
        ({"links": "all"}, "augment.mirror needs panels that face south; set augment.mirror to false"),
        ({"links": "all", "backbone": "rays", "augment": {"mirror": False}}, "backbone rays reads those of the first"),
    ):
        with pytest.raises(ValueError, match=words):
            TrainingSettings.model_validate(wrong)
    asked = TrainingSettings.model_validate({"links": "all", "augment": {"mirror": False}})
    assert TrainingSettings.model_validate(asked.model_dump(mode="json")) == asked
    with pytest.raises(InputError, match="bs 'all': has one base station"):
        Multimodal.load(str(toy_store), asked)
