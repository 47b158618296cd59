"""Defences at equal quality: the strength at which a defence costs a given clean PSNR."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import ConfigError
from resolute.measure.fidelity import psnr_y
from resolute.models.base import Restorer

Pair = tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 3 sh sw"]]

_BISECTIONS = 30


def match_clean_psnr(
    build: Callable[[float], Restorer],
    images: Sequence[Pair],
    target: float,
    low: float,
    high: float,
    tolerance: float = 0.005,
) -> float:
    """Return the strength of a defence whose mean clean PSNR is ``target``, by bisection between ``low`` and ``high``.

    Two defences that gain robustness for quality can only be compared at the same quality.

    Args:
        build: makes the defended model of a strength; its clean PSNR rises or falls all the way with the strength.
        images: pairs of a low-resolution image and its ground truth.
        target: PSNR on Y with ``scale`` pixels shaved, in dB, a mean over the images.
        low: strength at one end of where to look.
        high: strength at the other.
        tolerance: how near to the target is near enough, in dB.

    Raises:
        ConfigError: no images, or the target is not between the PSNR at ``low`` and that at ``high``.

    Example:
        >>> from resolute.defences import OutputBlur
        >>> from resolute.models import Bicubic
        >>> truth = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> pairs = [(truth[..., ::2, ::2], truth)]
        >>> psnr = clean_psnr(OutputBlur(Bicubic(2), 0.5), pairs)
        >>> round(match_clean_psnr(lambda sigma: OutputBlur(Bicubic(2), sigma), pairs, psnr, 0.0, 1.0), 1)
        0.5
    """
    if not images:
        raise ConfigError("there are no images to measure the clean PSNR on; give at least one")
    at_low, at_high = (clean_psnr(build(strength), images) for strength in (low, high))
    for strength, found in ((low, at_low), (high, at_high)):
        if abs(found - target) <= tolerance:
            return strength
    if not min(at_low, at_high) < target < max(at_low, at_high):
        raise ConfigError(
            f"no strength from {low:g} to {high:g} has a clean PSNR of {target:.2f} dB: there it runs from "
            f"{at_low:.2f} to {at_high:.2f} dB; choose a target between, or a wider range"
        )
    rising = at_high > at_low
    middle = (low + high) / 2
    for _ in range(_BISECTIONS):
        found = clean_psnr(build(middle), images)
        if abs(found - target) <= tolerance:
            break
        low, high = (middle, high) if (found < target) == rising else (low, middle)
        middle = (low + high) / 2
    return middle


def clean_psnr(model: nn.Module, images: Sequence[Pair]) -> float:
    """Return the mean PSNR of the outputs against the ground truth, on Y with ``scale`` pixels shaved, in dB."""
    values: list[float] = []
    with torch.no_grad():
        for low, truth in images:
            found = float(psnr_y(model(low), truth, border=truth.shape[-1] // low.shape[-1]))
            # Flat images can come out equal, and one of them must not make the mean infinite.
            values.append(min(found, 100.0))
    return sum(values) / len(values)
