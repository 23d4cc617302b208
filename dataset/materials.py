"""Radio materials by building in a store: the columns of its tables of buildings, and what they mean."""

from collections.abc import Iterable, Mapping

# Columns that tables of buildings have with `scene.materials`, and their meaning.
COLUMNS = {
    "wall_material": "ITU-R P.2040 material of the walls; empty: the recipe's",
    "wall_material_source": "tag, building or recipe",
    "roof_material": "ITU-R P.2040 material of the roof; empty: the recipe's",
    "roof_material_source": "tag, building or recipe",
    "glass_share": "share of windows in the walls, which reflect as the mean of wall and glass",
    "glass_share_source": "type (ASHRAE 90.1-2019, table G3.1.1-1) or none",
}
SOURCES = {
    "tag": "stated of the building or part itself",
    "building": "of a part: stated of its building",
    "recipe": "not in the map: the recipe's",
}
# Materials that tags may state, and the largest share of windows of any type.
MATERIALS = ("concrete", "brick", "metal", "glass", "wood", "marble")
MOST_GLASS = 0.4


def has_materials(columns: Iterable[str]) -> bool:
    """Whether a table of buildings has all columns of materials."""
    return set(COLUMNS) <= set(columns)


def wrong_materials(rows: Iterable[Mapping[str, str | float]]) -> str:
    """What contradicts itself in the materials of buildings: one line, or nothing.

    Parameters
    ----------
    rows : iterable of mappings
        `COLUMNS`, osm_type and osm_id.

    Examples
    --------
    >>> row = {"osm_type": "way", "osm_id": 7, "wall_material": "straw", "wall_material_source": "tag"}
    >>> wrong_materials([row | {"roof_material": "", "roof_material_source": "recipe"} | {"glass_share": 0.0}])
    "wall of way 7: material 'straw' of source 'tag'"
    """
    for row in rows:
        name = f"{row['osm_type']} {row['osm_id']}"
        for surface in ("wall", "roof"):
            material, source = row[f"{surface}_material"], row[f"{surface}_material_source"]
            stated = material in MATERIALS and source in ("tag", "building")
            if not stated and (material, source) != ("", "recipe"):
                return f"{surface} of {name}: material {material!r} of source {source!r}"
        share = float(row["glass_share"])
        bare = row["wall_material"] in ("metal", "glass")
        if not 0 <= share <= (0 if bare else MOST_GLASS) or (share > 0) != (
            row.get("glass_share_source", "none") == "type"
        ):
            return f"windows of {name}: a share of {share:g} of walls of {row['wall_material'] or 'the recipe'}"
    return ""
