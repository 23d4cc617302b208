"""What the report shows of the path model: attention, users with their waves, the paper's figures, verdicts."""

import re
from dataclasses import replace

import numpy as np
import pytest
import street
import torch
from matplotlib.figure import Figure
from synthetic_results import check_spec, outcome_of

import wavecity
from wavecity.model.data.users import load_data
from wavecity.model.figures import pictures, ways
from wavecity.model.path_model.attention import KINDS, by_kind, physc_attention
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.maps import Sites
from wavecity.model.path_model.network import ABSENT, SCENE_TOKENS, PathModel
from wavecity.model.report.page import write_report
from wavecity.model.results.claims import judge
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import read_outcomes
from wavecity.model.results.records import Condition, Findings, Record, read_records
from wavecity.model.settings.rays import RaysModelSettings
from wavecity.model.tasks import zero_shot as task
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.spec import spec_of
from wavecity.model.tasks.zero_shot_shown import typical
from wavecity.model.training.backbones import Rays
from wavecity.model.training.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("street_cache")
DRAW = Draw(seed=3, patches=3, snr=10.0)
CLAIMS = {claim.key: claim for claim in task.CLAIMS}


@pytest.fixture(scope="module")
def evaluated(street_store, tmp_path_factory):
    """A run whose eight test users are of all three kinds, and what the evaluation left."""
    run, settings = tmp_path_factory.mktemp("run"), street.settings_of()
    pretrain(street_store, settings, run, seed=3)
    own = settings.evaluation.zero_shot.model_copy(update={"patches": 3, "beam_patches": 2})
    # So much that a building is among what is masked.
    evaluation = settings.evaluation.model_copy(update={"zero_shot": own, "scene_mask": 0.7})
    settings = settings.model_copy(update={"evaluation": evaluation})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "kinds_of", lambda store, users: np.arange(len(users)) % 3)
        result = evaluate(run, street_store, "zero-shot", settings, 3)
    return run, result, read_outcomes(run)["zero-shot"]


@pytest.fixture(scope="module")
def scenes(street_store):
    return load_data(street_store).scenes


@pytest.fixture(scope="module")
def seen(street_store):
    """A model of three layers with weights that are all at work, and users of a scene, some without all waves."""
    geometry, radio = (lambda model: (model.geometry, model.radio))(
        Rays.load(street_store, street.settings_of()).module(4, 3, {}).model
    )
    torch.manual_seed(0)
    model = PathModel(RaysModelSettings(width=16, layers=3, heads=2, scene_channels=4), geometry, radio).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    cache = FrontCache(street_store, 4)
    cache.fill([3], [DRAW])
    users = torch.arange(8)
    fronts = cache.users(torch.full((8,), 3), users, DRAW)
    height = torch.from_numpy(wavecity.open_store(street_store).height.values[3:4])
    return model, fronts, Sites(height, torch.zeros_like(users), torch.tensor([[0.0, 100.0]]).expand(8, -1), 200.0)


def layer_norm(values, layer):
    centred = values - values.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
    return scaled * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def linear(values, layer):
    return values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def test_the_attention_is_what_each_block_weighs_with(seen):
    """Recomputed from a block's own weights; and that these are at work, its output for [PHYSC] shows."""
    model, fronts, sites = seen
    inputs, outputs = [], []

    def keep(_, given, found):
        inputs.append(given)
        outputs.append(found)

    hooks = [block.register_forward_hook(keep) for block in model.blocks]
    with torch.no_grad():
        before = model(fronts, sites)
    for hook in hooks:
        hook.remove()
    found = physc_attention(model, fronts, sites).numpy()
    assert found.shape == (3, 8, model.tokens)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    for layer, (block, (tokens, bias), output) in enumerate(zip(model.blocks, inputs, outputs, strict=True)):
        values = tokens.double().numpy()
        normed = layer_norm(values, block.norm_1)
        query, key, value = np.split(linear(normed, block.query_key_value), 3, -1)
        heads = [slice(0, 8), slice(8, 16)]
        weights, attended = [], []
        for number, part in enumerate(heads):
            scores = np.einsum("bc,bnc->bn", query[:, 0, part], key[..., part]) / np.sqrt(8)
            scores = scores + bias[:, number, 0].double().numpy()
            weights.append(np.exp(scores - scores.max(-1, keepdims=True)))
            weights[-1] /= weights[-1].sum(-1, keepdims=True)
            attended.append(np.einsum("bn,bnc->bc", weights[-1], value[..., part]))
        np.testing.assert_allclose(found[layer], np.mean(weights, 0), atol=1e-5)
        first = values[:, 0] + linear(np.concatenate(attended, -1), block.project)
        hidden = torch.nn.functional.gelu(
            torch.from_numpy(linear(layer_norm(first, block.norm_2), block.mlp[0]))
        ).numpy()
        np.testing.assert_allclose(output[:, 0].numpy(), first + linear(hidden, block.mlp[2]), atol=1e-4)
    # Looking on changes nothing and leaves nothing behind.
    with torch.no_grad():
        after = model(fronts, sites)
    assert torch.equal(before.physc, after.physc)
    assert torch.equal(before.spectrum, after.spectrum)
    assert not any(block._forward_pre_hooks for block in model.blocks)


