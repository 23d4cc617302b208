"""How `wavecity --help` looks: commands in groups, every line whole, examples; and what completes in a shell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from wavecity.dataset.progress import say
from wavecity.model.settings.tasks import MEANINGS

if TYPE_CHECKING:
    from pydantic import BaseModel

# A command line, and what it is for.
Example = tuple[str, str]


class SpokenCommand(click.Command):
    """A command that says what it does before its modules are imported; its help has examples."""

    def __init__(self, *arguments: Any, examples: Sequence[Example] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._examples = examples

    def invoke(self, ctx: click.Context) -> object:
        """Write what the command does to standard error, and run it."""
        names: list[str] = []
        here: click.Context | None = ctx
        while here is not None and here.parent is not None:
            names.insert(0, here.info_name or "")
            here = here.parent
        given = [argument.name for argument in self.params if isinstance(argument, click.Argument) and argument.name]
        values = [ctx.params[name] for name in given]
        arguments = [str(word) for value in values for word in (value if isinstance(value, tuple) else (value,))]
        does = first_sentence(self)
        say(f"wavecity {' '.join([*names, *arguments])}: {does[:1].lower()}{does[1:]}")
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples at the end of the help."""
        _write_examples(formatter, self._examples)


class SilentCommand(SpokenCommand):
    """A command that takes a moment and writes nothing to standard error."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        return click.Command.invoke(self, ctx)


class GroupedCommands(click.Group):
    """A group that lists its commands by subject, none of them cut short; its help has examples."""

    command_class = SpokenCommand

    def __init__(
        self,
        *arguments: Any,
        subjects: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[Example] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._subjects = subjects or {}
        self._examples = examples

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for every subject, and one for the commands that belong to none."""
        named = [name for names in self._subjects.values() for name in names]
        rest = [name for name in self.list_commands(ctx) if name not in named]
        for title, names in {**self._subjects, "Other commands" if named else "Commands": rest}.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, first_sentence(command)) for name, command in commands if command and not command.hidden]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples at the end of the help."""
        _write_examples(formatter, self._examples)


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """Write a section of examples, if there are any."""
    if examples:
        with formatter.section("Examples"):
            for command, meaning in examples:
                # Not wrapped: a command can be copied as it stands.
                formatter.write(f"  {command}\n      {meaning}\n")


def first_sentence(command: click.Command) -> str:
    """What a command does, in its help's first sentence."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


class EvaluateCommand(SpokenCommand):
    """A command whose help lists the tasks, one per line."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tasks after the options."""
        super().format_options(ctx, formatter)
        with formatter.section("Tasks"):
            formatter.write_dl(list(MEANINGS.items()))


class RecipeName(click.ParamType):
    """A shipped recipe's name or a YAML file."""

    name = "recipe"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value unchanged."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the names of shipped recipes, and files."""
        # Not from `wavecity.flows.recipe`, which takes most of a second to import.
        shipped = sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))
        names = [CompletionItem(name) for name in shipped if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


class StoreAddress(click.ParamType):
    """A folder, or a URL on object storage."""

    name = "store"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value unchanged: a path type would turn `s3://` into `s3:/`."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete folders."""
        return [CompletionItem(incomplete, type="dir")]


def keys_of(recipe: "BaseModel", section: str = "") -> Sequence[tuple[str, object, str]]:
    """Keys of a recipe with their values and meanings, those below `section` only.

    Parameters
    ----------
    recipe : pydantic.BaseModel
    section : str
        `training.evaluation`; empty for all.
    """
    rows: list[tuple[str, object, str]] = []

    def walk(part: "BaseModel", prefix: str) -> None:
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            if hasattr(type(value), "model_fields"):
                walk(value, f"{prefix}{name}.")
            else:
                rows.append((f"{prefix}{name}", value, field.description or ""))

    walk(recipe, "")
    return [row for row in rows if not section or row[0] == section or row[0].startswith(f"{section}.")]
