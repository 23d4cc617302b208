"""The life of a large store with cheap channels: planned, half built, resumed, validated, published, opened, iterated."""

import json
import resource
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from processes import python
from synthetic_scale import Scale, build_units, make_arrays, make_plan

from wavecity.dataset.checks.validate import processes, validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.publish import latest, publish
from wavecity.dataset.reader import open_store
from wavecity.dataset.users import find_users
from wavecity.dataset.views import add_noise, derived_csi

SMALL = Scale(scenes=200, cities=8, users=16, columns=16, rows=16)
LARGE = Scale(scenes=10_000, cities=200, users=4, columns=32, rows=32)
SPLITS = ("train", "validation", "test")


def live(store: Path, scale: Scale, workers: int) -> dict[str, float]:
    """Plan, build in two goes, finish, validate and publish; returns the seconds that each took."""
    seconds = {}
    clock = time.perf_counter

    start = clock()
    plan = make_plan(scale)
    tiles = plan.accepted
    seconds["plan"] = clock() - start
    assert len(tiles) == scale.scenes
    assert len({tile.id for tile in tiles}) == scale.scenes
    assert len({tile.city for tile in tiles}) == scale.cities
    held_out = {split: {tile.city for tile in tiles if tile.split == split} for split in SPLITS}
    assert sum(len(cities) for cities in held_out.values()) == scale.cities
    assert all(held_out.values())

    with processes(workers) as each:
        start = clock()
        draft = open_draft(store, scale.fingerprint, scale.layout)
        units = draft.missing()
        assert units == list(range(scale.layout.units))
        build_units(draft, scale, plan, units[::2], each)
        seconds["half"] = clock() - start
        # What a killed process leaves: a shard without its receipt, a receipt cut short, a half-written file.
        for unit in units[:4:2]:
            path = draft.receipt_path(unit)
            path.write_text(path.read_text()[: 40 * unit])
        (draft.data / "csi" / "c" / "x.partial").write_bytes(b"half")
        untouched = {unit: draft.receipt_path(unit).read_bytes() for unit in units[4::2]}

        start = clock()
        again = open_draft(store, scale.fingerprint, scale.layout)
        missing = again.missing()
        assert missing == sorted([*units[:4:2], *units[1::2]])
        assert build_units(again, scale, plan, missing, each) == missing
        assert again.missing() == []
        assert all(again.receipt_path(unit).read_bytes() == receipt for unit, receipt in untouched.items())
        assert not list(store.rglob("*.partial"))
        seconds["resume"] = clock() - start

        start = clock()
        finish_draft(again, scale.attributes, {"map": {"name": "synthetic"}})
        seal(again)
        seconds["finish"] = clock() - start
        start = clock()
        result = validate(again.folder, each=each)
        seconds["validate"] = clock() - start
    assert result.ok, result.findings[:3]
    assert result.checks["friis"] == result.checks["los"] == scale.scenes
    start = clock()
    version = publish(store, again.folder, keep=1)
    seconds["publish"] = clock() - start
    assert latest(store) == version
    return seconds


def check_iteration(store: Path, scale: Scale, samples: int) -> None:
    """Every user with a path comes exactly once an epoch, and with its own channel."""
    expected = Counter()
    for scene in range(scale.scenes) if scale.scenes <= 1000 else ():
        outage = make_arrays(scale, scene)["outage"]
        expected.update((scene, user) for user in np.flatnonzero(~outage).tolist())
    found: Counter = Counter()
    random = np.random.default_rng(0)
    for split in SPLITS:
        reader = BatchReader(find_users(store, split), ("csi", "user_position"), Order(batch_size=64, window=2))
        for batch in reader.batches(epoch=0):
            found.update(zip(batch["scene"].tolist(), batch["user"].tolist(), strict=True))
            if random.random() < samples / scale.scenes:
                scene, user = int(batch["scene"][0]), int(batch["user"][0])
                arrays = make_arrays(scale, scene)
                np.testing.assert_array_equal(batch["csi"][0], arrays["csi"][user])
                np.testing.assert_array_equal(batch["user_position"][0], arrays["user_position"][user])
    assert set(found.values()) == {1}
    if expected:
        assert found == expected
    else:
        outage = open_store(store)["outage"].values
        assert set(found) == set(zip(*(axis.tolist() for axis in np.nonzero(~outage)), strict=True))


