"""The folder of a study on disk: what was asked, the records, and the pictures beside them."""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, final

from resolute.errors import ConfigError, OutputError, first_line
from resolute.files import read_regular, write_text
from resolute.studies.kinds import RECORDS, find_kind
from resolute.studies.record import SCHEMA, Record, plain_record, read_record

RECORDS_STEM = "records"

# No record or study comes near; what is deeper would end readers in the middle.
DEPTH = 64

# No figure comes near, and sums of squares stay finite.
LARGEST = 1e100

# How a line begins that a run has written.
_PLAIN = re.compile(rb'\{"record": "(\w+)", "schema": %d, (?=")' % SCHEMA)

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

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
    """The records of a study in one folder, and the pictures beside them, named in ``Record.files``.

    Every run that works on the study writes a file of its own, ``records.jsonl``, ``records-2.jsonl`` and so on (see
    ``Journal``); they are read as one.

    Example:
        >>> import tempfile
        >>> Store(Path(tempfile.mkdtemp())).read()
        []
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            ConfigError: a file cannot be read, or the package that adds this kind of study is broken.
        """
        find_kind(self.facts().get("kind"))
        found: dict[str, Record] = {}
        bad: list[BadLine] = []
        for path in files_of(self.folder, RECORDS_STEM):
            for number, line in _lines(path):
                try:
                    record = read_line(line)
                except json.JSONDecodeError as error:
                    bad.append(BadLine(path, number, f"no JSON: {first_line(error)}", torn=_torn(line)))
                    continue
                except ValueError as error:
                    bad.append(BadLine(path, number, first_line(error)))
                    continue
                known = found.get(record.key)
                if known is None or _rank(record) > _rank(known):
                    found[record.key] = record
        reason = self._facts()[1]
        bad += [BadLine(self.folder / "study.json", *reason)] if reason else []
        order = {key: place for place, key in enumerate(self.order())}
        return sorted(found.values(), key=lambda record: order.get(record.key, len(order))), bad

    def whole(self, record: Record) -> bool:
        """Tell whether all pictures of a record are there."""
        return all((self.folder / file).is_file() for file in record.files)

    def whole_of(self, records: Mapping[str, Record]) -> dict[str, Record]:
        """Return those of many records whose pictures are all there, for less than a look at every one."""
        there = {
            f"{folder}/{entry.name}"
            for folder in {file.partition("/")[0] for record in records.values() for file in record.files}
            if (self.folder / folder).is_dir()
            for entry in os.scandir(self.folder / folder)
        }
        return {key: record for key, record in records.items() if there.issuperset(record.files)}

    def facts(self) -> dict[str, Any]:
        """Return what ``study.json`` says; nothing where it is missing or damaged."""
        return self._facts()[0]

    def order(self) -> list[str]:
        """Return the keys of the cells of the last plan."""
        keys: object = self.facts().get("cells")
        return [key for key in cast("list[object]", keys) if isinstance(key, str)] if isinstance(keys, list) else []

    def _facts(self) -> tuple[dict[str, Any], tuple[int, str] | None]:
        """Return what ``study.json`` says; and where something is wrong with it, the line and what."""
        try:
            content = loaded(read_regular(self.folder / "study.json").removeprefix(codecs.BOM_UTF8))
            json.dumps(content, allow_nan=False)
        except FileNotFoundError:
            return {}, None
        except (OSError, ValueError) as error:
            return {}, (error.lineno if isinstance(error, json.JSONDecodeError) else 1, first_line(error))
        keys: object = content.get("cells", [])
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in cast("list[object]", keys)):
            return content, (1, "cells: a list of keys")
        return content, None

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Write ``study.json``: what was asked, how, and in which order.

        Raises:
            ConfigError: it could not be read again.
            OutputError: it cannot be written.
        """
        try:
            text = json.dumps(facts, indent=1, allow_nan=False) + "\n"
            loaded(text.encode())
        except ValueError as error:
            raise ConfigError(f"the settings of the study cannot be kept: {first_line(error)}") from None
        write_text(self.folder / "study.json", text)


def files_of(folder: Path, stem: str) -> list[Path]:
    """Return the files of JSON lines that all runs have written under one name."""
    return [path for path in (folder / f"{stem}.jsonl", *sorted(folder.glob(f"{stem}-*.jsonl"))) if path.exists()]


def loaded(text: bytes) -> dict[str, Any]:
    """Return the object that a text of JSON holds.

    Raises:
        ValueError: it holds none, or one that is nested too deeply, a whole number of more than 64 bits, or a
            number beyond ``LARGEST``.

    Example:
        >>> loaded(b'{"n": 12345678901234567890}')
        Traceback (most recent call last):
        ValueError: 1234567890... is a whole number of more than 64 bits
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is no UTF-8") from None
    if _depth(decoded)[1] > DEPTH:
        raise ValueError(f"nested more than {DEPTH} deep")
    content: object = json.loads(decoded, parse_int=_whole, parse_float=_figure)
    if not isinstance(content, dict):
        raise ValueError(f"no object of JSON, but a {type(content).__name__}")
    return cast("dict[str, Any]", content)


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


def read_line(line: bytes) -> Record:
    """Return the record that a line holds, or raise ``ValueError``.

    A line as a run writes it takes a fifth of the time of others, since it is checked as it is parsed.
    """
    plain = _PLAIN.match(line)
    kind = RECORDS.get(plain[1].decode()) if plain is not None else None
    if plain is not None and kind is not None:
        record = plain_record(b"{" + line[plain.end() :], kind)
        if record is not None and _in_range(record):
            return record
    return read_record(loaded(line), RECORDS)


def _in_range(record: Record) -> bool:
    """Tell whether all values of a record are text, truths and numbers in range; others are not looked at."""
    for value in vars(record).values():
        kind = type(value)
        if kind is float:
            if not -LARGEST <= value <= LARGEST:
                return False
        elif kind is int:
            if not -(2**63) <= value < 2**63:
                return False
        elif kind is tuple:
            if not all(type(one) is str for one in value):
                return False
        elif not (kind is str or value is None or kind is bool):
            return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank with their numbers, whatever bytes they hold."""
    try:
        content = read_regular(path)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _torn(line: bytes) -> bool:
    """Tell whether a line ends inside an object, as where its writer was killed."""
    text = line.decode(errors="replace")
    return text.startswith("{") and _depth(text)[0] > 0


def _depth(text: str) -> tuple[int, int]:
    """Return how many brackets of JSON are open at the end, and at most."""
    depth = deepest = 0
    for sign in re.findall(r"[\[{}\]]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return depth, deepest


def _whole(digits: str) -> int:
    number = int(digits) if len(digits.lstrip("-")) < 20 else 2**63
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{digits[:10]}... is a whole number of more than 64 bits")
    return number


def _figure(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST:
        raise ValueError(f"{text[:10]} is beyond {LARGEST:g}")
    return value


def _rank(record: Record) -> tuple[str, float]:
    return json.dumps(record.figures(), sort_keys=True), -record.seconds
