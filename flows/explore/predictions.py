"""What a run's model predicted of held-out users, next to which the page shows the truth."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.files import StorePath, array_of, children, location, open_group, read_json
from wavecity.dataset.reader import resolve
from wavecity.geo.errors import InputError

# The tasks whose evaluation keeps predictions of users, by the run's model.
TASKS = {"multimodal": "reconstruction", "rays": "zero-shot"}
# Positions in m that name the same user: both are the store's float32.
SAME = 1e-3

Arrays: TypeAlias = dict[str, NDArray[Any]]


def read_predictions(run: Path, store: str | StorePath) -> dict[str, Any]:
    """Read a run's predictions of users of a store.

    Parameters
    ----------
    run : Path
        Folder of a run whose task `reconstruction`, or of a path model `zero-shot`, was evaluated on the store.
    store : path or URL

    Returns
    -------
    dict
        `name` of the run; `masked`, the share of the CSI that the model did not see; `scenes`, by row: `users` with
        numbers and predicted positions (x, y) in m from the base station, and `shown`, the users whose spatial
        spectrum (kx, ky), as shares of its mean, and occupancy (row, column; None where it was not hidden) were kept.
        Of a path model also `physics`, where physics alone puts the users, and `rays`, by user: the waves that were
        recovered, each with its gain in dB, whether it comes down, and its corners in m from the base station.

    Raises
    ------
    InputError
        No such run, without predictions, or of another store.

    Examples
    --------
    >>> read_predictions(Path("runs/quickstart"), "runs/quickstart/store")["masked"]
    0.94
    """
    folder = location(run)
    card = read_json(folder / "pretrain.json")
    if card is None:
        msg = f"--run {run}: no pretrain.json, so no run; name the folder given to `--out` of `wavecity run` or `pretrain`"
        raise InputError(msg)
    task = TASKS.get(card.get("settings", {}).get("backbone", "multimodal"))
    if task is None:
        msg = f"--run {run}: a temporal model, which predicts channels of moving users, not what this page shows"
        raise InputError(msg)
    results = folder / "results"
    # Evaluations with other settings have a name of their own; that with the run's own settings comes first.
    names = sorted(
        (path.name for path in children(results) if path.match(f"{task}*.npz")), key=lambda name: (len(name), name)
    )
    if not names:
        msg = f"{results / task}.npz: no such file, so no predictions; `wavecity evaluate {run} --task {task} --data {store}`"
        raise InputError(msg)
    for name in names:
        path = results / name
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored.items())
            numbers = _users(arrays, store)
            if numbers is not None:
                masked = round(float(arrays["spectrum_masked"]), 4)
                return {"name": Path(run).resolve().name, "masked": masked, "scenes": _scenes(arrays, numbers)}
        except (OSError, KeyError, ValueError) as error:
            msg = f"{path}: cannot be read ({error}); evaluate the task {task} again"
            raise InputError(msg) from error
    msg = f"--run {run}: its predictions are of other users than those of {store}; name the store it was evaluated on"
    raise InputError(msg)


def _users(arrays: Arrays, store: str | StorePath) -> NDArray[np.int64] | None:
    """Number of every predicted user in its scene, or None where one is not in the store."""
    stored = array_of(open_group(resolve(store)), "user_position")
    rows, true = arrays["location_scene"], arrays["location_true"]
    numbers = np.zeros(len(rows), np.int64)
    for row in np.unique(rows).tolist():
        if row >= stored.shape[0]:
            return None
        places, mine = np.asarray(stored[row])[:, :2], rows == row
        distance = np.nan_to_num(np.linalg.norm(places[None] - true[mine][:, None], axis=-1), nan=np.inf)
        if (distance.min(1) > SAME).any():
            return None
        numbers[mine] = distance.argmin(1)
    return numbers


def _scenes(arrays: Arrays, numbers: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    """What the page shows of every scene, by row."""
    rows = arrays["location_scene"]
    scenes: dict[int, dict[str, Any]] = {}
    for row in np.unique(rows).tolist():
        mine = np.flatnonzero(rows == row)
        # Runs that were not asked for positions have none.
        nowhere = [None] * len(mine)
        scenes[row] = {
            "users": {
                "number": numbers[mine].tolist(),
                "place": _places(arrays["location_model"][mine]) if len(arrays["location_model"]) else nowhere,
            },
            "shown": [],
        }
        if "location_physics" in arrays:
            scenes[row]["physics"] = _places(arrays["location_physics"][mine])
        if "ray_corners" in arrays:
            scenes[row]["rays"] = {int(numbers[index]): _rays(arrays, index) for index in mine.tolist()}
    for index, row in enumerate(arrays["spectrum_scene"].tolist()):
        place = arrays["spectrum_position"][index]
        (match,) = np.flatnonzero((rows == row) & (arrays["location_true"] == place).all(-1))[:1]
        occupancy = arrays["occupancy_model"][index].tolist() if "occupancy_model" in arrays else None
        scenes[row]["shown"].append(
            {
                "user": int(numbers[match]),
                "spectrum": np.round(arrays["spectrum_model"][index].astype(float), 4).tolist(),
                "occupancy": occupancy and [[_value(value) for value in line] for line in occupancy],
            }
        )
    return scenes


def _places(places: NDArray[np.floating]) -> list[list[float]]:
    """Positions (N, 2) to a centimetre."""
    return [[round(value, 2) for value in place] for place in places.astype(float).tolist()]


def _rays(arrays: Arrays, index: int) -> list[dict[str, Any]]:
    """The waves that were recovered of a user, strongest first."""
    gains = arrays["ray_gain"][index]
    return [
        {
            "gain": round(float(gains[wave]), 1),
            "lands": bool(arrays["ray_lands"][index, wave]),
            "points": [
                [round(value, 2) for value in corner]
                for corner in arrays["ray_corners"][index, wave].astype(float).tolist()
                if np.isfinite(corner).all()
            ],
        }
        for wave in np.flatnonzero(np.isfinite(gains)).tolist()
    ]


def _value(value: float) -> float | None:
    """A probability, or None where there is none."""
    return None if np.isnan(value) else round(value, 3)
