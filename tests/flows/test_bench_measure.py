"""What all benchmarks share."""

import os
import platform
from importlib import metadata

import pytest

from wavecity.flows.bench.measure import apart, area_of, environment, median, named_by_option, timed
from wavecity.geo.errors import InputError


def test_apart_runs_in_another_process_with_its_arguments() -> None:
    assert apart(os.getpid) != os.getpid()
    assert apart(divmod, 7, 2) == (3, 1)


def test_a_timed_call_gives_its_result_and_a_median_is_that_of_the_rounds() -> None:
    result, seconds = timed(lambda: "done")
    assert (result, seconds >= 0) == ("done", True)
    assert median(value for value in (9.0, 1.0, 2.0)) == 2.0


def test_versions_have_keys_that_are_names() -> None:
    assert environment("numpy", "sionna-rt") == {
        "machine": platform.machine(),
        "version_python": platform.python_version(),
        "version_numpy": metadata.version("numpy"),
        "version_sionna_rt": metadata.version("sionna-rt"),
    }


def test_a_map_is_named_as_it_was_given() -> None:
    area = area_of("maps/porto.osm.pbf", 3)
    assert (area.source, area.city, area.scenes, area.split.by) == ("maps/porto.osm.pbf", "Porto", 3, "scene")
    with pytest.raises(InputError, match=r"^--map porto\.osm: no such file"), named_by_option():
        raise InputError("area.source: porto.osm: no such file")
