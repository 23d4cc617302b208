"""Trains the path model on part of many cities, several times, and writes one table of what it does in unseen ones.

Usage: python scripts/path_model_cities.py OUT [--recipe cities-39] [--scenes-a-city 30] [--users 40] [--draws 3] [--epochs 5]
           [--seeds 5] [--processes 2] [--disturbed] [--disturbed-share 0.5] [--set KEY=VALUE ...] [--plan]

In OUT: `store`, a run for each seed (`seed-0`, ...), and `table.md`, the mean and standard deviation over the seeds of every
figure of `wavecity evaluate --task zero-shot`. Cities of train, validation and test are those of the recipe. What is finished is
not done again: the same command goes on where it ended. Seeds decide weights and the order of the users; draws of patches and
noise, and the evaluation, are the same for all, so that waves are recovered once. `--disturbed` adds the standard disturbances
of the evaluation, `--disturbed-share` trains with them (`training.rays.disturbed_share`). `--plan` only says how long it takes.

The maps of `cities-39` are expected in the working folder, see the recipe. With the defaults the calculation says 2.3 hours on
two idle cores.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.geo.errors import InputError
from wavecity.model.results.records import Record, read_records
from wavecity.model.results.words import condition_of, digits_of, name_of
from wavecity.model.settings.disturbance import STANDARD

PROGRAM = Path(sys.executable).with_name("wavecity")
# Seed of the draws and of the evaluation.
SEED = 0
# Of the calculation, on one core: a scene's share of planning and tracing (cities-39: 1.9 scenes/s on two cores, and 8 minutes of
# planning), a user's waves and places under one draw (docs/howto/locate.md) and with three patches, a user's share of a step of
# 64 (assumed: a step of 0.4 s), a tested user under one network (assumed, one at a time), and the shares of the cities in the
# recipe's splits.
PLANNING, TRACED, FRONT, FEW, STEP, TESTED = 960.0, 1.05, 0.049, 0.02, 0.4 / 64, 0.05
SHARES = {"train": 0.73, "validation": 0.1, "test": 0.17}
# Heights that are tried where they are unknown, and so fronts of a user; and users of `zero_shot.disturbed_users`.
HEIGHTS, DISTURBED_USERS = 5, 1000


def main() -> None:
    """Build, train, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="cities-39")
    parser.add_argument("--scenes-a-city", type=int, default=30)
    parser.add_argument("--users", type=int, default=40, help="of a scene")
    parser.add_argument("--draws", type=int, default=3, help="of patches and noise, for every scene")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="trainings at a time, of one thread each")
    parser.add_argument("--disturbed", action="store_true", help="evaluate with the standard disturbances, too")
    parser.add_argument("--disturbed-share", type=float, default=0.0, help="of the draws that are trained on")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of the recipe"
    )
    parser.add_argument("--plan", action="store_true", help="only say how long it takes")
    options = parser.parse_args()
    for name in ("scenes_a_city", "users", "draws", "epochs", "seeds", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: give at least 1")
    try:
        overrides = overrides_of(options)
        recipe = load_recipe(options.recipe, overrides)
        print(plan(recipe, options), flush=True)
        if not options.plan:
            make(recipe, overrides, options)
    except InputError as error:
        sys.exit(f"path_model_cities: {error}")


def overrides_of(options: argparse.Namespace) -> tuple[str, ...]:
    """Changes of the recipe, in the order in which they count."""
    cities = max(len(load_recipe(options.recipe).area.cities), 1)
    share = options.disturbed_share
    return (
        f"area.scenes={cities * options.scenes_a_city}",
        f"users.minimum={options.users}",
        f"users.maximum={options.users}",
        "features.spectrum=false",
        "training.backbone=rays",
        f"training.rays.draws={options.draws}",
        f"training.rays.draw_seed={SEED}",
        *((f"training.rays.disturbed_share={share}",) if share else ()),
        f"training.epochs={options.epochs}",
        "training.batch_size=64",
        "training.threads=1",
        *(("training.evaluation.zero_shot.disturbed=standard",) if options.disturbed else ()),
        *options.overrides,
    )


def plan(recipe: Recipe, options: argparse.Namespace) -> str:
    """How long it takes, by calculation: a line for each part, in minutes on `--processes` cores."""
    scenes = max(len(recipe.area.cities), 1) * options.scenes_a_city
    users = {split: share * scenes * options.users for split, share in SHARES.items()}
    fronts = {
        "recover waves of training": FRONT * (options.draws * users["train"] + users["validation"]),
        "recover waves of the test": (FRONT + FEW) * users["test"],
        "train": options.seeds * options.epochs * STEP * users["train"],
        "evaluate": options.seeds
        * TESTED
        * min(users["test"], recipe.training.evaluation.zero_shot.users)
        * options.processes,
    }
    if options.disturbed:
        cases = sum(HEIGHTS if case.user_heights else 1 for case in STANDARD.values())
        fronts["recover waves of the disturbances"] = FRONT * cases * min(DISTURBED_USERS, users["test"])
    parts = {"build": PLANNING + TRACED * scenes, **fronts}
    minutes = {name: seconds / 60 / options.processes for name, seconds in parts.items()}
    lines = [
        f"{scenes} scenes, {sum(users.values()):,.0f} users; minutes on {options.processes} idle cores, by calculation:"
    ]
    lines += [f"  {name}: {value:.0f}" for name, value in minutes.items()]
    return "\n".join([*lines, f"  in all: {sum(minutes.values()):.0f} ({sum(minutes.values()) / 60:.1f} h)"])


def make(recipe: Recipe, overrides: tuple[str, ...], options: argparse.Namespace) -> None:
    """All steps; each is skipped where it is finished."""
    from wavecity.model.tasks.evaluate import evaluate
    from wavecity.model.training.backbones import Rays

    store, changes = options.out / "store", [part for text in overrides for part in ("--set", text)]
    run("build", options.recipe, "--out", store, *changes)
    # Before the seeds, which would all recover the same waves at the same time.
    Rays.load(str(store), recipe.training).batches(SEED)
    folders = [options.out / f"seed-{seed}" for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.processes) as pool:
        jobs = [
            pool.submit(
                run, "pretrain", options.recipe, "--data", store, "--out", folder, *changes, "--set", f"seed={seed}"
            )
            for seed, folder in enumerate(folders)
        ]
        for job in jobs:
            job.result()
    records = []
    for folder in folders:
        result = evaluate(folder, str(store), "zero-shot", recipe.training, SEED)
        records.append(read_records(folder / result["table"], "zero-shot"))
    text = table(records, result["facts"])
    (options.out / "table.md").write_text(text, encoding="utf-8")
    print(text, end="")


def run(*arguments: object) -> None:
    """Run `wavecity`; a failure ends this with its exit code's message."""
    command = [str(PROGRAM), *map(str, arguments)]
    if code := subprocess.run(command, check=False).returncode:
        raise InputError(f"exit code {code} of {' '.join(command)}; what went wrong stands above")


def table(runs: Iterable[list[Record]], facts: dict[str, object]) -> str:
    """Markdown: a line for each figure, condition and method with mean and standard deviation over the runs.

    Methods that no training changes have the same value in all of them, and no deviation.
    """
    found: dict[tuple[str, str, str, str, str], list[float]] = {}
    counts: dict[tuple[str, str, str, str, str], int] = {}
    for records in runs:
        for record in records:
            metric = record.metric
            key = (
                metric.label,
                condition_of(metric, record.condition),
                name_of(record.method, record.paths),
                metric.unit,
                f".{digits_of(metric.unit) + 1}f",
            )
            found.setdefault(key, []).append(record.value)
            counts[key] = record.n
    head = f"{facts['test_users']:,} users of {facts['test_scenes']} scenes of {', '.join(map(str, facts['test_cities']))}."
    lines = [
        head,
        "",
        "| figure | condition | method | mean | standard deviation | n |",
        "|---|---|---|---:|---:|---:|",
    ]
    for key, values in sorted(found.items(), key=lambda item: item[0][:2]):
        label, condition, method, unit, form = key
        spread = f"{np.std(values, ddof=1):{form}}" if len(values) > 1 and len(set(values)) > 1 else ""
        lines.append(
            f"| {label}{', ' + unit if unit else ''} | {condition} | {method} | {np.mean(values):{form}} | {spread} | "
            f"{counts[key]:,} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
