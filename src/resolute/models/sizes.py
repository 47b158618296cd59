"""Which sizes of image a network takes, found out by trying."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

# Sizes that networks ask for: multiples of these, by windows, shuffles and halvings; and least sides, all of them
# smaller than the sample's width, so that a multiple is not taken for one.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 7, 12, 24, 48, 128)
_LEAST = (1, 16, 32)


@final
@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sides that are a multiple of something, and not below a least one.

    Example:
        >>> Sizes(multiple=8).lacks(13, 64), Sizes(least=16).lacks(13, 64)
        ((3, 0), (3, 0))
    """

    multiple: int = 1
    least: int = 1

    def lacks(self, width: int, height: int) -> tuple[int, int]:
        """Return how much a width and a height lack of sides that are taken."""
        wanted = [-(-max(side, self.least) // self.multiple) * self.multiple for side in (width, height)]
        return wanted[0] - width, wanted[1] - height


def find_sizes(image: Float[Tensor, "1 c h w"], misfit: Callable[[Tensor], str]) -> tuple[Sizes, str]:
    """Return the first sizes that a network takes, and why it takes none where it does not.

    Args:
        image: a sample, of a small odd height and a width that is above a power of two by one.
        misfit: tries the network on images, and returns what is wrong with its output; empty if nothing is.
    """
    tried: dict[tuple[int, ...], str] = {}
    for multiple in _MULTIPLES:
        for least in _LEAST:
            sizes = Sizes(multiple, least)
            images = pad(image, *sizes.lacks(image.shape[-1], image.shape[-2]))
            size = tuple(images.shape)
            if size in tried:
                continue
            tried[size] = misfit(images)
            if not tried[size]:
                return sizes, ""
    # On the largest sample it is neither the size nor a multiple that the network lacks.
    return Sizes(), tried[max(tried)]


def upscaled_by(y: Tensor, x: Float[Tensor, "b c h w"]) -> int:
    """Return by how much a tensor is larger than the images that it came from; 0 if it is no such images.

    Example:
        >>> import torch
        >>> x = torch.rand(1, 3, 4, 5)
        >>> upscaled_by(torch.rand(1, 3, 8, 10), x), upscaled_by(torch.rand(1, 3, 8, 11), x)
        (2, 0)
    """
    height, width = x.shape[-2:]
    if y.device != x.device or y.ndim != 4 or y.shape[:2] != x.shape[:2] or y.shape[2] % height:
        return 0
    scale = y.shape[2] // height
    return scale if y.shape[3] == scale * width else 0


def pad(x: Tensor, right: int, bottom: int) -> Tensor:
    """Mirror images beyond their right and bottom edge, again and again where they are small.

    Example:
        >>> import torch
        >>> pad(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4, 0)
        tensor([[[[1., 2., 3., 2., 1., 2., 3.]]]])
    """
    while right > 0 or bottom > 0:
        height, width = x.shape[-2:]
        more = min(right, width - 1), min(bottom, height - 1)
        if more == (0, 0):
            return F.pad(x, (0, right, 0, bottom), mode="replicate")
        x = F.pad(x, (0, more[0], 0, more[1]), mode="reflect")
        right, bottom = right - more[0], bottom - more[1]
    return x
