"""Radio materials of buildings: walls and roofs from tags, windows by building type, each with its source."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from wavecity.geo.scene import Materials
from wavecity.geo.settings import MaterialSettings

# `tag`: of the building or part itself; `building`: a part has that of its building; `recipe`: neither says.
MaterialSource = Literal["tag", "building", "recipe"]
# `type`: by the tag `building`; `none`: no windows are modelled.
GlassSource = Literal["type", "none"]
MATERIAL_SOURCES, GLASS_SOURCES = get_args(MaterialSource), get_args(GlassSource)

# What faces the street comes first: a façade of glass may hang on a skeleton of steel.
WALL_KEYS = ("building:facade:material", "building:material")
ROOF_KEYS = ("roof:material",)
# ITU-R P.2040 material of a value. Stone, slate, plaster, clay, thatch, tar paper and the like have no model there: they keep
# the recipe's material. Roof tiles are fired clay, as bricks are.
VALUES = {
    "concrete": (
        "concrete", "reinforced_concrete", "concrete_block", "concrete_blocks", "concrete_panel", "concrete_panels",
        "cement", "cement_block", "cement_blocks", "cement_brick", "eternit",
    ),
    "brick": ("brick", "bricks", "brickwork", "clinker", "roof_tiles", "roof_tile", "clay_tiles", "tile", "tiles"),
    "metal": (
        "metal", "metal_sheet", "metal_plates", "sheet_metal", "steel", "stainless_steel", "corten_steel", "iron",
        "corrugated_iron", "corrugated_metal", "tin", "zinc", "copper", "aluminium", "aluminum", "lead",
    ),
    "glass": ("glass", "glass_facade"),
    "wood": ("wood", "wooden", "timber", "log", "logs", "wood_shingles"),
    "marble": ("marble",),
}  # fmt: skip
MATERIAL_OF = {value: material for material, values in VALUES.items() for value in values}
# Share of windows in the walls above ground: ANSI/ASHRAE/IES Standard 90.1-2019, table G3.1.1-1. It has no dwellings; of
# hotels and offices the share depends on their size.
GLASS_OF = {
    "supermarket": 0.07, "clinic": 0.21, "hospital": 0.27, "restaurant": 0.24, "retail": 0.11, "kindergarten": 0.22,
    "school": 0.22, "college": 0.22, "university": 0.22, "warehouse": 0.06,
}  # fmt: skip
# Of offices, up to so many m2 of floor (5,000 and 50,000 square feet).
OFFICES = ((464.5, 0.19), (4645.2, 0.31), (np.inf, 0.40))
# Of hotels, up to so many rooms; those whose `rooms` are not tagged count as small.
HOTELS = ((75.0, 0.24), (np.inf, 0.34))


def tagged_material(tags: Mapping[str, str], keys: Sequence[str]) -> str:
    """ITU-R P.2040 material that tags state, empty where they state none that the Recommendation has.

    Parameters
    ----------
    tags : mapping
    keys : sequence of str
        `WALL_KEYS` or `ROOF_KEYS`; the first that is understood counts, of several values (`brick;wood`) likewise.

    Examples
    --------
    >>> tagged_material({"building:material": "Brick; plaster"}, WALL_KEYS)
    'brick'
    """
    for key in keys:
        for value in tags.get(key, "").split(";"):
            known = MATERIAL_OF.get(value.strip().lower().replace(" ", "_"))
            if known:
                return known
    return ""


def glass_share(kind: str, floor_area: float, rooms: str = "") -> float:
    """Share of the walls of a building that is windows, by its type; 0 where the source has no such type.

    Parameters
    ----------
    kind : str
        Value of the tag `building`.
    floor_area : float
        Of all storeys, in m2.
    rooms : str
        Value of the tag `rooms`.

    Examples
    --------
    >>> glass_share("office", 300.0), glass_share("office", 20_000.0), glass_share("house", 100.0)
    (0.19, 0.4, 0.0)
    """
    if kind == "office":
        return next(share for largest, share in OFFICES if floor_area <= largest)
    if kind == "hotel":
        count = int(rooms) if rooms.isdecimal() else 0
        return next(share for largest, share in HOTELS if count <= largest)
    return GLASS_OF.get(kind, 0.0)


def with_materials(
    buildings: gpd.GeoDataFrame,
    features: gpd.GeoDataFrame,
    tags: Sequence[Mapping[str, str]],
    parents: NDArray[np.int64],
    areas: NDArray[np.float64],
    settings: MaterialSettings,
    storey: float,
) -> gpd.GeoDataFrame:
    """The solids of a tile with their materials and where these come from.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        osm_type, osm_id, height, base.
    features : geopandas.GeoDataFrame
        The N map features; osm_type, osm_id.
    tags : sequence of mappings
        Of the features.
    parents : int64 (N,)
        Building of each part, -1 for none.
    areas : float64 (N,)
        Footprints in m2.
    settings : MaterialSettings
    storey : float
        Metres per storey.

    Returns
    -------
    geopandas.GeoDataFrame
        With the columns wall_material, wall_material_source, roof_material, roof_material_source, glass_share,
        glass_share_source. A material is empty where it is the recipe's.
    """
    row_of = {key: row for row, key in enumerate(zip(features["osm_type"], features["osm_id"], strict=True))}
    columns: dict[str, list[str | float]] = {}
    solids = zip(*(buildings[name] for name in ("osm_type", "osm_id", "height", "base")), strict=True)
    for osm_type, osm_id, top, base in solids:
        row = row_of[osm_type, osm_id]
        whole = int(parents[row]) if parents[row] >= 0 else row
        found: dict[str, str | float] = {}
        for surface, keys in (("wall", WALL_KEYS), ("roof", ROOF_KEYS)):
            own, of_building = (tagged_material(tags[of], keys) if settings.tags else "" for of in (row, whole))
            source: MaterialSource = "tag" if own else "building" if of_building else "recipe"
            found |= {f"{surface}_material": own or of_building, f"{surface}_material_source": source}
        kind = tags[row].get("building", "") or tags[whole].get("building", "")
        floors = max(1.0, round((top - base) / storey))
        share = glass_share(kind, floors * float(areas[whole]), tags[whole].get("rooms", "")) if settings.glass else 0.0
        # Sheets of metal have no windows that would matter, and glass is glass.
        share = 0.0 if found["wall_material"] in ("metal", "glass") else share
        found |= {"glass_share": share, "glass_share_source": "type" if share else "none"}
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    return buildings.assign(**columns) if columns else buildings


def materials_of(buildings: gpd.GeoDataFrame) -> Materials:
    """Materials of a mesh that `build_mesh` made of these buildings (`with_materials`)."""
    wall, roof = (tuple(map(str, buildings[f"{surface}_material"])) for surface in ("wall", "roof"))
    return Materials(wall, roof, tuple(map(float, buildings["glass_share"])))
