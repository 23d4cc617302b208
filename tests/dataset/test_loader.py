"""Shuffled batches: every user once, in an order that mixes, from any batch on, in bounded memory, with right values."""

import gc
import itertools
import sys
import weakref
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
from processes import wait_until
from toy import build_store, make_layout

from wavecity.dataset import InputError, loader
from wavecity.dataset.loader import BatchReader, Order, units_within
from wavecity.dataset.recycler import Recycler
from wavecity.dataset.users import find_users


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory):
    """36 scenes of 8 to 11 users in units of two."""
    store = tmp_path_factory.mktemp("wide") / "store"
    build_store(store, make_layout(scenes=36, unit=2))
    return store


@pytest.fixture(scope="module")
def truth(wide_store):
    """The store as plain xarray sees it."""
    return xr.open_zarr(wide_store / "latest.zarr").load()


def expected_users(truth, split, include_outage=False):
    """(scene, user) of the split, worked out one by one."""
    return [
        (scene, user)
        for scene in range(truth.sizes["scene"])
        for user in range(int(truth["n_users"][scene]))
        if str(truth["split"].values[scene]) == split and (include_outage or not truth["outage"].values[scene, user])
    ]


def pairs(batches):
    return [pair for batch in batches for pair in zip(batch["scene"].tolist(), batch["user"].tolist(), strict=True)]


def reader_of(store, fields=("user_position",), split="train", **order):
    return BatchReader(find_users(store, split), fields, Order(**{"batch_size": 7, **order}))


def test_arrays_of_scenes_come_once_where_asked_for(wide_store, truth):
    """The same users in the same order; batches of seven span windows of two units."""
    fields = ("csi", "height", "n_users")
    assert len(set(truth["n_users"].values)) > 2  # the maps of all scenes are the same
    users = find_users(wide_store, "train")
    order = Order(7, seed=2, window=2)
    for often, once in zip(
        BatchReader(users, fields, order).batches(0),
        BatchReader(users, fields, order, scenes_once=True).batches(0),
        strict=True,
    ):
        np.testing.assert_array_equal(once["csi"], often["csi"])
        np.testing.assert_array_equal(once["scene"], often["scene"])
        assert len(once["height"]) == len(once["n_users"]) <= 2 * len(set(often["scene"].tolist()))
        np.testing.assert_array_equal(once["height"][once["scene_row"]], truth["height"].values[often["scene"]])
        np.testing.assert_array_equal(once["n_users"][once["scene_row"]], often["n_users"])


@pytest.mark.parametrize("include_outage", [False, True])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_users_of_a_split(wide_store, truth, split, include_outage):
    users = find_users(wide_store, split, include_outage)
    assert list(zip(users.scene_index, users.user_index, strict=True)) == expected_users(truth, split, include_outage)
    assert users.unit.tolist() == [scene // 2 for scene, _ in expected_users(truth, split, include_outage)]


def test_values_are_those_of_xarray(wide_store, truth):
    fields = ("csi", "spectrum", "height", "occupancy", "user_position", "los", "best_beam", "latitude")
    paths = xr.open_zarr(wide_store / "latest.zarr", group="paths").load()
    seen = 0
    for batch in reader_of(wide_store, (*fields, "paths/delay", "paths/interactions")).batches(3):
        for row, (scene, user) in enumerate(zip(batch["scene"], batch["user"], strict=True)):
            expected = truth.isel(scene=scene, user=user)
            for field in fields:
                assert batch[field].dtype == truth[field].dtype
                np.testing.assert_array_equal(batch[field][row], expected[field].values)
            for field in ("delay", "interactions"):
                value = paths[field].isel(scene=scene, user=user).values
                np.testing.assert_array_equal(batch[f"paths/{field}"][row], value)
            seen += 1
    assert seen == len(expected_users(truth, "train"))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize(("world", "streams"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2), (5, 4)])
def test_every_user_once_on_whatever_ranks_and_workers(wide_store, truth, world, streams, batch_size, drop_last):
    expected = expected_users(truth, "train")
    if drop_last and len(expected) // world < batch_size:
        with pytest.raises(
            InputError, match=f"has {len(expected)} users with a path, too few for a batch of {batch_size} on"
        ):
            reader_of(wide_store, batch_size=batch_size, world=world, drop_last=True)
        return
    seen, numbers = [], set()
    for rank in range(world):
        reader = reader_of(wide_store, batch_size=batch_size, rank=rank, world=world, drop_last=drop_last)
        of_rank = [list(reader.batches(2, 0, stream, streams)) for stream in range(streams)]
        # As a DataLoader takes them: in turn, one a stream, until all are exhausted.
        turns = [batch for turn in itertools.zip_longest(*of_rank) for batch in turn if batch is not None]
        sizes = [len(batch["scene"]) for batch in turns]
        assert len(reader) == len(turns)
        assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
        assert 0 < sizes[-1] <= batch_size
        numbers.add((len(turns), sizes[-1]))
        seen += pairs(turns)
    assert len(numbers) == 1, "every rank does the same number of batches"
    counts = Counter(seen)
    if drop_last:
        assert max(counts.values()) == 1
        assert len(expected) - len(seen) < world * batch_size
        assert set(counts) <= set(expected)
    else:
        assert set(counts) == set(expected)
        assert 0 <= len(seen) - len(expected) < world
        assert max(counts.values()) <= 2


