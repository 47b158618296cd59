"""CARN and CARN-M (Ahn et al., ECCV 2018): residual blocks that cascade, within blocks and between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    prime_factors,
    read_peak,
    read_upsampling,
    upsampling,
    within_name,
)

_SEVERAL = re.compile(r"upsample\.up([2-9])\.")


@final
class CARNBlock(nn.Module):
    """``relu(x + body(x))``; the body has two convolutions, or in CARN-M two grouped ones and a 1x1 after them."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(channels, channels, group), nn.ReLU(), conv3x3(channels, channels, group))
        if group > 1:
            self.body.extend([nn.ReLU(), conv1x1(channels, channels)])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.relu(x + self.body(x))


@final
class CascadingBlock(nn.Module):
    """Three residual blocks, each joined to all before it by a 1x1 convolution; in CARN-M one block, used thrice."""

    def __init__(self, channels: int, group: int) -> None:
        super().__init__()
        self.b1 = CARNBlock(channels, group)
        if group == 1:
            self.b2 = CARNBlock(channels, group)
            self.b3 = CARNBlock(channels, group)
        self.c1, self.c2, self.c3 = (_fusion(channels, inputs) for inputs in (2, 3, 4))
        self.shared = group > 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        blocks = (self.b1, self.b1, self.b1) if self.shared else (self.b1, self.b2, self.b3)
        return _cascade(x, blocks, (self.c1, self.c2, self.c3))


@final
class CARN(MeanShifted):
    """CARN for one scale; parameter names are those of the official code, so its checkpoints load strictly.

    The official checkpoints hold the upsamplers of all three scales; ``load("FILE#x4")`` keeps one of them. The
    feature layer Φ is the tensor that enters the upsampler, the output of ``c3``, which is never negative.

    Args:
        scale: 2, 3 or 4.
        channels: width; 64 as published.
        group: groups of the convolutions, a divisor of ``channels``; 1 is CARN, and more is CARN-M, whose blocks also
            share their weights; 4 as published.
        upsampler: ``staged``, the published sub-pixel convolutions with a ReLU each, or ``direct``; see ``EDSR``.
        peak: what white is to the network: 1 in the official code; 255 in EDSR, RCAN, MSRN, and in the paper on entropy
            regularisation, whose density and noise depend on the size of Φ.

    Example:
        >>> sum(p.numel() for p in CARN(scale=4).parameters())
        1111899
        >>> CARN(scale=2, channels=8, group=4)(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 16, 12])
    """

    feature_layer = "c3"

    def __init__(
        self, scale: int = 4, channels: int = 64, group: int = 1, upsampler: Upsampler = "staged", peak: float = 1.0
    ) -> None:
        if group < 1 or channels % group:
            raise ValueError(f"the groups of CARN-M divide its {channels} channels; {group} do not")
        arguments = {"channels": channels, "group": group, "upsampler": upsampler, "peak": peak}
        super().__init__(scale, peak, arguments, within="shifter")
        self.entry = conv3x3(3, channels)
        self.b1, self.b2, self.b3 = (CascadingBlock(channels, group) for _ in range(3))
        self.c1, self.c2, self.c3 = (_fusion(channels, inputs) for inputs in (2, 3, 4))
        if upsampler == "staged":
            body = _stages(scale, channels, group)
            self.exit = conv3x3(channels, 3)
        else:
            (body,) = upsampling(scale, channels, upsampler)
            self.exit = nn.Identity()
        self.upsample = within_name("up", within_name("body", body))

    def at_peak(self, peak: float) -> CARN:
        """Return the same function with another size of Φ, which is proportional to ``peak``.

        All layers but the biases are homogeneous, so biases in another unit are all that it takes.

        Example:
            >>> model, x = CARN(scale=2, channels=8), torch.rand(1, 3, 8, 6)
            >>> torch.allclose(model.at_peak(255.0).features(x) / 255, model.features(x), atol=1e-5)
            True
        """
        model = CARN(**{**self._arguments, "peak": peak})  # pyright: ignore[reportArgumentType]
        unit = peak / self.peak
        state = self.state_dict()
        model.load_state_dict({key: unit * value if key.endswith(".bias") else value for key, value in state.items()})
        return model

    def extract(self, shifted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return _cascade(self.entry(shifted), (self.b1, self.b2, self.b3), (self.c1, self.c2, self.c3))

    def enlarge(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.exit(self.upsample(phi))


def select_scale(state: Weights, scale: int | None) -> tuple[Weights, list[int]]:
    """Keep one scale of a checkpoint of several, and return which others it holds; leave any other state as it is.

    Raises:
        ValueError: the checkpoint holds several scales, and none of them is asked for.
    """
    found = sorted({int(match[1]) for name in state if (match := _SEVERAL.match(name))})
    if not found:
        return state, []
    if scale not in found:
        held = ", ".join(f"x{held}" for held in found)
        raise ValueError(
            f"holds CARN for {held}: choose one with --scale {found[-1]}, or with #x{found[-1]} behind its name"
        )
    kept = {name: tensor for name, tensor in state.items() if int((_SEVERAL.match(name) or [0, scale])[1]) == scale}
    own = {_SEVERAL.sub("upsample.up.", name): tensor for name, tensor in kept.items()}
    return own, [other for other in found if other != scale]


def _read(state: Weights) -> tuple[Arguments, Weights]:
    channels, up = state["entry.weight"].shape[0], "upsample.up.body"
    arguments: Arguments = {
        "channels": channels,
        "group": channels // state["b1.b1.body.0.weight"].shape[1],
        "peak": read_peak(state, "sub_mean.shifter.bias", 1.0),
        **read_upsampling(state, channels, first=f"{up}.0", second=f"{up}.3", last="exit"),
    }
    return arguments, state


ARCHITECTURE = Architecture(
    name="carn",
    network=CARN,
    detects=holds("entry.weight", "b1.b1.body.0.weight", "b1.c1.body.0.weight", "c1.body.0.weight"),
    read=_read,
    first_layer="entry",
    select=select_scale,
)


def _cascade(x: Tensor, blocks: Sequence[nn.Module], fusions: Sequence[nn.Module]) -> Tensor:
    joined = out = x
    for block, fusion in zip(blocks, fusions, strict=True):
        joined = torch.cat([joined, block(out)], dim=1)
        out = fusion(joined)
    return out


def _fusion(channels: int, inputs: int) -> nn.Sequential:
    return within_name("body", nn.Sequential(conv1x1(inputs * channels, channels), nn.ReLU()))


def _stages(scale: int, channels: int, group: int) -> nn.Sequential:
    stages: list[nn.Module] = []
    for factor in prime_factors(scale):
        stages += [conv3x3(channels, channels * factor**2, group), nn.ReLU(), nn.PixelShuffle(factor)]
    return nn.Sequential(*stages)
