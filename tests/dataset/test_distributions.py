"""Histograms against numpy on all values at once; the delay spread against its definition."""

import json

import numpy as np
import pytest
import toy

from wavecity.dataset.distributions import HISTOGRAMS, delay_spread, merge_distributions, unit_distributions

SPLITS = ["train", "test", "train", "validation", "train", "test"]


@pytest.fixture(scope="module")
def scenes():
    """Six scenes, the fourth quarantined, with several paths a user and some values beyond the bins."""
    made = [toy.make_arrays(np.random.default_rng(seed), 9 + seed) for seed in range(6)]
    rng = np.random.default_rng(0)
    for arrays in made:
        shape = arrays["paths/gain"].shape
        gain = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        arrays["paths/gain"] = np.where(arrays["outage"][:, None], 0, gain).astype(np.complex64)
        arrays["paths/delay"] = rng.uniform(0, 2e-6, shape).astype(np.float32)
        arrays["paths/n_paths"] = rng.integers(1, 90, len(arrays["los"])).astype(np.int32)
        arrays["los"] = rng.random(len(arrays["los"])) < 0.5
        arrays["path_gain"][0] = -230.0
        arrays["height"][:3] = rng.uniform(1, 400, (3, 200))
    return [*made[:3], None, *made[4:]]


def values_of(scenes, split, name):
    """All values of a split, worked out user by user."""
    found = []
    for arrays, here in zip(scenes, SPLITS, strict=True):
        if arrays is None or here != split:
            continue
        if name == "coverage":
            found.append(np.count_nonzero(arrays["height"]) / arrays["height"].size)
        elif name == "building_height":
            found.extend(arrays["height"][arrays["height"] != 0])
        elif name == "distance":
            found.extend(float(np.sqrt(sum(float(c) ** 2 for c in place))) for place in arrays["user_position"])
        else:
            for user in np.flatnonzero(~arrays["outage"]):
                if name == "delay_spread":
                    power = np.abs(arrays["paths/gain"][user].astype(complex)) ** 2
                    delay = arrays["paths/delay"][user].astype(float)
                    mean = np.average(delay, weights=power)
                    found.append(1e9 * np.sqrt(np.average((delay - mean) ** 2, weights=power)))
                else:
                    found.append(arrays["path_gain" if name == "path_gain" else "paths/n_paths"][user])
    return np.array(found, float)


@pytest.mark.parametrize("name", HISTOGRAMS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_merged_units_are_the_histogram_of_all_values(scenes, name, split):
    units = [unit_distributions(scenes[low : low + 2], SPLITS[low : low + 2]) for low in (0, 2, 4)]
    merged = merge_distributions(units)["histograms"][name]
    values = values_of(scenes, split, name)
    if split == "validation":  # its only scene is quarantined
        assert split not in merged["splits"]
        assert len(values) == 0
        return
    got = merged["splits"][split]
    edges = np.linspace(merged["low"], merged["high"], merged["bins"] + 1)
    assert got["counts"] == np.histogram(values, edges)[0].tolist()
    assert got["below"] == (values < edges[0]).sum()
    assert got["above"] == (values > edges[-1]).sum()
    assert got["n"] == len(values) == sum(got["counts"]) + got["below"] + got["above"]
    np.testing.assert_allclose(got["sum"], values.sum(), rtol=1e-12)
    np.testing.assert_allclose([got["min"], got["max"]], [values.min(), values.max()], rtol=1e-12)


def test_some_values_lie_beyond_the_bins(scenes):
    whole = unit_distributions(scenes, SPLITS)["histograms"]
    assert whole["path_gain"]["splits"]["train"]["below"] == 3
    assert whole["n_paths"]["splits"]["train"]["above"] > 0
    assert whole["building_height"]["splits"]["train"]["above"] > 0


def test_every_user_and_scene_is_counted_once(scenes):
    whole = unit_distributions(scenes, SPLITS)
    train = [scenes[index] for index in (0, 2, 4)]
    assert whole["users"]["train"]["outage"] == sum(arrays["outage"].sum() for arrays in train)
    assert whole["users"]["train"]["los"] == sum((arrays["los"] & ~arrays["outage"]).sum() for arrays in train)
    assert sum(whole["users"]["train"].values()) == sum(len(arrays["los"]) for arrays in train)
    assert whole["scenes"] == {
        "train": {"done": 3, "quarantined": 0},
        "validation": {"done": 0, "quarantined": 1},
        "test": {"done": 2, "quarantined": 0},
    }


def test_merging_goes_in_any_grouping_and_through_json(scenes):
    units = [unit_distributions([scene], [split]) for scene, split in zip(scenes, SPLITS, strict=True)]
    stored = json.loads(json.dumps(units))
    there = merge_distributions(stored)
    back = merge_distributions([merge_distributions(stored[3:]), merge_distributions(stored[:3])])
    for name in HISTOGRAMS:
        for split, here in there["histograms"][name]["splits"].items():
            other = back["histograms"][name]["splits"][split]
            assert here.pop("sum") == pytest.approx(other.pop("sum"), rel=1e-14)
    assert there == back


def test_without_paths_their_histograms_are_empty(scenes):
    bare = [scene and {name: array for name, array in scene.items() if "/" not in name} for scene in scenes]
    whole = unit_distributions(bare, SPLITS)["histograms"]
    assert whole["delay_spread"]["splits"] == whole["n_paths"]["splits"] == {}
    assert whole["path_gain"]["splits"]["train"]["n"] > 0


def test_delay_spread_of_two_paths():
    """Powers p and 1 - p, d apart: d sqrt(p (1 - p))."""
    gain = np.sqrt([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]).astype(np.complex64)
    delay = np.array([[1e-6, 1.1e-6]] * 4)
    expected = 1e-7 * np.sqrt([0.16, 0.25, 0.0, 0.0])
    np.testing.assert_allclose(delay_spread(gain, delay), expected, rtol=1e-5, atol=1e-15)
