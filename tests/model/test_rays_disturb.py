"""What is put wrong on purpose into maps and panels is as wrong as it says."""

import math

import geopandas as gpd
import numpy as np
import pytest
import torch
import xarray as xr
from shapely import box

from wavecity.dataset import InputError
from wavecity.model.rays.disturb import NOTHING, Disturbance
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.settings.disturbance import STANDARD, TRAINED, DisturbanceSettings
from wavecity.model.settings.rays import RaysSettings, ZeroShotSettings


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


def paths_south(users: int, met: int) -> xr.Dataset:
    """One path of gain 1 to each user, straight ahead of a panel that faces south; `met` is what it met."""
    level, south = np.full((users, 1), math.pi / 2), np.full((users, 1), -math.pi / 2)
    names = {"gain": np.ones((users, 1), complex), "aod_zenith": level, "aod_azimuth": south}
    arrays = {name: (("user", "path"), values) for name, values in names.items()}
    return xr.Dataset({**arrays, "interactions": (("user", "path", "bounce"), np.full((users, 1, 2), met))})


def test_diffuse_waves_have_their_share_of_the_power_and_the_spread_of_a_cluster() -> None:
    """The spread by what it does to neighbours: the characteristic function of Laplace's distribution."""
    users, antennas = 3000, 17
    wrong, zeros = Disturbance(diffuse=0.3), torch.zeros(users, antennas, 1)
    csi = wrong.channels(zeros.to(torch.complex64), paths_south(users, 1), np.random.default_rng(0)).numpy()[..., 0]
    # The path itself is the same for all: what is left has mean 0.
    assert abs(csi.mean(0)) == pytest.approx(np.full(antennas, math.sqrt(0.7)), abs=0.05)
    around = csi - math.sqrt(0.7)
    assert np.mean(np.abs(around) ** 2) == pytest.approx(0.3, rel=0.05)
    for apart in (4, 8, 16):
        likeness = np.mean(around[:, apart:] * around[:, :-apart].conj()) / 0.3
        expected = 1 / (1 + (math.radians(3.0) * math.pi * apart) ** 2 / 2)
        assert likeness.real == pytest.approx(expected, abs=0.05)
    # Users have waves of their own.
    assert abs(np.mean(around[1:] * around[:-1].conj())) < 0.02


def test_a_path_that_met_nothing_stays_as_it_is() -> None:
    csi = Disturbance(diffuse=0.3).channels(
        torch.zeros(5, 4, 4, dtype=torch.complex64), paths_south(5, 0), np.random.default_rng(0)
    )
    assert torch.allclose(csi, torch.ones(5, 4, 4, dtype=torch.complex64))


def test_a_turn_of_a_panel_with_antennas_closer_together_turns_less_phase() -> None:
    quarter = Disturbance(azimuth=3.0).channels(
        torch.zeros(1, 8, 8, dtype=torch.complex64), paths_south(1, 0), np.random.default_rng(0), spacing=0.25
    )
    step = float((quarter[0, 1:] * quarter[0, :-1].conj()).mean().angle())
    assert step == pytest.approx(-2 * math.pi * 0.25 * math.sin(math.radians(3)), abs=1e-6)


RADIO = Radio(28.5e9, 0.5, 15.0, 1.5, 5.24 - 0.4j)


def test_what_is_drawn_is_at_most_what_is_stated_and_lies_on_both_sides() -> None:
    drawn = [Disturbance(**TRAINED.model_dump()).drawn(np.random.default_rng(seed), RADIO) for seed in range(400)]

    def values(name: str) -> np.ndarray:
        return np.array([getattr(one, name) for one in drawn], float)

    for name in ("footprints", "heights", "bs_position", "phase", "gain", "diffuse"):
        most = getattr(TRAINED, name)
        assert 0 <= values(name).min() < 0.05 * most
        assert 0.95 * most < values(name).max() <= most
    for name in ("bs_height", "azimuth", "downtilt"):
        most = getattr(TRAINED, name)
        assert -most <= values(name).min() < -0.9 * most
        assert 0.9 * most < values(name).max() <= most
    assert {*values("missing")} == {*values("extra")} == {0.0, 1.0}
    # As far above the truth as the assumed value is below it.
    for name, true in (("user_height", 1.5), ("permittivity", 5.24)):
        off = abs(getattr(TRAINED, name) - true)
        assert values(name).min() == pytest.approx(true - off, abs=0.1 * off)
        assert values(name).max() == pytest.approx(true + off, abs=0.1 * off)
    # Errors are drawn by themselves.
    assert abs(np.corrcoef(values("phase"), values("gain"))[0, 1]) < 0.2


def test_nothing_is_drawn_of_nothing_and_what_is_unknown_stays_unknown() -> None:
    assert not NOTHING.drawn(np.random.default_rng(0), RADIO).key
    unknown = Disturbance(user_heights=(1.0, 2.0)).drawn(np.random.default_rng(0), RADIO)
    assert unknown.user_heights == (1.0, 2.0)


def test_a_key_tells_disturbances_apart() -> None:
    every = [
        NOTHING,
        *(Disturbance(**case.model_dump(include=set(DisturbanceSettings.model_fields))) for case in STANDARD.values()),
    ]
    keys = [one.key for one in every]
    # Those of noise and patches have nothing wrong.
    assert len({*keys}) == len(keys) - sum(
        case.snr is not None or case.patches is not None for case in STANDARD.values()
    )
    assert keys[0] == ""
    assert Disturbance(phase=5.0).key == Disturbance(phase=5).key != Disturbance(phase=4).key


def test_users_as_high_as_the_base_station_are_refused(helsinki_store) -> None:
    for wrong in (Disturbance(user_height=15.0), Disturbance(user_heights=(1.5, 18.0))):
        with pytest.raises(InputError, match=r"the base station at 15 m; no wave comes down"):
            wrong.surroundings(str(helsinki_store), 0, np.random.default_rng(0))


def test_a_height_is_assumed_or_unknown() -> None:
    with pytest.raises(InputError, match="user_height and user_heights are both given"):
        Disturbance.of(["user_height=1.2", "user_heights=1,2"])
    assert Disturbance.of(["user_heights=1,1.5,2"]).user_heights == (1.0, 1.5, 2.0)


def test_recipes_without_disturbances_are_written_as_before() -> None:
    rays, zero = RaysSettings(), ZeroShotSettings()
    assert not {"disturbed_share", "disturbance"} & set(rays.model_dump())
    assert not {"disturbed", "disturbed_users"} & set(zero.model_dump())
    asked = RaysSettings(disturbed_share=0.5)
    assert RaysSettings.model_validate(asked.model_dump(mode="json")) == asked
    standard = ZeroShotSettings(disturbed="standard")
    assert ZeroShotSettings.model_validate(standard.model_dump(mode="json")).cases == STANDARD
    own = ZeroShotSettings(disturbed={"far off": {"footprints": 5}})
    assert own.cases["far off"].footprints == 5
