"""Which network a recipe trains: for every architecture a table, made of the signature of its constructor."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast

import pydantic
import pydantic.dataclasses

from resolute.errors import ConfigError
from resolute.models.architecture import Architecture
from resolute.models.architectures import RESTORERS
from resolute.models.base import Restorer
from resolute.training.tables import STRICT


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkTable:
    """A network: the name of its architecture and, in the table that each has, all arguments of its constructor.

    Example:
        >>> UPSCALERS["edsr"](scale=2).build().arguments()["blocks"]
        16
    """

    architecture: str = ""

    def build(self) -> Restorer:
        """Return the untrained network; its weights are the caller's to seed.

        Raises:
            ConfigError: the constructor refuses the arguments, which have the right types each, together.
        """
        arguments = dict(vars(self))
        architecture = arguments.pop("architecture")
        try:
            return _NAMED[architecture].network(**arguments)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from None

    def first_layer(self) -> str:
        """Return the name of the layer that sees the image first."""
        return _NAMED[self.architecture].first_layer

    def __reduce__(self) -> tuple[Any, ...]:
        # The classes below are in no module, where an unpickler would look for them.
        return _again, (dict(vars(self)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UpscalerTable(NetworkTable):
    """A network of a super-resolution model."""

    scale: Literal[2, 3, 4] = 4


Table = TypeVar("Table", bound=NetworkTable)


def _table(architecture: Architecture[Restorer], base: type[Table]) -> type[Table]:
    hints = typing.get_type_hints(cast("Any", architecture.network).__init__)
    kinds: dict[str, Any] = {"architecture": Literal[architecture.name]}
    defaults: dict[str, Any] = {"architecture": architecture.name}
    for name, parameter in inspect.signature(architecture.network).parameters.items():
        if name != "scale":
            kinds[name], defaults[name] = hints[name], parameter.default
    made = type(f"{architecture.title}Table", (base,), {"__annotations__": kinds, "__module__": __name__, **defaults})
    return cast("type[Table]", pydantic.dataclasses.dataclass(made, frozen=True, kw_only=True, config=STRICT))


def _again(arguments: dict[str, Any]) -> NetworkTable:
    return {**UPSCALERS, **DENOISERS}[arguments["architecture"]](**arguments)


def _one_of(tables: dict[str, type[Table]]) -> Any:
    """Return the type of an entry that is one of these tables, the first where it does not say which."""

    def named(table: object) -> object:
        if isinstance(table, dict):
            return cast("dict[str, object]", table).get("architecture", next(iter(tables)))
        return getattr(table, "architecture", None)

    tagged = tuple(Annotated[table, pydantic.Tag(name)] for name, table in tables.items())
    return Annotated[Union[tagged], pydantic.Discriminator(named)]  # noqa: UP007, of as many as there are


_NAMED = {architecture.name: architecture for architecture in RESTORERS}
UPSCALERS = {name: _table(one, UpscalerTable) for name, one in _NAMED.items() if one.takes("scale")}
DENOISERS = {name: _table(one, NetworkTable) for name, one in _NAMED.items() if not one.takes("scale")}

if TYPE_CHECKING:
    AnyUpscaler = UpscalerTable
    AnyDenoiser = NetworkTable
else:
    AnyUpscaler = _one_of(UPSCALERS)
    AnyDenoiser = _one_of(DENOISERS)
