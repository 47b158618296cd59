"""Noise on the input while training, towards the clean original: the plainest way to smooth a model.

A model that is to be smoothed, so that its output is the mean over noisy copies, needs another loss: that of the mean
itself. With N copies the mean square of each is that of the mean and the variance between them, of which N estimate the
latter without bias.
"""

from __future__ import annotations

from typing import Literal, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resolute.defences.method import STRICT, Distance, High, InputMethod, Moment, OutputMethod, Seen


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Jitter(InputMethod, OutputMethod):
    """Noise on every input.

    Attributes:
        level: standard deviation of Gaussian noise, or the largest change by uniform noise, in levels of 255.
        kind: ``gaussian`` or ``uniform``.
        ramp: share of the training over which ``level`` rises from 0.
        copies: of every patch, each with noise of its own.
        spared: share of the variance between the copies' outputs that is taken off the loss, a mean square: with 1 it
            is the loss of the mean over all noise, and nothing keeps single outputs near it.

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
    copies: int = pydantic.Field(default=1, ge=1)
    spared: float = pydantic.Field(default=0.0, ge=0, le=1)

    def inputs(self, model: nn.Module, seen: Seen, moment: Moment) -> Seen:
        if self.copies > 1:
            low, high = (images.repeat(self.copies, 1, 1, 1) for images in (seen.low, seen.high))
            seen = Seen(low, high, seen.clean * self.copies)
        if self.kind == "gaussian":
            noise = torch.randn(seen.low.shape, generator=moment.generator, device=seen.low.device)
        else:
            noise = torch.rand(seen.low.shape, generator=moment.generator, device=seen.low.device) * 2 - 1
        return Seen(seen.low + self.level / 255 * moment.risen(self.ramp) * noise, seen.high, seen.clean)

    def judged(self, output: High, distance: Distance) -> Float[Tensor, ""]:
        mean = output.unflatten(0, (self.copies, -1)).mean(dim=0).repeat(self.copies, 1, 1, 1)
        return -self.spared * self.copies / max(self.copies - 1, 1) * distance(output, mean)
