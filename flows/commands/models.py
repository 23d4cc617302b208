"""Models: `pretrain`, `evaluate`, `report`, `export-model`."""

import json
from pathlib import Path

import click

from wavecity.flows.commands.options import (
    address,
    import_extra,
    overwrite_option,
    path,
    recipe_argument,
    set_option,
    warn_of,
)
from wavecity.flows.help import EvaluateCommand, SpokenCommand
from wavecity.geo.errors import InputError
from wavecity.model.benchmark.names import is_encoder_name
from wavecity.model.settings.tasks import TASKS


@click.command(cls=SpokenCommand)
@recipe_argument
@click.option("--data", type=address, required=True, help="Store to train on: a folder or a URL.")
@click.option("--out", type=path, required=True, help="Run folder.")
@click.option(
    "--init-from",
    type=path,
    help="Run or checkpoint whose weights to start from (training.init_from), not its optimiser.",
)
@set_option
@overwrite_option
def pretrain(
    recipe: str, data: str, out: Path, init_from: Path | None, overrides: tuple[str, ...], overwrite: bool
) -> None:
    """Pretrain the foundation model of a recipe on a store. Resumes by itself.

    A run folder belongs to one training: with other settings or data it is refused, --overwrite replaces it.
    """
    from wavecity.dataset.files import make_folder, write_json
    from wavecity.dataset.progress import stage
    from wavecity.flows.recipe import load_recipe

    if init_from is not None:
        # Whole, so that the command can be given again from another folder; as JSON, which is YAML for any name.
        overrides = (*overrides, f"training.init_from={json.dumps(str(init_from.resolve()))}")
    loaded = load_recipe(recipe, overrides)
    module = import_extra("wavecity.model.training.pretrain", "train")
    warn_of(loaded, import_extra("wavecity.model.data.feasible", "train").sizes_of(data))
    if not overwrite:  # before the recipe of what is there is replaced
        module.refuse_other_training(out, loaded.training, loaded.seed, module.dataset_version(data))
    make_folder(out)
    write_json(out / "recipe.json", loaded.model_dump(mode="json"))
    with stage("pretrain"):
        checkpoint = module.pretrain(data, loaded.training, out, loaded.seed, overwrite)
    click.echo(f"checkpoint {checkpoint}")


@click.command(
    cls=EvaluateCommand,
    examples=(
        (
            "wavecity evaluate runs/quickstart --task localization --data runs/quickstart/store",
            "on its own test scenes",
        ),
        ("wavecity evaluate runs/quickstart --task mu-mimo --data stores/mu-mimo --json > mu-mimo.json", "all values"),
        ("wavecity evaluate my_package:MyEncoder --task localization --data stores/six", "an encoder of your own"),
    ),
)
@click.argument("run_folder", metavar="RUN", type=path)
@click.option(
    "--task",
    "name",
    metavar="TASK",
    required=True,
    type=click.Choice(TASKS),
    help="What to run, of the list below; tables and figures go to RUN/results.",
)
@click.option("--data", type=address, required=True, help="Store with held-out scenes: a folder or a URL.")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of the table.")
def evaluate(run_folder: Path, name: str, data: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Evaluate a pretrained run on held-out scenes, compared with its baselines.

    Results with the run's own settings go into the report. Those with --set are kept under names of their own. In place of
    RUN an encoder of your own may stand, package.module:name; it is tested as in `wavecity benchmark`, on any dataset.
    """
    if is_encoder_name(str(run_folder)):
        _evaluate_encoder(str(run_folder), name, data, overrides, as_json)
        return
    from wavecity.dataset.progress import stage
    from wavecity.flows.recipe import recipe_of_run
    from wavecity.flows.result_tables import print_result, rows_of_result

    recipe, own = recipe_of_run(run_folder, overrides), recipe_of_run(run_folder)
    with stage(f"evaluate {name}"):
        evaluate = import_extra("wavecity.model.tasks.evaluate", "train").evaluate
        result = evaluate(run_folder, data, name, recipe.training, recipe.seed, own=(own.training, own.seed))
    if as_json:
        in_words = import_extra("wavecity.model.results.words", "train").in_words
        rows = rows_of_result(run_folder, name, result["table"])
        click.echo(json.dumps(result | {"rows": [in_words(row) for row in rows]}, indent=1))
    else:
        print_result(result, run_folder)


def _evaluate_encoder(encoder: str, task: str, data: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """One task of the benchmark, of an encoder that is no run of ours."""
    if overrides:
        raise InputError(
            f"--set {overrides[0]} with encoder {encoder}: its settings are the benchmark's; for others write a file and give it "
            "to wavecity benchmark run --protocol FILE"
        )
    protocol = import_extra("wavecity.model.benchmark.protocol", "train").shipped_protocol()
    benchmark = import_extra("wavecity.model.benchmark.run", "train").benchmark
    result = benchmark(encoder, data, [task], protocol=protocol.model_copy(update={"cities": None}))
    tables_of = import_extra("wavecity.model.benchmark.table", "train").tables_of
    click.echo(json.dumps(result, indent=1) if as_json else tables_of([result]), nl=as_json)


@click.command("export-model", cls=SpokenCommand)
@click.argument("run_folder", metavar="RUN", type=path)
@click.option(
    "--out",
    type=path,
    required=True,
    help="File: .onnx, .pt2 for torch.export, or .ckpt for `wavecity.load`. Without a suffix: a folder.",
)
@click.option(
    "--csi", default=0.25, show_default=True, type=click.FloatRange(0, 1, min_open=True), help="Share of the CSI seen."
)
def export_model(run_folder: Path, out: Path, csi: float) -> None:
    """Write a run's encoder: channel and height map in, [PHYSC] and spatial spectrum out.

    Into a folder goes the whole model with its card, as safetensors, for the Hugging Face Hub and `wavecity.load`; into a
    .ckpt file too, in half precision, for a release.
    """
    if out.suffix == ".ckpt":
        size = import_extra("wavecity.model.training.small", "train").write_small(run_folder, out)
        click.echo(f"{out}: {size / 1e6:.1f} MB, float16")
        return
    if not out.suffix:
        click.echo(import_extra("wavecity.model.training.load", "train").load(run_folder).save_pretrained(out))
        return
    differences = import_extra("wavecity.model.training.export", "train").export_model(run_folder, out, csi)
    largest = max(differences.values())
    click.echo(f"{out}: outputs equal the model's within {largest:.0e} of their RMS, for any batch size")


@click.command(cls=SpokenCommand)
@click.argument("run_folder", metavar="RUN", type=path)
@click.option("--data", type=address, help="Dataset of the pretraining, if it lies elsewhere now.")
def report(run_folder: Path, data: str | None) -> None:
    """Write RUN/report.html from what the run left."""
    click.echo(import_extra("wavecity.model.report.page", "train").write_report(run_folder, data and str(data)))