def test_what_is_not_there_is_not_attended_to(seen):
    model, fronts, sites = seen
    parts = by_kind(physc_attention(model, fronts, sites), fronts)
    assert len(parts) == len(KINDS)
    _, waves, places, cells = parts
    assert not fronts.found.all()
    assert not fronts.usable.all()
    assert ((waves > 0) == fronts.found).all()
    assert ((places > 0) == fronts.usable).all()
    assert cells.shape == (3, 8, SCENE_TOKENS, SCENE_TOKENS)
    assert (cells > 0).all()


@pytest.mark.parametrize(("corner", "east", "north"), [((0, 0), -1, 1), ((4, 0), -1, -1), ((0, 4), 1, 1)])
def test_cells_of_the_map_are_where_their_tokens_are(seen, monkeypatch, corner, east, north):
    """All but the token of one corner of the map hidden, which its place names."""
    model, fronts, sites = seen
    first = model.tokens - SCENE_TOKENS**2

    def only_one(fronts, scene_place):
        token = first + int((scene_place[0] * torch.tensor([float(east), float(north)])).sum(1).argmax())
        bias = torch.full((8, 2, model.tokens, model.tokens), ABSENT)
        bias[..., token] = 0
        return bias

    monkeypatch.setattr(model, "_bias", only_one)
    cells = by_kind(physc_attention(model, fronts, sites), fronts)[3]
    torch.testing.assert_close(cells[..., *corner], torch.ones(3, 8))


def test_typical_users_are_at_the_quantiles_of_the_errors_of_their_kind():
    rng = np.random.default_rng(1)
    kinds, error = rng.permutation(np.repeat([0, 1, 2], [11, 7, 21])), rng.exponential(5, 39)
    rows = typical(kinds, error, 4)
    assert kinds[rows].tolist() == [0, 1, 2, 2]
    for row in rows[:2]:
        assert error[row] == np.median(error[kinds == kinds[row]])
    below = [(error[kinds == 2] < error[row]).mean() for row in rows[2:]]
    assert below == pytest.approx([0.25, 0.75], abs=1 / 21)
    assert sorted(typical(kinds, error, 100)) == list(range(39))
    assert len(typical(kinds, error, 0)) == 0
    assert kinds[typical(kinds, error, 64)[:11]].tolist() == [0] * 11
    assert set(kinds[typical(np.zeros(5, int), error[:5], 4)]) <= {0, 1, 2}
    assert len(set(typical(np.zeros(5, int), error[:5], 4))) == 4


