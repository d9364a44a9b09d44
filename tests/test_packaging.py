"""What `import lincon` costs and brings, and that there is one copy of everything."""

import subprocess
import sys
from pathlib import Path

import pytest

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
