"""Croissant 1.1 description of a version (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html).

Croissant does not know Zarr: the arrays are described with type, shape, unit and the files that they lie in, but a
Croissant loader refuses to read those. It does read the splits, the scenes and the buildings.
"""

from typing import TypeAlias

import xarray as xr

from wavecity.dataset.bands import radio_text
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, sha256_of, write_json
from wavecity.dataset.materials import COLUMNS as MATERIALS
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.schema import SCENE_FIELDS

# A node of JSON-LD.
Node: TypeAlias = dict[str, object]

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "readLines": "cr:readLines",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "sdVersion": "cr:sdVersion",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
    "unArchive": "cr:unArchive",
    "value": "cr:value",
}
# Groups that the arrays of a record set are in.
PREFIXES = {"path": "paths/", "trajectory": "trajectory/", "radio_map": "radio_map/", "bs": "bs/"}
LICENCE_URL = "https://spdx.org/licenses/ODbL-1.0.html"
COPYRIGHT_URL = "https://www.openstreetmap.org/copyright"
# Complex numbers have no type of their own: they are pairs of floats, like their bytes.
TYPES = {
    "bool": "sc:Boolean",
    "complex64": "cr:Float32",
    "float32": "cr:Float32",
    "float64": "cr:Float64",
    "int8": "cr:Int8",
    "int16": "cr:Int16",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "uint8": "cr:UInt8",
}
# The registered media type, and the one that mlcroissant knows.
PARQUET = ["application/vnd.apache.parquet", "application/x-parquet"]
FILES = {
    "data.zarr/zarr.json": ("application/json", "metadata of all arrays: attributes, conventions, shapes, units"),
    "statistics.json": ("application/json", "statistics of the train split"),
    "distributions.json": ("application/json", "histograms by split"),
    "ledger.json": ("application/json", "scenes that were quarantined, with stage and reason"),
    "lineage.json": ("application/json", "maps with dates and SHA-256, candidate tiles, package versions"),
    "card.html": ("text/html", "dataset card with pictures"),
    "card.md": ("text/markdown", "dataset card"),
}
FILE_SETS = {
    "arrays": ("data.zarr/*", "application/vnd.zarr; version=3", "all arrays, a Zarr v3 group"),
    "receipts": ("receipts/*.json", "application/json", "outcomes of the scenes, unit by unit"),
    "buildings-files": ("buildings/*.parquet", PARQUET, "buildings, GeoParquet, unit by unit"),
}
SPLIT_URLS = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
# The scene coordinates that every scene has in its receipt, done or not.
IN_RECEIPTS = ("scene_id", "city", "country", "latitude", "longitude", "split", "status", "n_users")
BUILDINGS = {
    "scene_id": ("sc:Text", "scene that the building is in"),
    "osm_type": ("sc:Text", "OpenStreetMap element: way or relation"),
    "osm_id": ("sc:Integer", "OpenStreetMap id"),
    "height": ("sc:Float", "top above ground in m"),
    "base": ("sc:Float", "underside above ground in m"),
    "height_source": ("sc:Text", "tag, levels, part, external, imputed or guess"),
    "confidence": ("sc:Float", "how directly the map says the height, 0 to 1; a rank"),
}


def write_croissant(folder: StorePath) -> None:
    """Write `croissant.json` into the folder of a finished draft or version, after its other files.

    Raises
    ------
    InputError
        It holds no finished version.

    Examples
    --------
    >>> write_croissant(latest("helsinki").folder)
    """
    write_json(folder / "croissant.json", describe(folder))


