"""What to do about a file that is not what its name says."""

import re

_BEGINNINGS = (
    (rb"PK\x03\x04", "it is a zip archive, so unpack it"),
    (rb"\x1f\x8b", "it is compressed by gzip, so unpack it"),
    (rb"BZh", "it is compressed by bzip2, so unpack it"),
    (rb"\xfd7zXZ|7z\xbc\xaf|Rar!", "it is an archive, so unpack it"),
    (rb".{257}ustar", "it is a tar archive, so unpack it"),
    (rb"version https://git-lfs", "it only points to a file of Git LFS, so call git lfs pull"),
    (rb"\s*<(!doctype|html)", "it is a web page, so fetch the file that the page shows"),
)
"""How files begin that are often in the place of another, and what to do."""

_TEXT = rb"[\t\n\r\x20-\x7e]+\Z"


def remedy(content: bytes, *, text: bool = False) -> str:
    """What to do about a file that is not what it should be, by how it begins.

    Args:
        content: of the file, at least its first 512 bytes.
        text: whether it should be text.

    >>> remedy(b"PK\\3\\4..."), remedy(b"\\xff...")
    ('it is a zip archive, so unpack it', 'fetch it again')
    """
    start = content[:512]
    for beginning, advice in _BEGINNINGS:
        if re.match(beginning, start, re.DOTALL | re.IGNORECASE):
            return advice
    if not text and re.match(_TEXT, start):
        return "it is text, so fetch the file in its own format"
    return "fetch it again"
