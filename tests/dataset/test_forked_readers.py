"""Readers go on in forked and spawned processes, whatever was read before; one that cannot says so."""

import os
import signal
import threading

import pytest
import torch
import toy
import zarr
from torch.utils.data import DataLoader
from torch_runs import pairs_of

from wavecity.dataset import loader
from wavecity.dataset.arrays import open_arrays
from wavecity.dataset.loader import BatchReader, Order, Stalled
from wavecity.dataset.reader import open_store
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.users import find_users

pytestmark = pytest.mark.filterwarnings("ignore:.*worker process", "ignore:.*`IterableDataset` has `__len__`")
UNITS = (1, 2, 4)
# Of an order in which both workers have neighbours of different shards.
SEED = 9
FIELDS = ("csi", "height", "user_position")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Eight scenes in units of one, two and four, all to train on: neighbours are of different shards."""
    write = toy.write_unit

    def write_train(draft, unit, scenes, outcomes, extra):
        return write(draft, unit, scenes, [outcome | {"split": "train"} for outcome in outcomes], extra)

    stores = {unit: tmp_path_factory.mktemp(f"unit-{unit}") / "store" for unit in UNITS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "write_unit", write_train)
        for unit, store in stores.items():
            toy.build_store(store, toy.make_layout(scenes=8, unit=unit))
    return stores


def look(store):
    """What a user does before training: every thread that reading starts is there."""
    data = open_store(store)
    assert float(abs(data["csi"]).max()) > 0
    arrays = open_arrays(store, FIELDS)
    assert all(array[:].size for array in arrays.values())
    next(iter(ShuffledChannels(store, "train", batch_size=4)))


def everyone(store):
    users = find_users(store, "train")
    return sorted(zip(users.scene_index.tolist(), users.user_index.tolist(), strict=True))


# A spawned worker imports torch: some seconds each.
CASES = [(unit, looked, "fork") for unit in UNITS for looked in (False, True)] + [
    pytest.param(unit, looked, method, marks=pytest.mark.system)
    for unit, looked, method in [
        *((unit, looked, "spawn") for unit in UNITS for looked in (False, True)),
        (1, True, "forkserver"),
    ]
]


@pytest.mark.parametrize(("unit", "looked", "method"), CASES)
def test_a_loader_gives_every_user_once(stores, unit, looked, method):
    store = stores[unit]
    if looked:
        look(store)
    # A window of all units of a worker: in this order each has neighbours among them, which are read together.
    train = ShuffledChannels(store, "train", FIELDS, batch_size=8, window=8, seed=SEED)
    read = DataLoader(train, batch_size=None, num_workers=2, multiprocessing_context=method, timeout=90)
    assert sorted(pair for batch in read for pair in pairs_of(batch)) == everyone(store)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("unit", UNITS)
def test_samples_in_forked_workers(stores, unit, preload):
    look(stores[unit])
    samples = ChannelDataset(stores[unit], "train", FIELDS, preload=preload)
    expected = [samples[index]["csi"] for index in range(len(samples))]
    read = DataLoader(samples, 4, num_workers=2, multiprocessing_context="fork", timeout=90)
    assert torch.equal(torch.cat([batch["csi"] for batch in read]), torch.stack(expected))


def in_a_fork(work):
    """Whether `work` came to its end in a forked process; a minute is more than it needs."""
    child = os.fork()
    if not child:
        # Its default action ends a process also while no Python runs in it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("unit", UNITS)
def test_a_reader_that_was_opened_before_a_fork(stores, unit):
    """What `tf.data` and any loop without torch read with."""
    reader = BatchReader(find_users(stores[unit], "train"), FIELDS, Order(8, window=8))
    first = list(reader.batches(0))

    def again():
        for got, expected in zip(reader.batches(0), first, strict=True):
            assert all((got[name] == expected[name]).all() for name in expected)

    assert in_a_fork(again)


def test_a_fork_in_the_middle_of_an_epoch(stores):
    """A window is being decoded, and the threads that do so are not copied."""
    train = ShuffledChannels(stores[1], "train", FIELDS, batch_size=2, window=2)
    begun = iter(train)
    next(begun)
    train.set_epoch(0)
    read = DataLoader(train, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=90)
    assert sorted(pair for batch in read for pair in pairs_of(batch)) == everyone(stores[1])
    assert len(list(begun)) == len(train) - 1


def test_opening_leaves_the_threads_of_zarr_as_they_were(stores):
    """Reading with one thread a shard must not give every other user of Zarr in this process one thread."""
    before = zarr.config.get("threading.max_workers")
    open_arrays(stores[2], ("csi",))

    def executor():
        from zarr.core import sync

        assert sync._executor is None
        open_arrays(stores[2], ("csi",))["csi"][:]
        assert sync._executor is None

    assert in_a_fork(executor)
    assert zarr.config.get("threading.max_workers") == before


def test_a_reader_that_cannot_go_on_says_so(stores, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(loader, "read_scenes", lambda *given: released.wait())
    train = ShuffledChannels(stores[2], "train", ("los",), timeout=0.01)
    try:
        with pytest.raises(
            Stalled, match=r"were not read within 0.01 s in process \d+; is the storage reachable"
        ) as error:
            next(iter(train))
    finally:
        released.set()
    assert "\n" not in str(error.value)