def describe(folder: StorePath) -> Node:
    """Croissant's JSON-LD of a version; paths are relative to its folder.

    Raises
    ------
    InputError
        It holds no finished version.
    """
    draft, data = load_draft(folder), open_store(folder, carrier="all", port="all")
    attributes = attributes_of(data.attrs)
    recipe, fingerprint = attributes.get("recipe", {}).get("name", ""), attributes["fingerprint"]
    with_materials = attributes.get("recipe", {}).get("scene", {}).get("materials") is not None
    has_buildings = any(draft.buildings_path(unit).exists() for unit in range(draft.layout.units))
    record_sets = [
        _splits(data),
        _scenes(),
        *([_buildings(with_materials)] if has_buildings else []),
        *_arrays(data, "scene"),
    ]
    record_sets += _arrays(data, "user")
    if draft.layout.with_paths:
        record_sets += _arrays(open_store(folder, "paths", carrier="all", port="all"), "path")
    if draft.layout.with_trajectory:
        record_sets += _arrays(open_store(folder, "trajectory", carrier="all", port="all"), "trajectory")
    if draft.layout.with_radio_map:
        record_sets += _arrays(open_store(folder, "radio_map", carrier="all", port="all"), "radio_map")
    if draft.layout.base_stations > 1:
        record_sets += _arrays(open_store(folder, "bs", carrier="all", port="all"), "bs")
    title = f"Wavecity channels{': ' * bool(recipe)}{recipe}"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": f"wavecity-channels{'-' * bool(recipe)}{recipe}",
        "alternateName": title,
        "description": _description(data),
        "license": LICENCE_URL,
        "creator": [
            {"@type": "sc:Organization", "name": "Wavecity"},
            {"@type": "sc:Organization", "name": "OpenStreetMap contributors", "url": COPYRIGHT_URL},
        ],
        # The page next to this file: only who publishes a copy knows its address.
        "url": "card.html",
        "identifier": fingerprint,
        # Three numbers, as the format wants; stores of before have one in their schema.
        "version": ".".join([*str(attributes["schema_version"]).split("."), "0", "0"][:3]) + f"+{fingerprint[:16]}",
        "citeAs": f"{title}, version {fingerprint[:16]}. {attributes['attribution']}.",
        "creditText": attributes["attribution"],
        "keywords": ["wireless", "MIMO", "channel state information", "ray tracing", "OpenStreetMap", "Zarr"],
        "isLiveDataset": False,
        "isAccessibleForFree": True,
        "distribution": [
            *(_file(folder, name) for name in FILES if (folder / name).exists()),
            *(_file_set(name) for name in FILE_SETS if name != "buildings-files" or has_buildings),
        ],
        "recordSet": record_sets,
    }


def _description(data: xr.Dataset) -> str:
    """What a Croissant loader can and cannot read of a version."""
    attributes = attributes_of(data.attrs)
    array = attributes["array"]
    return (
        f"Simulated wireless channels of {data.sizes['scene']:,} scenes: tiles of {attributes['tile_size_m']:g} m "
        f"cut from "
        f"OpenStreetMap, each with a base station of {array['columns']} x {array['rows']} antennas at "
        f"{radio_text(attributes)} and up to {data.sizes['user']:,} users, traced with Sionna RT. "
        "The arrays are Zarr v3, which Croissant loaders do not read: their record sets (those whose names end in "
        "-arrays) "
        "describe type, shape, unit and files, but cannot be loaded; open data.zarr with xarray or zarr. The record "
        "sets splits, "
        "scenes and buildings can be loaded from a copy of the whole folder. A FileSet's files are relative "
        f"to this file; manifest.json has the SHA-256 of each. {attributes['attribution']}."
    )


def _file(folder: StorePath, name: str) -> Node:
    """FileObject of one file of the version."""
    encoding, description = FILES[name]
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": description,
        "contentUrl": name,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": encoding,
        "sha256": sha256_of(folder / name),
    }


def _file_set(name: str) -> Node:
    """FileSet of the files of one kind."""
    includes, encoding, description = FILE_SETS[name]
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": description,
        "encodingFormat": encoding,
        "includes": includes,
    }


def _record_set(name: str, description: str, fields: list[Node], **more: object) -> Node:
    """Record set with its fields."""
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": fields, **more}


def _field(record_set: str, name: str, kind: str | list[str], description: str, **more: object) -> Node:
    """Field of a record set."""
    identifier = f"{record_set}/{name}"
    return {
        "@type": "cr:Field",
        "@id": identifier,
        "name": name,
        "description": description,
        "dataType": kind,
        **more,
    }


