"""Users whose height is not known: found at one of several, by channels of known geometry."""

import numpy as np
import pytest
import torch
from ray_channels import RADIO, two_rays

from wavecity.dataset import InputError
from wavecity.model.rays.locate import locate
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.rays.walls import Walls

EVERY = torch.ones(16, 16, dtype=torch.bool)
HEIGHTS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


def open_ground(heights: tuple[float, ...] = ()) -> Surroundings:
    return Surroundings(Walls.of_rings([], [], []), RADIO, (-100, -200, 100, 0), heights)


def test_a_user_whose_height_is_unknown_is_found_at_its_height() -> None:
    """Two rays by the image of a user 1 to 2 m above the ground: a height that is taken for 1.5 m costs metres."""
    place = np.array([[20.0, -60.0, 1.2], [3.0, -25.0, 2.0], [30.0, -45.0, 1.0]])
    csi = torch.from_numpy(two_rays(place))

    def error(scene: Surroundings) -> np.ndarray:
        return np.linalg.norm(locate(csi, EVERY, scene).position.numpy() - place[:, :2], axis=1)

    assert (error(open_ground()) > 0.5).all()
    assert (error(open_ground(HEIGHTS)) < 0.1).all()
    assert locate(csi, EVERY, open_ground(HEIGHTS)).height.tolist() == pytest.approx(place[:, 2])
    assert locate(csi[:1], EVERY, open_ground()).height.tolist() == [1.5]


def test_users_on_floors_are_told_apart() -> None:
    place = np.array([[20.0, -60.0, 1.5], [20.0, -60.0, 4.5], [-35.0, -50.0, 7.5]])
    found = locate(torch.from_numpy(two_rays(place)), EVERY, open_ground((1.5, 4.5, 7.5)))
    assert found.height.tolist() == [1.5, 4.5, 7.5]
    assert found.position.numpy() == pytest.approx(place[:, :2], abs=0.1)


def test_one_height_of_several_is_the_known_one() -> None:
    place = np.array([[20.0, -60.0, 1.5], [-35.0, -90.0, 1.5]])
    csi = torch.from_numpy(two_rays(place))
    one, two = locate(csi, EVERY, open_ground()), locate(csi, EVERY, open_ground((1.5,)))
    for name, value in vars(one).items():
        torch.testing.assert_close(value, vars(two)[name], rtol=0, atol=0)


def test_heights_that_no_user_can_have_are_refused(helsinki_store) -> None:
    with pytest.raises(InputError, match=r"heights: 20 m is not between the ground and the base station at 15 m"):
        surroundings(str(helsinki_store), 0, heights=(1.5, 20.0))
    assert surroundings(str(helsinki_store), 0, heights=(1.0, 2.0)).heights == (1.0, 2.0)
