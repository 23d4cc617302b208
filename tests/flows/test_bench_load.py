"""`wavecity bench load`: all sides read the same samples, and the figures are there; how fast it was is not tested."""

import json
from dataclasses import replace

import numpy as np
import pytest

from wavecity.dataset.loader import BatchReader, Order
from wavecity.dataset.reader import open_store
from wavecity.dataset.recycler import Recycler
from wavecity.dataset.users import find_users
from wavecity.flows.bench import load
from wavecity.geo.errors import InputError


@pytest.fixture
def options(toy_store):
    return load.Options(data=str(toy_store), samples=10, batch=4, window=1, rounds=2)


def test_figures_of_a_toy_store(options, toy_store, capsys):
    figures = json.loads(json.dumps(load.run(options)))
    printed = capsys.readouterr().out
    assert not [name for name, value in figures.items() if isinstance(value, list | dict)]
    for prefix in ("", "cold_"):
        ours = figures[f"{prefix}samples_per_second"]
        assert ours > 0
        for side in ("memmap", "memmap_recycled", "naive", "webdataset"):
            ratio = ours / figures[f"{prefix}samples_per_second_{side}"]
            assert figures[f"{prefix}ratio_to_{side}"] == pytest.approx(ratio)
            assert side in printed
    # Scenes 0 and 1 of the toy store, with 7 and 8 users that have a path.
    assert (figures["scenes"], figures["samples"], figures["rounds"], figures["batch"]) == (2, 15, 2, 4)
    assert (figures["samples_webdataset"], figures["samples_naive"]) == (10, 2)
    assert figures["sample_bytes"] == 32 * 32 * (8 + 4) + 200 * 200 * 4 + 20 * 20 + 3 * 4 + 1 + 2
    # Users' arrays once a user, scenes' once a scene, and a header of 128 bytes a file.
    users, scenes = 15 * (32 * 32 * 12 + 12 + 3), 2 * (200 * 200 * 4 + 400)
    assert figures["memmap_bytes"] == users + scenes + 7 * 128
    assert figures["data"] == str(toy_store)


def test_every_side_gives_the_store_s_samples(toy_store, tmp_path):
    truth = open_store(toy_store).load()
    users = find_users(toy_store, "train")
    expected = {
        truth["csi"].values[scene, user].tobytes(): (int(scene), int(user))
        for scene, user in zip(users.scene_index, users.user_index, strict=True)
    }
    reader = BatchReader(users, load.FIELDS, Order(4))
    plain = load.copy_arrays(reader, tmp_path / "memmap")
    tar = load.copy_samples(plain, users, 9, tmp_path / "samples.tar")
    sides = {
        "ours": (reader.batches(0), 15),
        "memmap": (load.memmap_batches(plain, users, 4, 0), 15),
        "memmap_recycled": (load.memmap_batches(plain, users, 4, 0, Recycler(3)), 15),
        "naive": (load.naive_batches(users, 4, 6, 0), 6),
        "webdataset": (load.webdataset_batches(tar, 4), 9),
    }
    assert set(sides) == set(load.SIDES)
    for side, (batches, count) in sides.items():
        seen = []
        for batch in batches:
            for row in range(len(batch["csi"])):
                scene, user = expected[np.ascontiguousarray(batch["csi"][row]).tobytes()]
                seen.append((scene, user))
                of_user = truth.isel(scene=scene, user=user)
                for name in load.FIELDS:
                    np.testing.assert_array_equal(batch[name][row], of_user[name].values, err_msg=f"{side} {name}")
        assert len(seen) == len(set(seen)) == count, side
        assert seen != sorted(seen), f"{side} must be shuffled"


def test_rates_count_samples_and_medians_are_taken(monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    assert load.measure(iter([{"csi": np.zeros(5)}, {"csi": np.zeros(3)}])) == 4.0
    warm = {
        "ours": [8, 100, 12],
        "memmap": [4, 6, 0],
        "memmap_recycled": [6, 6, 6],
        "naive": [3, 3, 3],
        "webdataset": [1, 2, 3],
    }
    figures = load.summary({side: {"warm": values, "cold": [2, 2, 2]} for side, values in warm.items()})
    assert (figures["samples_per_second"], figures["ratio_to_memmap"], figures["ratio_to_naive"]) == (12, 3, 4)
    assert (figures["ratio_to_webdataset"], figures["cold_samples_per_second"], figures["cold_ratio_to_naive"]) == (
        6,
        2,
        1,
    )


def test_a_store_is_built_from_real_scenes(tmp_path):
    data = open_store(load.build_store(tmp_path / "store", 3, 12)).load()
    assert dict(data.sizes)["scene"] == 3
    assert set(data["split"].values) == {"train"}
    assert data["n_users"].values.tolist() == [12] * 3
    assert (data["height"].max(("row", "column")) > 3).all()
    power = (np.abs(data["csi"]) ** 2).sum(("x", "y")).values
    assert (power[~data["outage"].values] > 0).all()
    # Parseval: the spectra belong to the channels.
    np.testing.assert_allclose(data["spectrum"].sum(("kx", "ky")), 32 * 32 * power, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "nowhere"}, "nowhere: no such store"),
        ({"batch": 0}, "batch_size 0: must be at least 1"),
    ],
)
def test_wrong_input_is_one_line(options, changes, words):
    with pytest.raises(InputError) as error:
        load.run(replace(options, **changes))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
