"""RCAN (Zhang et al., ECCV 2018): residual groups in a residual, with channel attention in every block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import Restorer
from resolute.models.blocks import (
    MeanShift,
    Upsampler,
    conv1x1,
    conv3x3,
    read_peak,
    read_upsampling,
    require_peak,
    require_scale,
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
class RCAN(Restorer):
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
        require_scale("RCAN", scale)
        require_peak("RCAN", peak)
        if reduction < 1 or channels % reduction:
            raise ValueError(f"the reduction of RCAN divides its {channels} channels; {reduction} does not")
        super().__init__(scale)
        self._arguments: dict[str, object] = {
            "scale": scale,
            "groups": groups,
            "blocks": blocks,
            "channels": channels,
            "reduction": reduction,
            "upsampler": upsampler,
        }
        if peak != 255.0:
            self._arguments["peak"] = peak
        self.peak = peak
        self.sub_mean = MeanShift(-1, peak)
        self.add_mean = MeanShift(+1, peak)
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.Sequential(
            *(ResidualGroup(blocks, channels, reduction) for _ in range(groups)), conv3x3(channels, channels)
        )
        self.long_skip = nn.Identity()
        self.tail = nn.Sequential(*upsampling(scale, channels, upsampler))

    @staticmethod
    def detects(state: Mapping[str, Tensor]) -> bool:
        """Tell whether ``state`` has the layout of the official RCAN release."""
        return {"head.0.weight", "body.0.body.0.body.3.conv_du.0.weight", "tail.0.0.weight"} <= state.keys()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> RCAN:
        """Build the network that ``state`` belongs to, its arguments read from names and shapes, and load it strictly.

        Raises:
            RuntimeError: missing or surplus keys, or shapes that do not fit together.
            ValueError: the shapes belong to no scale of 2, 3 or 4, or to no reduction.
        """
        channels = state["head.0.weight"].shape[0]
        groups = sum(1 for name in state if re.fullmatch(r"body\.\d+\.body\.0\.body\.0\.weight", name))
        blocks = sum(1 for name in state if re.fullmatch(r"body\.0\.body\.\d+\.body\.0\.weight", name))
        reduction = channels // state["body.0.body.0.body.3.conv_du.0.weight"].shape[0]
        scale, upsampler = read_upsampling(state, channels, first="tail.0.0", second="tail.0.2", last="tail.1")
        model = cls(scale, groups, blocks, channels, reduction, upsampler, read_peak(state))
        model.load_state_dict(dict(state), strict=True)
        return model

    def arguments(self) -> dict[str, object]:
        return {"class": "RCAN", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(self.sub_mean(x * self.peak))
        return self.long_skip(self.body(shallow) + shallow)

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.add_mean(self.tail(phi)) / self.peak
