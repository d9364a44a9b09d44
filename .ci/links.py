"""Check a built site: every link and picture within it leads somewhere, anchors included.

python .ci/links.py build/docs
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

EXTERNAL = {"http", "https", "mailto", "data"}


class Page(HTMLParser):
    """The links of a page, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken(site: Path) -> Iterator[str]:
    """Every link that leads nowhere, as text."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme in EXTERNAL or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.relative_to(site)}: {link} leads to no file"
            elif target in pages and parts.fragment not in {"", *pages[target].anchors}:
                yield f"{path.relative_to(site)}: {link} leads to no place in its page"


def main(site: Path) -> int:
    count = len(list(site.rglob("*.html")))
    found = list(broken(site.resolve())) if count else [f"{site}: there is no page"]
    print("\n".join(found) or f"{count} pages, and no broken link")
    return len(found)


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1])) else 0)
