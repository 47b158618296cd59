"""Options of attacks and objectives: the fields of their dataclasses, checked by their own annotations."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import pydantic

from resolute.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# What is larger would not end, and is no number of a record either.
Count = Annotated[int, pydantic.Field(ge=1, le=10**9)]
Share = Annotated[float, pydantic.Field(gt=0, le=1)]
Validator = Callable[[object], object]


def check_fields(config: DataclassInstance) -> None:
    """Refuse numbers and words of a dataclass that its annotations do not allow; for ``__post_init__``.

    Looked at are fields of numbers, texts, truth values, ``Literal`` and tuples of these, with the bounds that
    ``Annotated`` gives them. What says the same in another type, such as ``"500"``, becomes that type.

    Raises:
        ConfigError: a value is of a wrong type or out of range; ``key`` names the field.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Search:
        ...     queries: Count = 500
        ...     def __post_init__(self) -> None:
        ...         check_fields(self)
        >>> Search(queries="40")
        Search(queries=40)
        >>> Search(queries=0)
        Traceback (most recent call last):
        ...
        resolute.errors.ConfigError: queries: input should be greater than or equal to 1, not 0
    """
    for name, validate in _validators(type(config)).items():
        object.__setattr__(config, name, _checked(validate, name, getattr(config, name)))


def check_value(hint: object, name: str, value: object) -> object:
    """Return the value of an option as ``check_fields`` would set it; a text with commas can stand for a tuple.

    Raises:
        ConfigError: as ``check_fields``.

    Example:
        >>> check_value(tuple[str, ...], "layers", "head,body")
        ('head', 'body')
    """
    if not _is_plain(hint):
        return value
    if isinstance(value, str) and get_origin(hint) is tuple:
        value = value.split(",")
    return _checked(_validator(hint), name, value)


class EqualByRepr:
    """Base of what holds tensors and is what its ``repr`` says, so that records know one from another."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


@functools.cache
def field_types(kind: type) -> dict[str, object]:
    """Return the annotations of a dataclass by the names of its fields; none for other classes."""
    if not dataclasses.is_dataclass(kind):
        return {}
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def optional(hint: object) -> object:
    """Return what an annotation says besides ``| None``."""
    if get_origin(hint) in (Union, UnionType):
        some = [one for one in cast("tuple[object, ...]", get_args(hint)) if one is not NoneType]
        return some[0] if len(some) == 1 else hint
    return hint


@functools.cache
def _validators(kind: type) -> dict[str, Validator]:
    return {name: _validator(hint) for name, hint in field_types(kind).items() if _is_plain(hint)}


def _validator(hint: object) -> Validator:
    adapter: pydantic.TypeAdapter[object] = pydantic.TypeAdapter(cast("Any", hint))
    return adapter.validate_python


def _checked(validate: Validator, name: str, value: object) -> object:
    try:
        return validate(value)
    except pydantic.ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{message[0].lower()}{message[1:]}, not {value!r}", (name,)) from None


def _is_plain(hint: object) -> bool:
    origin = get_origin(hint)
    if origin is Literal or hint is Ellipsis:
        return True
    if origin is Annotated:
        return _is_plain(get_args(hint)[0])
    if origin in (Union, UnionType, tuple, list):
        return all(map(_is_plain, get_args(hint)))
    return hint is None or (isinstance(hint, type) and hint in (int, float, str, bool, NoneType))
