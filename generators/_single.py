"""The former name of `lincon.generators.one_nonzero`, for those who import it."""

from lincon.generators.one_nonzero import Entries, OneNonzero

Single = OneNonzero

__all__ = ["Entries", "Single"]
