"""SQL over the records of any number of runs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import tempfile
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resolute.errors import ConfigError
from resolute.studies.steepness import Index, read_indices
from resolute.studies.store import Record, Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

VIEWS: dict[str, type[Record] | type[Index]] = {"records": Record, "clever": Index}

_RUN = "run", "VARCHAR", "folder that the row is from, the first where several hold its key."
_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a view.

    Attributes:
        name: in SQL.
        kind: type in SQL.
        text: what it holds.
    """

    name: str
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a query gave.

    Attributes:
        names: of the columns.
        rows: one tuple a row.
    """

    names: list[str]
    rows: list[tuple[Any, ...]]

    def csv(self) -> str:
        """Return the answer as comma-separated values.

        Example:
            >>> Answer(["model", "n"], [("edsr-s", 2)]).csv().split()
            ['model,n', 'edsr-s,2']
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([self.names, *self.rows])
        return text.getvalue()

    def json(self) -> str:
        """Return the answer as a list of objects.

        Example:
            >>> " ".join(Answer(["model", "n"], [("edsr-s", 2)]).json().split())
            '[ { "model": "edsr-s", "n": 2 } ]'
        """
        return json.dumps([dict(zip(self.names, row, strict=True)) for row in self.rows], indent=1, default=str)


def columns(view: str = "records") -> list[Column]:
    """Return the columns of a view, as documented.

    Example:
        >>> columns()[1]
        Column(name='model', kind='VARCHAR', text='name of the model, with the defences around it.')
    """
    kind = VIEWS[view]
    section = (kind.__doc__ or "").partition("Attributes:")[2]
    texts = {
        name: " ".join(text.split()) for name, text in re.findall(r"^ {8}(\w+): (.+(?:\n {9,}.+)*)", section, re.M)
    }
    hints = typing.get_type_hints(kind)
    named = [Column(field.name, _sql(hints[field.name]), texts[field.name]) for field in dataclasses.fields(kind)]
    return [*named, Column(*_RUN)]


def documentation() -> str:
    """Return ``docs/records.md``: what every column holds."""
    parts = [_HEAD]
    for view in VIEWS:
        rows = [f"| `{column.name}` | {column.kind} | {column.text.replace('``', '`')} |" for column in columns(view)]
        parts.append("\n".join([f"## {view}", "", "| column | type | what it holds |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


_HEAD = """# Records

What `resolute query` sees, and what a line of `records*.jsonl` (view `records`) and of `clever*.jsonl` (view `clever`)
in the folder of a study holds. None is NULL in SQL; a PSNR is NULL where two images are equal, which is infinity. How
to ask is in [running.md](running.md). This page is written by `resolute query --columns --out docs/records.md`."""


def _sql(hint: Any) -> str:
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind in _TYPES]
    return _TYPES[kinds[0]]


def find_runs(places: Iterable[Path]) -> list[Path]:
    """Return the folders with records at or below these places, in order.

    Raises:
        ConfigError: there are none.
    """
    places = list(places)
    found = {file.parent for place in places for view in VIEWS for file in place.rglob(f"{view}*.jsonl")}
    if not found:
        names = " or ".join(map(str, places))
        raise ConfigError(f"no records in {names}; run a study first, or name the folders of runs with --runs")
    return sorted(found)


def query(sql: str, runs: Sequence[Path], parquet: Path | None = None) -> Answer:
    """Ask the records of runs in SQL; nothing that is stored can be changed by it.

    Args:
        sql: over the views ``records`` and ``clever``, see ``columns``.
        runs: folders of studies; a key that several hold counts once.
        parquet: file to write the answer to as well.

    Raises:
        ConfigError: the SQL is wrong, or the file cannot be written.
    """
    import duckdb  # a fifth of a second, which other commands need not wait for

    with duckdb.connect() as connection:
        for view in VIEWS:
            _load(connection, view, runs)
        # Not even a query that was copied from somewhere reads or writes another file.
        if parquet is not None:
            connection.execute("SET allowed_paths = ?", [[str(parquet)]])
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            # None for statements that give nothing, which duckdb's stubs do not know.
            found = cast("DuckDBPyRelation | None", connection.sql(sql))
            if parquet is not None and found is not None:
                found.write_parquet(str(parquet))
            return Answer([], []) if found is None else Answer(list(found.columns), found.fetchall())
        except duckdb.Error as error:
            raise ConfigError(_explained(str(error))) from None


def _load(connection: DuckDBPyConnection, view: str, runs: Sequence[Path]) -> None:
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for run in runs:
                for row in Store(run).read() if view == "records" else read_indices(run):
                    if row.key not in seen:
                        seen.add(row.key)
                        file.write(json.dumps({**dataclasses.asdict(row), "run": str(run)}) + "\n")
        types = ", ".join(f"'{column.name}': '{column.kind}'" for column in columns(view))
        connection.execute(
            f"CREATE TABLE {view} AS SELECT * FROM read_json(?, format='newline_delimited', columns={{{types}}})",
            [str(path)],
        )


def _explained(error: str) -> str:
    text = " ".join(error.split())
    if re.search(r"Catalog Error: Table", text):
        return f"{text} The views are {' and '.join(VIEWS)}."
    if "Binder Error" in text and "column" in text:
        return f"{text} `resolute query --columns` lists them."
    return text
