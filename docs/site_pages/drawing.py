"""G as a picture: blue where a weight reads a free number, orange where it reads it negated."""

from lincon import Generator

CELL, MARGIN = 9, 22
POSITIVE, NEGATIVE, EMPTY, INK = "#4477AA", "#EE7733", "#F1F1F1", "#333333"
"""Blue and orange can be told apart by colour-blind readers."""


def svg(generator: Generator) -> str:
    """A picture whose column i is row i of G, and whose line j is free number j.

    The darker an entry, the larger it is.
    """
    matrix = generator.dense()
    largest = float(matrix.abs().max()) or 1.0
    cells = [
        _cell(row, column, value / largest)
        for row, line in enumerate(matrix.tolist())
        for column, value in enumerate(line)
    ]
    width, height = MARGIN + generator.rows * CELL + 2, MARGIN + generator.dof * CELL + 2
    down = f'transform="rotate(-90)" x="{-height + 2}" y="14"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="{MARGIN}" y="14" fill="{INK}">{generator.rows} generated weights →</text>',
            f'<text {down} fill="{INK}">{generator.dof} free</text>',
            *cells,
            "</svg>\n",
        ]
    )


def _cell(row: int, column: int, value: float) -> str:
    colour = POSITIVE if value > 0 else NEGATIVE if value < 0 else EMPTY
    shade = f' fill-opacity="{max(abs(value), 0.15):.2f}"' if value else ""
    x, y = MARGIN + row * CELL, MARGIN + column * CELL
    size = CELL - 1
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="{colour}"{shade}/>'