def test_a_store_smaller_than_the_world(toy_store):
    readers = [reader_of(toy_store, split="validation", batch_size=4, rank=rank, world=11) for rank in range(11)]
    assert {len(list(reader.batches(0))) for reader in readers} == {1}
    assert len(set(pairs(itertools.chain(*(reader.batches(0) for reader in readers))))) == 9


def test_ranks_share_no_unit_but_where_one_ends_and_the_next_begins(wide_store):
    readers = [reader_of(wide_store, rank=rank, world=3) for rank in range(3)]
    units = [{int(unit) for window in reader.windows(1) for unit, _, _ in window} for reader in readers]
    assert sum(map(len, units)) <= len(set.union(*units)) + 3


def test_order_is_a_pure_function_of_seed_epoch_and_place(wide_store):
    once = pairs(reader_of(wide_store, seed=5).batches(4))
    assert pairs(reader_of(wide_store, seed=5).batches(4)) == once
    others = [reader_of(wide_store, seed=6).batches(4), reader_of(wide_store, seed=5).batches(5)]
    others.append(reader_of(wide_store, seed=4).batches(5))
    for other in map(pairs, others):
        assert sorted(other) == sorted(once)
        # Two independent permutations have one fixed point on average: ten are out of the question (1e-7).
        assert sum(a == b for a, b in zip(other, once, strict=True)) < 10


@pytest.mark.parametrize("streams", [1, 3])
def test_resume_at_every_batch_gives_the_identical_rest(wide_store, streams):
    reader = reader_of(wide_store, ("user_position", "height"), window=2)
    for stream in range(streams):
        whole = list(reader.batches(1, 0, stream, streams))
        for start in range(len(whole) + 2):
            rest = list(reader.batches(1, start, stream, streams))
            assert len(rest) == len(whole[start:])
            for got, expected in zip(rest, whole[start:], strict=True):
                assert got.keys() == expected.keys()
                for name, value in expected.items():
                    np.testing.assert_array_equal(got[name], value)


def test_what_is_skipped_is_not_decoded(wide_store, monkeypatch):
    reader = reader_of(wide_store, window=2)
    decoded = []
    read = loader.read_scenes
    monkeypatch.setattr(loader, "read_scenes", lambda *given: decoded.append(given[1]) or read(*given))
    list(reader.batches(0, len(reader) - 1))
    # The last batch lies in the last window, or across its edge.
    assert 1 <= len(decoded) <= 2


def test_at_most_two_windows_are_in_memory(wide_store, monkeypatch):
    """One that batches are cut from and one that is being decoded; counted as objects alive."""
    alive: weakref.WeakSet = weakref.WeakSet()
    blocks: weakref.WeakSet = weakref.WeakSet()
    most, sizes = [], []

    class Counted(loader._Window):
        def __init__(self, scene, user, row, values, arrays):
            super().__init__(scene, user, row, values, arrays)
            alive.add(self)
            sizes.append(len(values["csi"]))
            most.append(len(alive))
            blocks.add(_Owner.of(values["csi"]))

    reader = reader_of(wide_store, ("csi",), window=2)
    monkeypatch.setattr(loader, "_Window", Counted)
    kept = [batch["csi"] for batch in reader.batches(0)]
    assert len(sizes) >= 5
    assert max(sizes) <= 2 * 2
    assert max(most) <= 2
    assert sum(map(len, kept)) == len(reader.users)
    # The thread that decoded them may not have ended yet.
    wait_until(
        lambda: gc.collect() >= 0 and not alive and not blocks, 30, lambda: "batches keep a window's memory alive"
    )


class _Owner:
    """A handle on the memory under an array: numpy's arrays cannot be members of a set."""

    handles: ClassVar[dict] = {}

    @classmethod
    def of(cls, array):
        while array.base is not None:
            array = array.base
        handle = cls()
        key = id(handle)
        cls.handles[key] = handle
        weakref.finalize(array, cls.handles.pop, key)
        return handle


