"""A page for each folder of results, and a list of them all.

The table is the one that the measurement wrote; recipe, versions, machine and commit are read from
its JSON.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from site_pages.links import rewritten
from site_pages.markdown import table
from site_pages.place import RESULTS

DATE = re.compile(r"-(\d{4}-\d\d-\d\d)")


@dataclass(frozen=True)
class Run:
    """A folder of results."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def content(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return read

    @property
    def kind(self) -> str:
        """The name without its date."""
        return DATE.split(self.name)[0]

    @property
    def date(self) -> str:
        """The date in the name, or "" in the oldest."""
        return found[1] if (found := DATE.search(self.name)) else ""

    @property
    def title(self) -> str:
        """What was measured, on one line."""
        return str(self.content.get("title", self.kind.replace("-", " ")))

    @property
    def commit(self) -> str:
        commit = self.content["commit"]
        return str(commit["id"] if isinstance(commit, dict) else commit)[:8]


def all_runs() -> list[Run]:
    return [Run(path.parent) for path in sorted(RESULTS.glob("*/results.json"))]


def newest() -> list[Run]:
    """The newest run of each kind."""
    return list({run.kind: run for run in sorted(all_runs(), key=lambda run: run.date)}.values())


def pages() -> Iterator[tuple[str, str]]:
    yield "runs/index.md", _index()
    for run in all_runs():
        yield f"runs/{run.name}.md", _page(run)


def _index() -> str:
    rows = [
        (f"[{run.name}](/generated/runs/{run.name}.md)", run.title, f"`{run.commit}`")
        for run in all_runs()
    ]
    listing = table(("run", "what", "commit"), rows).replace("--:", ":--")
    names = "\n".join(run.name for run in all_runs())
    return f"""# All runs

Every measurement has a folder of its own under `benchmarks/results/`: its numbers as JSON, a table,
mostly a picture. None is ever edited. This page and those below are made from these files when the
site is built. [Benchmarks](/generated/benchmarks.md) says how each is measured.

{listing}
```{{toctree}}
:hidden:

{names}
```
"""


def _page(run: Run) -> str:
    file = run.folder / "table.md"
    body = re.sub(r"\A# .*\n", "", rewritten(file.read_text(), file))
    body = body.replace(run.content.get("title", "") or "\0", "", 1)
    pictures = [f"![{run.title}]({_path(path)})" for path in sorted(run.folder.glob("*.png"))]
    parts = [
        f"# {run.name}",
        f"{run.title}." if not run.title.endswith(".") else run.title,
        body.strip(),
        *pictures,
        "## How it was measured",
        *(
            _facts(name, run.content[name])
            for name in ("recipe", "machine", "versions")
            if name in run.content
        ),
        f"Commit `{run.commit}`. "
        f"{{download}}`The numbers as JSON <{_path(run.folder / 'results.json')}>`",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(name: str, facts: dict[str, Any]) -> str:
    """A line: the name, and each fact that is known."""
    known = {key: value for key, value in facts.items() if value is not None}
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in known.items())
    return f"**{name.capitalize()}**: {told}."


def _path(file: Path) -> str:
    return f"/../benchmarks/results/{file.parent.name}/{file.name}"
