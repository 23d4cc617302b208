"""Sizes of the effects that the ray tracer leaves out, at 28.5 GHz: the figures of docs/physics.md, each by its formula.

Usage: python scripts/physics.py
"""

from collections.abc import Sequence

import numpy as np

FREQUENCY = 28.5e9
WAVELENGTH = 299_792_458 / FREQUENCY
GHZ = FREQUENCY / 1e9
VACUUM_PERMITTIVITY = 8.8541878128e-12

# ITU-R P.838-3, tables 2 and 4: a, b and c of each term, then m and c of the straight line; vertical polarisation.
RAIN_K = (
    ((-3.80595, 0.56934, 0.81061), (-3.44965, -0.22911, 0.51059), (-0.39902, 0.73042, 0.11899), (0.50167, 1.07319, 0.27195)),
    (-0.16398, 0.63297),
)  # fmt: skip
RAIN_ALPHA = (
    ((-0.07771, 2.33840, -0.76284), (0.56727, 0.95545, 0.54039), (-0.20238, 1.14520, 0.26809),
     (-48.2991, 0.791669, 0.116226), (48.5833, 0.791459, 0.116479)),
    (-0.053739, 0.83433),
)  # fmt: skip

# ITU-R P.2040-3, table 3: a, b, c, d of permittivity a f^b and conductivity c f^d.
MATERIALS = {
    "concrete": (5.24, 0.0, 0.0462, 0.7822),
    "brick": (3.91, 0.0, 0.0238, 0.16),
    "wood": (1.99, 0.0, 0.0047, 1.0718),
    "glass": (6.31, 0.0, 0.0036, 1.3394),
    "metal": (1.0, 0.0, 1e7, 0.0),
}


def rain(rate: float) -> float:
    """Specific attenuation in dB/km at a rain rate in mm/h (ITU-R P.838-3, eqs. 1 to 3), vertical, level path."""

    def fitted(terms: Sequence[Sequence[float]], line: Sequence[float]) -> float:
        x = np.log10(GHZ)
        return float(sum(a * np.exp(-(((x - b) / c) ** 2)) for a, b, c in terms) + line[0] * x + line[1])

    return float(10 ** fitted(*RAIN_K) * rate ** fitted(*RAIN_ALPHA))


def knife_edge(height: float, before: float, after: float) -> float:
    """Loss in dB of an edge so many m above the line between ends at these distances (ITU-R P.526, single knife edge)."""
    nu = height * np.sqrt(2 / WAVELENGTH * (1 / before + 1 / after)) - 0.1
    return float(6.9 + 20 * np.log10(np.sqrt(nu**2 + 1) + nu))


def two_edges(first: float, second: float, a: float, b: float, c: float) -> float:
    """Loss in dB of two edges between distances a, b, c, from the two single losses (P.526, double isolated edges)."""
    return float(first + second + 10 * np.log10((a + b) * (b + c) / (b * (a + b + c))))


def screen(left: float, right: float, below: float, above: float, near: float, far: float) -> float:
    """Loss in dB of a rectangular screen across a path (3GPP TR 38.901, section 7.6.4.2, blockage model B).

    Distances of its edges from the path, and of the screen from the ends, in m; the path goes through the screen.
    """

    def part(edge: float) -> float:
        detour = np.hypot(edge, near) + np.hypot(edge, far) - near - far
        return float(np.arctan(np.pi / 2 * np.sqrt(np.pi / WAVELENGTH * detour)) / np.pi)

    return float(-20 * np.log10(1 - (part(left) + part(right)) * (part(below) + part(above))))


def weissberger(depth: float) -> float:
    """Loss in dB of so many m of foliage."""
    return 0.45 * GHZ**0.284 * depth if depth <= 14 else 1.33 * GHZ**0.284 * depth**0.588


def fitu_r(depth: float) -> float:
    """The same, in leaf, by Al-Nuaimi and Stephens."""
    return float(0.39 * (1000 * GHZ) ** 0.39 * depth**0.25)


def roughness_loss(deviation: float, grazing: float) -> float:
    """Loss in dB of a mirror reflection at a surface with Gaussian heights (Ament), m and degrees."""
    return float(8.686 * 2 * (2 * np.pi * deviation * np.sin(np.deg2rad(grazing)) / WAVELENGTH) ** 2)


def reflection(material: str) -> float:
    """Power reflected at normal incidence from a half-space, dB."""
    a, b, c, d = MATERIALS[material]
    permittivity = a * GHZ**b - 1j * c * GHZ**d / (2 * np.pi * FREQUENCY * VACUUM_PERMITTIVITY)
    root = np.sqrt(permittivity)
    return float(20 * np.log10(abs((1 - root) / (1 + root))))


def main() -> None:
    """Print all figures."""
    print(f"wavelength {1000 * WAVELENGTH:.2f} mm")
    for rate in (5, 25, 50, 100):
        print(f"rain {rate} mm/h: {rain(rate):.2f} dB/km, {0.2 * rain(rate):.2f} dB in 200 m")
    for depth in (2, 5, 10, 20):
        print(f"foliage {depth} m: Weissberger {weissberger(depth):.1f} dB, FITU-R {fitu_r(depth):.1f} dB")
    for near in (0.5, 1, 3, 10):
        loss = screen(0.15, 0.15, 1.5, 0.2, near, 100 - near)
        print(f"person of 0.3 m by 1.7 m, {near} m from a user at 1.5 m, path of 100 m: {loss:.1f} dB")
    for x in (1, 3, 10):
        print(f"path from 15 m at 100 m is {1.5 + x * 13.5 / 100:.2f} m high {x} m from the user")
    single, first, second = knife_edge(14, 60, 30), knife_edge(1, 60, 15), knife_edge(37 / 6, 15, 30)
    print(f"roof of 20 m, base station 15 m high 60 m before it, user 1.5 m high 30 m behind: one edge {single:.1f} dB")
    print(
        f"block 15 m deep there: edges {first:.1f} and {second:.1f} dB, both {two_edges(first, second, 60, 15, 30):.1f} dB"
    )
    print(f"free space at 105 m {20 * np.log10(4 * np.pi * 105 / WAVELENGTH):.1f} dB")
    print(
        f"grazing edge {knife_edge(0, 50, 50):.1f} dB, edge 2 m above the middle of 100 m {knife_edge(2, 50, 50):.1f} dB"
    )
    for grazing in (90, 30, 10):
        limits = [1000 * WAVELENGTH / (part * np.sin(np.deg2rad(grazing))) for part in (8, 32)]
        losses = ", ".join(f"{mm} mm {roughness_loss(mm / 1000, grazing):.1f} dB" for mm in (0.5, 1, 2))
        print(f"roughness at {grazing} degrees: Rayleigh {limits[0]:.2f} mm, Fraunhofer {limits[1]:.2f} mm; {losses}")
    print("reflected at normal incidence:", ", ".join(f"{name} {reflection(name):.1f} dB" for name in MATERIALS))
    for name, loss in (
        ("glass", 2 + 0.2 * GHZ),
        ("IRR glass", 23 + 0.3 * GHZ),
        ("concrete", 5 + 4 * GHZ),
        ("wood", 4.85 + 0.12 * GHZ),
    ):
        print(f"through a wall (TR 38.901, table 7.4.3-1) of {name}: {loss:.1f} dB")
    across = 31 * WAVELENGTH / 2 * np.sqrt(2)
    print(f"array's diagonal {across:.3f} m, Fraunhofer distance {2 * across**2 / WAVELENGTH:.1f} m")


if __name__ == "__main__":
    main()
