"""Data sets by name, each a LightningDataModule."""

from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.data.sets import DrawnFigures, Lsp, LspExtended, Mpii

DATA: dict[str, type[People]] = {data.name: data for data in (DrawnFigures, Mpii, Lsp, LspExtended)}
"""Data sets by name."""
