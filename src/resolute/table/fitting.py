"""A table for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import rich.table
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

# A column of words is not made narrower than this, or than its longest word.
_LEAST = 8
# What lies between the texts of two columns.
_BETWEEN = 3


@final
class FittingTable(rich.table.Table):
    """A table whose rows become blocks of lines where columns have no room: rich would cut numbers off silently.

    Example:
        >>> table = FittingTable("name", "weights")
        >>> table.columns[1].no_wrap = True
        >>> table.add_row("edsr-xs", "1,234,567")
        >>> Console(width=22).print(table)
        <BLANKLINE>
        edsr-xs
          weights: 1,234,567
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType | Segment]:
        if self._least(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield _text(console, self.title)
        heads = [" ".join(_text(console, column.header).plain.split()) for column in self.columns]
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            first, *others = (_text(console, cell) for cell in cells)
            yield Text.assemble("\n", (first.plain or heads[0], "bold"))
            for head, cell in zip(heads[1:], others, strict=True):
                if cell.plain:
                    yield Text.assemble(f"  {head}: ", cell)
        if self.caption:
            yield _text(console, self.caption)

    def _least(self, console: Console, options: ConsoleOptions) -> int:
        """Return the width at which numbers and names are whole and words can be read."""
        wide = options.update(max_width=10**6)
        total = 1
        for column in self.columns:
            cells = [Measurement.get(console, wide, cell) for cell in column.cells]
            words = max((one.minimum for one in cells), default=0)
            whole = max((one.maximum for one in cells), default=0)
            head = Measurement.get(console, wide, column.header)
            least = max(whole, head.maximum) if column.no_wrap else max(min(words, _LEAST), min(head.minimum, _LEAST))
            total += least + _BETWEEN
        return total


def _text(console: Console, cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))
