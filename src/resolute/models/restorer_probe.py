"""Whether a loaded network upscales: its output for a sample against bicubic interpolation, and what would mend it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.images import from_uint8, sample_image, to_uint8
from resolute.models.address import write_range
from resolute.models.base import Restorer, device_of, frozen
from resolute.models.ranged import Ranged
from resolute.models.sizes import pad
from resolute.resize import downscale, upscale

# How far below bicubic a network may lie, in dB: generators of GANs lie 2 to 3 below.
MARGIN = 5.0

# By how much another range must be better where it is the right one. Published networks
# of [0, 255] are 3 to 12 dB worse on [0, 1], and lie below bicubic as no right one does but those of GANs.
BETTER = 1.5

# By how much blue, green, red must be better: the order makes a difference of up to 0.3 dB to networks trained on RGB
# photographs, and of 0.5 to one trained on RGB drawings.
ORDER = 0.7

SIDE = 28

_RANGES = ((1.0, 1.0), (255.0, 255.0), (1.0, 255.0), (255.0, 1.0))

Alternative = tuple[str, str, Restorer]


def doubt(
    model: Restorer,
    name: str,
    *,
    range: tuple[float, float],
    size: tuple[int, int] | None = None,
    others: Sequence[Alternative] = (),
) -> str:
    """Return why a network seems not to upscale, and what would mend it; empty if nothing speaks against it.

    Args:
        model: as loaded.
        name: what it is called.
        range: the one that it is run in.
        size: height and width of the only images that it takes; None for any.
        others: more to try where it does not upscale: what is said of it, what to do, and the model that does it.

    Example:
        >>> from resolute.models import load
        >>> doubt(load("edsr-xs"), "edsr-xs", range=(255.0, 255.0))
        ''
    """
    if model.scale == 1:
        return ""
    low, truth, bicubic = _sample(model.scale, size)
    low, truth = low.to(device_of(model)), truth.to(device_of(model))
    reached = _psnr(model, low, truth)
    swapped = Ranged(model, (model.peak, model.peak), bgr=True)
    order = (_psnr(swapped, low, truth), "the channels in the order blue, green, red", "#bgr behind its name")
    if reached >= bicubic and order[0] < reached + ORDER:
        return ""
    more = (*_alternatives(model, range), *others)
    tried = [(_psnr(other, low, truth), what, remedy) for what, remedy, other in more]
    best, what, remedy = max([*tried, order])
    garbage = reached < bicubic - MARGIN
    said = f"{reached:.1f} dB" if math.isfinite(reached) else "values that are not finite"
    text = f"on a sample it gives {said} where bicubic gives {bicubic:.1f}"
    text = f"{name} does not upscale: {text}" if garbage else f"{name} may not be run as it was trained: {text}"
    if best >= bicubic - MARGIN and best >= reached + (ORDER if what == order[1] else BETTER):
        return f"{text}; with {what} it gives {best:.1f}: add {remedy}"
    if not garbage:
        return ""
    return (
        f"{text}; no other range or order of channels mends that: check its scale, its options and whether weights and "
        "network belong together"
    )


def _alternatives(model: Restorer, range: tuple[float, float]) -> Iterator[Alternative]:
    for first, last in _RANGES:
        if (first, last) != range:
            text = write_range((first, last))
            # Relative to the range that the model is run in.
            other = Ranged(model, (model.peak * first / range[0], model.peak * last / range[1]))
            yield f"range {text}", f"--range {text} (or #range={text})", other


def _psnr(model: Restorer, low: Tensor, truth: Tensor) -> float:
    try:
        with torch.no_grad(), frozen(model):
            y = model(low)
    except Exception:  # Of a network that does not take all sizes, any.
        return -math.inf
    return _against(y, truth, model.scale) if y.isfinite().all() else -math.inf


def _sample(
    scale: int, size: tuple[int, int] | None
) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 3 sh sw"], float]:
    """Return a low-resolution image, the truth, and the PSNR of bicubic interpolation."""
    height, width = size or (SIDE, SIDE)
    photo = sample_image("chelsea")
    # The eyes, of four colours at least.
    large = photo[:, 60 : 60 + height * scale, 110 : 110 + width * scale].unsqueeze(0)
    large = pad(large, width * scale - large.shape[-1], height * scale - large.shape[-2])
    low = downscale(to_uint8(large[0]), scale)
    bicubic = from_uint8(upscale(low, scale)).unsqueeze(0)
    truth = from_uint8(to_uint8(large[0])).unsqueeze(0)
    return from_uint8(low).unsqueeze(0), truth, _against(bicubic, truth, scale)


def _against(y: Tensor, truth: Tensor, border: int) -> float:
    inner = (slice(None), slice(None), slice(border, -border), slice(border, -border))
    error = (y.float().clamp(0, 1)[inner] - truth[inner]).square().mean()
    return -10 * math.log10(max(float(error), 1e-12))
