"""Places of base stations that a recipe gives."""

import pytest

from wavecity.flows.recipe import load_recipe
from wavecity.geo.errors import InputError


def test_a_place_that_is_there_twice_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"scene\.base_stations\.positions: 10, 20, 15 is there twice") as refused:
        load_recipe("quickstart", ("scene.base_stations={positions: [[10, 20, 15], [10, 20, 15]]}",))
    assert "\n" not in str(refused.value)


def test_two_heights_of_one_mast_are_two_base_stations():
    wanted = load_recipe("quickstart", ("scene.base_stations={positions: [[10, 20, 15], [10, 20, 25]]}",))
    assert wanted.base_stations == 3


@pytest.mark.parametrize("first", ["0", ".nan", "foo"])
def test_a_wrong_first_carrier_is_named_as_the_carrier_that_it_is(first):
    with pytest.raises(InputError, match=r"radio\.carriers\.0 = "):
        load_recipe("quickstart", (f"radio.carriers=[{first}, 28.5e9]",))


def test_a_wrong_frequency_is_named_as_such():
    with pytest.raises(InputError, match=r"radio\.frequency = 0: "):
        load_recipe("quickstart", ("radio.frequency=0",))
