"""EDSR (Lim et al., CVPR Workshops 2017): the baseline and the large network as published, and the small ``edsr-s``."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.blocks import (
    MeanShift,
    MeanShifted,
    Upsampler,
    conv3x3,
    count,
    read_peak,
    read_upsampling,
    rename,
    upsampling,
)


@final
class EDSRBlock(nn.Module):
    """``x + res_scale * conv(relu(conv(x)))``, without batch normalisation."""

    def __init__(self, channels: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.body = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.add(x, self.body(x), alpha=self.res_scale)


@final
class EDSR(MeanShifted):
    """EDSR for one scale; parameter names are those of the official release, so its checkpoints load strictly.

    The feature layer Φ is the tensor that enters the upsampler, after the long skip.

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
        published = 0.1 if (blocks, channels) == (32, 256) else 1.0
        res_scale = published if res_scale is None else res_scale
        arguments = {"blocks": blocks, "channels": channels, "upsampler": upsampler}
        super().__init__(scale, peak, arguments | ({} if res_scale == published else {"res_scale": res_scale}))
        self.head = nn.Sequential(conv3x3(3, channels))
        self.body = nn.Sequential(*(EDSRBlock(channels, res_scale) for _ in range(blocks)), conv3x3(channels, channels))
        self.long_skip = nn.Identity()
        self.tail = nn.Sequential(*upsampling(scale, channels, upsampler))

    def extract(self, shifted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.head(shifted)
        return self.long_skip(self.body(shallow) + shallow)

    def enlarge(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.tail(phi)


_is_official = holds("head.0.weight", "body.0.body.0.weight", "tail.0.0.weight")
_is_basicsr = holds("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight")


def _read(state: Weights) -> tuple[Arguments, Weights]:
    if _is_basicsr(state):
        state = _official_names(state)
    channels = state["head.0.weight"].shape[0]
    arguments: Arguments = {
        "blocks": count(state, r"body\.\d+\.body\.0\.weight"),
        "channels": channels,
        "peak": read_peak(state),
        **read_upsampling(state, channels, first="tail.0.0", second="tail.0.2", last="tail.1"),
    }
    return arguments, state


def _official_names(state: Weights) -> dict[str, Tensor]:
    """Rename what BasicSR calls otherwise, and add the mean colour, which it keeps outside its checkpoints."""
    blocks = count(state, r"body\.\d+\.conv1\.weight")
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


ARCHITECTURE = Architecture(
    name="edsr",
    network=EDSR,
    detects=lambda state: _is_official(state) or _is_basicsr(state),
    read=_read,
    first_layer="head",
)
