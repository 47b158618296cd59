"""How far a model looks: the part of the image that one output pixel depends on, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Maps = Float[Tensor, "b c h w"]
Part = Callable[[Maps], Maps]

# Strided networks look equally far from all pixels of a block of this many; no network here strides further.
BLOCK = 16

_DRAWS = 4


def receptive_radius(part: Part, channels: int = 3, *, largest: int = 256, like: Tensor | None = None) -> int | None:
    """Return how many pixels beyond a block of 16 x 16 its outputs depend on; None where that is more than ``largest``.

    A NaN goes wherever a value can go, also through units that are zero on the images at hand: the radius holds for
    every image, and is exact for convolutions. Where NaNs seem to go everywhere, as they do through the zeros of a
    dense matrix, the gradient on random images decides. Global pooling and attention have no radius.

    Args:
        part: a model in evaluation mode, or a part of one, as ``model.features``.
        channels: of its input.
        largest: where to give up.
        like: a tensor whose type and device the input is to have.

    Example:
        >>> convolution = torch.nn.Conv2d(3, 1, kernel_size=7, padding=3)
        >>> receptive_radius(convolution), receptive_radius(lambda x: x * x.mean())
        (3, None)
    """
    template = torch.empty(0) if like is None else like.detach()
    reaches = [reach for reach in (4 * BLOCK, largest) if reach <= largest]
    for reach in reaches:
        for spread in (_nan_spread, _gradient_spread):
            # Strips instead of squares: the cost grows with the length only.
            radius = max(spread(part, channels, reach, template, upright) for upright in (False, True))
            if radius < reach:
                return radius
    return None


def _nan_spread(part: Part, channels: int, reach: int, like: Tensor, upright: bool) -> int:
    x = _strip(channels, reach, 1, upright).to(like)
    _block(x, reach, 1, upright).fill_(torch.nan)
    with torch.no_grad():
        y = part(x)
    return _farthest(y.isnan(), reach, y.shape[-2 + (not upright)] // x.shape[-2 + (not upright)], upright)


def _gradient_spread(part: Part, channels: int, reach: int, like: Tensor, upright: bool) -> int:
    x = _strip(channels, reach, _DRAWS, upright).to(like).requires_grad_()
    with torch.enable_grad():
        y = part(x)
        block = _block(y, reach, y.shape[-1] // x.shape[-1], upright)
        weights = torch.randn(block.shape, generator=torch.Generator().manual_seed(1)).to(block)
        (gradient,) = torch.autograd.grad((block * weights).sum(), x)
    return _farthest(gradient != 0, reach, 1, upright)


def _strip(channels: int, reach: int, count: int, upright: bool) -> Tensor:
    long = 2 * reach + BLOCK
    size = (long, BLOCK) if upright else (BLOCK, long)
    return torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))


def _block(x: Tensor, reach: int, ratio: int, upright: bool) -> Tensor:
    """Return the middle block of a strip that is ``ratio`` times as large as the input."""
    return x.narrow(-2 if upright else -1, reach * ratio, BLOCK * ratio)


def _farthest(touched: Bool[Tensor, "b c h w"], reach: int, ratio: int, upright: bool) -> int:
    """Return the distance in input pixels between the middle block and the farthest place touched."""
    along = touched.flatten(0, 1).any(dim=0).any(dim=1 if upright else 0).nonzero().flatten().tolist()
    if not along:
        return 0
    first, last = along[0] // ratio, along[-1] // ratio
    return max(reach - first, last - (reach + BLOCK - 1), 0)