def test_the_shown_users_are_those_of_the_store(evaluated, street_store):
    arrays = evaluated[2].arrays
    rows = arrays["shown"]
    assert arrays["kind"][rows].tolist() == [0, 1, 2, 2]
    data = wavecity.open_store(street_store)
    for user, row in enumerate(rows):
        scene = arrays["location_scene"][row]
        apart = np.linalg.norm(data.user_position.values[scene, :, :2] - arrays["location_true"][row], axis=1)
        csi = data.csi.values[scene, np.nanargmin(apart)]
        spectrum = np.abs(np.fft.fft2(csi.astype(complex))) ** 2
        np.testing.assert_allclose(arrays["spectrum_true"][user], spectrum / spectrum.mean(), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(arrays["occupancy_true"][user], data.occupancy.values[scene])
        distance = np.linalg.norm(arrays["location_true"][row])
        kind = ("line of sight", "reflected", "diffracted only", "diffracted only")[user]
        assert arrays["spectrum_users"][user] == f"{distance:.0f} m, {kind}"
    # 3 of 4 patches of 16 antennas are few enough for sparse Bayesian learning.
    for name in ("spectrum_model", "spectrum_sbl", "spectrum_zero_filled"):
        np.testing.assert_allclose(arrays[name].mean((1, 2)), 1, rtol=1e-4)
    assert "spectrum_waves" not in arrays
    np.testing.assert_allclose(arrays["attention_shares"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(arrays["attention"].max((2, 3)), 1)
    waves_and_places = arrays["attention_shares"][..., 1:3].sum(-1)
    np.testing.assert_allclose(arrays["attention_to_places"].sum(-1), waves_and_places, rtol=1e-5)


def test_the_region_holds_what_it_states(evaluated):
    """By points drawn from the mixture in NumPy: radii of a density exp(-r / s) are gamma distributed with shape 2."""
    arrays, rng = evaluated[2].arrays, np.random.default_rng(0)
    assert arrays["region"] == 0.9
    for user in range(4):
        weight = np.exp(arrays["mixture_log_weight"][user].astype(float))
        centre, scale = arrays["mixture_centre"][user], np.exp(arrays["mixture_log_scale"][user])
        part = rng.choice(len(weight), 4000, p=weight / weight.sum())
        radius, angle = rng.gamma(2, scale[part]), rng.uniform(0, 2 * np.pi, 4000)
        points = centre[part] + radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), 1)
        away = np.linalg.norm(points[:, None] - centre, axis=2)
        density = (weight * np.exp(-away / scale) / (2 * np.pi * scale**2)).sum(1)
        assert (np.log(density) >= arrays["region_edge"][user]).mean() == pytest.approx(0.9, abs=0.05)


def given_user(scenes):
    """A user with three waves, of which the second lands, and a mixture of one component."""
    corners = np.full((2, 3, 7, 3), np.nan, np.float32)
    corners[1, 0, :2] = [[0, 0, 0], [-20, -30, 5]]
    corners[1, 1, :3] = [[0, 0, 0], [40, -60, -4], [10, -120, -13.5]]
    gain = np.full((2, 3), np.nan, np.float32)
    gain[1, :2] = [-120, -100]
    lands = np.zeros((2, 3), bool)
    lands[1, 1] = True
    scale, radius = 4.0, 9.0
    edge = -radius / scale - 2 * np.log(scale) - np.log(2 * np.pi)
    places = np.full((1, 5, 2), np.nan, np.float32)
    places[0, 3] = [12, -118]
    arrays = {
        "shown": np.array([1]), "location_scene": np.array([3, 3]), "spectrum_users": np.array(["121 m, reflected"]),
        "location_true": np.float32([[0, 0], [12, -121]]), "location_model": np.float32([[0, 0], [15, -117]]),
        "location_physics": np.float32([[0, 0], [10, -120]]), "ray_corners": corners, "ray_gain": gain, "ray_lands": lands,
        "attention_places": places, "mixture_log_weight": np.zeros((1, 1), np.float32),
        "mixture_centre": np.float32([[[15, -117]]]), "mixture_log_scale": np.full((1, 1), np.log(scale), np.float32),
        "region_edge": np.array([edge]), "region": np.array(0.9),
    }  # fmt: skip
    return arrays, scenes.bs[3].numpy(), radius


def lines_of(axes, **looks):
    return [
        line for line in axes.lines if all(getattr(line, f"get_{name}")() == value for name, value in looks.items())
    ]


def test_a_user_is_drawn_with_waves_places_and_region(scenes):
    arrays, station, radius = given_user(scenes)
    whole, near = Figure().subplots(1, 2)
    ways.draw_user(whole, near, arrays, scenes, 0)
    for axes in (whole, near):
        weak, strong = [
            line for line in axes.lines if len(line.get_xdata()) in (2, 3) and line.get_color() == ways.WAVE
        ]
        np.testing.assert_allclose(weak.get_xydata(), arrays["ray_corners"][1, 0, :2, :2] + station)
        np.testing.assert_allclose(strong.get_xydata(), arrays["ray_corners"][1, 1, :3, :2] + station)
        assert strong.get_linestyle() == "-"
        assert weak.get_linestyle() == "--"
        assert strong.get_linewidth() == ways.THICK > weak.get_linewidth() > ways.THIN
        (landing,) = lines_of(axes, marker="D")
        np.testing.assert_allclose(landing.get_xydata(), station[None] + (10, -120))
        for marker, place in (("o", [12, -121]), ("X", [15, -117]), ("s", [10, -120])):
            (mark,) = lines_of(axes, marker=marker)
            np.testing.assert_allclose(mark.get_xydata(), [station + place])
        (dots,) = lines_of(axes, marker=".")
        there = dots.get_xydata()
        np.testing.assert_allclose(there[np.isfinite(there).all(1)], station[None] + (12, -118))
    # exp(-r / s) is what the edge says on a circle, in the part of the scene as far as that shows it.
    rings = [path.vertices for path in whole.collections[-1].get_paths() if len(path.vertices)]
    away = np.linalg.norm(np.concatenate(rings) - station - (15, -117), axis=1)
    np.testing.assert_allclose(away, radius, atol=0.2)
    assert whole.get_xlim() == (-100, 100)
    # The model is 5 m off, which 1.4 times fit in to either side of where the user is.
    assert near.get_xlim() == pytest.approx((station[0] + 12 - 7, station[0] + 12 + 7))
    assert near.get_ylim() == pytest.approx((station[1] - 121 - 7, station[1] - 121 + 7))
    assert "121 m, reflected" in whole.get_title()
    assert near.get_title() == "model 5.0 m off, physics alone 2.2 m"


def drawn(monkeypatch, module, draw, *arguments):
    """The figure of a drawing function."""
    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "picture", lambda figure, *_: figures.append(figure) or "")
        draw(*arguments)
    return figures[0]


