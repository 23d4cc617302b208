"""Source of the dataset card: the small files of a version, and counts over its tables of buildings."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wavecity.dataset.buildings import LOCAL, WORLD
from wavecity.dataset.distributions import Distributions
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.materials import COLUMNS as MATERIAL_COLUMNS
from wavecity.dataset.materials import has_materials
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import Lineage, Outcome, Receipt, StoreAttributes, attributes_of

SPLITS = ("train", "validation", "test")
# Footprints are drawn on the map of a city up to this many scenes; with more they would be specks.
MOST_OUTLINED = 400

Item = TypeVar("Item")


@dataclass
class Source:
    """The parts of one version that the card is made from."""

    folder: StorePath
    data: xr.Dataset
    paths: xr.Dataset | None
    trajectory: xr.Dataset | None
    radio_map: xr.Dataset | None
    base_stations: xr.Dataset | None
    receipts: list[Receipt]
    lineage: Lineage
    distributions: Distributions
    ledger: list[Outcome]
    # By city the buildings by source of height, and the sum of their confidences by source.
    heights: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    confidence: Counter[str] = field(default_factory=Counter)
    # Buildings by surface (wall, roof), material and its source, and those with windows; empty without materials by building.
    materials: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    # By scene the outlines (n, 2) of its buildings, m from the tile's centre.
    outlines: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def attributes(self) -> StoreAttributes:
        """Attributes of the store."""
        return attributes_of(self.data.attrs)

    @property
    def recipe(self) -> dict[str, Any]:
        """Parts of the recipe; empty for a store that was made without one."""
        return dict(self.attributes.get("recipe", {}))

    def coordinate(self, name: str) -> list[Any]:
        """A scene coordinate as plain values."""
        return list(self.data[name].values.tolist())

    @property
    def scenes(self) -> list[Outcome]:
        """Outcome of every scene."""
        return [scene for receipt in self.receipts for scene in receipt["scenes"]]


def load_source(folder: StorePath) -> Source:
    """Read the small files of a version, and of its tables of buildings what the card shows.

    Raises
    ------
    InputError
        It holds no finished version.
    """
    draft = load_draft(folder)
    source = Source(
        folder=folder,
        data=_every(folder),
        paths=_every(folder, "paths") if draft.layout.with_paths else None,
        trajectory=_every(folder, "trajectory") if draft.layout.with_trajectory else None,
        radio_map=_every(folder, "radio_map") if draft.layout.with_radio_map else None,
        base_stations=_every(folder, "bs") if draft.layout.base_stations > 1 else None,
        receipts=draft.receipts(),
        lineage=read_json(folder / "lineage.json") or Lineage(),
        distributions=read_json(folder / "distributions.json"),
        ledger=read_json(folder / "ledger.json") or [],
    )
    city_of = dict(zip(source.coordinate("scene_id"), source.coordinate("city"), strict=True))
    outlined = len(places_of(source)) == 1 and len(city_of) <= MOST_OUTLINED
    for unit in range(draft.layout.units):
        path = draft.buildings_path(unit)
        if path.exists():
            _read_buildings(path, source, city_of, outlined)
    return source


def _every(folder: StorePath, group: str | None = None) -> xr.Dataset:
    """A group of a store, at all carriers or pairs of ports."""
    return open_store(folder, group, carrier="all", port="all")


def _read_buildings(path: StorePath, source: Source, city_of: dict[str, str], outlined: bool) -> None:
    """Add a unit's buildings to the counts of a source, and to its outlines."""
    import pyarrow.parquet as pq
    import shapely

    file = pq.ParquetFile(io.BytesIO(path.read_bytes()))
    metres = LOCAL if LOCAL in file.schema_arrow.names else WORLD
    table = file.read(["scene_id", "height_source", "confidence", *[metres] * outlined])
    scenes, sources = table["scene_id"].to_pylist(), table["height_source"].to_pylist()
    for scene, kind, worth in zip(scenes, sources, table["confidence"].to_pylist(), strict=True):
        source.heights[city_of[scene]][kind] += 1
        source.confidence[kind] += worth
    if has_materials(file.schema_arrow.names):
        columns = file.read(list(MATERIAL_COLUMNS)).to_pydict()
        for surface in ("wall", "roof"):
            pairs = zip(columns[f"{surface}_material"], columns[f"{surface}_material_source"], strict=True)
            source.materials.update((surface, *pair) for pair in pairs)
        source.materials.update(("window", "glass", kind) for kind in columns["glass_share_source"] if kind != "none")
    if outlined:
        for scene, shape in zip(scenes, shapely.from_wkb(table[metres].to_pylist()), strict=True):
            rings = [np.asarray(part.exterior.coords)[:, :2] for part in shapely.get_parts(shape)]
            source.outlines.setdefault(scene, []).extend(rings)


def places_of(source: Source) -> dict[str, list[int]]:
    """Cities with the indices of their scenes."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, city in enumerate(source.coordinate("city")):
        found[city].append(index)
    return found


def by_split(content: Mapping[str, Item]) -> list[tuple[str, Item]]:
    """Items in the order train, validation, test."""
    return [(split, content[split]) for split in SPLITS if split in content]


def add_up(counters: Iterable[Counter[str]]) -> Counter[str]:
    """Sum of counters."""
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


def percent(part: int, whole: int) -> str:
    """Share as text, with a digit more where it is small; empty for a share of nothing."""
    if not whole:
        return ""
    return f"{part / whole:.1%}" if 0 < part < 0.1 * whole else f"{part / whole:.0%}"
