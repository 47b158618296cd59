"""A table as plain values, for files and other programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from resolute.figures import Interval
from resolute.files import write_atomically
from resolute.table.entries import Column, Raw, Row, Value


def flat(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[str], list[list[Raw]]]:
    """Return the names and the rows of plain values: an interval takes four columns, a change and a note their own."""
    parts: list[tuple[str, list[Raw]]] = []
    for place, column in enumerate(columns):
        cells = [one.cells[place] for one in rows]
        parts += _apart(column.name, [cell.value for cell in cells])
        if any(cell.change is not None for cell in cells):
            parts += _apart(f"{column.name} change", [cell.change for cell in cells])
        if any(cell.note for cell in cells):
            parts.append((f"{column.name} note", [cell.note or None for cell in cells]))
    return [name for name, _ in parts], [[values[number] for _, values in parts] for number in range(len(rows))]


def storable(value: Raw) -> Raw:
    """Return a value that JSON can hold.

    Example:
        >>> storable(math.inf), storable(math.nan), storable(1.5)
        ('Infinity', None, 1.5)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def write_parquet(path: Path, names: Sequence[str], rows: Sequence[Sequence[Raw]]) -> None:
    """Write plain values to a Parquet file; a column has the type that holds all its values.

    Raises:
        OutputError: it cannot be written.
    """
    import duckdb  # a fifth of a second, which what prints a table need not wait for

    fields = [f"{_quoted(name)} {_sql([values[place] for values in rows])}" for place, name in enumerate(names)]
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE flat ({', '.join(fields)})")
        if rows:
            connection.executemany(f"INSERT INTO flat VALUES ({', '.join('?' * len(names))})", rows)

        def write(file: Path) -> None:
            connection.table("flat").write_parquet(str(file))

        write_atomically(path, write)


def _apart(name: str, values: Sequence[Value]) -> list[tuple[str, list[Raw]]]:
    found: list[tuple[str, list[Raw]]] = [(name, [v.mean if isinstance(v, Interval) else v for v in values])]
    if any(isinstance(value, Interval) for value in values):
        for part in ("low", "high", "n"):
            ends: list[Raw] = [getattr(v, part) if isinstance(v, Interval) else None for v in values]
            found.append((f"{name} {part}", ends))
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _sql(values: Sequence[Raw]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {int}:
        return "BIGINT"
    return "DOUBLE" if kinds and kinds <= {int, float} else "VARCHAR"
