"""The core's tests with the oldest promised and the newest dependencies, for every promised Python.

    python -m benchmarks.matrix --results benchmarks/results

makes an environment for each Python and each end of the versions that pyproject.toml promises, runs
`CORE` in it, prints a table and keeps it. uv finds the Pythons, or brings them where it may; one that
cannot be had is a row that says so. UV_TORCH_BACKEND=cpu takes torch's builds for the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.results import keep

ROOT = Path(__file__).parent.parent
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
"""How uv resolves each end of the promised versions."""

TOOLS = "pytest", "hypothesis", "jaxtyping", "beartype"

CORE = "attach", "inference", "laws", "private_names", "recycling", "ring", "spec", "state", "tape"
"""Tests of the core that need no more than its dependencies and `TOOLS`."""

SHOWN = "torch", "numpy", "scipy", "safetensors", "einops"

VERSIONS = """
import json, platform, sys
from importlib.metadata import version
versions = {name: version(name) for name in sys.argv[1:]}
print(json.dumps({"python": platform.python_version(), **versions}))
"""


@dataclass
class Cell:
    """What came of the tests in one environment."""

    python: str
    end: str
    verdict: str = "not run"
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def promised() -> list[str]:
    """The Pythons of pyproject.toml's classifiers, as "3.11"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [line.split(" :: ") for line in project["classifiers"]]
    return [word[-1] for word in words if word[:2] == ["Programming Language", "Python"]]


def measure(python: str, end: str, tests: list[str]) -> Cell:
    """Make an environment, run the tests in it, and remove it."""
    cell = Cell(python, end)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = str(folder / "bin/python")
        # uv would take the environment that runs it, unless it is told which.
        install = ["pip", "install", "--quiet", "--python", binary]
        for command in (
            ["venv", "--quiet", "--allow-existing", "--python", python, name],
            [*install, "--resolution", ENDS[end], *BINARY, "--editable", "."],
            [*install, *TOOLS],
        ):
            done = _run([sys.executable, "-m", "uv", *command])
            if done.returncode:
                cell.verdict = f"no environment: {_last(done.stderr)}"
                return cell
        said = _run([binary, "-c", VERSIONS, *SHOWN], PYTHONPATH="").stdout
        cell.versions = json.loads(said)
        report = folder / "report.xml"
        files = [f"tests/test_{each}.py" for each in tests]
        _run([binary, "-m", "pytest", f"--junit-xml={report}", *files], PYTHONPATH="")
        _read(report, cell)
    return cell


BINARY = ["--only-binary", ":all:", "--no-binary", "lincon-torch"]
"""Nothing but lincon is compiled: where the oldest version has no wheel, the next is the oldest."""


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].strip()


def _read(report: Path, cell: Cell) -> None:
    """What pytest's report says."""
    if not report.exists():
        cell.verdict = "no test ran"
        return
    suite = ElementTree.parse(report).getroot()[0]
    cell.failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    count, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    cell.verdict = f"{count - skipped - len(cell.failed)} passed, {len(cell.failed)} failed"
    cell.verdict += f", {skipped} skipped" if skipped else ""
    cell.seconds = float(suite.get("time", 0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pythons", nargs="+", default=promised())
    parser.add_argument("--ends", nargs="+", choices=ENDS, default=list(ENDS))
    parser.add_argument("--tests", nargs="+", default=list(CORE))
    chosen = parser.parse_args()
    cells = []
    for python in chosen.pythons:
        for end in chosen.ends:
            cells.append(measure(python, end, chosen.tests))
            print(python, end, cells[-1].verdict, *cells[-1].failed, sep="\n    ", flush=True)
    header = ("Python", "end", *SHOWN, "tests of the core")
    rows = [
        (
            c.versions.get("python", c.python),
            c.end,
            *(c.versions.get(n, "–") for n in SHOWN),
            c.verdict,
        )
        for c in cells
    ]
    folder = keep(
        "versions",
        f"Version by version: {', '.join(chosen.tests)}",
        header,
        rows,
        [asdict(c) for c in cells],
    )
    print((folder / "table.md").read_text(), folder, sep="\n")
    if any(c.failed or " passed" not in c.verdict for c in cells):
        sys.exit(1)


if __name__ == "__main__":
    main()
