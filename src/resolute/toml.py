"""Reading a TOML file into a checked dataclass, with errors that name file and key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import pydantic

from resolute.errors import ConfigError

T = TypeVar("T")


def read_toml(path: Path, kind: type[T]) -> T:
    """Return the dataclass ``kind`` that the TOML file describes.

    Raises:
        ConfigError: no valid TOML, or a key that does not exist or is out of range.
    """
    return check_table(path, read_table(path), kind)


def read_table(path: Path) -> dict[str, object]:
    """Return what a TOML file says, unchecked.

    Raises:
        ConfigError: no valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no valid TOML: {error}") from None


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
        message = str(own) if isinstance(own, ConfigError) else first["msg"].lower()
        raise ConfigError(f"{path.name}: {key and f'{key}: '}{message}") from None


def _key(content: object, location: tuple[int | str, ...]) -> str:
    """Return the key in the file: pydantic's location without the names of alternatives."""
    key: list[str] = []
    for index, part in enumerate(location):
        below = cast("dict[object, object]", content).get(part) if isinstance(content, dict) else None
        if below is None and isinstance(content, dict) and index < len(location) - 1:
            continue
        key.append(str(part))
        content = below
    return ".".join(key)
