"""Processes that train one model together, as Lightning or torchrun starts them: the first one writes and speaks."""

import os
from typing import Any

from lightning.pytorch.utilities import rank_zero_only


def is_first() -> bool:
    """Whether this process is the first of those that train together; alone, it is."""
    return not getattr(rank_zero_only, "rank", 0)


def exit_unless_first() -> None:
    """End this process unless it is the first: what is made of a training is the work of one."""
    if not is_first():
        raise SystemExit(0)


def by_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def devices_by_torchrun() -> dict[str, Any]:
    """The Trainer's devices and nodes: those that torchrun started processes for, or one."""
    if not by_torchrun():
        return {"devices": 1}
    return {
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"]),
    }
