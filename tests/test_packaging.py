"""What `import lincon` costs and brings, and that there is one copy of everything."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.matrix import promised

ROOT = Path(__file__).parent.parent


def run(code, cwd=None):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_brings_neither_lightning_nor_a_task_nor_their_dependencies():
    heavy = run(
        "import sys, lincon;"
        "print([m for m in ('lightning', 'kornia', 'sklearn', 'matplotlib', 'torchmetrics', 'typer', 'rich',"
        " 'lincon.tasks', 'onnx') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_import_adds_no_heavy_module_to_those_of_torch():
    heavy = [
        "scipy.sparse",
        "scipy.linalg",
        "lightning",
        "kornia",
        "sklearn",
        "matplotlib",
        "torchao",
        "torch._dynamo",
        "lincon.tasks",
    ]
    code = f"import sys, lincon; print([name for name in {heavy} if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("folder", ["generators", "tasks"])
def test_top_level_folders_are_not_importable(folder):
    message = run(f"try:\n    import {folder}\nexcept ImportError as e:\n    print(e)", cwd=ROOT)
    assert folder in message


def test_one_copy_of_every_class():
    assert (
        run(
            "import lincon, lincon.generators.ring as r;"
            "print(lincon.generators.Ring is r.Ring is lincon.generators.get('ring'))"
        )
        == "True"
    )


def test_the_benchmarks_can_be_imported():
    """They run rarely, and would break unseen."""
    names = [path.stem for path in (ROOT / "benchmarks").glob("*.py")]
    assert "bench_step" in names
    run(
        "import importlib; "
        + "; ".join(f"importlib.import_module('benchmarks.{name}')" for name in names),
        cwd=ROOT,
    )


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_same_wherever_it_stands():
    version = pyproject()["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version


def test_no_more_versions_are_promised_than_were_tried():
    """`make matrix` leaves folders, whose rows say what ran and passed."""
    folders = (ROOT / "benchmarks/results").glob("versions-*")
    rows = [row for f in folders for row in json.loads((f / "results.json").read_text())["numbers"]]
    passed = [row for row in rows if " passed, 0 failed" in row["verdict"]]
    assert {row["python"] for row in passed} >= set(promised())
    oldest = [row["versions"] for row in passed if row["end"] == "oldest"]
    least = dict(dependency.split(">=") for dependency in pyproject()["dependencies"])
    assert any(all(ran[name].startswith(least[name]) for name in least) for ran in oldest)
    assert f"torch >= {least['torch']}" in (ROOT / "README.md").read_text()


def test_the_lock_holds_the_versions_of_the_constraints():
    def pins(file):
        return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / file).read_text(), re.M))

    locked, wanted = pins("locked.txt"), {k.lower(): v for k, v in pins("constraints.txt").items()}
    assert locked.items() >= {k: v for k, v in wanted.items() if k in locked}.items()
    for extra in ("tasks", "export", "fast", "parallel", "dev"):
        names = [
            re.match(r"[\w.-]+", d)[0].lower() for d in pyproject()["optional-dependencies"][extra]
        ]
        assert set(names) <= set(locked), extra
    assert "://" not in (ROOT / "locked.txt").read_text()