def test_the_papers_figures_show_the_arrays(evaluated, scenes, monkeypatch):
    outcome = evaluated[2]
    arrays = outcome.arrays
    figure = drawn(monkeypatch, pictures, pictures.draw_spectra, outcome)
    labels = [axes.get_ylabel().partition("\n")[0] for axes in figure.axes if axes.get_ylabel()]
    assert labels[:4] == ["true", "model", "sparse Bayesian learning", "zero-filled DFT"]
    power = arrays["spectrum_sbl"][0]
    expected = np.maximum(10 * np.log10(np.fft.fftshift(power) / power.max()), -40).T
    np.testing.assert_allclose(figure.axes[8].images[0].get_array(), expected, atol=1e-3)

    figure = drawn(monkeypatch, pictures, pictures.draw_locations, outcome, scenes)
    (axes,) = figure.axes
    station = scenes.bs[3].numpy()
    for label, name in (("true", "location_true"), ("model", "location_model"), ("physics alone", "location_physics")):
        (marks,) = lines_of(axes, label=label)
        np.testing.assert_allclose(marks.get_xydata(), arrays[name] + station, rtol=1e-5)
    median = np.median(np.linalg.norm(arrays["location_model"] - arrays["location_true"], axis=1))
    assert f"median {median:.1f} m, physics alone" in axes.get_title()

    figure = drawn(monkeypatch, pictures, pictures.draw_attention, outcome, scenes)
    panel = figure.axes[3]  # of the second user; of each the scene, then the layer
    _, waves, places, cells = 100 * arrays["attention_shares"][1, 0]
    assert panel.get_xlabel() == f"waves {waves:.0f} · places {places:.0f} · map {cells:.0f} %"
    np.testing.assert_array_equal(panel.images[-1].get_array(), arrays["attention"][1, 0])
    circles = panel.collections[-1]
    finite = np.isfinite(arrays["attention_places"][1]).all(1)
    np.testing.assert_allclose(
        circles.get_offsets()[finite], arrays["attention_places"][1][finite] + station, rtol=1e-5
    )
    np.testing.assert_allclose(circles.get_sizes(), 900 * arrays["attention_to_places"][1, 0])

    figure = drawn(monkeypatch, ways, ways.draw_users, outcome, scenes)
    assert [axes.get_title().partition(" · ")[0] for axes in figure.axes[::2]] == arrays["spectrum_users"].tolist()


