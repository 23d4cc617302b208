"""`Scene` -> Sionna RT scene, in memory: one mesh whose material depends on the face. Or the survey of any Sionna
scene.

Walls, roofs, floors and the ground are one Mitsuba shape. So buildings keep the edges that walls and roofs share (two
shapes would lose them, and with them all diffraction there), and the number of shapes is the same in every scene, so
that Dr.Jit's kernels are compiled once. Where an edge joins two materials, Sionna's diffraction coefficient takes both
faces as made of the illuminated one's material (its own approximation: it uses the material of one face only).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Mesh, Surface
from wavecity.raytrace.device import Interaction, Numbers, SionnaScene, Vectors, dr, load, mi, rt
from wavecity.raytrace.facades import face_constants
from wavecity.raytrace.settings import HIGHEST, Material, RadioSettings
from wavecity.raytrace.surfaces import GROUND, Surfaces, analyse, faces_that_count, survey

Result = TypeVar("Result")
# A mesh of a Mitsuba scene.
Shape: TypeAlias = Any


class FaceMaterial(rt.RadioMaterial):
    """Radio material whose permittivity and conductivity are looked up by face.

    Parameters
    ----------
    permittivity, conductivity : float (F,)
        Relative permittivity (real part) and conductivity in S/m of each face of the one mesh that uses it.
    radio : RadioSettings
        Scattering coefficient, pattern and cross-polarisation of all faces.
    """

    # The parent's, which its methods read.
    _eta_r: Numbers
    _sigma: Numbers

    def __init__(
        self, permittivity: NDArray[np.float64], conductivity: NDArray[np.float64], radio: RadioSettings
    ) -> None:
        lobes: dict[str, dict[str, float]] = {
            "lambertian": {},
            "directive": {"alpha_r": radio.scattering_alpha_r},
            "backscattering": {
                "alpha_r": radio.scattering_alpha_r,
                "alpha_i": radio.scattering_alpha_i,
                "lambda_": radio.scattering_lambda,
            },
        }
        super().__init__(
            name="faces",
            color=(0.5, 0.5, 0.5),
            scattering_coefficient=radio.scattering,
            xpd_coefficient=radio.scattering_xpd,
            scattering_pattern=radio.scattering_pattern,
            **lobes[radio.scattering_pattern],
        )
        self.set_constants(permittivity, conductivity)

    def set_constants(self, permittivity: NDArray[np.float64], conductivity: NDArray[np.float64]) -> None:
        """Give the faces other constants, those at another carrier."""
        self._face_permittivity = load(mi.Float, permittivity)
        self._face_conductivity = load(mi.Float, conductivity)

    def _of_face(self, method: Callable[[], Result], si: Interaction, active: Numbers) -> Result:
        """Call a method of the parent with the properties of the face that was hit in place of the uniform ones."""
        uniform = self._eta_r, self._sigma
        self._eta_r = dr.gather(mi.Float, self._face_permittivity, si.prim_index, active)
        self._sigma = dr.gather(mi.Float, self._face_conductivity, si.prim_index, active)
        try:
            return method()
        finally:
            self._eta_r, self._sigma = uniform

    def sample(
        self, ctx: object, si: Interaction, sample1: Numbers, sample2: Vectors, active: Numbers = True
    ) -> tuple[object, object]:
        """See `sionna.rt.RadioMaterial.sample`."""
        parent: Callable[..., tuple[object, object]] = super().sample
        return self._of_face(lambda: parent(ctx, si, sample1, sample2, active), si, active)

    def eval(self, ctx: object, si: Interaction, wo: Vectors, active: Numbers = True) -> object:
        """See `sionna.rt.RadioMaterial.eval`."""
        parent = super().eval
        return self._of_face(lambda: parent(ctx, si, wo, active), si, active)

    def pdf(self, ctx: object, si: Interaction, wo: Vectors, active: Numbers = True) -> object:
        """See `sionna.rt.RadioMaterial.pdf`."""
        parent = super().pdf
        return self._of_face(lambda: parent(ctx, si, wo, active), si, active)


@dataclass(frozen=True)
class Band:
    """A carrier and a pair of ports: what the fields of a path depend on besides its geometry.

    Attributes
    ----------
    frequency : float
        Hz.
    constants : float64 (F, 2)
        Relative permittivity and conductivity (S/m) of each face at it.
    ports : tuple of int
        Port of the user, and of the base station.
    """

    frequency: float
    constants: NDArray[np.float64]
    ports: tuple[int, int]


@dataclass(frozen=True)
class World:
    """A scene ready for tracing.

    Attributes
    ----------
    surfaces : Surfaces
        Its planes and edges. Faces are numbered through all shapes.
    scene : sionna.rt.Scene
        Everything of Sionna RT works on it, also the stock `PathSolver`.
    shape, primitive : uint32 (F,)
        Of each face: registry number of its shape (what Sionna keeps as a path's shape) and its number in that shape.
    first_face : uint32
        By registry number: the first face of the shape.
    constants : float64 (F, 2), optional
        Relative permittivity and conductivity (S/m) of each face; None where they are not known.
    bands : tuple of Band
        Where there are several carriers or pairs of ports: what differs between them, carrier by carrier.
    polarisations : tuple of str
        Sionna's names of those of users and base station.
    ports : tuple of int
        Port of users and base station whose fields are computed.
    """

    surfaces: Surfaces
    scene: SionnaScene
    shape: NDArray[np.uint32]
    primitive: NDArray[np.uint32]
    first_face: NDArray[np.uint32]
    constants: NDArray[np.float64] | None = None
    bands: tuple[Band, ...] = ()
    polarisations: tuple[str, str] = ("V", "V")
    ports: tuple[int, int] = (0, 0)

    def each(self) -> "Iterator[World]":
        """Give the world with every band; only the last one given may be used, for they have one scene, whose materials and
        frequency are set.
        """
        for band in self.bands:
            (shape,) = self.scene.mi_scene.shapes()
            shape.bsdf().set_constants(*band.constants.T)
            self.scene.frequency = band.frequency
            yield replace(self, constants=band.constants, ports=band.ports, bands=())
        if not self.bands:
            yield self

    def faces(self, shape: NDArray[np.integer], primitive: NDArray[np.integer]) -> NDArray[np.int32]:
        """Numbers of faces that Sionna names by shape and primitive; -1 where it says that there is none."""
        found = np.full(shape.shape, -1, np.int32)
        there = shape != rt.INVALID_SHAPE
        found[there] = self.first_face[shape[there]] + primitive[there]
        return found


def build_world(mesh: Mesh, size: float, radio: RadioSettings) -> World:
    """Sionna scene of a mesh and the ground.

    Parameters
    ----------
    mesh : Mesh
    size : float
        Edge of the tile in m; the ground reaches half a tile further on every side.
    radio : RadioSettings
        Frequency, or carriers, polarisations, and materials where those of the buildings are not known.

    Raises
    ------
    InputError
        A material is not defined at a frequency.

    Examples
    --------
    >>> world = build_world(scene.mesh, scene.size, RadioSettings())
    >>> world.surfaces.planes
    214
    """
    surfaces = survey(mesh, size)
    bands = []
    for carrier in radio.each:
        constants = _constants(mesh, surfaces, radio, carrier.frequency)
        bands += [Band(carrier.frequency, constants, ports) for ports in radio.ports]
    constants = bands[0].constants
    material = FaceMaterial(constants[:, 0], constants[:, 1], radio)

    props = mi.Properties()
    props["face_normals"] = True
    props["flip_normals"] = False
    shape = mi.Mesh("city", len(surfaces.vertices), len(surfaces.faces), props=props)
    parameters = mi.traverse(shape)
    parameters["vertex_positions"] = load(mi.Float, surfaces.vertices.ravel())
    parameters["faces"] = load(mi.UInt, surfaces.faces.ravel())
    parameters.update()
    shape.set_id("city")
    shape.set_bsdf(material)

    scene = rt.Scene(mi.load_dict({"type": "scene", "city": shape}))
    scene.frequency = radio.frequency
    several = tuple(bands) if len(bands) > 1 else ()
    polarisations = radio.user_polarisation, radio.polarisation
    return replace(_number_faces(surfaces, scene), constants=constants, bands=several, polarisations=polarisations)


def _constants(mesh: Mesh, surfaces: Surfaces, radio: RadioSettings, frequency: float) -> NDArray[np.float64]:
    """Relative permittivity and conductivity (S/m) of every face at a frequency, float64 (F, 2)."""
    kinds = {
        Surface.WALL: ("wall_material", radio.wall_material),
        Surface.ROOF: ("roof_material", radio.roof_material),
        # Undersides of elevated parts have the material of walls.
        Surface.FLOOR: ("wall_material", radio.wall_material),
        GROUND: ("ground_material", radio.ground_material),
    }
    properties = np.empty((GROUND + 1, 2))
    for kind, (field, name) in kinds.items():
        properties[kind] = material_properties(field, name, frequency)
    constants: NDArray[np.float64] = properties[surfaces.kind]
    if mesh.materials is not None:
        kept = faces_that_count(mesh)
        recipe = {kind: (float(properties[kind, 0]), float(properties[kind, 1])) for kind in Surface}
        known = {
            name: material_properties("frequency", name, frequency)
            for name in get_args(Material)
            if name not in HIGHEST or frequency < HIGHEST[name]
        }
        constants[: kept.sum()] = face_constants(
            mesh.materials, mesh.building[kept], mesh.surface[kept], recipe, known, frequency
        )
    return constants


def world_of(scene: SionnaScene) -> World:
    """Survey any Sionna RT scene, e.g. from `sionna.rt.load_scene`.

    Edges are found within each of its meshes, between faces that share vertices, as Sionna does: unwelded meshes have
    none.

    Parameters
    ----------
    scene : sionna.rt.Scene

    Examples
    --------
    >>> world = world_of(sionna.rt.load_scene(sionna.rt.scene.munich))
    """
    vertices, faces, parts = [np.empty((0, 3))], [np.empty((0, 3), np.int64)], [np.empty(0, np.int32)]
    base = 0
    for number, shape in enumerate(_shapes(scene)):
        values = mi.traverse(shape)
        points = values["vertex_positions"].numpy().reshape(-1, 3).astype(np.float64)
        corners = values["faces"].numpy().reshape(-1, 3).astype(np.int64)
        vertices.append(points)
        faces.append(corners + base)
        parts.append(np.full(len(corners), number, np.int32))
        base += len(points)
    part = np.concatenate(parts)
    triangles = np.concatenate(faces).astype(np.int32)
    surfaces = analyse(np.concatenate(vertices), triangles, np.zeros(len(part), np.uint8), part, closed=False)
    return _number_faces(surfaces, scene)


def _shapes(scene: SionnaScene) -> list[Shape]:
    """Meshes of a scene in an order that depends on them alone: threads load them, and that decides Mitsuba's order."""

    def content(shape: Shape) -> tuple[bytes, bytes]:
        values = mi.traverse(shape)
        return values["vertex_positions"].numpy().tobytes(), values["faces"].numpy().tobytes()

    return sorted(scene.mi_scene.shapes(), key=content)


def _number_faces(surfaces: Surfaces, scene: SionnaScene) -> World:
    """Number the faces of all shapes of a scene."""
    shapes = _shapes(scene)
    numbers = [int(dr.reinterpret_array(mi.UInt32, mi.ShapePtr(shape))[0]) for shape in shapes]
    counts = [shape.face_count() for shape in shapes]
    starts = np.cumsum([0, *counts])
    first_face = np.zeros(max(numbers, default=0) + 1, np.uint32)
    first_face[numbers] = starts[:-1]
    primitive = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])
    return World(
        surfaces,
        scene,
        np.repeat(np.array(numbers, np.uint32), counts),
        primitive.astype(np.uint32),
        first_face,
    )


def material_properties(field: str, name: str, frequency: float) -> tuple[float, float]:
    """Relative permittivity and conductivity (S/m) of an ITU-R P.2040 material.

    Parameters
    ----------
    field : str
        The recipe's field, for the message.
    name : str
    frequency : float
        Hz.

    Raises
    ------
    InputError

    Examples
    --------
    >>> [round(value, 3) for value in material_properties("wall_material", "concrete", 28.5e9)]
    [5.24, 0.635]
    """
    try:
        permittivity, conductivity = rt.radio_materials.itu.itu_material(name, mi.Float(frequency))
    except ValueError as error:
        msg = f"radio.{field}: {name} has no ITU-R P.2040 model at {frequency / 1e9:g} GHz; choose another material"
        raise InputError(msg) from error
    return float(permittivity[0]), float(conductivity[0])
