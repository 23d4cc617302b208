"""Table 1, the curriculum, the geometry of scene masks, and the decoy that keeps them from telling the location."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from wavecity.model.data.tokens import patch_centres
from wavecity.model.multimodal import masking
from wavecity.model.multimodal.masking import Plan
from wavecity.model.settings.training import MaskingSettings

TABLE_1 = {
    1: {"csi": (0.5, 0.5), "scene": (0.1, 0.1), "all": ((0.3, 0.3), (0.05, 0.05))},
    2: {"csi": (0.7, 0.9), "scene": (0.2, 0.3), "all": ((0.5, 0.7), (0.1, 0.2))},
}


def within(value, bounds):
    return bounds[0] <= value <= bounds[1]


def test_plans_follow_table_1():
    settings = MaskingSettings(extreme_share=0.25)
    rng = np.random.default_rng(0)
    plans = [masking.draw_plan(settings, epoch, 50, rng) for epoch in range(50) for _ in range(100)]
    for plan in plans:
        row = TABLE_1[plan.stage]
        if plan.objective == "csi":
            extreme = plan.stage == 2 and plan.csi_ratio == settings.extreme_ratio
            assert within(plan.csi_ratio, row["csi"]) or extreme
            assert plan.scene_ratio == 0
        elif plan.objective == "scene":
            assert within(plan.scene_ratio, row["scene"])
            assert plan.csi_ratio == 0
        else:
            assert within(plan.csi_ratio, row["all"][0])
            assert within(plan.scene_ratio, row["all"][1])
        if plan.hide_location:
            assert plan.objective == "all"
            assert plan.stage == 2

    shares = [np.mean([plan.objective == objective for plan in plans]) for objective in masking.OBJECTIVES]
    np.testing.assert_allclose(shares, settings.objectives, atol=0.03)
    extremes = [p.csi_ratio == settings.extreme_ratio for p in plans if p.objective == "csi" and p.stage == 2]
    assert np.mean(extremes) == pytest.approx(0.25, abs=0.05)
    hidden = [plan.hide_location for plan in plans if plan.objective == "all" and plan.stage == 2]
    assert np.mean(hidden) == pytest.approx(0.5, abs=0.05)


def test_stage_2_becomes_likelier_with_the_epoch():
    settings = MaskingSettings()
    assert masking.stage_2_probability(settings, 0, 50) == pytest.approx(0.2)
    assert masking.stage_2_probability(settings, 49, 50) == pytest.approx(0.9)
    rng = np.random.default_rng(1)
    for epoch, expected in ((0, 0.2), (25, 0.2 + 0.7 * 25 / 49), (49, 0.9)):
        share = np.mean([masking.draw_plan(settings, epoch, 50, rng).stage == 2 for _ in range(1000)])
        assert share == pytest.approx(expected, abs=0.05)


def test_csi_only_steps_show_neither_scene_nor_location():
    settings = MaskingSettings(csi_only=1.0, objectives=(0.5, 0.0, 0.5))
    rng = np.random.default_rng(2)
    plan = masking.draw_plan(settings, 0, 1, rng)
    centres = patch_centres(10, 10, 200.0)
    mask = masking.draw_mask(plan, 64, centres, torch.zeros(3, 2), torch.ones(3, 2), 200.0, rng)
    assert plan.csi_only
    assert mask.scene_visible is None
    assert not mask.location_visible


@pytest.mark.parametrize(("ratio", "patches", "masked"), [(0.5, 64, 32), (0.94, 64, 60), (0.05, 400, 20), (0, 64, 0),
                                                         (0.999, 64, 63), (0.001, 100, 1)])  # fmt: skip
def test_counts(ratio, patches, masked):
    assert masking.masked_count(ratio, patches) == masked


def test_csi_masks_are_a_partition_uniform_and_different_for_every_sample():
    visible, masked = masking.split_random(2000, 64, 45, np.random.default_rng(3))
    both = torch.cat((visible, masked), 1).sort(1).values
    assert (both == torch.arange(64)).all()
    counts = torch.bincount(masked.flatten(), minlength=64) / 2000
    np.testing.assert_allclose(counts.numpy(), 45 / 64, atol=0.05)
    assert len(masked.unique(dim=0)) == 2000


def slow_distance(point, start, end):
    """Distance to a segment by a fine search along it."""
    shares = np.linspace(0, 1, 20001)[:, None]
    return np.min(np.linalg.norm(start + shares * (end - start) - point, axis=1))


def test_scene_masks_are_the_patches_nearest_to_the_link():
    centres = patch_centres(20, 20, 200.0)
    bs, user = torch.tensor([[5.0, 100.0], [0.0, 100.0]]), torch.tensor([[-60.0, -30.0], [40.0, 90.0]])
    visible, masked = masking.split_along_link(centres, bs, user, 40)
    for sample in range(2):
        distance = np.array([slow_distance(p, bs[sample].numpy(), user[sample].numpy()) for p in centres.numpy()])
        chosen = np.zeros(400, bool)
        chosen[masked[sample]] = True
        assert chosen.sum() == 40
        assert sorted([*visible[sample], *masked[sample]]) == list(range(400))
        assert distance[chosen].max() <= distance[~chosen].min() + 1e-3


def test_patch_centres_put_north_first_and_west_left():
    centres = patch_centres(20, 20, 200.0).reshape(20, 20, 2)
    np.testing.assert_allclose(centres[0, 0], [-95, 95])
    np.testing.assert_allclose(centres[0, 19], [95, 95])
    np.testing.assert_allclose(centres[19, 0], [-95, -95])


def test_with_the_location_hidden_the_scene_mask_does_not_depend_on_it():
    plan = Plan("all", 2, 0.6, 0.15, hide_location=True)
    centres, bs = patch_centres(20, 20, 200.0), torch.tensor([[0.0, 100.0]]).repeat(16, 1)
    masks = [
        masking.draw_mask(plan, 64, centres, bs, place.repeat(16, 1), 200.0, np.random.default_rng(4))
        for place in (torch.tensor([[-80.0, -90.0]]), torch.tensor([[70.0, 20.0]]))
    ]
    assert torch.equal(masks[0].scene_masked, masks[1].scene_masked)
    assert torch.equal(masks[0].csi_masked, masks[1].csi_masked)
    shown = Plan("all", 2, 0.6, 0.15, hide_location=False)
    places = (torch.tensor([[-80.0, -90.0]]), torch.tensor([[70.0, 20.0]]))
    told = [
        masking.draw_mask(shown, 64, centres, bs, place.repeat(16, 1), 200.0, np.random.default_rng(4))
        for place in places
    ]
    assert not torch.equal(told[0].scene_masked, told[1].scene_masked)


def nearest_mask_error(masked, position, known):
    """Median error of reading positions off scene masks: mean of the five known users with the most similar masks."""
    patches = torch.zeros(len(masked), 400).scatter(1, masked, 1.0)
    common = patches[known:] @ patches[:known].T
    found = position[common.topk(5, dim=1).indices].mean(1)
    return float((found - position[known:]).norm(dim=1).median())


@pytest.mark.parametrize("ratio", [0.1, 0.2])
def test_nobody_reads_a_hidden_location_off_the_choice_of_patches(ratio):
    """True links give users away to a nearest-neighbour reader; with the location hidden it does no better than chance."""
    rng = np.random.default_rng(6)
    count, known = 1500, 1200
    centres, bs = patch_centres(20, 20, 200.0), torch.tensor([[0.0, 100.0]]).repeat(count, 1)
    # Users as a street has them, not as the decoys are drawn.
    position = torch.from_numpy(rng.normal((-40.0, -20.0), (25.0, 45.0), (count, 2)).astype(np.float32)).clamp(-99, 99)
    errors = {}
    for hidden in (False, True):
        plan = Plan("all", 2, 0.6, ratio, hide_location=hidden)
        mask = masking.draw_mask(plan, 64, centres, bs, position, 200.0, np.random.default_rng(7))
        errors[hidden] = nearest_mask_error(mask.scene_masked, position, known)
    # The same masks, dealt out to other users: what chance gives.
    dealt = mask.scene_masked[torch.from_numpy(rng.permutation(count))]
    chance = nearest_mask_error(dealt, position, known)
    assert errors[False] < 0.4 * chance
    assert errors[True] == pytest.approx(chance, rel=0.12)


def test_hidden_locations_have_the_same_masks_whoever_and_wherever_they_are():
    """Patches masked near and far users: the same frequencies, and none of the CSI's patches goes with a scene mask."""
    plan = Plan("all", 2, 0.6, 0.15, hide_location=True)
    count, centres = 4000, patch_centres(20, 20, 200.0)
    bs = torch.tensor([[0.0, 100.0]]).repeat(count, 1)
    frequencies = []
    for seed, place in ((8, (-80.0, -90.0)), (9, (5.0, 95.0))):
        mask = masking.draw_mask(
            plan, 64, centres, bs, torch.tensor([place]).repeat(count, 1), 200.0, np.random.default_rng(seed)
        )
        frequencies.append(torch.bincount(mask.scene_masked.flatten(), minlength=400) / count)
    spread = torch.sqrt(2 * frequencies[0] * (1 - frequencies[0]) / count).clamp_min(1e-3)
    assert ((frequencies[0] - frequencies[1]).abs() < 5 * spread).all()
    csi = torch.zeros(count, 64).scatter(1, mask.csi_masked, 1.0)
    scene = torch.zeros(count, 400).scatter(1, mask.scene_masked, 1.0)
    varied = scene.std(0) > 0.05
    both = torch.cat((csi, scene[:, varied]), 1).T.corrcoef()[:64, 64:]
    assert both.abs().max() < 6 / math.sqrt(count)


def test_decoys_cover_the_tile():
    decoys = masking.draw_decoy(20000, 200.0, np.random.default_rng(5))
    assert decoys.abs().max() <= 100
    np.testing.assert_allclose(decoys.mean(0), 0, atol=2)
    np.testing.assert_allclose(decoys.std(0), 200 / math.sqrt(12), rtol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objectives": (0.5, 0.5, 0.5)}, "must sum to 1"),
        ({"stage_1": {"csi_large": (0.9, 0.5), "height_large": (0.1, 0.1), "csi_moderate": (0.3, 0.3),
                      "height_moderate": (0.05, 0.05)}}, "must not exceed"),
        ({"extreme_ratio": 1.0}, "less than 1"),
        ({"ratio": 0.5}, "Extra inputs"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        MaskingSettings.model_validate(change)
