"""What a table is made of: columns, rows and their cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, final

from resolute.figures import Interval, figure, interval

Value = str | int | float | bool | Interval | None
Tone = Literal["", "good", "bad", "unsure"]
Raw = str | int | float | bool | None

# From here on, whole numbers are printed in groups of three digits.
_GROUPED = 10_000


@final
@dataclasses.dataclass(frozen=True)
class Column:
    """What stands below one heading.

    Attributes:
        name: the heading.
        unit: of the values, below or behind the heading.
        meaning: what is measured, for those who hover over the heading or read the JSON.
        digits: after the point, of values that are not whole numbers.
        significant: ``digits`` counts significant digits instead.
        signed: the values are differences, with a sign.
        better: which values are good ones, where that can be said.
        align: to the right where all values are numbers, if not given.
        key: the column that a reader looks for first.
        code: the values are commands, hashes and the like.
        whole: the values are never broken into two lines.
    """

    name: str
    unit: str = ""
    meaning: str = ""
    digits: int = 2
    significant: bool = False
    signed: bool = False
    better: Literal["higher", "lower"] | None = None
    align: Literal["left", "right"] | None = None
    key: bool = False
    code: bool = False
    whole: bool = False

    @property
    def hint(self) -> str:
        """What stands in small below the heading: the unit, and that lower is better where it is."""
        return ", ".join(filter(None, [self.unit, "lower is better" if self.better == "lower" else ""]))

    def text(self, value: Value) -> str:
        """Return a value as this column prints it.

        Example:
            >>> Column("gain", signed=True).text(Interval(1.0, 0.5, 1.5, 9)), Column("pixels").text(12345)
            ('+1.00 [+0.50, +1.50]', '12,345')
        """
        if isinstance(value, Interval):
            return interval(value, self.digits, signed=self.signed)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, int):
            return f"{value:,}" if value >= _GROUPED and not self.significant else str(value)
        return figure(value, self.digits, signed=self.signed, significant=self.significant)


@final
@dataclasses.dataclass(frozen=True)
class TableCell:
    """One entry.

    Attributes:
        value: what is measured; None where there is nothing to measure, infinity where two images are equal.
        change: from what the value is compared with, printed with a sign behind it.
        note: a few words in small behind it.
        tone: whether this is good or bad news.
        link: address that a page links to.
    """

    value: Value
    change: Interval | None = None
    note: str = ""
    tone: Tone = ""
    link: str = ""


@final
@dataclasses.dataclass(frozen=True)
class Row:
    """One row; see ``row``.

    Attributes:
        cells: one a column.
        section: the first row of a group, with a rule above it.
        tone: whether the row as a whole is good or bad news.
        indent: it belongs to the row above that is not indented.
    """

    cells: tuple[TableCell, ...]
    section: bool = False
    tone: Tone = ""
    indent: bool = False


def row(*cells: Value | TableCell, section: bool = False, tone: Tone = "", indent: bool = False) -> Row:
    """Return a row of values, or of cells where one has more to say than its value.

    Example:
        >>> row("edsr-s", TableCell(31.2, note="2 unmoved")).cells[0]
        TableCell(value='edsr-s', change=None, note='', tone='', link='')
    """
    made = tuple(cell if isinstance(cell, TableCell) else TableCell(cell) for cell in cells)
    return Row(made, section, tone, indent)


def gain_text(cell: TableCell, column: Column) -> str:
    """Return the change of a cell as its column prints it; empty where there is none."""
    return "" if cell.change is None else interval(cell.change, column.digits)


def aligned_right(place: int, column: Column, rows: Sequence[Row]) -> bool:
    """Tell whether the column in this place, counted from 0, is set to the right: numbers are, names of rows are not.

    Example:
        >>> aligned_right(1, Column("images"), [row("a", 3), row("b", None)])
        True
    """
    if column.align is not None:
        return column.align == "right"
    values = [one.cells[place].value for one in rows]
    return place > 0 and not any(isinstance(value, str | bool) for value in values)
