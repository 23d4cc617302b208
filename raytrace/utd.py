"""Diffraction at a wedge by the uniform theory of diffraction (UTD), in place of Sionna RT 2.2.0's coefficient.

For a perfect conductor it is that of R. G. Kouyoumjian and P. H. Pathak, "A uniform geometrical theory of diffraction for
an edge in a perfectly conducting surface", Proc. IEEE 62(11), 1974, eqs. (25) to (31), and for other materials the
heuristic of R. J. Luebbers, "Finite conductivity uniform GTD versus knife edge diffraction in prediction of propagation
path loss", IEEE Trans. Antennas Propag. 32(1), 1984: the terms of the two reflection boundaries are weighted by the
reflection coefficients of the two faces. The smaller of the two angles to a face is its angle of incidence: Luebbers' own
choice where the source lights face 0 and the receiver is nearer to face n, and the same when the two change places.

Sionna RT 2.2.0 combines the four terms as R0 (d1 - d4) + Rn (d2 - d3), with Rn = -1 for wide wedges: the total field is
then not continuous at reflection boundaries.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from sionna.rt.utils import (
    cot_times_f_utd,
    implicit_basis_vector,
    itu_coefficients_single_layer_slab,
    jones_matrix_from_real_imag,
    wedge_interior_angle,
)

from wavecity.raytrace.device import Interaction, Numbers, Vectors, dr, mi

# Jones matrices and rotations of Mitsuba; sionna.rt.RadioMaterial.
Matrix: TypeAlias = Any
Material: TypeAlias = Any

# Below this sine of the angle of incidence any direction along the face is transverse.
NORMAL_INCIDENCE = 1e-6


def diffraction_matrix(
    material: Material,
    to_world: Matrix,
    incident: Vectors,
    outgoing: Vectors,
    interaction: Interaction,
    permittivity: Numbers,
    wavenumber: Numbers,
) -> Matrix:
    """Jones matrix of a diffracted ray, without the spreading factor and the phase.

    Takes the place of `sionna.rt.RadioMaterial._diffraction_matrix`, whose arguments these are: in the frame whose z axis
    is the normal of face 0, the one that the source lights.

    Parameters
    ----------
    material : sionna.rt.RadioMaterial
        Of both faces.
    to_world : mi.Matrix3f
    incident, outgoing : mi.Vector3f
        Directions of propagation.
    interaction : mi.SurfaceInteraction3f
        Sionna's carrier of what it hands on: `dn_du` the edge, `dn_dv` the outward normal of face n, `dp_du.x` and
        `dp_du.y` the distances from the edge to the target and to the source.
    permittivity : mi.Complex2f
        Complex and relative.
    wavenumber : mi.Float

    Returns
    -------
    mi.Matrix4f
        From (theta, k x theta) of the incident to that of the outgoing ray; real, in blocks of real and imaginary part.
    """
    normal_0, normal_n = mi.Vector3f(0, 0, 1), mi.Vector3f(interaction.dn_dv)
    s, s_source = interaction.dp_du.x, interaction.dp_du.y
    terms = wedge_terms(mi.Vector3f(interaction.dn_du), normal_0, normal_n, incident, outgoing, s, s_source, wavenumber)
    d1, d2, d3, d4 = terms.d
    edge, sine, grazing_0, grazing_n = terms.edge, terms.sine, terms.grazing_0, terms.grazing_n
    reflected_0 = _reflection(material, incident, normal_0, edge, sine, grazing_0, permittivity, wavenumber)
    reflected_n = _reflection(material, incident, normal_n, edge, sine, grazing_n, permittivity, wavenumber)

    # In the edge-fixed bases a ray that goes straight on has the matrix -1.
    direct = [[-(d1 + d2), 0], [0, -(d1 + d2)]]
    total = [
        [direct[i][j] + reflected_0[i][j] * d4 + reflected_n[i][j] * d3 for j in range(2)]
        for i in range(2)
    ]  # fmt: skip
    return _in_theta(total, edge, incident, outgoing, to_world)


@dataclass(frozen=True)
class WedgeTerms:
    """What diffraction at wedges depends on apart from their material.

    Attributes
    ----------
    edge : mi.Vector3f
        Its direction.
    sine : mi.Float
        Of Keller's cone.
    grazing_0, grazing_n : mi.Float
        Angles of incidence at the two faces, from the face.
    d : list of mi.Complex2f
        The four terms of Kouyoumjian and Pathak's eq. (25), with the factor before them.
    """

    edge: Vectors
    sine: Numbers
    grazing_0: Numbers
    grazing_n: Numbers
    d: list[Numbers]


def wedge_terms(
    edge: Vectors,
    normal_0: Vectors,
    normal_n: Vectors,
    incident: Vectors,
    outgoing: Vectors,
    s: Numbers,
    s_source: Numbers,
    wavenumber: Numbers,
) -> WedgeTerms:
    """Terms of rays diffracted at wedges, in any frame.

    Parameters
    ----------
    edge, normal_0, normal_n : mi.Vector3f
        The edge's direction and the outward normals of its faces.
    incident, outgoing : mi.Vector3f
        Directions of propagation.
    s, s_source : mi.Float
        Metres from the edge to the target and to the source.
    wavenumber : mi.Float
    """
    along_0 = dr.normalize(dr.cross(normal_0, edge))
    # Along face 0, away from the edge; at a half-plane, whose faces are one, as Sionna has the edge.
    turn = dr.select(dr.dot(along_0, normal_n) > 0, -1.0, 1.0)
    edge, along_0 = edge * turn, along_0 * turn

    exterior = dr.two_pi - wedge_interior_angle(normal_0, normal_n)
    n = exterior / dr.pi
    sine = dr.safe_sqrt(1 - dr.square(dr.dot(incident, edge)))
    source = _angle(-incident, along_0, normal_0)
    target = _angle(outgoing, along_0, normal_0)
    distance = s * s_source / (s + s_source) * dr.square(sine)
    terms = _terms(target - source, target + source, n, distance, wavenumber, sine)
    grazing_0 = dr.minimum(target, source)
    grazing_n = exterior - dr.maximum(target, source)
    return WedgeTerms(edge, sine, grazing_0, grazing_n, terms)


def _angle(direction: Vectors, along: Vectors, normal: Vectors) -> Numbers:
    """Angle from face 0, through the outside of the wedge, in [0, 2 pi)."""
    angle = dr.atan2(dr.dot(direction, normal), dr.dot(direction, along))
    return dr.select(angle < 0, angle + dr.two_pi, angle)


def _terms(
    difference: Numbers, total: Numbers, n: Numbers, distance: Numbers, wavenumber: Numbers, sine: Numbers
) -> list[Numbers]:
    """The four terms of Kouyoumjian and Pathak's eq. (25), with the factor before them."""
    factor = mi.Complex2f(-dr.cos(dr.pi / 4), dr.sin(dr.pi / 4)) / (2 * n * dr.sqrt(dr.two_pi * wavenumber) * sine)
    kl = wavenumber * distance

    def term(beta: Numbers, sign: int) -> Numbers:
        turns = dr.round((beta + sign * dr.pi) / (2 * dr.pi * n))
        a = 2 * dr.square(dr.cos(dr.pi * n * turns - beta / 2))
        return factor * cot_times_f_utd((dr.pi + sign * beta) / (2 * n), kl * a, n, kl)

    return [term(difference, 1), term(difference, -1), term(total, 1), term(total, -1)]


