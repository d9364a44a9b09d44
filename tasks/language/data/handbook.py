"""The Debian Administrator's Handbook, in the languages that Debian's package has."""

from collections.abc import Sequence
from pathlib import Path

from lincon import LinconError
from lincon.tasks.experiments.data.expected import check_folder, elsewhere
from lincon.tasks.experiments.data.remedies import remedy
from lincon.tasks.language.data.pages import PageText
from lincon.tasks.language.data.text import Text

PACKAGE = "debian-handbook"
PACKAGED = Path("/usr/share/doc/debian-handbook/html")
"""The folder into which Debian's package puts a folder for each language."""

REMEDY = f"install Debian's package {PACKAGE}, or pass --root FOLDER with its folder html."

FEWEST = 100
"""Pages that the book has at least, in every language."""


def read_page(path: Path) -> bytes:
    """The text of a page, as UTF-8.

    Raises:
        LinconError: a page that is no HTML in UTF-8, is cut off, or has no text.
    """
    content = path.read_bytes()
    try:
        page = content.decode()
    except UnicodeDecodeError as error:
        advice = remedy(content)
        raise LinconError(f"{path} is no text in UTF-8 (byte {error.start}): {advice}.") from None
    if "<html" not in page[:1000]:
        raise LinconError(f"{path} is no page of HTML: {remedy(content, text=True)}.")
    if not page.rstrip().endswith("</html>"):
        raise LinconError(f"{path} does not end in </html>, it is cut off: fetch it again.")
    parser = PageText()
    parser.feed(page)
    parser.close()
    text = parser.text()
    if not text:
        raise LinconError(f"{path} holds no text: fetch it again.")
    return f"{text}\n\n".encode()


class Handbook(Text):
    """The Debian Administrator's Handbook (GPL-2+ or CC-BY-SA-3.0) in English, from Debian's package."""

    name = "handbook"
    folder = "en-US"
    """Of the language, in the package."""

    def pieces(self, root: Path | None) -> Sequence[bytes]:
        root = check_folder(PACKAGED if root is None else root, REMEDY)
        folder = root / self.folder
        if not folder.is_dir():
            hint = elsewhere(root, [f"{self.folder}/"])
            raise LinconError(f"{root} lacks {self.folder}: {REMEDY}{hint}")
        paths = sorted(folder.glob("*.html"))
        pages = [path for path in paths if path.name != "index.html"]  # the table of contents
        if len(pages) < FEWEST:
            raise LinconError(
                f"{folder} has {len(pages)} of the book's pages, where there are {FEWEST} or more: "
                f"{REMEDY}"
            )
        return [read_page(path) for path in pages]


class German(Handbook):
    """The same in German."""

    name = "handbook-de"
    folder = "de-DE"


class French(Handbook):
    """The same in French."""

    name = "handbook-fr"
    folder = "fr-FR"
