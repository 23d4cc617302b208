"""`wavecity bench moving`: channels along trajectories, compared with tracing every snapshot, on the same scenes.

Three sides, one after the other on each scene, warm, in one process with all threads:

- ours: `simulate_moving`, that is chains once per scene, waypoints, paths evolved in between;
- brute: `simulate` and `csi` for every snapshot, as if its users stood there;
- dense: ours with every snapshot traced; it shares the chains and interpolates nothing.

Ours runs before and after the others, so that a machine that gets slower or faster meanwhile favours neither. The error
is that of the whole channel of a user, all snapshots, subcarriers and antennas, against brute.
"""

import gc
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.progress import say, track
from wavecity.flows.bench.measure import environment, table_of, timed
from wavecity.flows.console import console
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.geo.build import build_scene
from wavecity.geo.errors import SceneError
from wavecity.geo.scene import Mover, Scene
from wavecity.raytrace import backend
from wavecity.raytrace.channels import Channels, csi, subcarrier_frequencies
from wavecity.raytrace.moving import Moving, simulate_moving
from wavecity.raytrace.simulate import simulate

# Of the brute side: as many as there are, as ours cuts none.
ALL_PATHS = 1024
PACKAGES = ("sionna-rt", "drjit", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    scenes : int
    users : int
        Of every scene.
    map : str
        `helsinki`, or the path of an extract.
    overrides : tuple of str
        Changes of the recipe `temporal`.
    """

    scenes: int
    users: int
    map: str
    overrides: tuple[str, ...] = ()


class UserErrors(TypedDict):
    """Errors of one user's channel: its kind (`Mover`), ours and with every snapshot traced; None without any path."""

    kind: int
    nmse: float | None
    nmse_dense: float | None


class SceneFigures(TypedDict):
    """Figures of one scene; in `per_scene` without the users."""

    scene: str
    seconds_ours: float
    seconds_brute: float
    seconds_dense: float
    traced_share: float
    users: list[UserErrors]


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        The map cannot be read or has no usable tile, or an override is wrong.
    """
    backend.prepare()
    recipe = recipe_of(options)
    with TemporaryDirectory() as cache:
        plan = plan_scenes(recipe, Path(cache))
        scenes = []
        for tile in plan.accepted:
            try:
                source = plan.sources[tile.city]
                scenes.append(build_scene(tile, source, recipe.scene, recipe.users, recipe.seed, recipe.mobility))
            except SceneError as error:
                say(f"{tile.id}: left out: {error}")
    rows: list[SceneFigures] = []
    for scene in track(scenes, "scenes", unit="scenes"):
        if not rows:
            follow(scene, recipe)
            simulate(scene, recipe.radio, recipe.solver, recipe.seed)
        rows.append(compare_scene(scene, recipe))
        # Worlds that linger would change what Dr.Jit compiles.
        gc.collect()
    figures = summary(rows)
    print_result(figures)
    return {
        **figures,
        "scenes": len(rows),
        "users": options.users,
        "map": Path(options.map).name,
        "cores": backend.usable_cores(),
        **environment(*PACKAGES),
        "recipe": recipe.model_dump(mode="json", include={"mobility", "solver", "radio"}),
        "per_scene": [{key: value for key, value in row.items() if key != "users"} for row in rows],
    }


def recipe_of(options: Options) -> Recipe:
    """The recipe `temporal` on one map."""
    ours = (
        f"area.source={options.map}",
        "area.cities=[]",
        f"area.city={Path(options.map).name.split('.')[0].capitalize()}",
        "area.country=XX",
        "area.split.by=scene",
        f"area.scenes={options.scenes}",
        f"users.minimum={options.users}",
        f"users.maximum={options.users}",
    )
    return load_recipe("temporal", (*ours, *options.overrides))


def compare_scene(scene: Scene, recipe: Recipe) -> SceneFigures:
    """Times of all sides on one scene, and errors of its users."""
    moving, before = timed(lambda: follow(scene, recipe))
    brute, seconds_brute = timed(lambda: trace_every_snapshot(scene, recipe))
    dense, seconds_dense = timed(lambda: follow(scene, recipe, dense=True))
    moving, after = timed(lambda: follow(scene, recipe))
    assert scene.tracks is not None
    return {
        "scene": scene.id,
        "seconds_ours": (before + after) / 2,
        "seconds_brute": seconds_brute,
        "seconds_dense": seconds_dense,
        "traced_share": float(moving.traced.mean()),
        "users": [
            {"kind": int(kind), "nmse": error, "nmse_dense": error_dense}
            for kind, error, error_dense in zip(
                scene.tracks.kind, nmse(moving.csi, brute), nmse(dense.csi, brute), strict=True
            )
        ],
    }


def follow(scene: Scene, recipe: Recipe, dense: bool = False) -> Moving:
    """Our side; `dense` traces every snapshot."""
    assert recipe.mobility is not None
    # Below what settings may say: every interval is doubtful.
    mobility = recipe.mobility.model_copy(update={"tolerance": -1.0}) if dense else recipe.mobility
    return simulate_moving(scene, recipe.radio, recipe.solver, mobility, recipe.seed)


def trace_every_snapshot(scene: Scene, recipe: Recipe) -> NDArray[np.complex64]:
    """Channels (U, T, F, X, Y) by `simulate` at the positions of every snapshot, no path cut."""
    assert scene.tracks is not None
    assert recipe.mobility is not None
    frequencies = subcarrier_frequencies(recipe.mobility.subcarriers, recipe.mobility.subcarrier_spacing)
    solver = recipe.solver.model_copy(update={"max_paths": ALL_PATHS})
    snapshots = []
    for step in range(scene.tracks.position.shape[1]):
        standing = replace(scene, users=scene.tracks.position[:, step])
        channels = without_padding(simulate(standing, recipe.radio, solver, recipe.seed))
        snapshots.append(csi(channels, recipe.radio, frequencies=frequencies))
    return np.stack(snapshots, axis=1)


def without_padding(channels: Channels) -> Channels:
    """Channels with no more paths than a user has: sums over zeros take time."""
    most = max(1, int(channels.n_paths.max(initial=1)))
    arrays = {field.name: getattr(channels, field.name) for field in fields(Channels)}
    return Channels(**{name: array[:, :most] if array.ndim > 1 else array for name, array in arrays.items()})


def nmse(found: NDArray[np.complex64], truth: NDArray[np.complex64]) -> list[float | None]:
    """Squared error over power of each user's whole channel; None where both are 0."""
    axes = tuple(range(1, truth.ndim))
    power = (np.abs(truth).astype(np.float64) ** 2).sum(axis=axes)
    error = (np.abs(found - truth).astype(np.float64) ** 2).sum(axis=axes)
    pairs = zip(error.tolist(), power.tolist(), strict=True)
    return [(off / of if of else float("inf")) if of or off else None for off, of in pairs]


def summary(rows: list[SceneFigures]) -> dict[str, float]:
    """Ratios over all scenes, errors over all users."""
    users = [user for row in rows for user in row["users"]]
    errors = [(user["kind"], user["nmse"]) for user in users if user["nmse"] is not None]
    dense = [user["nmse_dense"] for user in users if user["nmse"] is not None and user["nmse_dense"] is not None]
    total = {
        "ours": sum(row["seconds_ours"] for row in rows),
        "brute": sum(row["seconds_brute"] for row in rows),
        "dense": sum(row["seconds_dense"] for row in rows),
    }
    speedups = [row["seconds_brute"] / row["seconds_ours"] for row in rows]
    result: dict[str, float] = {
        "speedup": total["brute"] / total["ours"],
        "speedup_least": min(speedups),
        "speedup_most": max(speedups),
        "speedup_over_dense": total["dense"] / total["ours"],
        "traced_share": float(np.mean([row["traced_share"] for row in rows])),
        **{f"seconds_{side}": seconds for side, seconds in total.items()},
        "users_heard": len(errors),
        **decibels("nmse_db", [error for _, error in errors]),
        **decibels("nmse_db_dense", dense),
    }
    for mover in Mover:
        own = [error for kind, error in errors if kind == mover]
        result |= decibels(f"nmse_db_{mover.name.lower()}", own) if own else {}
    return result


def decibels(name: str, errors: list[float]) -> dict[str, float]:
    """Median, 90th percentile and worst in dB; an error of nothing counts as -200."""
    decibel = 10 * np.log10(np.maximum(errors, 1e-20))
    pick = {"median": np.median(decibel), "90": np.percentile(decibel, 90), "worst": decibel.max()}
    return {f"{name}_{which}": float(value) for which, value in pick.items()}


def print_result(result: dict[str, float]) -> None:
    """Print the table of errors, and the times."""
    table = table_of(("NMSE, dB",), ("median", "90 % below", "worst"))
    names = {"all users": "nmse_db", **{mover.name.lower(): f"nmse_db_{mover.name.lower()}" for mover in Mover}}
    for label, name in {**names, "every snapshot traced": "nmse_db_dense"}.items():
        if f"{name}_median" in result:
            table.add_row(label, *(f"{result[f'{name}_{which}']:.1f}" for which in ("median", "90", "worst")))
    console.print(table)
    console.print(
        f"{result['speedup']:.1f}x as fast as tracing every snapshot ({result['speedup_least']:.1f} to "
        f"{result['speedup_most']:.1f}), {result['speedup_over_dense']:.1f}x as with chains found once; "
        f"{result['traced_share']:.1%} of the snapshots traced",
        soft_wrap=True,
    )
