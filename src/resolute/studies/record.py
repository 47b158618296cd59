"""Records: the answers of studies, one line of JSON each, typed and checked whenever they are read."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic

from resolute.errors import ConfigError

# Raised whenever the fields of a record change their meaning.
SCHEMA = 2
# Raised whenever the same key could mean other numbers: a change of the attack loop, the measures or the key itself.
PROTOCOL = 2

Count = Annotated[int, pydantic.Field(ge=1)]
# Of an attack: what has no logarithm, or rounds to nothing, is none.
Radius = Annotated[float, pydantic.Field(ge=1e-5, le=1e5)]

Item = TypeVar("Item")
Key = TypeVar("Key")
Kind = TypeVar("Kind", bound="Record")

_SQL = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_FILE = re.compile(r"[a-z][a-z-]*/[0-9a-f]+\.png")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """The answer to one cell of a study; every kind of answer adds fields of its own.

    Attributes:
        key: hash of all that determines the answer.
        model: name of what was judged, with the defences around it.
        weights: sha256 of its weights; empty where it has none.
        image: name of the image.
        pixels: sha256 of the image as the model sees it.
        width: of that image, in pixels.
        height: of that image, in pixels.
        seed: of everything random.
        seconds: what it took; another figure each time.
        dataset: the set that the image belongs to; empty where it was given as a file.
        files: pictures that belong to the record, relative to the folder of the study.
    """

    # A number that is none, or of the wrong type, is no record.
    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False
    )
    # Name of the kind of record: in the file, and as a view in SQL.
    view: ClassVar[str]

    key: str
    model: str
    weights: str
    image: str
    pixels: str
    width: Count
    height: Count
    seed: int
    seconds: float
    dataset: str = ""
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # A key names locks and files, and comes from files that anyone may have written.
        if not re.fullmatch(r"[0-9a-f]{15,64}", self.key):
            raise ConfigError("key: a hash of 15 to 64 hexadecimal digits")
        if not all(_FILE.fullmatch(name) for name in self.files):
            raise ConfigError("files: names such as attacked/0f3a.png")

    def figures(self) -> dict[str, object]:
        """Return all but what it cost, which is another one each time."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "seconds"}

    def as_line(self) -> dict[str, object]:
        """Return the content of the record's line."""
        return {"record": self.view, "schema": SCHEMA, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class ViewColumn:
    """A column of a view: its name and type in SQL, and what it holds."""

    name: str
    kind: str
    text: str


def record_key(*parts: object) -> str:
    """Return the key of a cell from everything that determines its answer.

    Example:
        >>> len(record_key("attack", 4)), record_key("attack", 4) == record_key("attack", 8)
        (24, False)
    """
    return hashlib.sha256(json.dumps([PROTOCOL, *parts], default=str).encode()).hexdigest()[:24]


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return what has a key in common together, in order of appearance.

    Example:
        >>> grouped([1, 2, 3], lambda number: number % 2)
        {1: [1, 3], 0: [2]}
    """
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def on_common_images(records: Sequence[Kind]) -> list[Kind]:
    """Return the records of images that every model has some of, so that means compare; all where there are none."""
    models = grouped(records, lambda one: one.model).values()
    images = [{(one.dataset, one.image) for one in own} for own in models]
    common = set.intersection(*images) if images else set()
    return [one for one in records if not common or (one.dataset, one.image) in common]


def read_record(content: Mapping[str, Any], kinds: Mapping[str, type[Record]]) -> Record:
    """Return the record that a line holds, of one of these kinds by their views.

    Raises:
        ValueError: it is no such record; the text says why, without the file.

    Example:
        >>> read_record({"record": "attacks", "schema": 1}, {"attacks": Record})
        Traceback (most recent call last):
        ValueError: schema: 1, where 2 is read
    """
    view, schema = content.get("record"), content.get("schema")
    if schema != SCHEMA or isinstance(schema, bool | float):
        raise ValueError(f"schema: {str(schema)[:40]}, where {SCHEMA} is read")
    if not isinstance(view, str) or view not in kinds:
        raise ValueError(f"record: {str(view)[:40]}, where one of {', '.join(kinds)} is read")
    fields = {name: value for name, value in content.items() if name not in ("record", "schema")}
    # A file name that is no valid text holds lone surrogates, which Python's JSON keeps and no other takes.
    odd = {name: value for name, value in fields.items() if isinstance(value, str) and _SURROGATE.search(value)}
    try:
        # Through JSON, where a list may stand for a tuple, however strict the types are.
        record = _reader(kinds[view]).validate_json(json.dumps(fields | dict.fromkeys(odd, "")))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg'].lower()}" if place else first["msg"]) from None
    # What is of any type was not looked at.
    json.dumps(fields, allow_nan=False)
    return dataclasses.replace(record, **odd) if odd else record


def plain_record(fields: bytes, kind: type[Kind]) -> Kind | None:
    """Return the record of these fields in JSON; None where they are none, see ``read_record``."""
    try:
        return _reader(kind).validate_json(fields)
    except pydantic.ValidationError:
        return None


@functools.cache
def _reader(kind: type[Record]) -> Any:
    # Milliseconds to make, where a line takes microseconds.
    return pydantic.TypeAdapter(kind)


def columns(kind: type[Record]) -> list[ViewColumn]:
    """Return the columns of the view of one kind of record, as its docstring has them.

    Example:
        >>> columns(Record)[1]
        ViewColumn(name='model', kind='VARCHAR', text='name of what was judged, with the defences around it.')
    """
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = (base.__doc__ or "").partition("Attributes:")[2]
        for names, text in re.findall(r"^ {8}([\w, ]+): (.+(?:\n {9,}.+)*)", section, re.M):
            texts |= {name: " ".join(text.split()).replace("``", "`") for name in names.split(", ")}
    hints = typing.get_type_hints(kind)
    return [ViewColumn(field.name, _sql(hints[field.name]), texts[field.name]) for field in dataclasses.fields(kind)]


def _sql(hint: Any) -> str:
    several = typing.get_origin(hint) in (types.UnionType, typing.Union)
    alternatives = typing.get_args(hint) if several else (hint,)
    return next((_SQL[kind] for kind in alternatives if kind in _SQL), "JSON")
