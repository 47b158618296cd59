"""SQL over the records of any number of runs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from resolute.engine.store import RECORDS_STEM, Store
from resolute.errors import ConfigError
from resolute.files import write_atomically
from resolute.studies.kinds import RECORDS
from resolute.studies.record import Record, ViewColumn, columns

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_RUN = ViewColumn("run", "VARCHAR", "folder that the row is from, the first where several hold its key.")


# Of an answer in Python's own objects, of which a hundred million fill any memory.
MOST_ROWS = 1_000_000


@dataclasses.dataclass(frozen=True)
class QueryResult:
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
            >>> QueryResult(["model", "n"], [("edsr-s", 2)]).csv().split()
            ['model,n', 'edsr-s,2']
        """
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([self.names, *self.rows])
        return text.getvalue()

    def json(self) -> str:
        """Return the answer as a list of objects; what is not finite is null.

        Raises:
            ConfigError: two columns have one name.

        Example:
            >>> " ".join(QueryResult(["model", "n"], [("edsr-s", 2)]).json().split())
            '[ { "model": "edsr-s", "n": 2 } ]'
        """
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two columns are called {twice!r}; call one of them something else with AS")
        return json.dumps(
            [dict(zip(self.names, map(_plain, row), strict=True)) for row in self.rows], indent=1, default=str
        )


def view_columns(view: str) -> list[ViewColumn]:
    """Return the columns of a view, as documented.

    Example:
        >>> view_columns("attacks")[1]
        ViewColumn(name='model', kind='VARCHAR', text='name of what was judged, with the defences around it.')
    """
    return [*columns(RECORDS[view]), _RUN]


def documentation() -> str:
    """Return ``docs/records.md``: what every column holds."""
    parts = [_HEAD]
    for view in RECORDS:
        rows = [f"| `{column.name}` | {column.kind} | {column.text} |" for column in view_columns(view)]
        head = (RECORDS[view].__doc__ or "").partition("\n")[0]
        parts.append(
            "\n".join([f"## {view}", "", head, "", "| column | type | what it holds |", "|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


_HEAD = """# Records

What `resolute query` sees: a view for each kind of record, and what a line of `records*.jsonl` in the folder of a study
holds. None is NULL in SQL; a PSNR is NULL where two images are equal, which is infinity. How to ask is in
[running.md](running.md). This page is written by `resolute query --columns --out docs/records.md`."""


def find_runs(places: Iterable[Path]) -> list[Path]:
    """Return the folders with records at or below these places, in order.

    Raises:
        ConfigError: there are none.
    """
    places = list(places)
    found = {file.parent for place in places for file in place.rglob(f"{RECORDS_STEM}*.jsonl")}
    if not found:
        names = " or ".join(map(str, places))
        raise ConfigError(f"no records in {names}; run a study first, or name the folders of runs with --runs")
    return sorted(found)


def query(sql: str, runs: Sequence[Path], parquet: Path | None = None) -> QueryResult:
    """Ask the records of runs in SQL; nothing that is stored can be changed by it.

    Args:
        sql: over the views of ``RECORDS``, see ``view_columns``.
        runs: folders of studies; a key that several hold counts once.
        parquet: file to write the answer to as well.

    Raises:
        ConfigError: the SQL is wrong, or its answer has more than ``MOST_ROWS`` rows and goes to no Parquet file.
        OutputError: the file cannot be written.
    """
    import duckdb  # a fifth of a second, which other commands need not wait for

    with duckdb.connect() as connection, contextlib.ExitStack() as places:
        # All at once, for reading imports the kinds of records that packages add.
        load_records(connection, [(record, str(run)) for run in runs for record in Store(run).read()])
        # Not even a query that was copied from somewhere reads or writes another file.
        target = None if parquet is None else Path(places.enter_context(tempfile.TemporaryDirectory())) / "answer"
        if target is not None:
            connection.execute("SET allowed_paths = ?", [[str(target)]])
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            # None for statements that give nothing, which duckdb's stubs do not know.
            found = cast("DuckDBPyRelation | None", connection.sql(sql))
            if parquet is not None and target is not None and found is not None:
                found.write_parquet(str(target))
                write_atomically(parquet, functools.partial(shutil.copyfile, target))
            if found is None:
                return QueryResult([], [])
            shown = found
            if parquet is None:
                shown = found.limit(MOST_ROWS + 1)  # pyright: ignore[reportCallIssue], a gap in duckdb's stubs
            rows = shown.fetchall()
            if parquet is None and len(rows) > MOST_ROWS:
                raise ConfigError(f"the answer has more than {MOST_ROWS:,} rows; add LIMIT, or write it as parquet")
            return QueryResult(list(found.columns), rows)
        except duckdb.Error as error:
            raise ConfigError(_explained(str(error))) from None


def load_records(connection: DuckDBPyConnection, found: Iterable[tuple[Record, str]]) -> None:
    """Make a table of every kind of record in a database, of records and the folders that they are from.

    A key that occurs again is left out.
    """
    seen: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        rows = {view: files.enter_context((Path(folder) / view).open("w", encoding="utf-8")) for view in RECORDS}
        for record, run in found:
            if record.key not in seen:
                seen.add(record.key)
                line = json.dumps({**dataclasses.asdict(record), "run": run}, ensure_ascii=False)
                # DuckDB takes no lone surrogates, of which the name of a file may hold some.
                rows[record.view].write(line.encode(errors="replace").decode() + "\n")
        files.close()
        for view in RECORDS:
            types = ", ".join(f"'{column.name}': '{column.kind}'" for column in view_columns(view))
            connection.execute(
                f"CREATE TABLE {view} AS SELECT * FROM read_json(?, format='newline_delimited', columns={{{types}}})",
                [str(Path(folder) / view)],
            )


def _plain(value: object) -> object:
    """Return a value of an answer as JSON can hold it: what is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in cast("Mapping[object, object]", value).items()}
    return [_plain(one) for one in cast("list[object]", value)] if isinstance(value, list | tuple) else value


def _explained(error: str) -> str:
    text = " ".join(error.split())
    if re.search(r"Catalog Error: Table", text):
        return f"{text.rstrip('.')}; the views are {', '.join(RECORDS)}"
    if "Binder Error" in text and "column" in text:
        return f"{text}; `resolute query --columns` lists all columns"
    return text
