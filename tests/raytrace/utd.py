"""UTD at a straight wedge in NumPy, written from the papers; nothing of Sionna's.

Kouyoumjian and Pathak 1974 for the perfect conductor, at oblique incidence and with the transition function by SciPy's
Fresnel integrals; for finite conductivity Luebbers 1984, whose angles of incidence are the source's to face 0 and the
receiver's to face n, and where the receiver is nearer to face 0 than the source those of the reversed way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fresnel

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Wedge:
    """An edge along `edge` through `origin`; `normal_0` and `normal_n` point out of the two faces."""

    origin: Vector
    edge: Vector
    normal_0: Vector
    normal_n: Vector

    @property
    def n(self) -> float:
        """Exterior angle over pi."""
        return float(2 - np.arccos(-self.normal_0 @ self.normal_n) / np.pi)

    @property
    def axis(self) -> Vector:
        """The edge's direction about which angles grow from face 0 through the outside."""
        # Face 0 lies behind face n.
        along = np.cross(self.normal_0, self.edge)
        along = along if along @ self.normal_n < 0 else -along
        return np.cross(along, self.normal_0)

    def angle(self, direction: Vector) -> float:
        along = np.cross(self.normal_0, self.axis)
        return float(np.arctan2(direction @ self.normal_0, direction @ along) % (2 * np.pi))


def wedge_of_block(vertex: Vector, half: float, height: float, source: Vector) -> Wedge:
    """The edge that a point lies on of an upright block, `2 * half` wide about the origin; the source lights face 0."""
    normals = [np.sign(vertex[axis]) * np.eye(3)[axis] for axis in (0, 1) if abs(abs(vertex[axis]) - half) < 1e-3]
    normals += [np.eye(3)[2]] * int(abs(vertex[2] - height) < 1e-3)
    normals.sort(key=lambda normal: -float(normal @ (source - vertex)))
    first, second = normals
    return Wedge(vertex, np.cross(first, second), first, second)


def transition(x: float) -> complex:
    """F(x) = 2j sqrt(x) exp(jx) int_sqrt(x)^inf exp(-j t^2) dt (eq. 29)."""
    sine, cosine = fresnel(np.sqrt(2 * x / np.pi))
    tail = np.sqrt(np.pi / 2) * ((0.5 - cosine) - 1j * (0.5 - sine))
    return complex(2j * np.sqrt(x) * np.exp(1j * x) * tail)


def point_on_edge(wedge: Wedge, source: Vector, receiver: Vector) -> Vector:
    """Where the way over the edge is shortest: its unfolding is a straight line."""
    heights = [(end - wedge.origin) @ wedge.edge for end in (source, receiver)]
    across = [np.linalg.norm(np.cross(end - wedge.origin, wedge.edge)) for end in (source, receiver)]
    share = across[0] / (across[0] + across[1])
    return wedge.origin + (heights[0] + share * (heights[1] - heights[0])) * wedge.edge


def fresnel_coefficients(sine_of_grazing: float, permittivity: complex | None) -> tuple[complex, complex]:
    """Perpendicular and parallel reflection of a half-space; -1 and 1 for the perfect conductor (None)."""
    if permittivity is None:
        return -1, 1
    root = np.sqrt(permittivity - (1 - sine_of_grazing**2))
    return (
        (sine_of_grazing - root) / (sine_of_grazing + root),
        (permittivity * sine_of_grazing - root) / (permittivity * sine_of_grazing + root),
    )


def dyad(
    wedge: Wedge, source: Vector, receiver: Vector, wavelength: float, permittivity: complex | None = None
) -> NDArray[np.complex128]:
    """Diffracted field (3,) = dyad (3, 3) @ field (3,) at the edge; times sqrt(s' / (s (s + s'))) and the phase over s."""
    point = point_on_edge(wedge, source, receiver)
    before, after = point - source, receiver - point
    s_source, s = np.linalg.norm(before), np.linalg.norm(after)
    incident, outgoing = before / s_source, after / s
    axis, n, k = wedge.axis, wedge.n, 2 * np.pi / wavelength
    sine = np.linalg.norm(np.cross(axis, incident))
    phi_source, phi = wedge.angle(-incident), wedge.angle(outgoing)
    distance = s * s_source / (s + s_source) * sine**2

    def term(beta: float, sign: int) -> complex:
        turns = np.round((beta + sign * np.pi) / (2 * np.pi * n))
        a = 2 * np.cos((2 * n * np.pi * turns - beta) / 2) ** 2
        return complex(transition(k * distance * a) / np.tan((np.pi + sign * beta) / (2 * n)))

    factor = -np.exp(-1j * np.pi / 4) / (2 * n * np.sqrt(2 * np.pi * k) * sine)
    d1, d2 = (factor * term(phi - phi_source, sign) for sign in (1, -1))
    d3, d4 = (factor * term(phi + phi_source, sign) for sign in (1, -1))
    phi_in = -np.cross(axis, incident) / sine
    phi_out = np.cross(axis, outgoing) / sine
    arriving = np.stack([np.cross(phi_in, incident), phi_in])
    leaving = np.stack([np.cross(phi_out, outgoing), phi_out])

    def reflection(normal: Vector, grazing: float) -> NDArray[np.complex128]:
        te, tm = fresnel_coefficients(abs(sine * np.sin(grazing)), permittivity)
        mirrored = incident - 2 * (incident @ normal) * normal
        across = np.cross(incident, normal)
        across = across / np.linalg.norm(across)
        whole = te * np.outer(across, across) + tm * np.outer(np.cross(across, mirrored), np.cross(across, incident))
        phi_mirrored = np.cross(axis, mirrored) / sine
        basis = np.stack([np.cross(phi_mirrored, mirrored), phi_mirrored])
        return basis @ whole @ arriving.T

    # Luebbers: phi_source and n pi - phi, where face 0 is the one nearer to the source.
    to_0, to_n = (phi_source, n * np.pi - phi) if phi_source <= phi else (phi, n * np.pi - phi_source)
    edge_fixed = -(d1 + d2) * np.eye(2) + reflection(wedge.normal_0, to_0) * d4
    edge_fixed = edge_fixed + reflection(wedge.normal_n, to_n) * d3
    return leaving.T @ edge_fixed @ arriving


def coefficient(
    wedge: Wedge,
    source: Vector,
    receiver: Vector,
    wavelength: float,
    permittivity: complex | None = None,
    horizontal: bool = False,
) -> complex:
    """sqrt(power gain) between two isotropic, vertically (or horizontally) polarised ends, without the carrier phase."""
    point = point_on_edge(wedge, source, receiver)
    s_source, s = np.linalg.norm(point - source), np.linalg.norm(receiver - point)
    departing, arriving = point - source, receiver - point

    def polarisation(direction: Vector) -> Vector:
        """Theta of the direction, or phi."""
        radius, height = np.hypot(*direction[:2]), direction[2]
        azimuth = direction[:2] / radius
        if horizontal:
            return np.array([-azimuth[1], azimuth[0], 0.0])
        return np.array([*(azimuth * height), -radius]) / np.linalg.norm(direction)

    # The receiving antenna's theta is that of the direction it is seen from.
    field = dyad(wedge, source, receiver, wavelength, permittivity) @ polarisation(departing)
    spread = np.sqrt(s_source / (s * (s + s_source))) / s_source
    return complex(wavelength / (4 * np.pi) * spread * (polarisation(-arriving) @ field))