def check_opening(store: Path, scale: Scale) -> dict[str, float]:
    """With our reader, with plain xarray, and as views of it; returns the seconds that each took."""
    seconds = {}
    for name, opened in {
        "open_store": lambda: open_store(store),
        "open_zarr": lambda: xr.open_zarr(store / "latest.zarr"),
        "open_paths": lambda: open_store(store, "paths"),
    }.items():
        start = time.perf_counter()
        data = opened()
        seconds[name] = time.perf_counter() - start
        assert data.sizes["scene"] == scale.scenes
    start = time.perf_counter()
    wide = add_noise(derived_csi(store, columns=4, rows=4, subcarriers=4, bandwidth=100e6), 20.0)
    one = wide.isel(scene=scale.scenes // 2).compute()
    seconds["derived_one_scene"] = time.perf_counter() - start
    assert one.shape == (scale.users, 4, 4, 4)
    return seconds


def test_a_store_of_two_hundred_scenes_lives(tmp_path):
    store = tmp_path / "store"
    live(store, SMALL, workers=2)
    check_opening(store, SMALL)
    check_iteration(store, SMALL, samples=50)


def test_iterating_holds_some_units_and_not_the_store(tmp_path):
    store, scale = tmp_path / "store", Scale(scenes=200, cities=8, users=16, columns=32, rows=32, unit=8)
    plan = make_plan(scale)
    draft = open_draft(store, scale.fingerprint, scale.layout)
    build_units(draft, scale, plan, draft.missing())
    finish_draft(draft, scale.attributes, {"map": {"name": "synthetic"}})
    users = find_users(draft.folder, "train")
    total = len(users) * 32 * 32 * 8
    reader = BatchReader(users, ("csi",), Order(batch_size=16, window=1))
    tracemalloc.start()
    try:
        read = sum(batch["csi"].nbytes for batch in reader.batches(epoch=0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read == total
    # Of some 19 units two are decoded at a time, padding and all, beside the compressed bytes of one.
    assert peak < total / 2


ITERATE = """
import json, re, resource, sys, time
from pathlib import Path
import dask.array, xarray
from wavecity.dataset.reader import open_store
from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.users import find_users

def peak():
    # Linux hands the parent's ru_maxrss down to a new program; VmHWM starts anew.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

seconds = {}
ways = {"open_zarr": lambda: xarray.open_zarr(sys.argv[1] + "/latest.zarr"), "open_store": lambda: open_store(sys.argv[1])}
for name, way in ways.items():
    start, busy = time.perf_counter(), time.process_time()
    way()
    seconds[name], seconds[name + " (cpu)"] = time.perf_counter() - start, time.process_time() - busy
start = time.perf_counter()
reader = BatchReader(find_users(sys.argv[1], "train"), ("csi", "spectrum", "height"), Order(batch_size=64, window=4))
seconds["reader"], before = time.perf_counter() - start, peak()
start = time.perf_counter()
read = samples = 0
for batch in reader.batches(epoch=0):
    read += sum(batch[name].nbytes for name in ("csi", "spectrum", "height"))
    samples += len(batch["scene"])
seconds["epoch"] = time.perf_counter() - start
print(json.dumps({"before": before, "peak": peak(), "read": read, "samples": samples, "seconds": seconds}))
"""


@pytest.mark.heavy
def test_a_store_of_ten_thousand_scenes_lives(tmp_path, capsys):
    store = tmp_path / "store"
    seconds = live(store, LARGE, workers=2)
    seconds |= check_opening(store, LARGE)
    figures = json.loads(python(ITERATE, store))
    check_iteration(store, LARGE, samples=100)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with capsys.disabled():
        print(f"\n{LARGE}")
        print(", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))
        print(f"main process peak {own} MB; in a process of its own: {figures}")
    # Two windows of four units are in memory, of 625 units; what else a process needs does not grow with the store.
    assert figures["peak"] - figures["before"] < figures["read"] / 4
