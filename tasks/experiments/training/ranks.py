"""Processes that train one model together: the first writes files and prints.

Lightning or torchrun starts them.
"""

import os
from typing import Any

from lightning.pytorch.utilities import rank_zero_only


def is_first() -> bool:
    """Whether this process is the first of those that train together, or alone."""
    return not getattr(rank_zero_only, "rank", 0)


def exit_unless_first() -> None:
    """End this process unless it is the first, which alone goes on after a training."""
    if not is_first():
        raise SystemExit(0)


def by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def devices_by_torchrun() -> dict[str, Any]:
    """The Trainer's flags for devices and nodes: those of torchrun's processes, or one device."""
    if not by_torchrun():
        return {"devices": 1}
    devices, processes = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": devices, "num_nodes": processes // devices}
