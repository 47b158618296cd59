"""EDSR (Lim et al., CVPR Workshops 2017): the baseline as published and its small sibling ``edsr-s``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import Restorer

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)

Upsampler = Literal["staged", "direct"]


class MeanShift(nn.Conv2d):
    """Add ``sign * 255 * mean`` to the three channels, as the 1x1 convolution that official checkpoints contain.

    Frozen here; a checkpoint whose authors let these weights train overwrites them on loading.
    """

    def __init__(self, mean: tuple[float, float, float], sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            assert self.bias is not None
            self.bias.copy_(sign * 255.0 * torch.tensor(mean))
        self.requires_grad_(False)


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))``, without batch normalisation and with a residual scale of one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


class EDSR(Restorer):
    """EDSR for one scale; parameter names are those of the official release, so its checkpoints load strictly.

    The feature layer Φ is the tensor that enters the upsampler, after the long skip.

    Args:
        scale: 2, 3 or 4.
        blocks: residual blocks; 16 in the published baseline.
        channels: width; 64 in the published baseline.
        upsampler: ``staged``, the published sub-pixel convolutions at the network's width, one a prime factor, and a
            last 3x3 convolution; or ``direct``, one convolution to ``3 * scale**2`` channels and a pixel shuffle,
            several times cheaper on a CPU and used by ``edsr-s``.

    Example:
        >>> model = EDSR(scale=4)
        >>> sum(p.numel() for p in model.parameters())
        1517595
        >>> model(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 32, 24])
    """

    feature_layer = "long_skip"

    def __init__(self, scale: int = 4, blocks: int = 16, channels: int = 64, upsampler: Upsampler = "staged") -> None:
        if scale not in (2, 3, 4):
            raise ValueError(f"EDSR upscales by 2, 3 or 4, not {scale}")
        super().__init__(scale)
        self._arguments = {"scale": scale, "blocks": blocks, "channels": channels, "upsampler": upsampler}
        self.sub_mean = MeanShift(DIV2K_MEAN, -1)
        self.add_mean = MeanShift(DIV2K_MEAN, +1)
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)), conv3x3(channels, channels))
        self.long_skip = nn.Identity()
        if upsampler == "direct":
            self.tail = nn.Sequential(_shuffle_stages(channels, 3, (scale,)))
        else:
            factors = (2, 2) if scale == 4 else (scale,)
            self.tail = nn.Sequential(_shuffle_stages(channels, channels, factors), conv3x3(channels, 3))

    @staticmethod
    def detects(state: Mapping[str, Tensor]) -> bool:
        """Tell whether ``state`` has the layout of the official EDSR release."""
        return {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight"} <= state.keys()

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> EDSR:
        """Build the network that ``state`` belongs to, its arguments read from names and shapes, and load it strictly.

        Raises:
            RuntimeError: missing or surplus keys, or shapes that do not fit together.
            ValueError: the shapes belong to no scale of 2, 3 or 4.
        """
        channels = state["head.0.weight"].shape[0]
        blocks = sum(1 for name in state if re.fullmatch(r"body\.\d+\.body\.0\.weight", name))
        first = state["tail.0.0.weight"].shape[0]
        staged = "tail.1.weight" in state or any(name.startswith("tail.0.2.") for name in state)
        factor = math.isqrt(first // (channels if staged else 3))
        scale = factor**2 if "tail.0.2.weight" in state else factor
        model = cls(scale, blocks, channels, "staged" if staged else "direct")
        model.load_state_dict(dict(state), strict=True)
        return model

    def arguments(self) -> dict[str, object]:
        return {"class": "EDSR", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(self.sub_mean(x * 255.0))
        return self.long_skip(self.body(shallow) + shallow)

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.add_mean(self.tail(phi)) / 255.0


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution with bias that keeps the size of the image."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def _shuffle_stages(channels: int, outputs: int, factors: tuple[int, ...]) -> nn.Sequential:
    stages: list[nn.Module] = []
    for factor in factors:
        stages += [conv3x3(channels, outputs * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*stages)
