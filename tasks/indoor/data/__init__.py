"""Data sets by name, each a LightningDataModule."""

from lincon.tasks.indoor.data.scenes import Scenes
from lincon.tasks.indoor.data.sets import RayCast, Stanford

DATA: dict[str, type[Scenes]] = {data.name: data for data in (RayCast, Stanford)}
"""Data sets by name."""
