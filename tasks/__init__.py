"""Tasks that lincon is tried on, a package each, plugged in on top of the core. Needs the extra `[tasks]`."""

if __name__ != "lincon.tasks":
    raise ImportError(
        "import lincon.tasks, not tasks: a second copy would share nothing with the first"
    )

from lincon.tasks.experiments.extras import check_installed

check_installed("typer", "lightning", "torchmetrics", "kornia", "sklearn", "matplotlib", "PIL")