def _splits(data: xr.Dataset) -> Node:
    """The splits as an enumeration that the scenes refer to."""
    present = set(data["split"].values.tolist())
    lines = [{"splits/name": name, "splits/url": url} for name, url in SPLIT_URLS.items() if name in present]
    by = data.attrs["split_by"]
    return _record_set(
        "splits",
        f"Splits, by {by}" + (": no city is in two of them." if by == "city" else ": a city may be in several."),
        [
            _field("splits", "name", "sc:Text", "name of the split"),
            _field("splits", "url", ["sc:URL", "cr:Split"], "its meaning"),
        ],
        dataType="cr:Split",
        key={"@id": "splits/name"},
        data=lines,
    )


def _scenes() -> Node:
    """Record set of the scenes, from the receipts."""
    fields = []
    for spec in SCENE_FIELDS:
        if spec.name in IN_RECEIPTS:
            kind = "sc:Text" if spec.dtype == "str" else TYPES[spec.dtype]
            source = {"fileSet": {"@id": "receipts"}, "extract": {"jsonPath": f"scenes[*].{spec.name}"}}
            more: Node = {"source": source}
            if spec.name == "split":
                more["references"] = {"field": {"@id": "splits/name"}}
            fields.append(_field("scenes", spec.name, kind, _with_unit(spec.long_name, spec.units), **more))
    return _record_set("scenes", "One record per scene, from the receipts.", fields, key={"@id": "scenes/scene_id"})


def _buildings(with_materials: bool) -> Node:
    """Record set of the buildings, from the GeoParquet files."""
    more = {
        name: ("sc:Float" if name == "glass_share" else "sc:Text", of)
        for name, of in MATERIALS.items()
        if with_materials
    }
    fields = [
        _field(
            "buildings",
            name,
            kind,
            meaning,
            source={"fileSet": {"@id": "buildings-files"}, "extract": {"column": name}},
        )
        for name, (kind, meaning) in (BUILDINGS | more).items()
    ]
    text = (
        "One record per building of a scene. The footprint is the GeoParquet column geometry in WGS84, and "
        "local_geometry in metres of the scene frame."
    )
    return _record_set("buildings", text, fields)


def _arrays(data: xr.Dataset, record: str) -> list[Node]:
    """Arrays as fields, one record per scene (and its grid), per user, or per user with all paths or along its route.

    The validator wants a source for each.
    """
    name, prefix = f"{record}-arrays", PREFIXES.get(record, "")
    fields = []
    for key, array in data.data_vars.items():
        leading = 2 if "user" in array.dims else 1
        if not prefix and leading != {"scene": 1, "user": 2}[record]:
            continue
        shape, dims = list(array.shape[leading:]), list(map(str, array.dims[leading:]))
        text = f"{_with_unit(array.attrs['long_name'], array.attrs.get('units', ''))}; Zarr array {prefix}{key}"
        if dims:
            text += f", axes {', '.join(dims)}"
        if array.dtype.kind == "c":
            shape.append(2)
            text += f"; {array.dtype}, given here as pairs of real and imaginary part"
        more: Node = {"source": {"fileSet": {"@id": "arrays"}, "extract": {"fileProperty": "content"}}}
        if shape:
            more |= {"isArray": True, "arrayShape": ",".join(map(str, shape))}
        fields.append(_field(name, str(key), TYPES[str(array.dtype)], text, **more))
    per = {
        "scene": "scene",
        "user": "user of a scene",
        "path": "user of a scene, with all of the user's paths",
        "trajectory": "user of a scene, along the user's way",
        "radio_map": "scene, with a value for each cell of a grid over its tile",
        "bs": "scene with several base stations, or user of it",
    }[record]
    text = f"Arrays of data.zarr, one record per {per}: a description, which Croissant loaders cannot read."
    return [_record_set(name, text, fields)] if fields else []


def _with_unit(text: str, unit: str) -> str:
    """A meaning with its unit, if it has one."""
    return text if unit in ("", "1") else f"{text} ({unit})"
