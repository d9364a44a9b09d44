"""The text of pages of HTML."""

from html.parser import HTMLParser

BLOCKS = {
    *("blockquote", "caption", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("li", "ol", "p", "pre", "table", "td", "th", "title", "tr", "ul"),
}
"""Elements that begin and end lines."""

VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input"),
    *("link", "meta", "param", "source", "track", "wbr"),
}
"""Elements that have no end."""

PASSED_OVER = {"docnav", "toc", "indexterm", "footnotes"}
"""Classes of elements that are no text of the page: navigation, contents, anchors of the index."""


class PageText(HTMLParser):
    """Collects the running text of a page, a line for each block; lines of `pre` stay as they are.

    >>> page = PageText()
    >>> page.feed("<body><ul class='docnav'><li>Next</li></ul><p>Two <em>words</em>.</p></body>")
    >>> page.text()
    'Two words.'
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.line = ""
        self.preformatted = 0  # depth of `pre`
        self.outside = 0  # depth of elements that are passed over

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = set((given.get("class") or "").split())
        is_outside = tag in ("head", "script") or given.get("id") in ("banner", "title")
        if tag not in VOID and (self.outside or is_outside or classes & PASSED_OVER):
            self.outside += 1
        self.preformatted += tag == "pre"
        if tag in BLOCKS:
            self._end_line()

    def handle_endtag(self, tag: str) -> None:
        if tag in BLOCKS:
            self._end_line()
        if tag not in VOID:
            self.preformatted -= tag == "pre"
            self.outside -= self.outside > 0

    def handle_data(self, data: str) -> None:
        if self.outside:
            return
        if self.preformatted:
            *whole, self.line = (self.line + data).split("\n")
            self.lines += whole
        else:
            self.line += data

    def text(self) -> str:
        """All lines that are not empty."""
        self._end_line()
        return "\n".join(line for line in self.lines if line.strip())

    def _end_line(self) -> None:
        self.lines.append(self.line if self.preformatted else " ".join(self.line.split()))
        self.line = ""
