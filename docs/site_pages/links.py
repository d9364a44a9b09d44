"""Links between files of the repository, as links between pages of the site.

A page is read in the repository too, so that its links name files: a README, a table of results, the
source of a generator. On the site each of them is a page.
"""

import re
from os.path import relpath
from pathlib import Path

from site_pages.place import DOCS, ROOT

PICTURES = {".png", ".svg"}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")

PAGES = {
    "README.md": "index",
    "CONTRIBUTING.md": "generated/contributing",
    "CHANGELOG.md": "generated/changes",
    "benchmarks/README.md": "generated/benchmarks",
    "benchmarks/results": "generated/runs/index",
    "tasks/classification/README.md": "generated/classification",
    "tasks/pose/README.md": "generated/pose",
    "tasks/indoor/README.md": "generated/indoor",
    "tasks/language/README.md": "generated/language",
    "SECURITY.md": "generated/security",
}
"""Files and folders outside of docs/ that are pages of the site."""


def rewritten(text: str, of: Path) -> str:
    """The text of a file ``of`` the repository with links that hold on the site.

    Raises:
        ValueError: a link leads to something that is not on the site.
    """
    return LINK.sub(lambda link: on_site(link[1], of), text)


def on_site(link: str, of: Path) -> str:
    """A link in a file ``of`` the repository, as a link of the site."""
    path, _, anchor = link.partition("#")
    if not path or "://" in path or path.startswith("/"):
        return link
    target = (of.parent / path).resolve()
    if target.suffix in PICTURES:
        return "/" + relpath(target, DOCS)
    page = page_of(target)
    if page is None:
        raise ValueError(f"{of.relative_to(ROOT)}: {link} is no page of the site.")
    return f"/{page}.md" + (f"#{anchor}" if anchor else "")


def page_of(target: Path) -> str | None:
    """The name of the page that a file of the repository is, or None."""
    path = target.relative_to(ROOT)
    if path.as_posix() in PAGES:
        return PAGES[path.as_posix()]
    if target.is_relative_to(DOCS) and path.suffix == ".md":
        return target.relative_to(DOCS).with_suffix("").as_posix()
    if path.parts[:2] == ("benchmarks", "results") and path.name == "table.md":
        return f"generated/runs/{path.parent.name}"
    if path.parts[0] == "generators" and path.suffix == ".py":
        return f"generated/generators/{path.stem}"
    return None
