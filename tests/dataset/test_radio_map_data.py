"""The reader of radio maps for torch."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from radio_map_store import build_map_store, make_maps
from torch.utils.data import DataLoader
from toy import BASE

import wavecity
from wavecity.dataset.reader import open_store
from wavecity.geo.errors import InputError


@pytest.fixture(scope="module")
def toy(shared) -> Path:
    return shared("toy-radio-maps", lambda folder: build_map_store(folder / "store")) / "store"


def test_samples_are_the_scenes_of_the_split(toy: Path) -> None:
    maps, data, grids = wavecity.RadioMapDataset(toy, "test"), open_store(toy), open_store(toy, "radio_map")
    assert (len(maps), maps.scenes, maps.cities) == (2, ["dd-4", "ee-5"], ["Dd", "Ee"])
    assert maps.metrics == tuple(grids.data_vars)
    for index, sample in enumerate(maps):
        row = maps.scene_index[index]
        assert sample["scene"] == row
        np.testing.assert_array_equal(sample["height"], data["height"][row])
        np.testing.assert_array_equal(sample["bs_position"], BASE.astype(np.float32))
        for name, values in zip(maps.metrics, sample["radio_map"], strict=True):
            np.testing.assert_array_equal(values, grids[name][row])
            np.testing.assert_array_equal(values, make_maps(40)[f"radio_map/{name}"])
    (batch,) = DataLoader(maps, batch_size=2)
    assert batch["radio_map"].shape == (2, 4, 40, 40)


def test_metrics_cities_and_a_transform_are_chosen(toy: Path) -> None:
    some = wavecity.RadioMapDataset(
        toy, "train", ("los", "path_gain"), cities=["bb"], transform=lambda sample: sample["radio_map"]
    )
    assert some.scenes == ["bb-2"]
    expected = make_maps(40)
    np.testing.assert_array_equal(some[0], np.stack([expected["radio_map/los"], expected["radio_map/path_gain"]]))
    assert wavecity.RadioMapDataset(toy, "train", scenes=["aa-*"], verify=True, version=1).scenes == ["aa-0", "aa-1"]


def test_workers_read_the_same(toy: Path) -> None:
    maps = wavecity.RadioMapDataset(toy, "train", ("path_gain",))
    copy = pickle.loads(pickle.dumps(maps))
    forked = DataLoader(maps, batch_size=1, num_workers=1, multiprocessing_context="fork")
    for mine, copied, theirs in zip(maps, copy, forked, strict=True):
        for name in ("height", "radio_map", "bs_position"):
            assert torch.equal(mine[name].nan_to_num(7), copied[name].nan_to_num(7))
            assert torch.equal(mine[name].nan_to_num(7), theirs[name][0].nan_to_num(7))


def test_it_shows_what_it_is(toy: Path) -> None:
    text = repr(wavecity.RadioMapDataset(toy, "test", ("path_gain",)))
    assert text.startswith("<wavecity.RadioMapDataset>")
    assert "2 in Dd, Ee" in text
    assert "5 m, 1.5 m above ground" in text
    assert "radio_map/path_gain: float32 (map_row 40, map_column 40) dB, one for a scene" in text


def test_wrong_input_is_one_line(toy: Path, toy_store: Path) -> None:
    with pytest.raises(InputError, match=r"has no group 'radio_map'; build it with features.radio_map"):
        wavecity.RadioMapDataset(toy_store)
    with pytest.raises(InputError, match=r"no radio map of 'rsrp'; it has best_beam, los, n_paths, path_gain"):
        wavecity.RadioMapDataset(toy, metrics=("rsrp",))
    with pytest.raises(InputError, match=r"no city 'Oslo'"):
        wavecity.RadioMapDataset(toy, cities=["Oslo"])
    with pytest.raises(InputError, match=r"no chosen scene is in split 'test'; they are in train"):
        wavecity.RadioMapDataset(toy, "test", cities=["Aa"])
