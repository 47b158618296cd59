"""EDSR (Lim et al., CVPR Workshops 2017): the baseline and the large network as published, and the small ``edsr-s``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import Restorer
from resolute.models.blocks import (
    MeanShift,
    Upsampler,
    conv3x3,
    read_peak,
    read_upsampling,
    rename,
    require_peak,
    require_scale,
    upsampling,
)


@final
class ResidualBlock(nn.Module):
    """``x + res_scale * conv(relu(conv(x)))``, without batch normalisation."""

    def __init__(self, channels: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.body = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.add(x, self.body(x), alpha=self.res_scale)


@final
class EDSR(Restorer):
    """EDSR for one scale; parameter names are those of the official release, so its checkpoints load strictly.

    The feature layer Φ is the tensor that enters the upsampler, after the long skip. ``from_state_dict`` reads the
    names of BasicSR as well.

    Args:
        scale: 2, 3 or 4.
        blocks: residual blocks; 16 in the published baseline, 32 in the large network.
        channels: width; 64 in the published baseline, 256 in the large network.
        upsampler: ``staged``, the published sub-pixel convolutions at the network's width, one a prime factor, and a
            last 3x3 convolution; or ``direct``, one convolution to ``3 * scale**2`` channels and a pixel shuffle,
            several times cheaper on a CPU and used by ``edsr-s``.
        res_scale: what a block's convolutions are multiplied by before the skip; None for the published value, which is
            0.1 at the size of the large network and one otherwise.
        peak: what white is to the network: 255 as published, or 1.

    Example:
        >>> model = EDSR(scale=4)
        >>> sum(p.numel() for p in model.parameters())
        1517595
        >>> model(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 32, 24])
    """

    feature_layer = "long_skip"

    def __init__(
        self,
        scale: int = 4,
        blocks: int = 16,
        channels: int = 64,
        upsampler: Upsampler = "staged",
        res_scale: float | None = None,
        peak: float = 255.0,
    ) -> None:
        require_scale("EDSR", scale)
        require_peak("EDSR", peak)
        super().__init__(scale)
        self._arguments: dict[str, object] = {
            "scale": scale,
            "blocks": blocks,
            "channels": channels,
            "upsampler": upsampler,
        }
        published = 0.1 if (blocks, channels) == (32, 256) else 1.0
        if res_scale is None:
            res_scale = published
        elif res_scale != published:
            self._arguments["res_scale"] = res_scale
        if peak != 255.0:
            self._arguments["peak"] = peak
        self.peak = peak
        self.sub_mean = MeanShift(-1, peak)
        self.add_mean = MeanShift(+1, peak)
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.Sequential(
            *(ResidualBlock(channels, res_scale) for _ in range(blocks)), conv3x3(channels, channels)
        )
        self.long_skip = nn.Identity()
        self.tail = nn.Sequential(*upsampling(scale, channels, upsampler))

    @staticmethod
    def detects(state: Mapping[str, Tensor]) -> bool:
        """Tell whether ``state`` has the layout of the official EDSR release or that of BasicSR."""
        official = {"head.0.weight", "body.0.body.0.weight", "tail.0.0.weight"}
        return official <= state.keys() or _is_basicsr(state)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], res_scale: float | None = None) -> EDSR:
        """Build the network that ``state`` belongs to, its arguments read from names and shapes, and load it strictly.

        Args:
            state: the weights.
            res_scale: which no shape tells; None for the published one.

        Raises:
            RuntimeError: missing or surplus keys, or shapes that do not fit together.
            ValueError: the shapes belong to no scale of 2, 3 or 4.
        """
        if _is_basicsr(state):
            state = _official_names(state)
        channels = state["head.0.weight"].shape[0]
        blocks = sum(1 for name in state if re.fullmatch(r"body\.\d+\.body\.0\.weight", name))
        scale, upsampler = read_upsampling(state, channels, first="tail.0.0", second="tail.0.2", last="tail.1")
        model = cls(scale, blocks, channels, upsampler, res_scale, read_peak(state))
        model.load_state_dict(dict(state), strict=True)
        return model

    def arguments(self) -> dict[str, object]:
        return {"class": "EDSR", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(self.sub_mean(x * self.peak))
        return self.long_skip(self.body(shallow) + shallow)

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.add_mean(self.tail(phi)) / self.peak


def _is_basicsr(state: Mapping[str, Tensor]) -> bool:
    return {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= state.keys()


def _official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename what BasicSR calls otherwise, and add the mean colour, which it keeps outside its checkpoints."""
    blocks = sum(1 for name in state if re.fullmatch(r"body\.\d+\.conv1\.weight", name))
    renamings = (
        (r"conv_first\.", "head.0."),
        (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
        (r"conv_after_body\.", f"body.{blocks}."),
        (r"upsample\.", "tail.0."),
        (r"conv_last\.", "tail.1."),
    )
    means = {"sub_mean": MeanShift(-1), "add_mean": MeanShift(+1)}
    named = {f"{name}.{key}": value for name, shift in means.items() for key, value in shift.state_dict().items()}
    return named | rename(state, renamings)
