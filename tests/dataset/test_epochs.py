"""Every iterator reads the next epoch, whoever reads it: this process, workers that come and go, workers that stay."""

import copy
import gc
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader
from torch_runs import pairs_of
from toy import build_store, make_layout

from wavecity.dataset.epochs import EpochCounter
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.users import find_users

pytestmark = pytest.mark.filterwarnings("ignore:.*worker process", "ignore:.*`IterableDataset` has `__len__`")
BATCH = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """12 scenes of 8 to 11 users in units of two."""
    store = tmp_path_factory.mktemp("epochs") / "store"
    build_store(store, make_layout(scenes=12, unit=2))
    return store


@pytest.fixture(scope="module")
def epochs(store):
    """Batches of the epochs 0 to 9 by the reader below torch, read by 1, 2 or 3 streams."""
    reader = BatchReader(find_users(store, "train"), ("los",), Order(BATCH, window=2))

    def epoch(number, streams=1):
        read = [[pairs_of(batch) for batch in reader.batches(number, 0, stream, streams)] for stream in range(streams)]
        return [read[k % streams][k // streams] for k in range(len(reader))]

    return epoch


def channels(store):
    return ShuffledChannels(store, "train", ("los",), batch_size=BATCH, window=2)


def batches(loader):
    return [pairs_of(batch) for batch in loader]


def load(data, workers, **options):
    return DataLoader(data, batch_size=None, num_workers=workers, timeout=60 * bool(workers), **options)


def test_every_iterator_is_the_next_epoch(store, epochs):
    data = channels(store)
    assert [batches(data) for _ in range(3)] == [epochs(0), epochs(1), epochs(2)]
    assert data.epoch == 3
    assert batches(data) != epochs(2)


@pytest.mark.parametrize("persistent", [False, True])
def test_every_iterator_of_a_loader_with_workers_is_the_next_epoch(store, epochs, persistent):
    data = channels(store)
    loader = load(data, 2, persistent_workers=persistent)
    assert [batches(loader) for _ in range(3)] == [epochs(0, 2), epochs(1, 2), epochs(2, 2)]
    assert data.epoch == 3


@pytest.mark.system
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_workers_that_stay_count_with_this_process(store, epochs, method):
    """They import torch, which takes seconds."""
    data = channels(store)
    loader = load(data, 2, persistent_workers=True, multiprocessing_context=method)
    assert [batches(loader), batches(loader)] == [epochs(0, 2), epochs(1, 2)]
    data.set_epoch(6, batch=1)
    assert [batches(loader), batches(loader)] == [epochs(6, 2)[1:], epochs(7, 2)]
    assert data.epoch == 8


def test_other_workers_and_none_go_on_counting(store, epochs):
    data = channels(store)
    assert batches(load(data, 2)) == epochs(0, 2)
    assert batches(load(data, 3)) == epochs(1, 3)
    assert batches(load(data, 0)) == epochs(2)
    assert batches(data) == epochs(3)
    assert batches(load(data, 1)) == epochs(4)


def test_an_iterator_that_was_left_counts_and_two_at_once_are_two(store, epochs):
    data = channels(store)
    loader = load(data, 2)
    assert pairs_of(next(iter(loader))) == epochs(0, 2)[0]
    first, second = (list(read) for read in zip(*zip(loader, loader, strict=True), strict=True))
    read = [batches(first), batches(second)]
    assert sorted(read) == sorted([epochs(1, 2), epochs(2, 2)])


def test_the_same_seed_of_torch_does_not_repeat_an_epoch(store, epochs):
    loader = load(channels(store), 2)
    read = []
    for _ in range(2):
        torch.manual_seed(0)
        read.append(batches(loader))
    assert read == [epochs(0, 2), epochs(1, 2)]


def test_an_epoch_that_was_set_comes_next_and_the_others_after_it(store, epochs):
    data = channels(store)
    loader = load(data, 2)
    batches(loader)
    data.set_epoch(7, batch=3)
    assert (data.epoch, batches(loader), batches(loader)) == (7, epochs(7, 2)[3:], epochs(8, 2))
    # As with torch's DistributedSampler: an epoch that is named comes, whatever came before.
    for epoch in (2, 2, 0):
        data.set_epoch(epoch)
        assert batches(loader) == epochs(epoch, 2)


def test_a_resumed_training_goes_on_with_the_epochs_after(store, epochs):
    data = channels(store)
    state = data.state_dict(4, 2, workers=2)
    resumed = channels(store)
    resumed.load_state_dict(state, workers=2)
    loader = load(resumed, 2)
    assert [batches(loader), batches(loader)] == [epochs(4, 2)[2:], epochs(5, 2)]


def test_ranks_that_never_name_an_epoch_share_every_epoch(store):
    ranks = [
        ShuffledChannels(store, "train", ("los",), batch_size=BATCH, window=2, rank=rank, world=2) for rank in (0, 1)
    ]
    everyone = sorted(pair for batch in batches(channels(store)) for pair in batch)
    orders = []
    for _ in range(3):
        read = [[pair for batch in batches(rank) for pair in batch] for rank in ranks]
        assert len(read[0]) == len(read[1])
        assert sorted(set(read[0] + read[1])) == everyone
        orders.append(tuple(read[0]))
    assert len(set(orders)) == 3


def test_validation_batches_are_the_same_in_every_epoch(store):
    loader = ChannelDataModule(store, ("los",), batch_size=BATCH).val_dataloader()
    assert batches(loader) == batches(loader)


def count_in_another_process(counter, answers):
    answers.send([counter.take(), counter.take()])


def test_a_copy_that_is_not_a_worker_counts_for_itself():
    """Ranks of a training that get the dataset from the process that starts them must agree on the epoch."""
    counter = EpochCounter()
    counter.move_to(5, 2)
    answers, ours = multiprocessing.Pipe()
    for _ in range(2):
        counter.take()
        rank = multiprocessing.get_context("fork").Process(target=count_in_another_process, args=(counter, ours))
        rank.start()
        rank.join(60)
        # It begins where the position was set.
        assert answers.recv() == [(5, 2), (6, 0)]
    again = copy.deepcopy(counter)
    assert [again.take(), again.take(), counter.take()] == [(7, 0), (8, 0), (7, 0)]


def test_no_file_is_left():
    def files():
        return set(Path(tempfile.gettempdir()).glob(f"wavecity-epochs-*.{os.getpid()}"))

    gc.collect()
    before = files()
    counter = EpochCounter()
    again = copy.deepcopy(counter)
    counter.take()
    again.move_to(3)
    assert len(files() - before) == 2
    del counter, again
    gc.collect()
    assert files() == before
