"""The records of many networks in one small Parquet file, from which every figure can be computed again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from resolute.errors import ConfigError, did_you_mean, first_line
from resolute.files import write_atomically
from resolute.provenance import Provenance
from resolute.studies.attacked import AttackRecord
from resolute.studies.record import columns

# After the point, of figures in dB and of features.
DIGITS = 4

_TYPES = {one.name: one.kind for one in columns(AttackRecord) if one.name != "files"}
_ROUNDED = [name for name, kind in _TYPES.items() if kind == "DOUBLE" and name != "epsilon"]
_PROVENANCE = pydantic.TypeAdapter(Provenance)
_RECORDS = pydantic.TypeAdapter(list[AttackRecord])


@dataclasses.dataclass(frozen=True)
class Run:
    """What was measured of one model.

    Attributes:
        records: all of them, without the attacked images.
        made: how; None where it is not known.
    """

    records: list[AttackRecord]
    made: Provenance | None


def write_runs(path: Path, runs: Mapping[str, Run]) -> None:
    """Write the records of models by their ids; figures are rounded to 4 digits, file names left out.

    Raises:
        OutputError: the file cannot be written.
    """
    import duckdb  # a fifth of a second, which what reads no Parquet need not wait for

    single = dict.fromkeys(_ROUNDED, "FLOAT")
    kinds = {"id": "VARCHAR", **_TYPES, **single, "made": "VARCHAR"}
    typed = ", ".join(f"'{name}': '{kind}'" for name, kind in kinds.items())
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        lines = Path(folder) / "records.jsonl"
        with lines.open("w", encoding="utf-8") as file:
            for id, run in runs.items():
                made = json.dumps(dataclasses.asdict(run.made)) if run.made else ""
                for record in run.records:
                    file.write(json.dumps({"id": id, **_row(record), "made": made}) + "\n")

        def write(target: Path) -> None:
            rows = f"SELECT * FROM read_json('{lines}', columns={{{typed}}}) ORDER BY id, attack, epsilon, image"
            connection.execute(f"CREATE OR REPLACE TABLE records AS {rows}")
            table = connection.table("records")
            sha256 = _sha256(table.columns, table.fetchall())
            quoted = str(target).replace("'", "''")
            options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {{sha256: '{sha256}'}}"
            connection.execute(f"COPY records TO '{quoted}' ({options})")

        write_atomically(path, write)


def read_runs(path: Path, only: str | None = None) -> dict[str, Run]:
    """Read the records of models by their ids.

    Args:
        path: of the file.
        only: id of the one model to be read, whatever is said of others; None for all.

    Raises:
        ConfigError: the file cannot be read, is damaged, holds what is no record, or no such model.
    """
    import duckdb

    try:
        with duckdb.connect() as connection:
            table = connection.read_parquet(str(path))
            columns, held = table.columns, table.fetchall()
            told = connection.execute("SELECT value FROM parquet_kv_metadata(?) WHERE key = 'sha256'", [str(path)])
            sums = {bytes(value).decode("latin-1") for (value,) in told.fetchall()}
    except Exception as error:  # A damaged file makes DuckDB raise classes that are not its own as well.
        raise ConfigError(f"cannot read {path}: {first_line(error)}") from None
    # DuckDB writes and compares no checksums, and half of the bits that flip are read as other figures.
    if sums and sums != {_sha256(columns, held)}:
        raise ConfigError(f"{path} is damaged: its records are not those that were written; copy it again")
    rows = [dict(zip(columns, values, strict=True)) for values in held]
    found: dict[str, list[dict[str, Any]]] = {}
    made: dict[str, str] = {}
    for values in rows:
        id, how = str(values.pop("id", "")), values.pop("made", "")
        rounded = {name: _again(values[name]) for name in _ROUNDED if name in values}
        found.setdefault(id, []).append(values | rounded)
        made.setdefault(id, how)
    if only is not None and only not in found:
        raise ConfigError(f"no records of {only!r} in {path.name}{did_you_mean(only, found)}")
    chosen = found if only is None else {only: found[only]}
    try:
        return {
            id: Run(_RECORDS.validate_json(json.dumps(own, default=str)), _made(made[id])) for id, own in chosen.items()
        }
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = f"{first['loc'][-1]}: " if first["loc"] else ""
        raise ConfigError(f"{path.name} holds what is no record: {place}{first['msg']}") from None


def _sha256(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> str:
    """Return the sha256 of rows, whatever their order."""
    lines = [json.dumps(columns), *sorted(json.dumps(row, default=str) for row in rows)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _made(text: str) -> Provenance | None:
    return _PROVENANCE.validate_json(text) if text else None


def _row(record: AttackRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in _TYPES}
    return values | {name: _again(values[name]) for name in _ROUNDED}


def _again(value: float | None) -> float | None:
    # What is no number is refused with the whole record.
    return round(value, DIGITS) if isinstance(value, float) else value