def test_memory_is_given_out_again_only_when_nobody_holds_it():
    memory = Recycler(3)

    def address(array):
        return array.__array_interface__["data"][0]

    first = memory.empty("a", (4, 5), np.dtype("complex64"))
    view, where = first[1:, 2], address(first)
    del first
    second = memory.empty("a", (4, 5), np.dtype("complex64"))
    assert address(second) != where, "a view still holds it"
    del view
    third = memory.empty("a", (40,), np.dtype("float32"))
    assert address(third) == where
    assert third.shape == (40,)
    assert address(memory.empty("b", (4, 5), np.dtype("complex64"))) not in (where, address(second))
    # Too small a block is not taken.
    del third
    assert address(memory.empty("a", (1000,), np.dtype("float32"))) != where


def test_batches_are_the_callers_to_keep(wide_store):
    """Kept batches and tensors of them stay as they were, although memory is used again."""
    import torch

    reader = reader_of(wide_store, ("csi", "user_position"))
    kept, copies = [], []
    for number, batch in enumerate(reader.batches(0)):
        copies.append(batch["csi"].copy())
        # All kinds of holding on: the array, a slice, a tensor, a slice of a tensor; and a third is let go.
        tensor = torch.from_numpy(batch["csi"])
        kept.append([batch["csi"], batch["csi"][2:5], tensor, tensor[2:5], None, None][number % 6])
        del batch, tensor
    for number, (value, copy) in enumerate(zip(kept, copies, strict=True)):
        if value is not None:
            np.testing.assert_array_equal(np.asarray(value), copy[2:5] if number % 6 in (1, 3) else copy)


def test_the_shuffle_mixes(wide_store, truth):
    """Statistics of many epochs against what independent uniform draws would give."""
    expected = expected_users(truth, "train")
    count, epochs = len(expected), 300
    place = {pair: number for number, pair in enumerate(expected)}
    reader = reader_of(wide_store, window=3)
    positions = np.empty((epochs, count))
    neighbours = 0
    for epoch in range(epochs):
        order = [place[pair] for pair in pairs(reader.batches(epoch))]
        positions[epoch, order] = np.arange(count)
        scenes = np.array([expected[number][0] for number in order])
        neighbours += np.mean(scenes[1:] == scenes[:-1])
    # Every user's mean position is the middle, with the spread of a uniform one: sigma = n / sqrt(12 epochs).
    spread = count / np.sqrt(12 * epochs)
    off = (positions.mean(0) - (count - 1) / 2) / spread
    assert np.abs(off).max() < 4.5
    assert 0.8 < off.std() < 1.25
    # Two successive samples are of one scene as often as in a window of three units with their train scenes (one or two
    # a unit, of nine or so users): between 1/6 and 1/3; without shuffling within windows it would be about 0.9.
    assert 0.12 < neighbours / epochs < 0.35


def test_stopping_early_and_errors_of_the_background_reach_the_reader(wide_store, monkeypatch):
    reader = reader_of(wide_store, window=1)
    batches = reader.batches(0)
    next(batches)
    batches.close()

    def broken(*given):
        raise OSError("disk gone")

    monkeypatch.setattr(loader, "read_scenes", broken)
    with pytest.raises(OSError, match="disk gone"):
        next(reader.batches(0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size 0: must be at least 1"),
        ({"window": 0}, "window 0: must be at least 1"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"rank": 2, "world": 2}, "rank 2 of 2: ranks count from 0 to 1"),
        ({"fields": ("csi", "speed")}, "no array 'speed'; it has best_beam"),
        ({"fields": ("city",)}, "no array 'city'"),
        ({"split": "holdout"}, "split 'holdout' has no scene; it has"),
    ],
)
def test_wrong_input_gets_one_line(toy_store, changes, words):
    with pytest.raises(InputError) as error:
        reader_of(toy_store, **changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_the_fast_pipeline_is_used_where_it_is_installed_and_gives_the_same(wide_store, monkeypatch):
    pytest.importorskip("zarrs")
    fields = ("csi", "height", "los")

    def pipelines(reader):
        return {type(array.async_array.codec_pipeline).__name__ for array in reader.arrays.values()}

    fast = reader_of(wide_store, fields)
    monkeypatch.setitem(sys.modules, "zarrs", None)
    plain = reader_of(wide_store, fields)
    assert pipelines(fast) == {"ZarrsCodecPipeline"}
    assert pipelines(plain) == {"BatchedCodecPipeline"}
    for got, expected in zip(fast.batches(0), plain.batches(0), strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)


def test_a_window_holds_as_many_units_as_the_bytes_allow(wide_store):
    """Two scenes of at most 11 users: their channels, and one height map each."""
    users = find_users(wide_store, "train")
    unit = 2 * ((int(users.user_index.max()) + 1) * 32 * 32 * 8 + 200 * 200 * 4)
    assert [units_within(users, ("csi", "height"), size) for size in (1, unit, 3 * unit, 4 * unit - 1)] == [1, 1, 3, 3]
