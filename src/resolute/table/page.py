"""A table as HTML: escaped, with its headers named, and with the values that ``sorting.js`` sorts by."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence

from markupsafe import Markup, escape

from resolute.figures import DASH, Interval, doubt, figure, spread
from resolute.table.entries import Column, Row, TableCell, Value, aligned_right, gain_text

# Rows, from which on a reader gets boxes to choose by, and from which on the table scrolls inside a box.
LONG = 12
TALL = 24
# Letters, from which on a text breaks into lines.
SENTENCE = 60

_CLASSES = {"good": "agrees", "bad": "disagrees", "unsure": "undecided"}


def page_table(
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    label: str,
    caption: str,
    notes: Sequence[str],
    id: str,
    sort: str,
    choices: Mapping[str, str],
) -> Markup:
    """Return the HTML of a table; see ``Table.html``.

    The ``label`` is what a screen reader calls the box in which the table scrolls.
    """
    columns, rows = _told(columns, rows, keep={sort, *choices})
    places = {column.name: place for place, column in enumerate(columns)}
    right = [aligned_right(place, column, rows) for place, column in enumerate(columns)]
    filters = {
        place: choices.get(column.name, "")
        for place, column in enumerate(columns)
        if column.name in choices or _selects(column, rows, place)
    }
    bodies = Markup("\n").join(
        Markup("<tbody>\n{}\n</tbody>").format(
            Markup("\n").join(
                Markup("<tr>{}</tr>").format(
                    Markup("").join(_cell(one, place, column, right[place]) for place, column in enumerate(columns))
                )
                for one in group
            )
        )
        for group in _sections(rows)
    )
    marks = {
        "class": "sortable words" if not choices and any(_wordy(one) for one in rows) else "sortable",
        "id": id,
        "data-sort": str(places[sort]) if sort else "",
        "data-filters": json.dumps(filters) if filters or len(rows) > LONG else "",
    }
    return Markup(
        '{}<div class="scroll{}" role="region" aria-label="{}" tabindex="0">\n<table{}>\n'
        "<thead><tr>{}</tr></thead>\n{}\n</table>\n</div>{}{}"
    ).format(
        Markup('<p class="hint">{}</p>\n').format(caption) if caption else "",
        " tall" if len(rows) > TALL else "",
        label,
        _marks(marks),
        Markup("").join(_head(column, right[place] or not place) for place, column in enumerate(columns)),
        bodies,
        Markup("").join(Markup('\n<p class="hint">{}</p>').format(note) for note in notes),
        _meanings(columns),
    )


def _told(
    columns: Sequence[Column], rows: Sequence[Row], keep: Collection[str]
) -> tuple[Sequence[Column], Sequence[Row]]:
    """Leave out the columns in which no row has anything, but for what a reader looks for."""
    known = [
        place
        for place, column in enumerate(columns)
        if column.key or column.name in keep or not rows or not all(_silent(one.cells[place]) for one in rows)
    ]
    if len(known) == len(columns):
        return columns, rows
    cells = [tuple(one.cells[place] for place in known) for one in rows]
    left = [dataclasses.replace(one, cells=own) for one, own in zip(rows, cells, strict=True)]
    return [columns[place] for place in known], left


def _silent(cell: TableCell) -> bool:
    nothing = cell.value in (None, "", DASH) or (isinstance(cell.value, float) and math.isnan(cell.value))
    return nothing and cell.change is None and not cell.note


def _meanings(columns: Sequence[Column]) -> Markup:
    """Return what the headings mean, for those who have no mouse to hold above one."""
    told = [Markup("<dt>{}</dt><dd>{}</dd>").format(one.name, one.meaning) for one in columns if one.meaning]
    form = Markup('\n<details class="hint"><summary>Columns</summary><dl>{}</dl></details>')
    return form.format(Markup("").join(told)) if told else Markup()


def _selects(column: Column, rows: Sequence[Row], place: int) -> bool:
    """Tell whether a reader may want to choose rows of a long table by this column: few texts, each in many rows."""
    values = [one.cells[place].value for one in rows]
    texts = {column.text(value) for value in values}
    return len(rows) > LONG and all(isinstance(value, str) for value in values) and 1 < len(texts) <= len(rows) / 2


def _wordy(one: Row) -> bool:
    return any(max(len(str(cell.value)), len(cell.note)) > SENTENCE for cell in one.cells if not _number(cell.value))


def _sections(rows: Sequence[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = [[]]
    for one in rows:
        if one.section and groups[-1]:
            groups.append([])
        groups[-1].append(one)
    return groups


def _head(column: Column, right: bool) -> Markup:
    marks = {
        "class": " ".join(filter(None, ["key" if column.key else "", "" if right else "left"])),
        "data-first": "descending" if column.better == "higher" else "",
        "title": column.meaning,
    }
    hint = Markup("<small>{}</small>").format(column.hint) if column.hint else ""
    return Markup('<th scope="col"{}>{}{}</th>').format(_marks(marks), column.name, hint)


def _cell(one: Row, place: int, column: Column, right: bool) -> Markup:
    cell, named = one.cells[place], place == 0
    value = cell.value
    band = value if isinstance(value, Interval) and not column.signed else None
    text = escape(column.text(value) if band is None else figure(band.mean, column.digits))
    below = [spread(band, column.digits), cell.note]
    if column.code and text and value is not None:
        text = Markup("<code>{}</code>").format(text)
    tone = cell.tone or (one.tone if named else "")
    text = Markup('<b class="{}">{}</b>').format(_CLASSES[tone], text) if tone else text
    text = Markup('<a href="{}">{}</a>').format(cell.link, text) if cell.link else text
    small = Markup("").join(Markup("<small>{}</small>").format(words) for words in below if words)
    classes = {"variant": one.indent} if named else {"key": column.key, "left": not right}
    marks = _marks({"class": " ".join(name for name, wanted in classes.items() if wanted)})
    number = _number(value)
    marks += Markup(' data-value="{}"').format(number) if number is not None else Markup()
    # Where a narrow page shows a row as a list.
    marks += Markup() if named else Markup(' data-label="{}"').format(column.name)
    tag = "th" if named else "td"
    return Markup("<{}{}{}>{}{}{}</{}>").format(
        tag, Markup(' scope="row"') if named else "", marks, text, _gain(cell, column), small, tag
    )


def _gain(cell: TableCell, column: Column) -> Markup:
    text = gain_text(cell, column)
    chance = Markup(' class="chance"') if doubt(cell.change) else ""
    return Markup("<small{}>{}</small>").format(chance, text) if text else Markup()


def _number(value: Value) -> str | None:
    """Return what a page sorts by; None for text, which sorts as printed."""
    if isinstance(value, str | bool):
        return None
    number = value.mean if isinstance(value, Interval) else value
    if number is None or math.isnan(number):
        return ""
    return ("-" if number < 0 else "") + "Infinity" if math.isinf(number) else f"{number:.10g}"


def _marks(values: Mapping[str, str]) -> Markup:
    return Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in values.items() if value)
