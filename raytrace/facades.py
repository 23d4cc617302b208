"""Materials by building: permittivity and conductivity of every face, and of walls with windows."""

import numpy as np
from numpy.typing import NDArray
from scipy.constants import epsilon_0

from wavecity.geo.scene import Materials, Surface

Constants = tuple[float, float]


def with_windows(wall: Constants, glass: Constants, share: float, frequency: float) -> Constants:
    """Material that reflects as a wall with windows does in the mean.

    Seen over many windows the field reflected is the mean of those of wall and glass, weighted by their areas. Their mean
    reflection coefficient at normal incidence, of half-spaces, is that of the material returned.

    Parameters
    ----------
    wall, glass : (float, float)
        Relative permittivity and conductivity (S/m).
    share : float
        Of the glass, 0 to 1.
    frequency : float
        Hz.

    Examples
    --------
    >>> with_windows((5.24, 0.63), (6.31, 0.32), 0.0, 28.5e9)
    (5.24, 0.63)
    """
    loss = 2 * np.pi * frequency * epsilon_0
    roots = [np.sqrt(complex(permittivity, -conductivity / loss)) for permittivity, conductivity in (wall, glass)]
    of_wall, of_glass = ((1 - root) / (1 + root) for root in roots)
    mean = (1 - share) * of_wall + share * of_glass
    effective = ((1 - mean) / (1 + mean)) ** 2
    return (float(effective.real), float(-effective.imag * loss)) if share else wall


def face_constants(
    materials: Materials,
    building: NDArray[np.int32],
    surface: NDArray[np.uint8],
    recipe: dict[Surface, Constants],
    known: dict[str, Constants],
    frequency: float,
) -> NDArray[np.float64]:
    """Relative permittivity and conductivity (S/m) of faces, float64 (F, 2).

    Parameters
    ----------
    materials : Materials
    building : int32 (F,)
        Building of each face.
    surface : uint8 (F,)
        `Surface` of each face. Undersides have the material of the walls, without windows.
    recipe : dict
        By `Surface`, for buildings whose material is not known.
    known : dict
        By the name of a material; one that has no model at the frequency is missing, and the recipe's takes its place.
    frequency : float
        Hz.
    """
    table = np.empty((len(materials.wall), len(Surface), 2))
    for row, (wall, roof, share) in enumerate(zip(materials.wall, materials.roof, materials.glass, strict=True)):
        solid = known.get(wall, recipe[Surface.WALL])
        table[row, Surface.WALL] = with_windows(solid, known["glass"], share, frequency)
        table[row, Surface.FLOOR] = known.get(wall, recipe[Surface.FLOOR])
        table[row, Surface.ROOF] = known.get(roof, recipe[Surface.ROOF])
    values: NDArray[np.float64] = table[building, surface]
    return values
