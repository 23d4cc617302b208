"""Exceptions: `InputError` means that the user's input is wrong; all others are bugs or outages."""


class InputError(ValueError):
    """Wrong input: the message is one line that names the file, field and value and what would be right.

    The command line prints the message alone and exits with code 2; it is never retried.
    """


class MapError(InputError):
    """The map of one city cannot be had (missing, broken, refused): the build continues with the other cities of the
    recipe.
    """


class SceneError(Exception):
    """A scene that cannot be made from valid input (bad geometry): quarantined with its reason, never retried."""
