"""What a run does with a published version: checkpoint, evaluations, report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from wavecity.dataset.files import StorePath, make_folder, write_json
from wavecity.dataset.progress import say, stage
from wavecity.dataset.reader import open_store
from wavecity.flows import artifacts
from wavecity.flows.recipe import Recipe
from wavecity.flows.run_checks import tasks_of, warnings_of
from wavecity.model.data.feasible import NotPossible, sizes_of
from wavecity.model.settings.tasks import TaskName


@task(name="pretrain", cache_policy=NO_CACHE)
def pretrain(recipe: Recipe, store: StorePath, out: Path, overwrite: bool = False) -> Path:
    """Dataset version -> checkpoint; a finished training is not repeated, another one in the folder is refused."""
    from wavecity.model.training.pretrain import pretrain as run_training

    with stage("pretrain"):
        checkpoint = run_training(str(store), recipe.training, out, recipe.seed, overwrite)
    artifacts.show_training(out, recipe.name)
    return checkpoint


@task(name="evaluate", task_run_name="evaluate-{name}", cache_policy=NO_CACHE)
def evaluate(run: Path, store: StorePath, name: Any, recipe: Recipe) -> dict[str, Any]:
    """One downstream task of a pretrained model, compared with its baselines; or why it is not possible, as `not_possible`."""
    from wavecity.model.tasks.evaluate import evaluate as run_task
    from wavecity.model.tasks.evaluate import note_not_possible

    try:
        return run_task(run, str(store), name, recipe.training, recipe.seed)
    except NotPossible as error:
        get_run_logger().warning("%s", error)
        note_not_possible(run, name, str(error))
        return {"task": name, "not_possible": str(error)}


@task(name="report", cache_policy=NO_CACHE)
def report(run: Path, recipe_name: str) -> Path:
    """Run folder -> one self-contained HTML page."""
    from wavecity.model.report.page import write_report

    with stage("report"):
        page = write_report(run)
    artifacts.show_report(page, recipe_name)
    return page


def train(recipe: Recipe, data: StorePath, out: Path, overwrite: bool) -> dict[str, str]:
    """Pretrain on a version, evaluate the tasks of the recipe, and write the report."""
    from wavecity.model.training.pretrain import refuse_other_training

    make_folder(out)
    if not overwrite:
        refuse_other_training(out, recipe.training, recipe.seed, str(open_store(data).attrs.get("fingerprint", "")))
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    for warning in warnings_of(recipe, sizes_of(str(data))):
        get_run_logger().warning(warning)
        say(f"warning: {warning}")
    pretrain(recipe, data, out, overwrite)
    left_out = evaluate_all(out, data, tasks_of(recipe), recipe)
    return {"report": str(report(out, recipe.name)), "run": str(out), **left_out}


def evaluate_all(run: Path, store: StorePath, tasks: Iterable[TaskName], recipe: Recipe) -> dict[str, str]:
    """Evaluate every task; those that were not possible, with their reasons."""
    names, reasons = list(tasks), []
    for number, name in enumerate(names, 1):
        with stage(f"evaluate {number}/{len(names)}: {name}"):
            result = evaluate(run, store, name, recipe)
        if "not_possible" in result:
            reasons.append(result["not_possible"])
    return {"not_possible": "; ".join(reasons)} if reasons else {}
