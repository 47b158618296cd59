"""The blocks that networks for phones are made of: the inverted residuals of Sandler et al., CVPR 2018."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Expansion, channels, repeats, stride and kernel size of a group of blocks.
Group = tuple[int, int, int, int, int]


@final
class PaddedConv(nn.Module):
    """A convolution with bias, padded as Keras and TensorFlow do, and ReLU6 unless it is a linear bottleneck.

    They pad what a stride needs and no more, the odd pixel on the right and at the bottom.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups)
        self.relu = relu

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        conv = self.conv
        if conv.stride[0] == 1:
            x = conv(x)
        else:
            # A row and a column of zeros before the kernel move it as no zeros before the maps would, which are larger.
            before = [1 - length % 2 for length in x.shape[-2:]]
            kernel = F.pad(conv.weight, (before[1], 0, before[0], 0))
            x = F.conv2d(x, kernel, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        # In place: maps of the first blocks are larger than a cache.
        return F.relu6(x, inplace=True) if self.relu else x


@final
class Bottleneck(nn.Module):
    """Expand, filter each channel, project; with a skip where input and output have one shape."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, size: int = 3) -> None:
        super().__init__()
        width = inputs * expansion
        expand = [PaddedConv(inputs, width)] if expansion > 1 else []
        depthwise = PaddedConv(width, width, size=size, stride=stride, groups=width)
        self.c = nn.Sequential(*expand, depthwise, PaddedConv(width, outputs, relu=False))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        return x + self.c(x) if self.skip else self.c(x)


def bottlenecks(channels: int, groups: Sequence[Group]) -> nn.ModuleList:
    """Return the blocks of all groups in a row, of which the first of each has its stride.

    Example:
        >>> len(bottlenecks(32, [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3)]))
        3
    """
    blocks = nn.ModuleList()
    for expansion, outputs, repeats, stride, size in groups:
        for i in range(repeats):
            blocks.append(Bottleneck(channels, outputs, expansion, stride if i == 0 else 1, size))
            channels = outputs
    return blocks
