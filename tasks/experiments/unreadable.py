"""Pictures on disk that cannot be read."""

from lincon import LinconError


class Unreadable(LinconError):
    """A picture that is missing, cannot be decoded, or is not what it should be.

    A worker's error reaches the main process as the text of its traceback, whose last line is the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))
