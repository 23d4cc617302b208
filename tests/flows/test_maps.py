"""Workers on other machines get a plan's maps from the store."""

from pathlib import Path

import pytest

from wavecity.dataset.files import files_below, location
from wavecity.flows.maps import at_hand, share_maps
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import open_source


def test_a_worker_that_does_not_see_the_planners_folder_fetches_the_map(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = location(f"{bucket}/{tmp_path.name}/store")
    source = open_source(AreaSettings(), tmp_path / "planner")
    assert at_hand(source, store) is source
    share_maps({"Helsinki": source}, store)
    expected = source.buildings(source.bounds)
    (tmp_path / "planner").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("WAVECITY_MAPS", str(tmp_path / "worker"))
    fetched = at_hand(source, store)
    assert fetched.buildings(source.bounds).equals(expected)
    assert fetched.provenance == source.provenance
    assert not [name for name in files_below(tmp_path / "worker") if "partial" in name]
    # The second time nothing is asked of the store.
    assert at_hand(source, location("s3://no-such-bucket/store")) == fetched


def test_a_map_that_is_nowhere_gets_one_line(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(AreaSettings(), tmp_path / "planner")
    (tmp_path / "planner").rename(tmp_path / "elsewhere")
    monkeypatch.setenv("WAVECITY_MAPS", str(tmp_path / "worker"))
    with pytest.raises(InputError, match="is not on this machine, nor in") as error:
        at_hand(source, location(f"{bucket}/nothing"))
    assert "\n" not in str(error.value)
