"""What is put wrong on purpose into maps and panels is as wrong as it says."""

import math

import geopandas as gpd
import numpy as np
import pytest
import torch
from shapely import box

from wavecity.dataset import InputError
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.rays.surroundings import surroundings


def blocks() -> gpd.GeoDataFrame:
    shapes = [box(20 * i, 0, 20 * i + 10, 10) for i in range(4)]
    return gpd.GeoDataFrame({"scene_id": "s", "height": [10.0, 20.0, 8.0, 12.0], "base": 0.0}, geometry=shapes)


def test_buildings_are_displaced_scaled_lost_and_added() -> None:
    table, rng = blocks(), np.random.default_rng
    moved = Disturbance(footprints=2.0).map(table, rng(0))
    offsets = [
        (b.centroid.x - a.centroid.x, b.centroid.y - a.centroid.y)
        for a, b in zip(table.geometry, moved.geometry, strict=True)
    ]
    assert [round(math.hypot(*offset), 6) for offset in offsets] == [2.0] * 4
    assert len({round(offset[0], 3) for offset in offsets}) == 4
    ratio = Disturbance(heights=0.3).map(table, rng(0))["height"] / table["height"]
    assert ((ratio - 1).abs() <= 0.3).all()
    assert ratio.std() > 0.01
    assert len(Disturbance(missing=1).map(table, rng(0))) == 3
    more = Disturbance(extra=2).map(table, rng(0))
    assert len(more) == 6
    assert more["height"].iloc[-1] == 12.0
    assert Disturbance().map(table, rng(0)).equals(table)


def test_a_panel_that_is_turned_sees_directions_turned_the_other_way() -> None:
    """A user due south and one straight along the horizon in front of a turned, or tilted, panel."""
    level, south = np.full((1, 1), math.pi / 2), np.full((1, 1), -math.pi / 2)
    one = np.ones((1, 1), complex)

    def cosines(csi: torch.Tensor) -> tuple[float, float]:
        return tuple(
            float((csi[0].roll(-1, axis) * csi[0].conj())[:-1, :-1].mean().angle()) / math.pi for axis in (0, 1)
        )

    turned = cosines(Disturbance(azimuth=3.0).turned(one, level, south, (8, 8)))
    np.testing.assert_allclose(turned, (-math.sin(math.radians(3)), 0), atol=1e-6)
    tilted = cosines(Disturbance(downtilt=3.0).turned(one, level, south, (8, 8)))
    # What is on the horizon is above the boresight.
    np.testing.assert_allclose(tilted, (0, -math.sin(math.radians(3))), atol=1e-6)


def test_without_a_turn_the_channels_are_those_of_the_store(helsinki_store) -> None:
    import wavecity

    data, paths = (wavecity.open_store(str(helsinki_store), group).isel(scene=0).load() for group in (None, "paths"))
    zenith, azimuth = (paths[f"aod_{name}"].values.astype(float) for name in ("zenith", "azimuth"))
    stored = data["csi"].values
    gain = paths["gain"].values * (np.sin(zenith) * np.sin(azimuth) < 0)
    again = Disturbance().turned(gain, zenith, azimuth, stored.shape[1:]).numpy()
    heard = np.abs(stored).max((1, 2)) > 0
    likeness = np.abs((stored * again.conj()).sum((1, 2))[heard])
    size = np.linalg.norm(stored, axis=(1, 2))[heard] * np.linalg.norm(again, axis=(1, 2))[heard]
    assert np.median(likeness / size) > 0.999


def test_antennas_err_by_as_much_as_they_are_said_to_and_the_same_for_all() -> None:
    csi = torch.ones(2, 64, 64, dtype=torch.complex128)
    wrong = Disturbance(phase=5.0, gain=1.0).antennas(csi, np.random.default_rng(0))
    assert torch.equal(wrong[0], wrong[1])
    assert float(wrong[0].angle().rad2deg().std()) == pytest.approx(5, rel=0.05)
    assert float((20 * wrong[0].abs().log10()).std()) == pytest.approx(1, rel=0.05)


def test_a_place_that_is_believed_wrong_moves_the_walls(helsinki_store) -> None:
    true = surroundings(str(helsinki_store), 0)
    wrong = Disturbance(bs_position=0.5, bs_height=0.3, user_height=1.0, permittivity=3.5)
    scene, shift = wrong.surroundings(str(helsinki_store), 0, np.random.default_rng(0))
    assert math.hypot(*shift) == pytest.approx(0.5)
    np.testing.assert_allclose(scene.walls.start + torch.from_numpy(shift), true.walls.start)
    assert (scene.radio.bs_height, scene.radio.user_height) == (pytest.approx(15.3), 1.0)
    assert scene.radio.permittivity.real == 3.5
    assert scene.box[0] == pytest.approx(true.box[0] - shift[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [("roofs=2", "there is no 'roofs'; give one of footprints, heights"), ("gain=much", "'much' is no number")],
)
def test_what_cannot_be_wrong_is_refused(text, message) -> None:
    with pytest.raises(InputError, match=message):
        Disturbance.of([text])
