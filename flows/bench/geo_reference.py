"""Reference of `wavecity bench geo`: a per-tile pipeline in the manner of Geo2SigMap; no dataset uses it.

For every tile it reads the whole extract, triangulates every building with Shewchuk's Triangle, writes one PLY file per
building and a Mitsuba XML file that lists them, and draws the height map building by building. It clips nothing,
resolves no overlaps and checks nothing.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import osmium
import osmnx
import shapely
import triangle
from numpy.typing import NDArray
from osmium.osm import Area
from PIL import Image, ImageDraw
from shapely import Polygon
from shapely.affinity import translate

from wavecity.geo.export import write_ply

STOREY = 3.5
SHAPE = (
    '    <shape type="ply" id="{name}">\n        <string name="filename" value="meshes/{name}.ply"/>\n'
    '        <ref id="{material}" name="bsdf"/>\n        <boolean name="face_normals" value="true"/>\n    </shape>\n'
)
MATERIAL = '    <bsdf type="twosided" id="{name}"><bsdf type="diffuse"/></bsdf>\n'


def build_tile(path: Path, latitude: float, longitude: float, size: float, folder: Path, reader: str = "osmium") -> int:
    """Mesh files, XML and height map (`height.npy`) of one tile.

    Parameters
    ----------
    path : Path
        Extract.
    latitude, longitude : float
        Centre of the tile in WGS84 degrees.
    size : float
        Edge of the tile in m.
    folder : Path
        Where all files go.
    reader : str
        See `read_buildings`.

    Returns
    -------
    int
        Buildings written.
    """
    found = read_buildings(path, reader)
    projected = found.to_crs(found.estimate_utm_crs())
    centre = gpd.GeoSeries([shapely.Point(longitude, latitude)], crs=4326).to_crs(projected.crs).iloc[0]
    near = projected[projected.intersects(shapely.box(*(centre.coords[0] - np.full(2, size / 2)),
                                                      *(centre.coords[0] + np.full(2, size / 2))))]  # fmt: skip
    meshes = folder / "meshes"
    meshes.mkdir(parents=True, exist_ok=True)
    scene = ['<scene version="2.1.0">\n', MATERIAL.format(name="itu_concrete"), MATERIAL.format(name="itu_wet_ground")]
    half = size / 2
    ground = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    write_ply(meshes / "ground.ply", ground, np.array([[0, 1, 2], [0, 2, 3]]))
    scene.append(SHAPE.format(name="ground", material="itu_wet_ground"))
    drawn: list[tuple[float, Polygon]] = []
    for number, (geometry, tags) in enumerate(zip(near.geometry, near["tags"], strict=True)):
        height = height_of(tags)
        for piece, polygon in enumerate(shapely.get_parts(geometry)):
            local = translate(polygon, -centre.x, -centre.y)
            name = f"building_{number}_{piece}"
            write_ply(meshes / f"{name}.ply", *extrude(local, height))
            scene.append(SHAPE.format(name=name, material="itu_concrete"))
            drawn.append((height, local))
    (folder / "scene.xml").write_text("".join([*scene, "</scene>\n"]))
    np.save(folder / "height.npy", draw_heights(drawn, size))
    return len(near)


def read_buildings(path: Path, reader: str = "osmium") -> gpd.GeoDataFrame:
    """All buildings of an extract, every time anew.

    Reader `osmnx` is Geo2SigMap's own, for `.osm` files without gaps; `osmium` reads the same many times faster.
    """
    if reader == "osmnx":
        found = osmnx.features_from_xml(path, tags={"building": True})
        found = found[found.geom_type.isin(["Polygon", "MultiPolygon"])]
        stated = found[[key for key in ("height", "building:levels") if key in found]]
        return gpd.GeoDataFrame({"tags": stated.to_dict("records")}, geometry=found.geometry.to_numpy(), crs=4326)
    factory = osmium.geom.WKBFactory()
    shapes, tags = [], []
    wanted = osmium.filter.KeyFilter("building")
    for item in osmium.FileProcessor(str(path)).with_areas(wanted).with_filter(wanted):
        if isinstance(item, Area):
            try:
                shapes.append(bytes.fromhex(factory.create_multipolygon(item)))
            except RuntimeError:
                continue
            tags.append(dict(item.tags))
    return gpd.GeoDataFrame({"tags": tags}, geometry=shapely.from_wkb(shapes), crs=4326)


def height_of(tags: dict[str, str]) -> float:
    """Tagged height, storeys, or storeys from N(5, 1) clipped to 1…15."""
    for key, unit in (("height", 1.0), ("building:levels", STOREY)):
        try:
            height = float(tags[key]) * unit
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(height) and height > 0:
            return height
    return STOREY * min(15.0, max(1.0, random.gauss(5.0, 1.0)))


def extrude(polygon: Polygon, height: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners (V, 3) and triangles (F, 3) of a prism: roof and floor by constrained triangulation, walls by edges."""
    corners, edges = [], []
    count = 0
    for ring in _rings(polygon):
        numbers = np.arange(count, count + len(ring))
        corners.append(ring)
        edges.append(np.column_stack([numbers, np.roll(numbers, -1)]))
        count += len(ring)
    outline = {"vertices": np.concatenate(corners), "segments": np.concatenate(edges)}
    if polygon.interiors:
        holes = [Polygon(ring).representative_point() for ring in polygon.interiors]
        outline["holes"] = np.array([[point.x, point.y] for point in holes])
    flat = triangle.triangulate(outline, "p")
    points, roof = flat["vertices"], flat["triangles"].astype(np.int64)
    n = len(points)
    vertices = np.column_stack([np.tile(points, (2, 1)), np.repeat([0.0, height], n)])
    start, end = outline["segments"].T
    walls = np.concatenate([np.column_stack([start, end, end + n]), np.column_stack([start, end + n, start + n])])
    return vertices, np.concatenate([roof + n, roof[:, ::-1], walls])


def draw_heights(buildings: list[tuple[float, Polygon]], size: float) -> NDArray[np.float32]:
    """Height map at 1 m, row 0 = north, building after building, the highest last."""
    count = round(size)
    picture = Image.new("F", (count, count), 0.0)
    pen = ImageDraw.Draw(picture)
    for height, polygon in sorted(buildings, key=lambda each: each[0]):
        for k, ring in enumerate(_rings(polygon)):
            pixels = np.column_stack([ring[:, 0] + size / 2, size / 2 - ring[:, 1]])
            pen.polygon([(float(x), float(y)) for x, y in pixels], fill=0.0 if k else height)
    return np.asarray(picture, dtype=np.float32)


def _rings(polygon: Polygon) -> Iterator[NDArray[np.float64]]:
    """Shell, then holes, without the closing corner."""
    for ring in (polygon.exterior, *polygon.interiors):
        yield shapely.get_coordinates(ring)[:-1]
