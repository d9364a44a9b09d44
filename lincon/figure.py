"""The figure that pictures are drawn on. This module, unlike others of the core, needs matplotlib."""

from io import BytesIO
from typing import Any

from matplotlib import figure, rc_context


class Figure(figure.Figure):
    """A figure of matplotlib that a notebook shows, whether pyplot was imported or not."""

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self) -> bytes:
        """The figure as the bytes of a PNG."""
        return self._saved(format="png", dpi=150)

    def svg(self) -> bytes:
        """The figure as the bytes of an SVG, the same for the same figure; its text stays text."""
        with rc_context({"svg.hashsalt": "lincon", "svg.fonttype": "none"}):
            return self._saved(format="svg", metadata={"Date": None})

    def _saved(self, **options: Any) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, **options)
        return buffer.getvalue()
