"""Tables that show themselves: as text in a terminal, as HTML in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Table:
    """A table of text.

    Args:
        title: above the table.
        header: of each column. The first column is text; the others are numbers.
        rows: a text for each column.
        notes: below the table.

    >>> Table("At a tenth", ("scheme", "dof"), [("rpg", "1,154"), ("vanilla", "11,536")])
    At a tenth
    scheme      dof
    rpg       1,154
    vanilla  11,536
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [tuple(self.header), *map(tuple, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = []
        for first, *others in lines:
            cells = [first.ljust(widths[0])]
            cells += [each.rjust(width) for each, width in zip(others, widths[1:], strict=True)]
            texts.append("  ".join(cells).rstrip())
        return "\n".join([*([self.title] if self.title else []), *texts, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.html()

    def html(self) -> str:
        """The table as HTML; whatever is in its texts shows as text."""
        rows = [_row(self.header, "th"), *(_row(row, "td") for row in self.rows)]
        title = f"<caption style='text-align: left'>{_escaped(self.title)}</caption>"
        notes = "".join(f"<p>{_escaped(note)}</p>" for note in self.notes)
        return f"<table>{title if self.title else ''}{''.join(rows)}</table>{notes}"


def _row(cells: Sequence[str], kind: str) -> str:
    sides = ["left", *["right"] * (len(cells) - 1)]
    return "".join(
        [
            "<tr>",
            *(
                f"<{kind} style='text-align: {side}'>{_escaped(cell)}</{kind}>"
                for cell, side in zip(cells, sides, strict=True)
            ),
            "</tr>",
        ]
    )


def _escaped(text: str) -> str:
    from html import escape  # with a table of all entities, which few need

    return escape(text)
