"""Pages that are made when the site is built: of results, generators, docstrings and READMEs.

`write_all` writes them to `docs/generated/`, which git ignores.
"""

from site_pages.place import GENERATED
from site_pages.writing import write_all

__all__ = ["GENERATED", "write_all"]
