"""The architecture of Appendix A, and what must not reach the encoder."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from wavecity.model.data.geometry import Geometry
from wavecity.model.data.users import ScenePatches, gather, geometry_of
from wavecity.model.multimodal import losses
from wavecity.model.multimodal.attention import SelfAttentionBlock
from wavecity.model.multimodal.inputs import loss_terms, prepare
from wavecity.model.multimodal.masking import Plan, draw_mask
from wavecity.model.multimodal.network import FoundationModel, count_parameters
from wavecity.model.settings.training import LossSettings, ModelSettings, TrainingSettings

PAPER = Geometry(columns=32, rows=32, height_cells=200, occupancy_patches=20)
HIDDEN = Plan("all", 2, 0.6, 0.2, hide_location=True)
SHOWN = Plan("all", 2, 0.6, 0.2, hide_location=False)


def test_paper_size_has_468_tokens_and_2_4_million_parameters():
    model = FoundationModel(ModelSettings(), PAPER)
    assert model.tokens == 468
    assert abs(count_parameters(model) - 2.4e6) < 0.05e6
    assert len(model.encoder) == 8
    assert len(model.decoder) == 2
    assert model.csi_head.out_features == 32
    assert model.occupancy_head.out_features == 1


def test_small_profile_predicts_all_occupancy_cells_of_its_larger_patches():
    model = FoundationModel(ModelSettings(width=64, encoder_layers=4, height_patch=20), PAPER)
    assert model.tokens == 168
    assert model.occupancy_head.out_features == 4
    assert abs(count_parameters(model) - 0.5e6) < 0.02e6


def test_block_equals_the_textbook_form():
    torch.manual_seed(0)
    block = SelfAttentionBlock(16, 4, 4.0)
    tokens = torch.randn(3, 9, 16)
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        attention.in_proj_weight.copy_(block.query_key_value.weight)
        attention.in_proj_bias.copy_(block.query_key_value.bias)
        attention.out_proj.load_state_dict(block.project.state_dict())
    normed = block.norm_1(tokens)
    mixed = tokens + attention(normed, normed, normed)[0]
    expected = mixed + block.mlp(block.norm_2(mixed))
    torch.testing.assert_close(block(tokens), expected)
    torch.testing.assert_close(block(tokens, last=4), expected[:, -4:])


def batch(data, settings, plan, seed=0, count=12):
    users = gather(data.splits["train"], count)
    scenes = ScenePatches(data.scenes, settings, data.statistics, torch.device("cpu"))
    bs = scenes.bs[users.scene]
    patches = (32 // settings.model.csi_patch) ** 2
    mask = draw_mask(plan, patches, scenes.centres, bs, bs + users.position, scenes.size, np.random.default_rng(seed))
    return users, scenes, mask


def inputs_of(data, settings, users, scenes, mask):
    return prepare(users.csi, users.position, users.scene, mask, scenes)


def spoil(values, index, patch, edge):
    """Replace the patches at `index` (B, m) of maps (B, edge, edge) by huge numbers."""
    spoiled = values.clone()
    columns = edge // patch
    for sample, row in enumerate(index.tolist()):
        for number in row:
            x, y = patch * (number // columns), patch * (number % columns)
            spoiled[sample, x : x + patch, y : y + patch] = 1e3
    return spoiled


# Every objective and stage of Table 1, with and without the location, the scene, and at 5 % CSI.
LEAKS = {
    "csi, stage 1": Plan("csi", 1, 0.5, 0.0, hide_location=False),
    "csi, stage 2": Plan("csi", 2, 0.9, 0.0, hide_location=False),
    "csi, 5 %": Plan("csi", 2, 0.94, 0.0, hide_location=False),
    "csi only": Plan("csi", 2, 0.7, 0.0, hide_location=True, csi_only=True),
    "scene, stage 1": Plan("scene", 1, 0.0, 0.1, hide_location=False),
    "scene, stage 2": Plan("scene", 2, 0.0, 0.3, hide_location=False),
    "all, stage 1": Plan("all", 1, 0.3, 0.05, hide_location=False),
    "all, location hidden": HIDDEN,
    "all, location shown": SHOWN,
}


@pytest.mark.parametrize("normalisation", ["visible", "dataset"])
@pytest.mark.parametrize("name", LEAKS)
def test_encoder_sees_nothing_of_what_is_masked(data, tiny, name, normalisation):
    plan = LEAKS[name]
    settings = tiny.model_copy(update={"normalisation": normalisation})
    model = FoundationModel(settings.model, geometry_of(data, settings.model)).eval()
    users, scenes, mask = batch(data, settings, plan)
    clean = inputs_of(data, settings, users, scenes, mask)
    # Masked CSI, masked heights (every user has a map of its own here) and a hidden location are replaced by nonsense.
    csi = spoil(users.csi, mask.csi_masked, 4, 32)
    hidden = torch.arange(100).expand(len(users), -1) if mask.scene_masked is None else mask.scene_masked
    heights = spoil(data.scenes.height[users.scene], hidden, 20, 200)
    changed = copy.copy(scenes)
    changed._height = heights / data.statistics.height_scale
    place = users.position + (1e3 if plan.hide_location else 0.0)
    spoiled = prepare(csi, place, torch.arange(len(users)), mask, changed)
    with torch.no_grad():
        assert torch.equal(model.encode(clean.inputs, mask), model.encode(spoiled.inputs, mask))
        before, after = model(clean.inputs, mask), model(spoiled.inputs, mask)
    predicted = {"physc", "spectrum"}
    predicted |= {"csi"} if plan.csi_ratio else set()
    predicted |= {"occupancy"} if plan.scene_ratio else set()
    predicted |= {"location"} if plan.hide_location else set()
    for field in ("physc", "spectrum", "csi", "occupancy", "location"):
        one, other = getattr(before, field), getattr(after, field)
        assert (one is not None) == (field in predicted), field
        assert one is None or torch.equal(one, other), field
    # The nonsense was there: what it replaced is what the losses compare with.
    assert torch.equal(clean.inputs.csi, spoiled.inputs.csi) == (plan.csi_ratio == 0)
    assert not plan.hide_location or not torch.equal(clean.inputs.location, spoiled.inputs.location)
    assert not plan.scene_ratio or not torch.equal(clean.inputs.height, spoiled.inputs.height)


def test_encoder_does_see_what_is_visible(data, tiny):
    model = FoundationModel(tiny.model, geometry_of(data, tiny.model)).eval()
    users, scenes, mask = batch(data, tiny, SHOWN)
    clean = inputs_of(data, tiny, users, scenes, mask)
    moved = prepare(users.csi, users.position + 5, users.scene, mask, scenes)
    louder = prepare(3 * users.csi, users.position, users.scene, mask, scenes)
    other = prepare(users.csi, users.position, users.scene.roll(1), mask, scenes)
    reference = model.encode(clean.inputs, mask)[:, 0]
    for changed in (moved, louder):
        assert ((model.encode(changed.inputs, mask)[:, 0] - reference).abs().amax(1) > 0).all()
    assert (model.encode(other.inputs, mask)[:, 0] - reference).abs().amax() > 0
    # The level reaches the model as a feature only: the patches are the same.
    torch.testing.assert_close(louder.inputs.csi, clean.inputs.csi)


def test_token_counts_of_the_encoder(data):
    settings = TrainingSettings()
    model = FoundationModel(settings.model, PAPER)
    users, scenes, mask = batch(data, settings, SHOWN, count=2)
    prepared = inputs_of(data, settings, users, scenes, mask)
    assert model.visible_tokens(prepared.inputs, mask).shape == (2, 1 + (64 - 38) + 1 + (400 - 80) + 1 + 1, 128)


@pytest.mark.parametrize("source", ["encoded", "decoded"])
def test_predictions_do_not_depend_on_the_order_in_which_patches_are_listed(data, tiny, source):
    settings = tiny.model_copy(update={"model": tiny.model.model_copy(update={"spectrum_from": source})})
    torch.manual_seed(3)
    model = FoundationModel(settings.model, geometry_of(data, settings.model)).eval()
    users, scenes, mask = batch(data, settings, HIDDEN)
    prepared = inputs_of(data, settings, users, scenes, mask)
    shuffled = copy.copy(mask)
    object.__setattr__(shuffled, "csi_visible", mask.csi_visible.flip(1))
    object.__setattr__(shuffled, "scene_visible", mask.scene_visible.flip(1))
    object.__setattr__(shuffled, "csi_masked", mask.csi_masked.flip(1))
    before, after = model(prepared.inputs, mask), model(prepared.inputs, shuffled)
    torch.testing.assert_close(before.csi.flip(1), after.csi, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(before.spectrum, after.spectrum, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(before.location, after.location, atol=1e-5, rtol=1e-4)


def test_spectrum_head_is_periodic():
    torch.manual_seed(1)
    model = FoundationModel(ModelSettings(width=16, heads=2, height_patch=20), PAPER)
    head = model.spectrum_head
    # Shifting the coarse map by one cell shifts the spectrum by one cell's bins, around the edge as well.
    with torch.no_grad():
        head.expand.bias.normal_()
        plain = head(torch.zeros(1, 16))
        head.expand.bias.copy_(head.expand.bias.view(head.shape).roll(1, -1).flatten())
        torch.testing.assert_close(head(torch.zeros(1, 16)), plain.roll(4, -1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("forms", [("nmse", "kl"), ("wrapped", "rmse")])
def test_every_loss_falls_when_one_batch_is_repeated(data, forms):
    model_settings = ModelSettings(width=32, encoder_layers=2, decoder_layers=1, heads=4, height_patch=20)
    settings = TrainingSettings(model=model_settings, losses=LossSettings(csi_form=forms[0], spectrum_form=forms[1]))
    torch.manual_seed(0)
    model = FoundationModel(settings.model, geometry_of(data, settings.model))
    users, scenes, mask = batch(data, settings, HIDDEN, count=8)
    prepared = inputs_of(data, settings, users, scenes, mask)
    occupied = scenes.occupancy(users.scene)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _ in range(100):
        terms = loss_terms(model(prepared.inputs, mask), prepared, mask, occupied, settings.losses)
        history.append({name: value.item() for name, value in terms.items()})
        optimiser.zero_grad()
        losses.total(terms, settings.losses).backward()
        optimiser.step()
    assert set(history[0]) == {"csi", "location", "occupancy", "spectrum"}
    for name, share in (("csi", 0.9), ("location", 0.3), ("occupancy", 0.7), ("spectrum", 0.7)):
        assert history[-1][name] < share * history[0][name], name


def test_float_model_survives_channels_of_minus_200_decibels(data, tiny):
    model = FoundationModel(tiny.model, geometry_of(data, tiny.model))
    users, scenes, mask = batch(data, tiny, HIDDEN)
    weak = replace(users, csi=users.csi * 1e-5)
    prepared = inputs_of(data, tiny, weak, scenes, mask)
    terms = loss_terms(model(prepared.inputs, mask), prepared, mask, scenes.occupancy(users.scene), tiny.losses)
    losses.total(terms, tiny.losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
