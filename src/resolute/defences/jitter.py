"""Noise on the input while training, towards the clean original: the plainest way to smooth a model."""

from __future__ import annotations

from typing import Literal, final

import pydantic
import torch
from pydantic.dataclasses import dataclass
from torch import nn

from resolute.defences.method import STRICT, InputMethod, Moment, Seen


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Jitter(InputMethod):
    """Noise on every input.

    Attributes:
        level: standard deviation of Gaussian noise, or the largest change by uniform noise, in levels of 255.
        kind: ``gaussian`` or ``uniform``.
        ramp: share of the training over which ``level`` rises from 0.

    Example:
        >>> low = torch.full((1, 3, 50, 50), 0.5)
        >>> moment = Moment(torch.Generator().manual_seed(0))
        >>> seen = Jitter(level=8).inputs(nn.Identity(), Seen.of(low, low), moment)
        >>> round(float((seen.low - low).std()) * 255), torch.equal(seen.high, low)
        (8, True)
    """

    level: float = pydantic.Field(default=4.0, gt=0, le=255)
    kind: Literal["gaussian", "uniform"] = "gaussian"
    ramp: float = pydantic.Field(default=0.0, ge=0, le=1)

    def inputs(self, model: nn.Module, seen: Seen, moment: Moment) -> Seen:
        if self.kind == "gaussian":
            noise = torch.randn(seen.low.shape, generator=moment.generator, device=seen.low.device)
        else:
            noise = torch.rand(seen.low.shape, generator=moment.generator, device=seen.low.device) * 2 - 1
        return Seen(seen.low + self.level / 255 * moment.risen(self.ramp) * noise, seen.high, seen.clean)
