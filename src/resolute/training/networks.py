"""Which super-resolution network a recipe trains: one table an architecture."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic.dataclasses import dataclass

from resolute.models.base import Restorer
from resolute.models.blocks import Upsampler
from resolute.models.carn import CARN
from resolute.models.edsr import EDSR
from resolute.models.msrn import MSRN
from resolute.models.rcan import RCAN
from resolute.models.srresnet import SRResNet
from resolute.training.tables import STRICT

Scale = Literal[2, 3, 4]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EDSRTable:
    """EDSR; see there for all but the architecture's name."""

    architecture: Literal["edsr"] = "edsr"
    scale: Scale = 4
    blocks: int = 16
    channels: int = 64
    upsampler: Upsampler = "staged"

    def build(self) -> Restorer:
        """Return the untrained network."""
        return EDSR(self.scale, self.blocks, self.channels, self.upsampler)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SRResNetTable:
    """SRResNet, and the generator of SRGAN; see ``SRResNet``."""

    architecture: Literal["srresnet"] = "srresnet"
    scale: Scale = 4
    blocks: int = 16
    channels: int = 64

    def build(self) -> Restorer:
        """Return the untrained network."""
        return SRResNet(self.scale, self.blocks, self.channels)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RCANTable:
    """RCAN; see there."""

    architecture: Literal["rcan"] = "rcan"
    scale: Scale = 4
    groups: int = 10
    blocks: int = 20
    channels: int = 64
    reduction: int = 16
    upsampler: Upsampler = "staged"

    def build(self) -> Restorer:
        """Return the untrained network."""
        return RCAN(self.scale, self.groups, self.blocks, self.channels, self.reduction, self.upsampler)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MSRNTable:
    """MSRN; see there."""

    architecture: Literal["msrn"] = "msrn"
    scale: Scale = 4
    blocks: int = 8
    channels: int = 64
    upsampler: Upsampler = "staged"

    def build(self) -> Restorer:
        """Return the untrained network."""
        return MSRN(self.scale, self.blocks, self.channels, self.upsampler)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CARNTable:
    """CARN for one scale, and with groups CARN-M; see ``CARN``.

    White is 255 to it, as to the other networks, since δ of eq. 12 is in units of Φ and the paper has one δ for all.
    """

    architecture: Literal["carn"] = "carn"
    scale: Scale = 4
    channels: int = 64
    group: int = 1
    upsampler: Upsampler = "staged"
    peak: Literal[1, 255] = 255

    def build(self) -> Restorer:
        """Return the untrained network."""
        return CARN(self.scale, self.channels, self.group, self.upsampler, float(self.peak))


def _architecture(table: object) -> object:
    # Recipes without a word on it train EDSR, the first network here.
    if isinstance(table, dict):
        return table.get("architecture", "edsr")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return getattr(table, "architecture", None)


ModelTable = Annotated[
    Annotated[EDSRTable, pydantic.Tag("edsr")]
    | Annotated[SRResNetTable, pydantic.Tag("srresnet")]
    | Annotated[RCANTable, pydantic.Tag("rcan")]
    | Annotated[MSRNTable, pydantic.Tag("msrn")]
    | Annotated[CARNTable, pydantic.Tag("carn")],
    pydantic.Discriminator(_architecture),
]

# The layer after which "first" puts the regulariser (section 5.4 of the paper): the network's first convolution.
FIRST_LAYERS = {"edsr": "head", "srresnet": "first", "rcan": "head", "msrn": "head", "carn": "entry"}
