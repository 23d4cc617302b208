"""The torch readers give the store's values."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dataset import InputError
from dataset.reader import open_store
from dataset.torch_data import ChannelDataset


def test_samples_are_the_users_of_the_split_that_have_a_path(toy_store):
    data = open_store(toy_store).load()
    samples = ChannelDataset(toy_store, "train", ("csi", "height", "best_beam"))
    assert sorted(set(samples.scene_index)) == [0, 1]
    assert len(samples) == (8 - 1) + (9 - 1)
    for index in (0, len(samples) - 1):
        item = samples[index]
        expected = data.isel(scene=item["scene"], user=item["user"])
        np.testing.assert_array_equal(item["csi"].numpy(), expected["csi"].values)
        np.testing.assert_array_equal(item["height"].numpy(), expected["height"].values)
        assert int(item["best_beam"]) == int(expected["best_beam"])
    assert len(ChannelDataset(toy_store, "train", ("csi",), include_outage=True)) == 8 + 9


def test_a_loader_batches_every_sample_once(toy_store):
    samples = ChannelDataset(toy_store, "train", ("csi",))
    batches = list(DataLoader(samples, 4, shuffle=True))
    assert batches[0]["csi"].shape == (4, 32, 32)
    seen = torch.cat([100 * batch["scene"] + batch["user"] for batch in batches]).tolist()
    assert sorted(seen) == (100 * samples.scene_index + samples.user_index).tolist()


def test_unknown_field_or_split_gets_one_line(toy_store):
    with pytest.raises(InputError, match="no array 'speed'; it has"):
        ChannelDataset(toy_store, "train", ("speed",))
    with pytest.raises(InputError, match="split 'holdout' has no scene"):
        ChannelDataset(toy_store, "holdout")
