"""`inspect` and the card say the same of where heights come from: shares of the buildings of all scenes."""

from collections import Counter

import geopandas as gpd
import pandas as pd
import pytest
import toy
from shapely import box

from wavecity.dataset.card.source import load_source
from wavecity.dataset.card.tables import height_table
from wavecity.dataset.files import atomic_path
from wavecity.flows.store_tables import _height_sources
from wavecity.flows.units import _result


def buildings_of(scene_id):
    """One imputed building in even scenes, nine of known height in odd ones: the mean of the scenes' shares is 50 %."""
    sources = ["imputed"] if int(scene_id[-1]) % 2 == 0 else ["tag"] * 6 + ["levels"] * 3
    columns = {"scene_id": scene_id, "height_source": sources, "confidence": 1.0, "height": 12.0, "base": 0.0}
    blocks = [box(-80, 25, -40, 60)] * len(sources)
    return gpd.GeoDataFrame({**columns, "osm_type": "way", "osm_id": 1}, geometry=blocks)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write = toy.write_unit

    def write_buildings(path, outcomes):
        tables = [buildings_of(outcome["scene_id"]) for outcome in outcomes if outcome["status"] == "done"]
        with atomic_path(path) as temporary:
            pd.concat(tables).to_parquet(temporary)

    def write_unit(draft, unit, scenes, outcomes, extra):
        results = [
            outcome | (_result(arrays, buildings_of(outcome["scene_id"])) if arrays else {})
            for arrays, outcome in zip(scenes, outcomes, strict=True)
        ]
        return write(draft, unit, scenes, results, extra)

    monkeypatch.setattr(toy, "write_buildings", write_buildings)
    monkeypatch.setattr(toy, "write_unit", write_unit)
    return toy.build_store(tmp_path / "store").folder


def test_inspect_and_the_card_agree(folder):
    counts = Counter(
        source
        for path in (folder / "buildings").iterdir()
        for source in gpd.read_parquet(path)["height_source"]
    )  # fmt: skip
    # Scenes 0, 2 and 4, and 1 and 5; scene 3 is quarantined.
    assert counts == {"imputed": 3, "tag": 12, "levels": 6}
    assert _height_sources(folder) == "imputed 14%, levels 29%, tag 57% (of 21 buildings)"
    table = height_table(load_source(folder))
    shares = {row[0]: row[3] for row in table.rows if row[2] != "0"}
    assert shares == {"imputed": "14%", "levels": "29%", "tag": "57%"}
    assert "of the buildings of all scenes" in table.note


def test_stores_of_older_versions_name_the_card(toy_store):
    assert _height_sources(toy_store / "versions" / "v1") == "see the card"
