"""Build the wheel, install it in a clean environment outside the repository, import all of it there.

Every module of lincon/, generators/ and tasks/ must be in the wheel: a forgotten sub-package is a silent failure.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"lincon": "lincon", "generators": "lincon/generators", "tasks": "lincon/tasks"}

PLAIN = """
import torch, lincon
model = torch.nn.Linear(8, 8)
lincon.constrain(model, "ring", dof=0.5)
lincon.save(model, "m.safetensors")
lincon.load(torch.nn.Linear(8, 8), "m.safetensors")
"""
"""What must work with the core dependencies alone."""

ELSEWHERE = {
    "lincon/__main__.py",  # runs the command line
    "lincon/integrations/transformers.py",  # is tested by make interop
}
"""Modules that are in the wheel, and are not imported here."""


def expected() -> set[str]:
    """Paths in the wheel of all modules that git tracks."""
    tracked = subprocess.run(
        ["git", "ls-files", *(f"{folder}/*.py" for folder in FOLDERS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(line) for line in tracked.stdout.splitlines()]
    return {str(Path(FOLDERS[path.parts[0]], *path.parts[1:])) for path in paths}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = folder.glob("*.whl")
        inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".py")}
        if missing := expected() - inside:
            sys.exit(
                f"Not in the wheel: {sorted(missing)}; is a package missing in pyproject.toml?"
            )
        venv.create(folder / "env", with_pip=True)
        python = folder / "env/bin/python"
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, wheel], check=True)
        subprocess.run([python, "-c", PLAIN], cwd=folder, check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[tasks,fast]"],
            check=True,
        )
        modules = sorted(
            str(Path(p).with_suffix("")).replace("/", ".").removesuffix(".__init__")
            for p in expected() - ELSEWHERE
        )
        imports = f"[importlib.import_module(m) for m in {modules!r}]"
        code = f"import importlib, lincon; {imports}; print(lincon.__file__)"
        done = subprocess.run(
            [python, "-c", code], cwd=folder, check=True, capture_output=True, text=True
        )
        if str(folder) not in done.stdout:
            sys.exit(f"The wheel was not what was imported: {done.stdout}")
        print(
            f"{wheel.name}: {len(modules)} modules, installed and imported outside the repository"
        )


if __name__ == "__main__":
    main()
