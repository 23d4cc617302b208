"""Localisation in one scene and across scenes, on synthetic scenes of two plane waves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_data
from synthetic_results import check_spec

from wavecity.dataset import InputError
from wavecity.model.data.users import evenly, geometry_of
from wavecity.model.learning.baselines import nearest, nearest_neighbours
from wavecity.model.learning.embeddings import clusters, picture, silhouette
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE, Condition
from wavecity.model.results.rows import frame_of, rows_of
from wavecity.model.tasks import cross_scene
from wavecity.model.tasks.cross_scene import among, cross_localization
from wavecity.model.tasks.localization import SPECS, localization
from wavecity.model.tasks.sites import choose_scenes, make_site, viewer


@pytest.fixture(scope="module")
def large():
    return make_data((("train", 3), ("validation", 1), ("test", 2)), users=80, seed=3)


@pytest.fixture(scope="module")
def predictor(large, tiny):
    torch.manual_seed(0)
    model = FoundationModel(tiny.model, geometry_of(large, tiny.model)).eval()
    return Predictor(model, tiny, large.statistics, large, 32)


@pytest.fixture(scope="module")
def local(predictor, large, tiny):
    return localization(predictor, large, tiny.evaluation, 1)


@pytest.fixture(scope="module")
def across(predictor, large, tiny):
    return cross_localization(predictor, large, tiny.evaluation, 1)


@pytest.fixture(scope="module")
def frame(local):
    return frame_of(local.records)


def under(frame, condition):
    return frame[[one == condition for one in frame["condition"]]]


def test_claims_and_figures_find_their_records(local, across):
    check_spec(SPECS[0], local)
    check_spec(cross_scene.SPECS[0], across)


def test_every_method_is_there_for_every_number_of_labels_and_seed(local, frame):
    frame = frame[frame["metric"] == Metric.LOCATION_ERROR]
    pooled = under(frame, WHOLE)
    swept = pooled.dropna(subset="x").groupby("method")
    everywhere = {Method.PHYSC_MLP, Method.RAW_CNN, Method.UNTRAINED_MLP, Method.KNN, Method.KNN_LEVEL,
                  Method.MEAN_LABELLED}  # fmt: skip
    for method, group in swept:
        expected = {8, 16} if method in everywhere else {16}
        assert {(x, seed) for x, seed in zip(group["x"], group["seed"], strict=True)} == {
            (x, seed) for x in expected for seed in (0, 1)
        }, method
    assert everywhere | {Method.PHYSC_FINE_TUNED, Method.TWIN} == set(swept.groups)
    # 20 % of 80 users in each of two scenes.
    assert set(pooled["n"]) == {32}
    assert {Condition(scene="synthetic-0004"), Condition(scene="synthetic-0005")} == set(frame["condition"]) - {WHOLE}
    assert local.arrays["layout_places"].shape == (2, 2, 16, 2)


def test_a_pooled_median_is_that_of_all_users_errors(frame, large):
    """The mean of the labelled users, worked out anew from positions alone."""
    here = frame[(frame["method"] == Method.MEAN_LABELLED) & (frame["x"] == 16) & (frame["seed"] == 1)]
    errors = []
    for row in (4, 5):
        site = make_site(large, row, 10_000, 0.2, 10.0, 1)
        labelled = site.users.position[site.labelled(16, 1)].numpy()
        errors.append(np.linalg.norm(site.test.position.numpy() - labelled.mean(0), axis=1))
        assert not {tuple(p) for p in labelled.tolist()} & {tuple(p) for p in site.test.position.tolist()}
    values = here.set_index("condition")["value"]
    # torch's median is the lower of the two in the middle.
    assert values[WHOLE] == pytest.approx(np.sort(np.concatenate(errors))[15], rel=1e-5)
    assert values[Condition(scene="synthetic-0004")] == pytest.approx(np.sort(errors[0])[7], rel=1e-5)


def test_more_labels_contain_the_fewer_and_are_the_same_for_all_methods(large):
    site = make_site(large, 4, 10_000, 0.2, 10.0, 1)
    assert site.labelled(16, 0)[:8].tolist() == site.labelled(8, 0).tolist()
    assert site.labelled(16, 0).tolist() != site.labelled(16, 1).tolist()
    assert (site.labelled(64, 0) >= site.tested).all()


def test_what_is_hidden_changes_nothing_that_a_method_sees(predictor, large):
    visible = predictor.pilots(0.25, 1)
    look = viewer(predictor, visible)
    users = make_site(large, 4, 20, 0.2, 10.0, 1).users
    shown = torch.zeros(64, dtype=torch.bool)
    shown[visible] = True
    where = shown.view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    csi = torch.where(where, users.csi, torch.ones((), dtype=users.csi.dtype))
    changed = replace(users, csi=csi, position=-users.position)
    before, after = look(users), look(changed)
    for name in ("physc", "entries", "prints", "level"):
        # |DFT| is scaled by the whole channel before it is cut: rounding only.
        torch.testing.assert_close(getattr(before, name), getattr(after, name), rtol=1e-4, atol=1e-5)


def test_scenes_with_too_few_users_are_refused_in_one_line(large):
    with pytest.raises(
        InputError,
        match=r"training\.evaluation\.localization\.labels asks for 500 labelled users .* has 80 users with a path, 64 of them",
    ):
        choose_scenes(large.splits["test"], 4, 10_000, (500,), 0.2, "town", "localization.labels")
    assert choose_scenes(large.splits["test"], 4, 10_000, (8, 64, 65), 0.2, "town", "localization.labels") == (
        [4, 5],
        (8, 64),
    )


def test_across_scenes_zero_shot_knows_nothing_of_the_unseen_scene(across, large):
    frame = frame_of(across.records)
    pooled = under(frame, WHOLE)
    assert {Method.PHYSC_MLP, Method.RAW_CNN, Method.PHYSC_FINE_TUNED, Method.TWIN, Method.KNN} <= set(pooled["method"])
    assert {0.0, 8.0} == set(pooled["x"].dropna())
    train = np.concatenate([large.splits["train"].arrays["user_position"]])[:, :2].mean(0)
    errors = []
    for row in (4, 5):
        site = make_site(large, row, 2000, 0.5, 10.0, 1)
        errors.append(np.linalg.norm(site.test.position.numpy() - train, axis=1))
    mean = pooled[(pooled["method"] == Method.MEAN_LABELLED) & (pooled["x"] == 0)]["value"]
    assert float(mean.iloc[0]) == pytest.approx(np.sort(np.concatenate(errors))[39], rel=1e-4)
    rows = rows_of(frame)
    assert all(np.isfinite(list(row.values.values())).all() for row in rows)


def test_neighbours_among_training_and_labelled_users_are_those_of_one_database():
    rng = np.random.default_rng(0)
    train, extra, queries = (torch.from_numpy(rng.normal(size=(n, 6)).astype(np.float32)) for n in (50, 7, 20))
    places, more = (torch.from_numpy(rng.normal(size=(n, 2)).astype(np.float32)) for n in (50, 7))
    distance, index = nearest(train, queries, 5)
    found = among((distance, places[index]), extra, more, queries)
    whole = nearest_neighbours(torch.cat((train, extra)), torch.cat((places, more)), queries)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_table(local, predictor, large, tiny):
    again = localization(predictor, large, tiny.evaluation, 1)
    assert frame_of(again.records).equals(frame_of(local.records))


def test_groups_that_lie_apart_are_told_from_those_that_overlap():
    rng = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [10, 0], [0, 10]], 30, axis=0)
    apart = centres + rng.normal(0, 0.5, centres.shape)
    group = clusters(apart, 3, 0)
    assert all(len(set(group[start : start + 30])) == 1 for start in (0, 30, 60))
    assert len(set(group)) == 3
    assert silhouette(apart, group) > 0.8
    assert abs(silhouette(rng.normal(size=(90, 2)), group)) < 0.1
    assert np.isnan(silhouette(apart, np.zeros(90, int)))
    facts, arrays = picture({"three": torch.from_numpy(apart)}, group, 0)
    assert facts["silhouette_three"] > 0.8
    assert silhouette(arrays["tsne_three"], group) > 0.5
    assert evenly(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly(3, 4).tolist() == [0, 1, 2]
    assert not picture({"few": torch.from_numpy(apart[:4])}, group[:4], 0)[1]
