"""Errors and warnings. Each message says what was asked, what is there, and what to do."""


class LinconError(ValueError):
    """Base class of all errors of lincon."""


class DofError(LinconError):
    """The degrees of freedom asked for are impossible."""


class UnknownGeneratorError(LinconError):
    """No generator is registered under that name."""


class TargetError(LinconError):
    """The tensors asked for cannot be constrained."""


class FileError(LinconError):
    """A file or a state_dict is damaged, altered, too new, or was made for another model."""


def one_line(error: BaseException) -> str:
    """The message of an error on one line, or the name of its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


class LinconWarning(UserWarning):
    """Something will probably not do what was meant."""
