"""Help with the other commands: `recipe` lists keys, `completion` completes in a shell."""

import click

from wavecity.flows.commands.options import recipe_argument, set_option
from wavecity.flows.help import SilentCommand


# Silent on standard error: a shell runs it at every start.
@click.command(
    cls=SilentCommand,
    examples=(
        ('eval "$(wavecity completion bash)"', "in ~/.bashrc"),
        ('eval "$(wavecity completion zsh)"', "in ~/.zshrc"),
        ("wavecity completion fish > ~/.config/fish/completions/wavecity.fish", "once"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options, recipes and tasks in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(click.get_current_context().find_root().command, {}, "wavecity", "_WAVECITY_COMPLETE").source())


@click.command(
    "recipe",
    cls=SilentCommand,
    examples=(
        ("wavecity recipe quickstart", "all keys"),
        ("wavecity recipe quickstart training.evaluation", "those of a section"),
    ),
)
@recipe_argument
@click.argument("section", default="")
@set_option
def show_recipe(recipe: str, section: str, overrides: tuple[str, ...]) -> None:
    """List the keys of a recipe with their values and meanings, all or those of a SECTION such as `solver`."""
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.recipe_tables import print_keys

    print_keys(load_recipe(recipe, overrides), section)
