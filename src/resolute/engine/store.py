"""The folder of a study on disk: what was asked, the records, and the pictures beside them."""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, final

from resolute.errors import ConfigError, OutputError
from resolute.files import write_text
from resolute.studies.kinds import RECORDS
from resolute.studies.record import Record, read_record

RECORDS_STEM = "records"

Kind = TypeVar("Kind", bound=Record)


@dataclasses.dataclass(frozen=True)
class BadLine:
    """A line that is no record.

    Attributes:
        path, line: where it is, counted from 1.
        reason: what is wrong with it.
        torn: it ends in its middle, as a killed process or a full disk leave it; its cell is answered again.
    """

    path: Path
    line: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@final
class Store:
    """The records of a study in one folder, and the pictures beside them.

    Every run that works on the study writes a file of its own, ``records.jsonl``, ``records-2.jsonl`` and so on (see
    ``Journal``); they are read as one.

    Example:
        >>> import tempfile
        >>> Store(Path(tempfile.mkdtemp())).read()
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, file: str) -> Path:
        """Return where a picture of a record lies."""
        return self.folder / file

    def read(self) -> list[Record]:
        """Return all whole records, each key once, in the order of the plan; bad lines are left out."""
        return self.read_all()[0]

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the records of one kind."""
        return [record for record in self.read() if isinstance(record, kind)]

    def read_all(self) -> tuple[list[Record], list[BadLine]]:
        """Return all whole records, each key once, in the order of the plan, and the lines that are none.

        Of several records of one key, as two runs at once may leave where the file system has no locks, the same one is
        chosen whatever their order.

        Raises:
            ConfigError: a file cannot be read.
        """
        found: dict[str, Record] = {}
        bad: list[BadLine] = []
        for path in files_of(self.folder, RECORDS_STEM):
            for number, line in enumerate(_lines(path), start=1):
                record = _parsed(path, number, line)
                if isinstance(record, BadLine):
                    bad.append(record)
                    continue
                known = found.get(record.key)
                if known is None or _rank(record) > _rank(known):
                    found[record.key] = record
        order = {key: place for place, key in enumerate(self.order())}
        return [found[key] for key in sorted(found, key=lambda key: order.get(key, len(order)))], bad

    def whole(self, record: Record) -> bool:
        """Tell whether all pictures of a record are there."""
        return all(self.path_of(file).is_file() for file in record.files)

    def facts(self) -> dict[str, Any]:
        """Return what ``study.json`` says; nothing where it is missing or damaged."""
        try:
            content: object = json.loads((self.folder / "study.json").read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            return {}
        return cast("dict[str, Any]", content) if isinstance(content, dict) else {}

    def order(self) -> list[str]:
        """Return the keys of the cells of the last plan."""
        keys: object = self.facts().get("cells")
        return [key for key in cast("list[object]", keys) if isinstance(key, str)] if isinstance(keys, list) else []

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Write ``study.json``: what was asked, how, and in which order.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(self.folder / "study.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")


def files_of(folder: Path, stem: str) -> list[Path]:
    """Return the files of JSON lines that all runs have written under one name.

    Example:
        >>> files_of(Path("no-such-folder"), "records")
        []
    """
    return [path for path in (folder / f"{stem}.jsonl", *sorted(folder.glob(f"{stem}-*.jsonl"))) if path.exists()]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON lines; torn ones are left out, and a missing file has none."""
    if not path.exists():
        return []
    return [content for line in _lines(path) if (content := parsed(line)) is not None]


def parsed(line: str | bytes) -> dict[str, Any] | None:
    """Return what a line of JSON holds; None where it is torn."""
    try:
        content: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def append_line(path: Path, *contents: Mapping[str, object]) -> None:
    """Append JSON lines in one go, on lines of their own even after a torn one, and see them to the disk.

    Raises:
        OutputError: they cannot be written.
    """
    text = "".join(json.dumps(content, allow_nan=False) + "\n" for content in contents)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; what was computed so far is kept, free some room and "
            "run the same command again"
        ) from None


def read_line(line: str | bytes) -> Record:
    """Return the record that a line holds.

    Raises:
        ValueError: it holds none.
    """
    content = parsed(line)
    if content is None:
        raise ValueError("no whole line of JSON")
    return read_record(content, RECORDS)


def _parsed(path: Path, number: int, line: str) -> Record | BadLine:
    try:
        return read_line(line)
    except ValueError as error:
        return BadLine(path, number, str(error), torn=parsed(line) is None)


def _lines(path: Path) -> Sequence[str]:
    """Return the lines of a file that are not blank, whatever bytes it holds."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    text = content.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    # Not str.splitlines, which also ends lines at characters that a name may hold.
    return [line for line in text.split("\n") if line.strip()]


def _rank(record: Record) -> tuple[str, float]:
    return json.dumps(record.figures(), sort_keys=True), -record.seconds
