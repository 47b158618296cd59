"""Facts about published networks that no record holds: their names, families, sources and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import final

import pydantic
from pydantic.dataclasses import dataclass

from resolute.errors import ConfigError
from resolute.toml import check_table, read_table

_STRICT = pydantic.ConfigDict(extra="forbid")


@final
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Network:
    """One network.

    Attributes:
        id: of its folder of records.
        name: as its authors write it.
        family: of architectures that it belongs to, in a few words.
        year: of publication.
        source: where code and weights are, with https; empty for those that come with Resolute.
        licence: as the source states it.
        address: of the model, relative to a clone of the source.
        parameters: number of weights.
        normalises: features are divided by a norm or spread of theirs.
        attention: features are gated by others.
        reparametrised: branches of training are merged in the weights.
        reference: why it stands in the table without a rank; empty for a rank.
    """

    id: str = pydantic.Field(min_length=1)
    name: str = pydantic.Field(min_length=1)
    family: str = pydantic.Field(min_length=1)
    year: int = pydantic.Field(ge=2000, le=2100)
    source: str = pydantic.Field(default="", pattern=r"^(https://[^\s\"'<>]+)?$")
    licence: str
    address: str = pydantic.Field(pattern=r"^[^/]")
    parameters: int = pydantic.Field(ge=0)
    normalises: bool
    attention: bool
    reparametrised: bool
    reference: str = ""

    @property
    def title(self) -> str:
        """Name and year, which tell networks of equal names apart as far as readers need."""
        return f"{self.name} ({self.year})"


@final
@dataclass(frozen=True, config=_STRICT)
class _File:
    networks: tuple[Network, ...] = pydantic.Field(min_length=1)


def read_networks(path: Path) -> dict[str, Network]:
    """Read networks, by their ids.

    Raises:
        ConfigError: the file cannot be read or breaks the format, or two networks share an id.
    """
    try:
        found = check_table(path, read_table(path), _File).networks
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    networks = {network.id: network for network in found}
    if len(networks) < len(found):
        twice = next(one.id for place, one in enumerate(found) if one.id in {other.id for other in found[:place]})
        raise ConfigError(f"{path.name}: two networks have the id {twice}; give one of them another")
    return networks
