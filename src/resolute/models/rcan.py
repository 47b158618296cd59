"""RCAN (Zhang et al., ECCV 2018): residual groups in a residual, with channel attention in every block."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

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
class ChannelAttention(nn.Module):
    """Multiply every channel by a weight in (0, 1) computed from the means of all channels (eqs. 7-11 of the paper)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv_du = nn.Sequential(conv1x1(channels, hidden), nn.ReLU(), conv1x1(hidden, channels), nn.Sigmoid())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


@final
class AttentionBlock(nn.Module):
    """``x + attention(conv(relu(conv(x))))``."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels), ChannelAttention(channels, reduction)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


@final
class ResidualGroup(nn.Module):
    """A row of attention blocks and a convolution, with a skip around them."""

    def __init__(self, blocks: int, channels: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(AttentionBlock(channels, reduction) for _ in range(blocks)), conv3x3(channels, channels)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


@final
class RCAN(MeanShifted):
    """RCAN for one scale; parameter names are those of the official release, so its checkpoints load strictly.

    The feature layer Φ is the tensor that enters the upsampler, after the long skip.

    Args:
        scale: 2, 3 or 4.
        groups: residual groups; 10 as published.
        blocks: attention blocks in a group; 20 as published.
        channels: width; 64 as published.
        reduction: how many times narrower the inside of an attention is, a divisor of ``channels``; 16 as published.
        upsampler: ``staged``, as published, or ``direct``; see ``EDSR``.
        peak: what white is to the network: 255 as published, or 1.

    Example:
        >>> import torch
        >>> model = RCAN(scale=2, groups=2, blocks=3, channels=16, reduction=4, upsampler="direct")
        >>> model(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 16, 12])
    """

    feature_layer = "long_skip"

    def __init__(
        self,
        scale: int = 4,
        groups: int = 10,
        blocks: int = 20,
        channels: int = 64,
        reduction: int = 16,
        upsampler: Upsampler = "staged",
        peak: float = 255.0,
    ) -> None:
        if reduction < 1 or channels % reduction:
            raise ValueError(f"the reduction of RCAN divides its {channels} channels; {reduction} does not")
        sizes = {"groups": groups, "blocks": blocks, "channels": channels, "reduction": reduction}
        super().__init__(scale, peak, {**sizes, "upsampler": upsampler})
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.Sequential(
            *(ResidualGroup(blocks, channels, reduction) for _ in range(groups)), conv3x3(channels, channels)
        )
        self.long_skip = nn.Identity()
        self.tail = nn.Sequential(*upsampling(scale, channels, upsampler))

    def extract(self, shifted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(shifted)
        return self.long_skip(self.body(shallow) + shallow)

    def enlarge(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.tail(phi)


def _read(state: Weights) -> tuple[Arguments, Weights]:
    channels = state["head.0.weight"].shape[0]
    arguments: Arguments = {
        "groups": count(state, r"body\.\d+\.body\.0\.body\.0\.weight"),
        "blocks": count(state, r"body\.0\.body\.\d+\.body\.0\.weight"),
        "channels": channels,
        "reduction": channels // state["body.0.body.0.body.3.conv_du.0.weight"].shape[0],
        "peak": read_peak(state),
        **read_upsampling(state, channels, first="tail.0.0", second="tail.0.2", last="tail.1"),
    }
    return arguments, state


ARCHITECTURE = Architecture(
    name="rcan",
    network=RCAN,
    detects=holds("head.0.weight", "body.0.body.0.body.3.conv_du.0.weight", "tail.0.0.weight"),
    read=_read,
    first_layer="head",
)
