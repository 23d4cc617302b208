"""What a run's model predicted of held-out users, next to which the page shows the truth."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.files import StorePath, array_of, location, open_group, read_json
from wavecity.dataset.reader import resolve
from wavecity.geo.errors import InputError

# Where the evaluation keeps what a model reconstructed (`wavecity.model.tasks.reconstruction`).
RESULTS = "results/reconstruction"
# Positions in m that name the same user: both are the store's float32.
SAME = 1e-3

Arrays: TypeAlias = dict[str, NDArray[Any]]


def read_predictions(run: Path, store: str | StorePath) -> dict[str, Any]:
    """Read a run's predictions of the users of a store's test split.

    Parameters
    ----------
    run : Path
        Folder of a run whose task `reconstruction` was evaluated on the store.
    store : path or URL

    Returns
    -------
    dict
        `name` of the run; `masked`, the share of the CSI that the model did not see; `scenes`, by row: `users` with
        numbers and predicted positions (x, y) in m from the base station, and `shown`, the users whose spatial
        spectrum (kx, ky), as shares of its mean, and occupancy (row, column; None where it was not hidden) were kept.

    Raises
    ------
    InputError
        No such run, without predictions, or of another store.

    Examples
    --------
    >>> read_predictions(Path("runs/quickstart"), "runs/quickstart/store")["masked"]
    0.94
    """
    path = location(run) / f"{RESULTS}.npz"
    if read_json(location(run) / "pretrain.json") is None:
        msg = f"--run {run}: no pretrain.json, so no run; name the folder given to `--out` of `wavecity run` or `pretrain`"
        raise InputError(msg)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored.items())
        users = _users_by_scene(arrays, _positions(store, arrays))
    except FileNotFoundError as error:
        msg = f"{path}: no such file, so no predictions; `wavecity evaluate {run} --task reconstruction --data {store}`"
        raise InputError(msg) from error
    except (OSError, KeyError, ValueError) as error:
        msg = f"{path}: cannot be read ({error}); evaluate the task reconstruction again"
        raise InputError(msg) from error
    if users is None:
        msg = (
            f"--run {run}: its predictions are of other users than those of {store}; name the store it was evaluated on"
        )
        raise InputError(msg)
    scenes: dict[int, dict[str, Any]] = {row: {"users": own, "shown": []} for row, own in users.items()}
    for index, row in enumerate(arrays["spectrum_scene"].tolist()):
        place = arrays["spectrum_position"][index]
        (match,) = np.flatnonzero((arrays["location_scene"] == row) & (arrays["location_true"] == place).all(-1))[:1]
        before = int((arrays["location_scene"][:match] == row).sum())
        occupancy = arrays["occupancy_model"][index].tolist() if "occupancy_model" in arrays else None
        scenes[row]["shown"].append(
            {
                "user": users[row]["number"][before],
                "spectrum": np.round(arrays["spectrum_model"][index].astype(float), 4).tolist(),
                "occupancy": occupancy and [[_value(value) for value in line] for line in occupancy],
            }
        )
    return {"name": Path(run).resolve().name, "masked": float(arrays["spectrum_masked"]), "scenes": scenes}


def _positions(store: str | StorePath, arrays: Arrays) -> dict[int, NDArray[np.float32]]:
    """Positions of the users of the scenes that are predicted; rows that the store lacks are left out."""
    places = array_of(open_group(resolve(store)), "user_position")
    rows = [row for row in np.unique(arrays["location_scene"]).tolist() if row < places.shape[0]]
    return {row: np.asarray(places[row]) for row in rows}


def _users_by_scene(arrays: Arrays, places: dict[int, NDArray[np.float32]]) -> dict[int, dict[str, list[Any]]] | None:
    """Numbers and predicted positions of the users of every scene, or None where a user is not in the store."""
    found: dict[int, dict[str, list[Any]]] = {}
    predicted = arrays["location_model"]
    for index, (row, true) in enumerate(zip(arrays["location_scene"].tolist(), arrays["location_true"], strict=True)):
        if row not in places:
            return None
        distance = np.linalg.norm(places[row][:, :2] - true, axis=-1)
        user = int(distance.argmin())
        if distance[user] > SAME:
            return None
        own = found.setdefault(row, {"number": [], "place": []})
        own["number"].append(user)
        # Runs that were not asked for positions have none.
        own["place"].append(np.round(predicted[index].astype(float), 2).tolist() if len(predicted) else None)
    return found


def _value(value: float) -> float | None:
    """A probability, or None where there is none."""
    return None if np.isnan(value) else round(value, 3)
