"""Data sets by name, each a LightningDataModule."""

from lincon.tasks.pose.data.people import People
from lincon.tasks.pose.data.sets import Drawn, Lsp, LspExtended, Mpii

DATA: dict[str, type[People]] = {data.name: data for data in (Drawn, Mpii, Lsp, LspExtended)}
"""Data sets by name."""
