"""Every refusal of lincon: what was asked, what is there, what to do."""


class LinconError(ValueError):
    """Base class of every refusal; a ValueError."""


class DofError(LinconError):
    """The degrees of freedom asked for cannot be had."""


class UnknownGeneratorError(LinconError):
    """No generator is registered under that name."""


class TargetError(LinconError):
    """The tensors asked for cannot be constrained."""


class FileError(LinconError):
    """A file is damaged, altered, too new, or was made for another model."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


class LinconWarning(UserWarning):
    """Something will probably not do what was meant."""
