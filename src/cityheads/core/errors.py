"""The one exception that users are meant to read."""


class CityHeadsError(Exception):
    """Something the user can repair: the message is one line that names the file or key and what to do.

    The command line prints it as it is, without a traceback, and exits with 1. Anything else that is raised is a
    defect of ours and is shown with a traceback in the log.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class BadSceneError(CityHeadsError):
    """A raster of an item that is gone or damaged for good: asking again cannot help, another scene can."""
