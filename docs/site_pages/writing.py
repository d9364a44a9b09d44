"""All pages that are made, by their path under `docs/generated/`."""

from collections.abc import Iterator

from site_pages import choosing, generators, reference, runs, vectors
from site_pages.links import PAGES, rewritten
from site_pages.place import GENERATED, ROOT

Page = tuple[str, str]
"""A path under `docs/generated/`, and the text."""


def write_all() -> None:
    """Write every page whose text has changed, and remove those that are made no more."""
    wanted = dict(all_pages())
    for path, text in wanted.items():
        file = GENERATED / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    for file in GENERATED.rglob("*"):
        if file.is_file() and file.relative_to(GENERATED).as_posix() not in wanted:
            file.unlink()


def all_pages() -> Iterator[Page]:
    yield from readmes()
    yield from runs.pages()
    yield from choosing.fragments()
    yield from generators.pages()
    yield from reference.pages()
    yield from vectors.fragments()


def readmes() -> Iterator[Page]:
    """Pages that lie outside of docs/."""
    for path, page in PAGES.items():
        file = ROOT / path
        if page.startswith("generated/") and file.is_file():
            yield page.removeprefix("generated/") + ".md", rewritten(file.read_text(), file)
