"""Which scenes of a store are meant: by id, by city, by split."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.errors import InputError


def rows_of(
    store: object,
    ids: NDArray[np.str_] | None,
    cities: NDArray[np.str_] | None,
    wanted_scenes: Sequence[str] | None = None,
    wanted_cities: Sequence[str] | None = None,
) -> NDArray[np.bool_]:
    """Scenes that are wanted.

    Parameters
    ----------
    store : object
        For the message.
    ids, cities : str (scene,), optional
        Of the store's scenes; None where it has none.
    wanted_scenes : sequence of str, optional
        Ids, or patterns such as `helsinki-*`; all by default.
    wanted_cities : sequence of str, optional
        Names, in upper or lower case; all by default.

    Returns
    -------
    bool (scene,)

    Raises
    ------
    InputError
        A scene or city that the store does not have, or nothing is left.

    Examples
    --------
    >>> rows_of("store", np.array(["oslo-0", "oslo-1", "rome-0"]), None, wanted_scenes=["oslo-*"]).tolist()
    [True, True, False]
    """
    kept = np.ones(len(ids if ids is not None else cities if cities is not None else ()), bool)
    for kind, names, wanted in (("scene", ids, wanted_scenes), ("city", cities, wanted_cities)):
        if wanted is None:
            continue
        if isinstance(wanted, str):
            wanted = [wanted]
        if names is None:
            msg = f"{store}: its scenes have no {kind}, so none can be chosen by it"
            raise InputError(msg)
        folded = [str(name).casefold() for name in names]
        chosen = np.zeros(len(names), bool)
        for one in wanted:
            of_it = np.array([fnmatchcase(name, str(one).casefold()) for name in folded], bool)
            if not of_it.any():
                msg = f"{store}: no {kind} {one!r}; {_there(str(one), map(str, names))}"
                raise InputError(msg)
            chosen |= of_it
        kept &= chosen
    if not kept.any():
        msg = f"{store}: no scene is in the cities {', '.join(wanted_cities or ())} and named {', '.join(wanted_scenes or ())}"
        raise InputError(msg)
    return kept


def _there(wanted: str, names: Iterable[str]) -> str:
    """`did you mean ...`, or the first names that there are."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(wanted, known, 3)
    return (
        f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(known[:6])}{', ...' * (len(known) > 6)}"
    )
