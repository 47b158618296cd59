"""Reading a TOML file into a checked dataclass, with errors that name file and key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

import pydantic

from resolute.errors import ConfigError

T = TypeVar("T")


def read_toml(path: Path, kind: type[T]) -> T:
    """Return the dataclass ``kind`` that the TOML file describes.

    Raises:
        ConfigError: no valid TOML, or a key that does not exist or is out of range.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is no valid TOML: {error}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path.name}: {key}: {first['msg'].lower()}") from None
