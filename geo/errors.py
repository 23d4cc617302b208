"""Exceptions that the command line turns into one line and an exit code; everything else is a bug."""


class InputError(ValueError):
    """Wrong input: the message is one line that names the file, field and value and what would be right.

    The command line prints the message alone and exits with code 2; it is never retried.
    """


class MapError(InputError):
    """The map of one city is missing, broken or refused: the build continues with the other cities of the recipe."""


class Unreachable(MapError):
    """The server of a city's map cannot be reached; that of other cities' maps may be the same.

    Attributes
    ----------
    server : str
    """

    def __init__(self, message: str, server: str) -> None:
        super().__init__(message)
        self.server = server


class SceneError(Exception):
    """A scene that cannot be made from valid input (bad geometry): quarantined with its reason, never retried."""


class CommandFailed(Exception):
    """A command that cannot end well although its input is right: a failed check, a server that is gone.

    The command line prints the message alone and exits with code 1.
    """
