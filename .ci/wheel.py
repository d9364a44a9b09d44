"""Build sdist and wheel into dist/, and try the wheel, which is built from the sdist, outside the repository.

twine and check-wheel-contents look at them, and all modules are imported in a clean environment: those of
the core with its dependencies alone. Every module of lincon/, generators/ and tasks/ must be in the wheel: a
forgotten sub-package is a silent failure.
"""

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
FOLDERS = {"lincon": "lincon", "generators": "lincon/generators", "tasks": "lincon/tasks"}

PLAIN = """
import importlib, torch, lincon
for module in {core}:
    importlib.import_module(module)
model = torch.nn.Linear(8, 8)
lincon.constrain(model, "ring", dof=0.5)
lincon.save(model, "m.safetensors")
lincon.load(torch.nn.Linear(8, 8), "m.safetensors")
"""
"""What must work with the core dependencies alone."""

EXTRAS = (
    *("lincon.tasks", "lincon.cli", "lincon.experiments", "lincon.figure"),
    *("lincon.kernels.cpu", "lincon.kernels.loops", "lincon.kernels.team"),
)
"""Modules that need what an extra brings."""

ELSEWHERE = {
    "lincon/__main__.py",  # runs the command line
    "lincon/integrations/transformers.py",  # is tested by make interop
    *("lincon/kernels/gpu.py", "lincon/kernels/gpu_loops.py"),  # Triton comes with torch for CUDA
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


def module_of(path: str) -> str:
    """The module that a file in the wheel is."""
    return str(Path(path).with_suffix("")).replace("/", ".").removesuffix(".__init__")


def needs_no_extra(module: str) -> bool:
    """Whether a module belongs to the core, which has no dependencies but its own."""
    return not module.startswith(EXTRAS)


def built() -> Path:
    """The wheel, beside the sdist in dist/, after tools have looked at both."""
    for old in (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")):
        old.unlink()
    command = [sys.executable, "-m", "build", "--outdir", DIST, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], check=True)
    subprocess.run([sys.executable, "-m", "check_wheel_contents", wheel], check=True)
    return wheel


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = built()
        inside = {n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".py")}
        if missing := expected() - inside:
            sys.exit(
                f"Not in the wheel: {sorted(missing)}; is a package missing in pyproject.toml?"
            )
        modules = sorted(map(module_of, expected() - ELSEWHERE))
        venv.create(folder / "env", with_pip=True)
        python = folder / "env/bin/python"
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, wheel], check=True)
        core = [module for module in modules if needs_no_extra(module)]
        subprocess.run([python, "-c", PLAIN.format(core=core)], cwd=folder, check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[tasks,fast]"],
            check=True,
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
