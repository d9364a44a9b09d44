"""Texts by name, each a LightningDataModule."""

from lincon.tasks.language.data.excerpt import Excerpt
from lincon.tasks.language.data.handbook import French, German, Handbook
from lincon.tasks.language.data.text import Text

DATA: dict[str, type[Text]] = {data.name: data for data in (Excerpt, Handbook, German, French)}
"""Texts by name."""
