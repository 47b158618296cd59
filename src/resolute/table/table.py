"""A table: columns with units and meanings, rows, intervals and notes; everything that is shown in rows is one."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from markupsafe import Markup

from resolute.errors import ConfigError
from resolute.table.entries import Column, Raw, Row, aligned_right, gain_text
from resolute.table.flat import flat, storable, write_parquet
from resolute.table.page import page_table

if TYPE_CHECKING:
    import pandas
    import rich.table

_STYLES = {"good": "green", "bad": "bold red", "unsure": "dim", "": ""}
# Longer texts break in a terminal, wherever they stand.
_LONG = 40


@final
@dataclasses.dataclass(frozen=True)
class Table:
    """Columns and rows, to be shown anywhere: terminal, Markdown, page, notebook, CSV, JSON, Parquet, pandas.

    The last four hold the values as measured, the others round as the columns say. The first column names the rows.

    Attributes:
        title: a few words.
        columns: what stands in the rows.
        rows: see ``row``.
        notes: sentences below the table.
        caption: how the figures were made, in a sentence or two.
        sort: the column that a page sorts by at first; empty for the order of the rows.
        choices: columns, and the text to which a page narrows the rows at first.

    Raises:
        ValueError: a row has more or fewer cells than there are columns, or ``sort`` or a choice names no column.

    Example:
        >>> from resolute.table import row
        >>> columns = [Column("model"), Column("SR-PSNR", "dB", better="higher")]
        >>> print(Table("", columns, [row("edsr-s", 29.104), row("bicubic", float("inf"))]).markdown(), end="")
        | model | SR-PSNR (dB) |
        |---|--:|
        | edsr-s | 29.10 |
        | bicubic | ∞ |
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    caption: str = ""
    sort: str = ""
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        unknown = {*self.choices, *filter(None, [self.sort])} - {column.name for column in self.columns}
        if unknown:
            raise ValueError(f"no column {', '.join(sorted(unknown))}")
        for number, one in enumerate(self.rows):
            if len(one.cells) != len(self.columns):
                raise ValueError(f"row {number} has {len(one.cells)} cells, the table {len(self.columns)} columns")

    def terminal(self) -> rich.table.Table:
        """Return the table for a terminal."""
        from rich.text import Text

        from resolute.table.fitting import FittingTable

        words = "\n".join(text for text in (self.caption, *self.notes) if text)
        table = FittingTable(title=Text(self.title) if self.title else None, caption=Text(words) if words else None)
        for place, column in enumerate(self.columns):
            lengths = [len(self._text(one, place)) for one in self.rows]
            right = self._right(place)
            table.add_column(
                Text("\n".join(filter(None, [column.name, column.hint]))),
                justify="right" if right else "left",
                no_wrap=column.whole or (right and max(lengths, default=0) < _LONG),
                overflow="fold",
                min_width=max(lengths, default=0) if column.whole else None,
            )
        for one in self.rows:
            if one.section:
                table.add_section()
            cells = [
                Text(self._text(one, place), style=_STYLES[cell.tone or (one.tone if place == 0 else "")])
                for place, cell in enumerate(one.cells)
            ]
            table.add_row(*cells)
        return table

    def markdown(self) -> str:
        """Return the table as Markdown, its title and caption above it and the notes below."""
        lines = [f"**{_plain(self.title)}**", ""] if self.title else []
        lines += [_plain(self.caption), ""] if self.caption else []
        heads = [f"{column.name} ({column.hint})" if column.hint else column.name for column in self.columns]
        lines.append(f"| {' | '.join(map(_plain, heads))} |")
        lines.append(f"|{''.join('--:|' if self._right(place) else '---|' for place in range(len(self.columns)))}")
        for one in self.rows:
            lines.append(f"| {' | '.join(self._marked(one, place) for place in range(len(self.columns)))} |")
        for note in self.notes:
            lines += ["", _plain(note)]
        return "\n".join(lines) + "\n"

    def html(self, id: str = "") -> Markup:
        """Return the table for a page, all text escaped.

        With ``sorting.js`` a click on a heading sorts it, and boxes above a long one choose rows.

        Args:
            id: of the table, for links.
        """
        label = self.title or self.caption or "Table"
        words = {"label": label, "caption": self.caption, "id": id, "sort": self.sort}
        return page_table(self.columns, self.rows, notes=self.notes, choices=self.choices, **words)

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction]
        return str(self.html())

    def records(self) -> list[dict[str, Raw]]:
        """Return the rows as measured, a dictionary each; an interval becomes its mean, ``low``, ``high`` and ``n``.

        Example:
            >>> from resolute.figures import Interval
            >>> from resolute.table import row
            >>> Table("", [Column("psnr")], [row(Interval(1.0, 0.5, 1.5, 9))]).records()
            [{'psnr': 1.0, 'psnr low': 0.5, 'psnr high': 1.5, 'psnr n': 9}]
        """
        names, rows = flat(self.columns, self.rows)
        return [dict(zip(names, values, strict=True)) for values in rows]

    def csv(self) -> str:
        """Return the values as measured, separated by commas; nothing where there is nothing to measure."""
        text = io.StringIO()
        names, rows = flat(self.columns, self.rows)
        csv.writer(text, lineterminator="\n").writerows([names, *rows])
        return text.getvalue()

    def json(self) -> str:
        """Return the table as JSON: what the columns mean, and the values as measured; infinity is ``"Infinity"``."""
        columns = [
            {"name": column.name, "unit": column.unit, "meaning": column.meaning, "better": column.better}
            for column in self.columns
        ]
        rows = [{name: storable(value) for name, value in one.items()} for one in self.records()]
        content = {"title": self.title, "caption": self.caption, "columns": columns, "rows": rows}
        return json.dumps({**content, "notes": list(self.notes)}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def parquet(self, path: Path) -> None:
        """Write the values as measured to a Parquet file.

        Raises:
            OutputError: it cannot be written.
        """
        write_parquet(path, *flat(self.columns, self.rows))

    def frame(self) -> pandas.DataFrame:
        """Return the values as measured as a pandas table.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigError(
                "a frame needs pandas: pip install pandas, or use records(), csv() or parquet()"
            ) from None
        names, rows = flat(self.columns, self.rows)
        return pandas.DataFrame.from_records(rows, columns=names)

    def _right(self, place: int) -> bool:
        return aligned_right(place, self.columns[place], self.rows)

    def _text(self, one: Row, place: int) -> str:
        cell, column = one.cells[place], self.columns[place]
        more = "; ".join(filter(None, [gain_text(cell, column), cell.note]))
        text = column.text(cell.value)
        text = f"{text} ({more})" if more else text
        return f"  {text}" if one.indent and place == 0 else text

    def _marked(self, one: Row, place: int) -> str:
        text = self._text(one, place).strip()
        if self.columns[place].code and one.cells[place].value:
            # A tag stays as it is inside of code.
            return "`" + text.replace("|", "\\|").replace("`", "'").replace("\n", " ") + "`"
        text = _plain(text)
        return f"**{text}**" if place == 0 and one.tone == "bad" and text else text


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, names with bars or tags in them too."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
