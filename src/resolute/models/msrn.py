"""MSRN (Li et al., ECCV 2018): kernels of two sizes side by side, and the outputs of all blocks joined at the end."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.blocks import (
    MeanShifted,
    Upsampler,
    conv1x1,
    conv3x3,
    count,
    read_peak,
    read_upsampling,
    upsampling,
)


@final
class MultiScaleBlock(nn.Module):
    """Two rounds of a 3x3 beside a 5x5 convolution, each on the outputs of both, a 1x1 convolution, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_3_1 = conv3x3(channels, channels)
        self.conv_3_2 = conv3x3(2 * channels, 2 * channels)
        self.conv_5_1 = _conv5x5(channels)
        self.conv_5_2 = _conv5x5(2 * channels)
        self.confusion = conv1x1(4 * channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        first = torch.cat([F.relu(self.conv_3_1(x)), F.relu(self.conv_5_1(x))], dim=1)
        second = torch.cat([F.relu(self.conv_3_2(first)), F.relu(self.conv_5_2(first))], dim=1)
        return self.confusion(second) + x


@final
class MSRN(MeanShifted):
    """MSRN for one scale; parameter names are those of the official RGB release, so its checkpoints load strictly.

    The network of the paper works on luma alone; the authors' later release, on RGB, is the one in use. The feature
    layer Φ is the tensor that enters the upsampler, the output of ``tail.1``; there is no long skip.

    Args:
        scale: 2, 3 or 4.
        blocks: multi-scale blocks; 8 as published.
        channels: width; 64 as published.
        upsampler: ``staged``, as published, or ``direct``; see ``EDSR``.
        peak: what white is to the network: 255 as published, or 1.

    Example:
        >>> model = MSRN(scale=3, blocks=2, channels=8)
        >>> model(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 24, 18])
    """

    feature_layer = "tail.1"

    def __init__(
        self, scale: int = 4, blocks: int = 8, channels: int = 64, upsampler: Upsampler = "staged", peak: float = 255.0
    ) -> None:
        super().__init__(scale, peak, {"blocks": blocks, "channels": channels, "upsampler": upsampler})
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.ModuleList(MultiScaleBlock(channels) for _ in range(blocks))
        self.tail = nn.Sequential(
            conv1x1((blocks + 1) * channels, channels),
            conv3x3(channels, channels),
            *upsampling(scale, channels, upsampler),
        )

    def extract(self, shifted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = maps = self.head(shifted)
        outputs: list[Tensor] = []
        for block in self.body:
            maps = block(maps)
            outputs.append(maps)
        return self.tail[:2](torch.cat([*outputs, shallow], dim=1))

    def enlarge(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.tail[2:](phi)


def _conv5x5(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=5, padding=2)


_is_rgb = holds("head.0.weight", "body.0.confusion.weight", "tail.2.0.weight")
_is_luma = holds("conv_input.weight", "residual1.0.confusion.weight")


def _read(state: Weights) -> tuple[Arguments, Weights]:
    if _is_luma(state):
        raise ValueError("it is of the older release, on luma alone; take MSRN_x2, MSRN_x3 or MSRN_x4, on RGB")
    channels = state["head.0.weight"].shape[0]
    arguments: Arguments = {
        "blocks": count(state, r"body\.\d+\.confusion\.weight"),
        "channels": channels,
        "peak": read_peak(state),
        **read_upsampling(state, channels, first="tail.2.0", second="tail.2.2", last="tail.3"),
    }
    return arguments, state


ARCHITECTURE = Architecture(
    name="msrn", network=MSRN, detects=lambda state: _is_rgb(state) or _is_luma(state), read=_read, first_layer="head"
)
