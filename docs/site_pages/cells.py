"""Examples in pages are run when the site is built.

A fenced block of python in a page of docs/ is a cell of one notebook a page, whose outputs the site
shows. A block whose first line names a file, as `# train.py: ...`, is written to that file instead.
"""

import re

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w/]+\.py)\b")
FRONT = """---
file_format: mystnb
kernelspec:
  name: python3
  display_name: Python 3
---

"""


def as_notebook(text: str) -> str:
    """The page as a notebook in MyST Markdown; itself if it has no such block."""
    if text.startswith("---\n") or not BLOCK.search(text):
        return text
    return FRONT + BLOCK.sub(_cell, text)


def _cell(block: re.Match[str]) -> str:
    file = FILE.match(block[1])
    magic = f"%%writefile {file[1]}\n" if file else ""
    return f"```{{code-cell}} ipython3\n{magic}{block[1]}```"
