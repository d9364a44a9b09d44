"""Packages that extras install, and what to do where one is missing."""

from importlib.util import find_spec

_TASKS = (
    "kornia",
    "lightning",
    "matplotlib",
    "PIL",
    "rich",
    "sklearn",
    "tensorboardX",
    "torchmetrics",
    "typer",
)
EXTRAS = {
    **dict.fromkeys(_TASKS, "tasks"),
    **dict.fromkeys(("onnx", "onnxscript", "torchao"), "export"),
    "ray": "parallel",
}
"""The extra that installs a package, by the name under which the package is imported."""


def check_installed(*packages: str) -> None:
    """Raise ModuleNotFoundError, with the extra that installs it, for a package that is missing."""
    for package in packages:
        if find_spec(package) is None:
            missing = ModuleNotFoundError(name=package)
            raise ModuleNotFoundError(remedy_of(missing), name=package)


def remedy_of(error: ModuleNotFoundError) -> str:
    """What is not installed, and how to install it, in a line."""
    if error.name and "pip install" in str(error):
        return str(error)
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    remedy = f": pip install 'lincon-torch[{extra}]'" if extra else ""
    return f"{error.name or error} is not installed{remedy}"