def test_the_report_has_the_figures_and_a_verdict_for_every_claim(evaluated):
    page = write_report(evaluated[0]).read_text(encoding="utf-8")
    for number, count in ((3, 1), (4, 1), (9, 2), (10, 1), (11, 1)):
        start = page.index(f'id="figure-{number}"')
        section = page[start : page.index("</section>", start)]
        assert f"As Figure {number} of the paper" in section
        assert section.count('src="data:image/png;base64,') == count
        assert "Not drawn" not in section
        assert "nothing to draw" not in section
    assert "0.25 of the CSI masked. Mean over the heads" in page
    found = re.findall(r'class="verdict ([a-z-]+)"', page)
    assert found.count("not-judged") == 2 * 5
    # Eight test users decide nothing.
    assert found.count("too-small-to-tell") == 2 * (len(CLAIMS) - 5) - 1
    assert "horizon" not in page[page.index('id="figures"') : page.index('id="results"')]


def test_nobody_is_shown_where_none_is_asked_for(evaluated, street_store):
    """And no occupancy where nothing that was masked is built."""
    run, settings = evaluated[0], street.settings_of()
    nobody = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"spectra_shown": 0})})
    result = evaluate(run, street_store, "zero-shot", nobody, 3, own=(settings, 3))
    assert "not possible: occupancy" in result["facts"]
    with np.load((run / result["table"]).with_suffix(".npz")) as kept:
        outcome = outcome_of([], "zero-shot", arrays=dict(kept.items()))
    assert len(outcome.arrays["shown"]) == len(outcome.arrays["region_edge"]) == 0
    there = {part.title: part.there(outcome) for part in task.FIGURES}
    assert [title for title, drawn in there.items() if drawn] == ["Locations of held-out users"]


def test_claims_and_figures_find_what_the_evaluation_leaves(evaluated):
    run, result, outcome = evaluated
    findings = Findings(read_records(run / result["table"], "zero-shot"), result["facts"], outcome.arrays)
    check_spec(spec_of("zero-shot", "rays"), findings)


@pytest.mark.parametrize(
    ("model", "users", "verdict"),
    [(18.0, 100, "shown"), (19.6, 100, "not shown"), (21.5, 100, "contradicted"), (10.0, 49, "too small to tell")],
)
def test_one_draw_is_judged_by_the_margin_that_the_row_names(model, users, verdict):
    """Of users with diffracted paths only, whatever is right for all, and with nothing wrong in the map."""
    metric, where = Metric.HIDDEN_LOCATION_ERROR, Condition(csi_masked=0.75, user_kind="diffracted only")
    values = {where: (model, 20.0)}
    others = (
        replace(where, user_kind=None),
        replace(where, user_kind="reflected"),
        replace(where, disturbed="a wrong tilt"),
    )
    values |= dict.fromkeys(others, (1.0, 99.0) if model > 20 else (99.0, 1.0))
    records = [
        Record(metric, method, value, 7, users, condition=condition)
        for condition, pair in values.items()
        for method, value in zip((Method.MODEL, Method.PHYSICS), pair, strict=True)
    ]
    outcome = outcome_of(records, "zero-shot")
    item = judge(CLAIMS["location-diffracted"], {"zero-shot": outcome})
    assert item.verdict == verdict
    assert f"gain {100 * (20 - model) / 20:.1f} %" in item.text
    assert item.samples == f"{users} users · diffracted only · 1 seed"
    assert judge(CLAIMS["location-physics"], {"zero-shot": outcome}).verdict in (
        ("too small to tell",) if users < 50 else ("shown" if model > 20 else "contradicted",)
    )
