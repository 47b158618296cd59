"""The discriminator of SRGAN (Ledig et al., CVPR 2017), which training alone needs."""

from __future__ import annotations

import math
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

# Width of every convolution, as a multiple of the first one's, and its stride (figure 4 of the paper).
_LAYERS = ((1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2))


@final
class Discriminator(nn.Module):
    """Tell photographs from super-resolved images: a row of convolutions that halve the image four times.

    Returned is a logit, which the sigmoid of the paper turns into the probability that the image is a photograph. The
    network sees [-1, 1] inside, as SRResNet's output. Batch normalisation makes it depend on the batch in training.

    Args:
        size: side of the images in pixels; 96 in the paper.
        channels: width of the first convolution; 64 in the paper.
        hidden: units between the convolutions and the logit; 1024 in the paper.
        bias: whether the convolutions before a batch normalisation have a bias.

    Raises:
        ValueError: an argument below one; when called, images of another size.

    Example:
        >>> import torch
        >>> sum(p.numel() for p in Discriminator().parameters())
        23565505
        >>> Discriminator(size=32, channels=4, hidden=16)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    def __init__(self, size: int = 96, channels: int = 64, hidden: int = 1024, bias: bool = True) -> None:
        if min(size, channels, hidden) < 1:
            raise ValueError(f"size, channels and hidden units are one or more, not {size}, {channels} and {hidden}")
        super().__init__()
        self.size = size
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        inputs = channels
        for factor, stride in _LAYERS:
            outputs = factor * channels
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
            inputs = outputs
        self.body = nn.Sequential(*layers)
        # A stride of two rounds half a side up.
        side = math.ceil(size / 16)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs * side**2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        height, width = x.shape[-2:]
        if (height, width) != (self.size, self.size):
            raise ValueError(f"this discriminator takes {self.size} x {self.size} pixels, not {width} x {height}")
        return self.head(self.body(2.0 * x - 1.0)).squeeze(1)
