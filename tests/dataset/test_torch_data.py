"""The torch readers give the store's values, every user once, and go on exactly where they were stopped."""

import pickle
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader
from torch_runs import double, fit, pairs_of, run_rank
from toy import build_store, make_layout

from wavecity.dataset import InputError, torch_data
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.reader import open_store
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import CACHED_CHUNKS, ChannelDataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*worker process", "ignore:.*`IterableDataset` has `__len__`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:`isinstance.treespec"),
]


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory):
    """24 scenes of 8 to 11 users in units of two."""
    store = tmp_path_factory.mktemp("wide") / "store"
    build_store(store, make_layout(scenes=24, unit=2))
    return store


@pytest.fixture(scope="module")
def train_pairs(wide_store):
    samples = ChannelDataset(wide_store, "train", ("user_position",))
    return list(zip(samples.scene_index.tolist(), samples.user_index.tolist(), strict=True))


def pairs_of_all(batches):
    return [pair for batch in batches for pair in pairs_of(batch)]


def shuffled(store, **options):
    return ShuffledChannels(store, **{"fields": ("user_position",), "batch_size": 7, "window": 2, **options})


def load(channels, workers=0, context=None, **options):
    return DataLoader(channels, batch_size=None, num_workers=workers, multiprocessing_context=context, **options)


@pytest.mark.parametrize("preload", [None, True, False])
def test_samples_are_the_users_of_the_split_that_have_a_path(toy_store, preload):
    data = open_store(toy_store).load()
    samples = ChannelDataset(toy_store, "train", ("csi", "height", "best_beam"), preload=preload)
    assert samples.preloaded is (preload is not False)
    assert sorted(set(samples.scene_index)) == [0, 1]
    assert len(samples) == (8 - 1) + (9 - 1)
    for index in range(len(samples)):
        item = samples[index]
        expected = data.isel(scene=item["scene"], user=item["user"])
        np.testing.assert_array_equal(item["csi"].numpy(), expected["csi"].values)
        np.testing.assert_array_equal(item["height"].numpy(), expected["height"].values)
        assert int(item["best_beam"]) == int(expected["best_beam"])
    assert len(ChannelDataset(toy_store, "train", ("csi",), include_outage=True)) == 8 + 9


@pytest.mark.parametrize("preload", [True, False])
def test_a_loader_batches_every_sample_once(toy_store, preload):
    samples = ChannelDataset(toy_store, "train", ("csi",), preload=preload)
    batches = list(DataLoader(samples, 4, shuffle=True, num_workers=2 * (not preload)))
    assert batches[0]["csi"].shape == (4, 32, 32)
    seen = torch.cat([100 * batch["scene"] + batch["user"] for batch in batches]).tolist()
    assert sorted(seen) == (100 * samples.scene_index + samples.user_index).tolist()


def test_a_lazy_dataset_keeps_few_chunks_and_gives_copies(wide_store):
    fields = ("csi", "height", "paths/delay")
    lazy = ChannelDataset(wide_store, "train", fields, preload=False)
    held = ChannelDataset(wide_store, "train", fields, preload=True)
    order = np.random.default_rng(0).permutation(len(lazy)).tolist()
    for index, item in zip(order, lazy.__getitems__(order), strict=True):
        assert item.keys() == held[index].keys()
        assert all(np.array_equal(item[name], held[index][name]) for name in item)
        item["height"].fill_(-1)
    assert len(lazy._chunks) <= CACHED_CHUNKS * len(fields)
    assert float(lazy[0]["height"].min()) == 0
    again = pickle.loads(pickle.dumps(lazy))
    assert not again._chunks
    assert torch.equal(again[5]["csi"], lazy[5]["csi"])


def test_preloading_depends_on_the_memory_there_is(toy_store, monkeypatch):
    monkeypatch.setattr("wavecity.dataset.torch_data.available_memory", lambda: 200_000)
    # 15 users of 8 KiB are more than 40 % of that, their positions are not.
    assert not ChannelDataset(toy_store, "train", ("csi",)).preloaded
    assert ChannelDataset(toy_store, "train", ("user_position",)).preloaded


def test_scenes_of_few_users_take_no_room_for_the_largest(tmp_path):
    """Train scenes of 9 users at most in a store made for 1,000 (8 MB a scene): they are read, their padding is not."""
    build_store(tmp_path / "store", make_layout(scenes=6, users=1000))
    ChannelDataset(tmp_path / "store", "train", ("csi",))  # What is imported does not count.
    channels = ShuffledChannels(tmp_path / "store", "train", ("csi",), batch_size=4)
    tracemalloc.start()
    samples = ChannelDataset(tmp_path / "store", "train", ("csi",), preload=True)
    batches = list(channels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(batch["csi"]) for batch in batches) == len(samples) == (8 - 1) + (9 - 1)
    assert peak < 4e6


def test_values_do_not_depend_on_how_many_scenes_are_read_at_a_time(wide_store, monkeypatch):
    whole = ChannelDataset(wide_store, "train", ("csi", "height", "los"), preload=True)
    monkeypatch.setattr("wavecity.dataset.torch_data.BLOCK", 1)
    single = ChannelDataset(wide_store, "train", ("csi", "height", "los"), preload=True)
    for index in range(len(whole)):
        assert all(
            torch.equal(torch.as_tensor(whole[index][name]), torch.as_tensor(single[index][name])) for name in whole[0]
        )


def test_transforms(toy_store):
    plain = ChannelDataset(toy_store, "train", ("user_position",))
    changed = ChannelDataset(toy_store, "train", ("user_position",), transform=double)
    assert torch.equal(changed[3]["user_position"], 2 * plain[3]["user_position"])
    for batch in load(shuffled(toy_store, transform=double), workers=1):
        for position, pair in zip(batch["user_position"], pairs_of(batch), strict=True):
            index = list(zip(plain.scene_index, plain.user_index, strict=True)).index(pair)
            assert torch.equal(position, 2 * plain[index]["user_position"])


def test_shuffled_batches_hold_the_values_of_the_samples(wide_store):
    fields = ("csi", "height", "los", "paths/gain")
    samples = ChannelDataset(wide_store, "train", fields)
    index = {pair: n for n, pair in enumerate(zip(samples.scene_index, samples.user_index, strict=True))}
    for batch in load(shuffled(wide_store, fields=fields)):
        for row, pair in enumerate(pairs_of(batch)):
            for field in fields:
                assert torch.equal(batch[field][row], samples[index[pair]][field])


@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
def test_every_user_once_with_real_workers(wide_store, train_pairs, workers, context):
    channels = shuffled(wide_store)
    # Read in this process first: threads that this starts must not hang forked workers.
    first = pairs_of_all(load(channels))
    channels.set_epoch(0)
    loader = load(channels, workers, context)
    batches = list(loader)
    assert len(batches) == len(loader) == len(channels) == -(-len(train_pairs) // 7)
    assert sorted(pairs_of_all(batches)) == train_pairs == sorted(first)
    if workers < 2:
        assert pairs_of_all(batches) == first


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_resume_at_every_batch_gives_the_identical_rest(wide_store, workers):
    channels = shuffled(wide_store)
    channels.set_epoch(2)
    whole = list(load(channels, workers))
    # Every one in this process; of worker processes, which take a second to start, the ends and two between.
    some = range(len(whole) + 1) if not workers else (0, 1, len(whole) // 2, len(whole))
    for used in some:
        state = pickle.loads(pickle.dumps(channels.state_dict(2, used, workers)))
        resumed = shuffled(wide_store)
        resumed.load_state_dict(state, workers)
        assert resumed.epoch == (3 if used == len(whole) else 2)
        rest = list(load(resumed, workers))
        if used == len(whole):
            assert sorted(pairs_of_all(rest)) == sorted(pairs_of_all(whole))
            assert rest[0]["user"].tolist() != whole[0]["user"].tolist()
            continue
        assert len(rest) == len(whole) - used
        for got, expected in zip(rest, whole[used:], strict=True):
            assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_workers_that_stay_see_the_next_epoch(wide_store, train_pairs):
    channels = shuffled(wide_store)
    loader = load(channels, 2, "fork", persistent_workers=True)
    epochs = []
    for epoch in range(3):
        channels.set_epoch(epoch)
        epochs.append(pairs_of_all(loader))
    assert all(sorted(epoch) == train_pairs for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.system
@pytest.mark.parametrize("workers", [0, 2])
def test_two_ddp_ranks_share_the_users(wide_store, train_pairs, tmp_path, workers):
    arguments = (2, str(wide_store), str(tmp_path), workers)
    torch.multiprocessing.start_processes(run_rank, arguments, nprocs=2, start_method="spawn")
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert [len(batch) for batch in ranks[0]] == [len(batch) for batch in ranks[1]]
    counts = Counter(pair for rank in ranks for batch in rank for pair in batch)
    assert sorted(counts) == train_pairs
    assert counts.total() - len(train_pairs) == len(train_pairs) % 2


def test_states_of_other_data_or_another_order_are_refused(wide_store, toy_store):
    state = shuffled(wide_store).state_dict(0, 3, 2)
    for changes, words in (
        ({"seed": 1}, "seed is 1, but 0 in the saved state"),
        ({"batch_size": 8}, "batch_size is 8, but 7"),
        ({"rank": 0, "world": 2}, "world is 2, but 1"),
        ({"split": "test"}, "split is 'test', but 'train'"),
    ):
        with pytest.raises(InputError, match=words):
            shuffled(wide_store, **changes).load_state_dict(state, 2)
    with pytest.raises(InputError, match="workers is 3, but 2 in the saved state; resume with that"):
        shuffled(wide_store).load_state_dict(state, 3)
    other = shuffled(toy_store)
    other.attrs["fingerprint"] = "abc"
    with pytest.raises(InputError, match="fingerprint is 'abc', but '0123456789abcdef0123'"):
        other.load_state_dict(state, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_fit_goes_on_with_exactly_the_batches_left(wide_store, train_pairs, tmp_path, workers):
    whole, _ = fit(wide_store, tmp_path / "whole", workers)
    epoch = len(whole.seen) // 2
    assert [seen[:2] for seen in whole.seen] == [(e, i) for e in range(2) for i in range(epoch)]
    for number in range(2):
        of_epoch = whole.seen[number * epoch : (number + 1) * epoch]
        assert sorted(pair for _, _, batch in of_epoch for pair in batch) == train_pairs
    # In the first epoch, at its edge, and in the second one; workers have fetched more by then.
    for done in (2, epoch, epoch + 3):
        folder = tmp_path / f"killed-{done}"
        killed, checkpoints = fit(wide_store, folder, workers, stop_in=done)
        assert killed.seen == whole.seen[:done]
        resumed, _ = fit(wide_store, tmp_path / f"resumed-{done}", workers, resume=checkpoints[-1])
        assert resumed.seen == whole.seen[done:]
    validation = [pair for batch in whole.validated[: len(whole.validated) // 2] for pair in batch]
    assert len(validation) == len(set(validation)) == len(ChannelDataset(wide_store, "validation", ("los",)))


def test_a_checkpoint_of_another_order_is_refused(wide_store, tmp_path):
    _, checkpoints = fit(wide_store, tmp_path / "killed", stop_in=2)
    for options, words in (({"seed": 4}, "seed is 4, but 3"), ({"workers": 1}, "workers is 1, but 0")):
        with pytest.raises(InputError, match=words) as error:
            fit(wide_store, tmp_path / "resumed", resume=checkpoints[-1], **options)
        assert "\n" not in str(error.value)


def test_the_data_module_without_a_trainer(wide_store, train_pairs):
    data = ChannelDataModule(wide_store, ("user_position",), batch_size=7)
    data.set_epoch(1, 2)
    rest = list(data.train_dataloader())
    state = data.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 2)
    other = ChannelDataModule(wide_store, ("user_position",), batch_size=7)
    other.load_state_dict(state)
    again = list(other.train_dataloader())
    assert len(rest) == len(again) == -(-len(train_pairs) // 7) - 2
    assert all(pairs_of(a) == pairs_of(b) for a, b in zip(rest, again, strict=True))
    test = pairs_of_all(data.test_dataloader())
    assert len(test) == len(set(test)) == len(ChannelDataset(wide_store, "test", ("los",)))


@pytest.mark.parametrize("reader", [ChannelDataset, ShuffledChannels])
def test_unknown_field_or_split_gets_one_line(toy_store, reader):
    with pytest.raises(InputError, match="no array 'speed'; it has"):
        reader(toy_store, "train", ("speed",))
    with pytest.raises(InputError, match="split 'holdout' has no scene"):
        reader(toy_store, "holdout")


def test_rank_and_world_come_together(toy_store):
    with pytest.raises(InputError, match="rank 1, world None: give both or none"):
        ShuffledChannels(toy_store, rank=1)


def test_memory_is_that_of_the_machine_or_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/sys/fs/cgroup/memory.current": ["300"], "/sys/fs/cgroup/memory.max": ["1000"]}
    monkeypatch.setattr(torch_data, "_lines", lambda path: files.get(path, []))
    monkeypatch.setattr(torch_data.psutil, "virtual_memory", lambda: SimpleNamespace(available=5000))
    assert torch_data.available_memory() == 700
    files["/sys/fs/cgroup/memory.max"] = ["max"]
    assert torch_data.available_memory() == 5000


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_that_share_batches_read_together_what_one_process_reads(wide_store, world, workers):
    options = {"drop_last": True, "shared": True, "seed": 4}
    whole = list(load(shuffled(wide_store, batch_size=6, **options), workers))
    ranks = [
        list(load(shuffled(wide_store, batch_size=6 // world, rank=rank, world=world, **options), workers))
        for rank in range(world)
    ]
    values = {pair: row for batch in whole for pair, row in zip(pairs_of(batch), batch["user_position"], strict=True)}
    for number, batch in enumerate(whole):
        for rank, batches in enumerate(ranks):
            assert pairs_of(batches[number]) == pairs_of(batch)[rank::world]
            for pair, row in zip(pairs_of(batches[number]), batches[number]["user_position"], strict=True):
                assert torch.equal(row, values[pair])
    assert {len(batches) for batches in ranks} == {len(whole)}


def test_ranks_that_share_batches_get_what_is_of_their_users_scenes(wide_store):
    options = {
        "batch_size": 3,
        "drop_last": True,
        "shared": True,
        "world": 2,
        "fields": ("n_users",),
        "scenes_once": True,
    }
    counts = open_store(wide_store)["n_users"].values
    for rank in range(2):
        for batch in load(ShuffledChannels(wide_store, rank=rank, **options)):
            found = batch["n_users"][batch["scene_row"]].numpy()
            np.testing.assert_array_equal(found, counts[batch["scene"].numpy()])


def test_shared_batches_resume_in_their_middle_on_every_rank(wide_store):
    options = {"batch_size": 3, "drop_last": True, "shared": True, "world": 2}
    for rank in range(2):
        whole = [pairs_of(batch) for batch in load(shuffled(wide_store, rank=rank, **options))]
        state = shuffled(wide_store, rank=rank, **options).state_dict(0, 5)
        resumed = shuffled(wide_store, rank=rank, **options)
        resumed.load_state_dict(state)
        assert [pairs_of(batch) for batch in load(resumed)] == whole[5:]
        with pytest.raises(InputError, match="shared is None, but True in the saved state"):
            shuffled(wide_store, rank=rank, **{**options, "shared": False}).load_state_dict(state)


def test_shared_batches_must_be_full(wide_store):
    with pytest.raises(InputError, match="set drop_last=True"):
        shuffled(wide_store, shared=True)


def test_a_limit_takes_users_evenly_spread_over_the_split(wide_store, train_pairs):
    some = pairs_of_all(shuffled(wide_store, limit=10))
    assert sorted(some) == [train_pairs[number * len(train_pairs) // 10] for number in range(10)]
    assert sorted(pairs_of_all(shuffled(wide_store, limit=10_000))) == train_pairs
    data = ChannelDataModule(wide_store, ("user_position",), validation_users=5, evaluation_batch_size=2)
    assert [len(pairs_of(batch)) for batch in data.val_dataloader()] == [2, 2, 1]


def test_a_data_module_that_is_sent_to_another_process_finds_its_rank_there(wide_store):
    data = ChannelDataModule(wide_store, ("user_position",), batch_size=7)
    state = data.state_dict()
    other = pickle.loads(pickle.dumps(data))
    other.trainer = SimpleNamespace(global_rank=1, world_size=2, current_epoch=0)
    first = next(iter(other.train_dataloader()))
    expected = next(iter(shuffled(wide_store, window=4, rank=1, world=2)))
    assert pairs_of(first) == pairs_of(expected)
    assert state["world"] == 1
