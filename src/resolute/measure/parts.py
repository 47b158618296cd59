"""What an output owes to its input: taken apart by the operator that shrinks.

Where A shrinks as MATLAB does, y is the input and x the output, ``x = A+ y + A+ (A x - y) + (I - A+ A) x`` with the
pseudo-inverse A+: what the input says, what contradicts it, and what it can neither confirm nor refute, since shrinking
that gives nothing. The first two lie in the row space of A, the last, at right angles to them, in its null space
(Schwab et al., Inverse Problems 2019; Bahat & Michaeli, CVPR 2020; null-space hallucination maps of Bhadra et al.,
IEEE TMI 2021).
"""

from __future__ import annotations

import dataclasses
from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.measure.fidelity import psnr_rgb
from resolute.resize import downscale_tensor, unshrink_tensor

Low = Float[Tensor, "b 3 h w"]
Large = Float[Tensor, "b 3 sh sw"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """An output in [0, 1] as the sum of three parts, ``(b, 3, sh, sw)`` each, in float64.

    Attributes:
        told: what the input says, the smallest image that shrinks to it.
        contradicted: what contradicts it.
        added: what it can neither confirm nor refute.
    """

    told: Large
    contradicted: Large
    added: Large

    def share_added(self) -> Float[Tensor, " b"]:
        """Return the share of the output's variance, in [0, 1], that the input can neither confirm nor refute."""
        seen = self.told + self.contradicted
        around = seen - seen.mean(dim=(-2, -1), keepdim=True)
        added = self.added.square().flatten(1).sum(dim=1)
        return added / (added + around.square().flatten(1).sum(dim=1)).clamp_min(1e-12)


def parts_of(output: Large, low: Low) -> Parts:
    """Take outputs in [0, 1], clamped there, apart by the inputs that they were made from.

    Example:
        >>> import torch
        >>> from resolute.resize import upscale_tensor
        >>> low = 0.4 + 0.2 * torch.rand(1, 3, 12, 12)
        >>> parts = parts_of(upscale_tensor(low, 4), low)  # bicubic interpolation, but for clamping, adds nothing
        >>> bool(parts.added.abs().max() < 1e-6), bool(rms(parts.contradicted) > 1)
        (True, True)
    """
    scale = output.shape[-1] // low.shape[-1]
    output, low = output.double().clamp(0, 1), low.double()
    shrunk = downscale_tensor(output, scale)
    return Parts(
        unshrink_tensor(low, scale), unshrink_tensor(shrunk - low, scale), output - unshrink_tensor(shrunk, scale)
    )


def consistency(output: Large, low: Low) -> Float[Tensor, " b"]:
    """Return how well outputs, clamped and shrunk as MATLAB does, fit their inputs: PSNR on RGB, in dB.

    Equal images give infinity.
    """
    return psnr_rgb(low, downscale_tensor(output.clamp(0, 1), output.shape[-1] // low.shape[-1]))


def rms(part: Large) -> Float[Tensor, " b"]:
    """Return the root mean square of parts of images in [0, 1], in levels of 255.

    Example:
        >>> import torch
        >>> round(rms(torch.full((1, 3, 2, 2), -4 / 255)).item(), 4)
        4.0
    """
    return part.double().square().flatten(1).mean(dim=1).sqrt() * 255
