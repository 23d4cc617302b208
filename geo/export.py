"""Export of a `Scene`: Mitsuba XML with binary PLY that `sionna.rt.load_scene` opens, and glTF for viewers."""

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import trimesh
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene, Surface

ATTRIBUTION = "Map data © OpenStreetMap contributors, ODbL 1.0"
SURFACES = ("wall", "roof", "ground")
# Thickness in m of walls in Sionna, for paths that pass through them.
THICKNESS = 0.1
COLOURS = {
    "wall": (200, 190, 175, 255),
    "roof": (165, 85, 70, 255),
    "floor": (120, 115, 110, 255),
    "ground": (215, 220, 210, 255),
}
# glTF has y up and looks along -z: east stays x, up becomes y, north becomes -z.
Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
Triangles = tuple[NDArray[np.float64], NDArray[np.int32]]


def export_mitsuba(scene: Scene, folder: Path, materials: Mapping[str, str]) -> Path:
    """Write `scene.xml` and `meshes/*.ply` of a scene.

    Surfaces of one material are one mesh. So walls and roofs of the same material keep the edges they share, at which
    Sionna finds diffraction; those of different materials have none in Sionna, whose meshes have one material each.

    Parameters
    ----------
    scene : Scene
    folder : Path
        Created if missing; files of the same names are replaced.
    materials : mapping
        ITU material (`concrete`, `brick`, …) of `wall`, `roof` and `ground`. Undersides have the material of walls. Where
        the scene has materials by building these come first; its windows are left out.

    Returns
    -------
    Path
        Of the XML file. Coordinates in m in the scene's frame, float32; the ground reaches half a tile further.

    Raises
    ------
    InputError
        A surface has no material, or there is no such surface.

    Examples
    --------
    >>> file = export_mitsuba(scene, Path("out"), {"wall": "concrete", "roof": "concrete", "ground": "concrete"})
    >>> sionna.rt.load_scene(str(file))
    """
    if set(materials) != set(SURFACES):
        msg = (
            f"materials: {', '.join(map(str, sorted(materials))) or 'none'}; give one for each of {', '.join(SURFACES)}"
        )
        raise InputError(msg)
    kind = {Surface.WALL: "wall", Surface.FLOOR: "wall", Surface.ROOF: "roof"}
    of_face = np.array([materials[kind[Surface(number)]] for number in scene.mesh.surface], dtype=np.str_)
    if by_building := scene.mesh.materials:
        named = {"wall": np.array(by_building.wall), "roof": np.array(by_building.roof)}
        own = [
            named[kind[Surface(number)]][row]
            for number, row in zip(scene.mesh.surface, scene.mesh.building, strict=True)
        ]
        of_face = np.where(np.array(own, np.str_) == "", of_face, own)
    shapes = {
        f"buildings-{name}": (name, _used(scene.mesh.vertices, scene.mesh.faces[of_face == name]))
        for name in sorted(set(of_face.tolist()))
    }
    shapes["ground"] = materials["ground"], _ground(scene.size)
    (folder / "meshes").mkdir(parents=True, exist_ok=True)
    lines = ['<scene version="2.1.0">', f"    <!-- {scene.id}. {ATTRIBUTION} -->"]
    for name in sorted({material for material, _ in shapes.values()}):
        lines += [
            f'    <bsdf type="itu-radio-material" id={quoteattr(name)}>',
            f'        <string name="type" value={quoteattr(name)}/>',
            f'        <float name="thickness" value="{THICKNESS}"/>',
            "    </bsdf>",
        ]
    for name, (material, (vertices, faces)) in shapes.items():
        write_ply(folder / "meshes" / f"{name}.ply", vertices, faces)
        lines += [
            f'    <shape type="ply" id="mesh-{name}">',
            f'        <string name="filename" value="meshes/{name}.ply"/>',
            '        <boolean name="face_normals" value="true"/>',
            f'        <ref id={quoteattr(material)} name="bsdf"/>',
            "    </shape>",
        ]
    path = folder / "scene.xml"
    path.write_text("\n".join([*lines, "</scene>\n"]), encoding="utf-8")
    return path


def export_gltf(scene: Scene, path: Path) -> Path:
    """Write a scene as binary glTF: one node per surface of each building, and the ground.

    Parameters
    ----------
    scene : Scene
    path : Path
        Ends in `.glb`; its folder exists.

    Returns
    -------
    Path
        `path`. Nodes are named `way/123/roof` (with `@5.5` for a base of 5.5 m); extras of their meshes: osm_type,
        osm_id, height_m, base_m, height_source, surface. Metres, y up.

    Raises
    ------
    InputError
        Another suffix.

    Examples
    --------
    >>> export_gltf(scene, Path("out/helsinki-0003.glb"))
    """
    if path.suffix != ".glb":
        msg = f"{path}: not a name for binary glTF; end it in .glb"
        raise InputError(msg)
    world = trimesh.Scene(metadata={"copyright": ATTRIBUTION, "scene": scene.id})
    mesh = scene.mesh
    for row, building in enumerate(scene.buildings.itertuples()):
        label = f"{building.osm_type}/{building.osm_id}" + (f"@{building.base:g}" if building.base else "")
        said = {
            "osm_type": str(building.osm_type),
            "osm_id": int(building.osm_id),
            "height_m": float(building.height),
            "base_m": float(building.base),
            "height_source": str(building.height_source),
        }
        for surface in Surface:
            kind = surface.name.lower()
            faces = mesh.faces[(mesh.building == row) & (mesh.surface == surface)]
            if len(faces):
                # Parts of one building at the same base but of different heights have different tops in their name.
                name = f"{label}/{kind}"
                name = name if name not in world.geometry else f"{label}to{building.height:g}/{kind}"
                _add(world, name, _used(mesh.vertices, faces), kind, {**said, "surface": kind})
    _add(world, "ground", _ground(scene.size), "ground", {"surface": "ground"})
    path.write_bytes(world.export(file_type="glb"))
    return path


def write_ply(path: Path, vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> None:
    """Binary little-endian PLY of vertices (V, 3), as float32, and triangles (F, 3)."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    points = np.empty(len(vertices), VERTEX)
    points["x"], points["y"], points["z"] = vertices.T
    corners = np.empty(len(faces), FACE)
    corners["count"], corners["corners"] = 3, faces
    path.write_bytes(header.encode() + points.tobytes() + corners.tobytes())


def _used(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> Triangles:
    """Only the vertices that faces use, shared as before."""
    kept, numbers = np.unique(faces, return_inverse=True)
    return vertices[kept], numbers.reshape(-1, 3).astype(np.int32)


def _ground(size: float) -> Triangles:
    """Square at z = 0 that reaches half a tile beyond the tile, as the ray tracer's does."""
    corners = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * size
    return corners, np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)


def _add(world: trimesh.Scene, name: str, triangles: Triangles, kind: str, extras: dict[str, object]) -> None:
    """Add the faces of one kind as a node."""
    colour = [channel / 255 for channel in COLOURS[kind]]
    material = trimesh.visual.material.PBRMaterial(
        name=kind, baseColorFactor=colour, roughnessFactor=1, metallicFactor=0
    )
    solid = trimesh.Trimesh(*triangles, process=False, metadata=extras)
    solid.visual = trimesh.visual.TextureVisuals(material=material)
    world.add_geometry(solid, node_name=name, geom_name=name, transform=Y_UP)
