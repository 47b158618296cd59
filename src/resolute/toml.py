"""Reading a TOML file into a checked dataclass, with errors that name file, line and key."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

import pydantic

from resolute.errors import ConfigError
from resolute.files import read_regular

T = TypeVar("T")

# No study or recipe comes near; what is deeper would end readers in the middle.
DEPTH = 64

# Characters to read again for the number of a line: a value is read anew with each of its lines.
_EFFORT = 500_000


def read_table(path: Path) -> dict[str, object]:
    """Return what a TOML file says, unchecked.

    Raises:
        ConfigError: it cannot be read, or is no valid TOML, to which whole numbers of more than 64 bits and what is
            nested more than ``DEPTH`` deep belong.
    """
    try:
        content = tomllib.loads(read_regular(path).decode())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path.name} is no valid TOML: nested more than {DEPTH} deep") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no valid TOML: {error}") from None
    for key, value in _leaves(content):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise located(path, key, "a whole number of more than 64 bits")
        if len(key) > DEPTH:
            raise located(path, key[:1], f"nested more than {DEPTH} deep")
    return content


def _leaves(content: object, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield all values that hold no others, or lie too deep, with their keys."""
    if isinstance(content, list):
        parts = [(str(place), part) for place, part in enumerate(cast("list[object]", content))]
    else:
        parts = list(cast("dict[str, object]", content).items()) if isinstance(content, dict) else []
    if not parts or len(key) > DEPTH:
        yield key, content
    for name, part in parts if len(key) <= DEPTH else ():
        yield from _leaves(part, (*key, name))


def check_table(path: Path, content: Mapping[str, object], kind: type[T]) -> T:
    """Return the dataclass ``kind`` that the content of the file at ``path`` describes.

    Raises:
        ConfigError: a key that does not exist or is out of range.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(dict(content))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = _key(content, first["loc"])
        # What the table as a whole gets wrong is said by the class itself, which names the key.
        own = first.get("ctx", {}).get("error")
        if isinstance(own, ConfigError):
            raise located(path, (*key, *own.key), own.message) from None
        unknown = first["type"] == "unexpected_keyword_argument"
        raise located(path, key, _unknown(key[-1], kind) if unknown else first["msg"].lower()) from None


def _unknown(key: str, kind: type) -> str:
    """Return what is wrong with a key that nothing has: the nearest one that there is, or all of them."""
    names = sorted(_fields(kind, set()))
    if key in names:
        return "no such key here, but in another table"
    near = difflib.get_close_matches(key, names, 1)
    return f"no such key; did you mean {near[0]}?" if near else f"no such key; there are {', '.join(names)}"


def _fields(kind: object, seen: set[type]) -> set[str]:
    """Return the names of the fields of a dataclass, and of all dataclasses in them."""
    found: set[str] = set()
    for inside in typing.get_args(kind):
        found |= _fields(inside, seen)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind not in seen:
        seen.add(kind)
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            found |= {field.name} | _fields(hints[field.name], seen)
    return found


def located(path: Path, key: Sequence[str], message: str) -> ConfigError:
    """Return an error about a key of a file, with the line that the key is on, or that of the table around it.

    Args:
        path: the file.
        key: names and, in lists of tables, numbers, such as ``("attacks", "0", "steps")``.
        message: what is wrong.
    """
    line = line_of(path.read_text(encoding="utf-8"), key)
    place = f"{path.name}, line {line}: " if line else f"{path.name}: "
    return ConfigError(f"{place}{'.'.join(key) + ': ' if key else ''}{message}")


def line_of(text: str, key: Sequence[str]) -> int | None:
    """Return the line, counted from 1, on which a key of a valid TOML text is set, or else the table around it begins.

    None where there is none, or where values of very many lines would take too long to read.

    Example:
        >>> text = "name = 'x'{0}[[attacks]]{0}kind = 'fda'{0}steps = 0".format(chr(10))
        >>> [line_of(text, key) for key in (("attacks", "0", "steps"), ("attacks", "0", "layers"), ("every",))]
        [4, 2, None]
    """
    found: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    value, effort = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if value:  # a list or a text of several lines goes on
            value += f"\n{line}"
        elif header := re.fullmatch(r"\s*(\[\[?)(.+?)\]\]?\s*(#.*)?", line):
            table = _absolute(_names(header[2]), counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            found.setdefault(table, number)
        elif setting := re.match(r"""\s*((?:[\w-]++|"[^"]*"|'[^']*'|\s*\.\s*)+?)\s*=(.*)""", line):
            found.setdefault(table + _names(setting[1]), number)
            value = setting[2]
        effort += len(value)
        if effort > _EFFORT:
            return None
        if value and _whole(value):
            value = ""
    wanted = tuple(key)
    return next((found[wanted[:length]] for length in range(len(wanted), 0, -1) if wanted[:length] in found), None)


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip(" \t\"'") for part in re.findall(r"""\s*("[^"]*"|'[^']*'|[\w-]+)\s*""", dotted))


def _absolute(names: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return a header's names with the number of the last entry after each list of tables on the way."""
    path: tuple[str, ...] = ()
    for place, name in enumerate(names):
        path = (*path, name)
        if path in counts and place < len(names) - 1:
            path = (*path, str(counts[path]))
    return path


def _whole(value: str) -> bool:
    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _key(content: object, location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Return the key in the file: pydantic's location without the names of alternatives."""
    key: list[str] = []
    for index, part in enumerate(location):
        below = cast("dict[object, object]", content).get(part) if isinstance(content, dict) else None
        if below is None and isinstance(content, dict) and index < len(location) - 1:
            continue
        key.append(str(part))
        content = below
    return tuple(key)