def _edge_fixed(edge: Vectors, direction: Vectors, arriving: bool) -> tuple[Vectors, Vectors]:
    """Unit vectors beta and phi of a ray at the edge (Kouyoumjian and Pathak, eqs. 20 and 21)."""
    phi = dr.normalize(dr.cross(edge, direction)) * (-1 if arriving else 1)
    return dr.cross(phi, direction), phi


def _reflection(
    material: Material,
    incident: Vectors,
    normal: Vectors,
    edge: Vectors,
    sine: Numbers,
    grazing: Numbers,
    permittivity: Numbers,
    wavenumber: Numbers,
) -> list[list[Numbers]]:
    """Reflection at one face, from the edge-fixed basis of the incident ray to that of the reflected one."""
    cosine = dr.minimum(dr.abs(sine * dr.sin(grazing)), 1)
    te, tm, _, _ = itu_coefficients_single_layer_slab(cosine, permittivity, material._d, dr.two_pi / wavenumber)
    # As for reflected rays: a rough face keeps this share, the rest is diffuse.
    kept = dr.sqrt(1 - dr.square(material._s))
    reflected = incident - 2 * dr.dot(incident, normal) * normal
    across = dr.cross(incident, normal)
    length = dr.norm(across)
    across = dr.select(length > NORMAL_INCIDENCE, across / length, edge)
    before, after = dr.cross(across, incident), dr.cross(across, reflected)
    arriving, leaving = _edge_fixed(edge, incident, True), _edge_fixed(edge, reflected, False)
    return [
        [
            kept
            * (te * (dr.dot(out, across) * dr.dot(across, into)) + tm * (dr.dot(out, after) * dr.dot(before, into)))
            for into in arriving
        ]
        for out in leaving
    ]


def _in_theta(
    matrix: list[list[Numbers]], edge: Vectors, incident: Vectors, outgoing: Vectors, to_world: Matrix
) -> Matrix:
    """From edge-fixed bases to those of Sionna's fields: (theta, k x theta)."""

    def theta(direction: Vectors) -> tuple[Vectors, Vectors]:
        first = to_world.T @ implicit_basis_vector(to_world @ direction)
        return first, dr.cross(direction, first)

    arriving, leaving = _edge_fixed(edge, incident, True), _edge_fixed(edge, outgoing, False)
    into = [[dr.dot(row, column) for column in theta(incident)] for row in arriving]
    out = [[dr.dot(row, column) for column in leaving] for row in theta(outgoing)]
    cells = [
        [sum(out[i][k] * matrix[k][m] * into[m][j] for k in range(2) for m in range(2)) for j in range(2)]
        for i in range(2)
    ]
    real = mi.Matrix2f(*[[cell.real for cell in row] for row in cells])
    imag = mi.Matrix2f(*[[cell.imag for cell in row] for row in cells])
    return jones_matrix_from_real_imag(real, imag)
