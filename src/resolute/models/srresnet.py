"""SRResNet and the generator of SRGAN, one network (Ledig et al., CVPR 2017), and its variants in circulation."""

from __future__ import annotations

import math
from typing import Literal, final, get_args

from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.architecture import Architecture, Arguments, Weights, holds
from resolute.models.base import SplitRestorer
from resolute.models.blocks import ImageNetNormalize, count, prime_factors, rename, require_scale

PReLU = Literal["shared", "channel"]
Activation = Literal["none", "tanh"]
Closing = Literal["norm", "prelu"]
Normalization = Literal["none", "imagenet"]


@final
class SRResNetBlock(nn.Module):
    """``x + norm(conv(prelu(norm(conv(x)))))``, with batch normalisation and no activation after the sum."""

    def __init__(self, channels: int, bias: bool, prelu: PReLU) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, bias=bias)
        self.norm1 = nn.BatchNorm2d(channels)
        self.prelu = _prelu(channels, prelu)
        self.conv2 = _conv(channels, channels, bias=bias)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.norm2(self.conv2(self.prelu(self.norm1(self.conv1(x)))))


@final
class ShuffleStage(nn.Module):
    """``prelu(shuffle(conv(x)))``: enlarge by one factor."""

    def __init__(self, channels: int, factor: int, prelu: PReLU) -> None:
        super().__init__()
        self.conv = _conv(channels, channels * factor**2)
        self.shuffle = nn.PixelShuffle(factor)
        self.prelu = _prelu(channels, prelu)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h1 w1"]:
        return self.prelu(self.shuffle(self.conv(x)))


@final
class SRResNet(SplitRestorer):
    """SRResNet for one scale, and SRGAN's generator, which differs from it in its weights alone.

    The network takes [0, 1] and returns [-1, 1]. It has batch normalisation: put it in evaluation mode, as ``load``
    does, before it is judged. The feature layer Φ is the tensor that enters the upsampler, after the long skip.

    The authors released no weights, so there are no official parameter names. Two public releases are recognised by the
    names in them: sgrvinod's (SRResNet and SRGAN; normalised input, tanh) and leftthomas's (SRGAN of five blocks;
    tanh). No shape tells activation and normalisation: they are taken to be those of the release with these names.

    Args:
        scale: 2, 3 or 4; the paper has 4 alone.
        blocks: residual blocks; 16 as published.
        channels: width; 64 as published.
        bias: whether the convolutions before a batch normalisation have a bias.
        prelu: ``shared``, one slope a layer, or ``channel``, one a channel.
        activation: after the last convolution; ``tanh`` hides the gradient where the output is near black or white.
        closing: what follows the convolution after the blocks: ``norm``, as published, or ``prelu``.
        normalization: of the input: ``none``, as published, or ``imagenet``.

    Example:
        >>> import torch
        >>> sum(p.numel() for p in SRResNet(scale=4).parameters())
        1549462
        >>> SRResNet(scale=2, blocks=2, channels=8).eval()(torch.rand(1, 3, 8, 6)).shape
        torch.Size([1, 3, 16, 12])
    """

    feature_layer = "long_skip"

    def __init__(
        self,
        scale: int = 4,
        blocks: int = 16,
        channels: int = 64,
        bias: bool = True,
        prelu: PReLU = "shared",
        activation: Activation = "none",
        closing: Closing = "norm",
        normalization: Normalization = "none",
    ) -> None:
        require_scale("SRResNet", scale)
        super().__init__(scale)
        kinds = {"prelu": prelu, "activation": activation, "closing": closing, "normalization": normalization}
        for argument, known in zip(kinds, (PReLU, Activation, Closing, Normalization), strict=True):
            if kinds[argument] not in get_args(known):
                wanted = " or ".join(get_args(known))
                raise ValueError(f"{argument} of SRResNet is {wanted}, not {kinds[argument]!r}")
        self._arguments = {"scale": scale, "blocks": blocks, "channels": channels, "bias": bias, **kinds}
        self.normalize = ImageNetNormalize() if normalization == "imagenet" else nn.Identity()
        self.first = nn.Sequential(_conv(3, channels, kernel=9), _prelu(channels, prelu))
        self.blocks = nn.Sequential(*(SRResNetBlock(channels, bias, prelu) for _ in range(blocks)))
        self.after = nn.Sequential(
            _conv(channels, channels, bias=bias),
            nn.BatchNorm2d(channels) if closing == "norm" else _prelu(channels, prelu),
        )
        self.long_skip = nn.Identity()
        self.stages = nn.Sequential(*(ShuffleStage(channels, factor, prelu) for factor in prime_factors(scale)))
        self.last = _conv(channels, 3, kernel=9)
        self.activation = nn.Tanh() if activation == "tanh" else nn.Identity()

    def arguments(self) -> dict[str, object]:
        return {"class": "SRResNet", **self._arguments}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        shallow = self.first(self.normalize(x))
        return self.long_skip(self.after(self.blocks(shallow)) + shallow)

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return (self.activation(self.last(self.stages(phi))) + 1.0) / 2.0


def _conv(inputs: int, outputs: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=kernel, padding=kernel // 2, bias=bias)


def _prelu(channels: int, kind: PReLU) -> nn.PReLU:
    return nn.PReLU(channels if kind == "channel" else 1)


def _is_sgrvinod(state: Weights) -> bool:
    return any(f"{prefix}subpixel_convolutional_blocks.0.conv.weight" in state for prefix in ("", "net."))


_is_leftthomas = holds("block1.0.weight", "block2.conv1.weight", "block2.bn1.weight")
_is_own = holds("first.0.weight", "blocks.0.conv1.weight", "stages.0.conv.weight")


def _read(state: Weights) -> tuple[Arguments, Weights]:
    named = _own_names(state)
    channels = named["first.0.weight"].shape[0]
    arguments: Arguments = {
        "scale": math.isqrt(named["stages.0.conv.weight"].shape[0] // channels)
        ** count(named, r"stages\.\d+\.conv\.weight"),
        "blocks": count(named, r"blocks\.\d+\.conv1\.weight"),
        "channels": channels,
        "bias": "blocks.0.conv1.bias" in named,
        "prelu": "shared" if named["first.1.weight"].numel() == 1 else "channel",
        "activation": "tanh" if _is_sgrvinod(state) or _is_leftthomas(state) else "none",
        "closing": "norm" if "after.1.running_mean" in named else "prelu",
        "normalization": "imagenet" if _is_sgrvinod(state) else "none",
    }
    return arguments, named


def _own_names(state: Weights) -> dict[str, Tensor]:
    if _is_sgrvinod(state):
        block = r"(?:net\.)?residual_blocks\.(\d+)\.conv_block"
        rules = [
            (r"(?:net\.)?conv_block1\.conv_block\.", "first."),
            (rf"{block}1\.conv_block\.0\.", r"blocks.\1.conv1."),
            (rf"{block}1\.conv_block\.1\.", r"blocks.\1.norm1."),
            (rf"{block}1\.conv_block\.2\.", r"blocks.\1.prelu."),
            (rf"{block}2\.conv_block\.0\.", r"blocks.\1.conv2."),
            (rf"{block}2\.conv_block\.1\.", r"blocks.\1.norm2."),
            (r"(?:net\.)?conv_block2\.conv_block\.", "after."),
            (r"(?:net\.)?subpixel_convolutional_blocks\.", "stages."),
            (r"(?:net\.)?conv_block3\.conv_block\.0\.", "last."),
        ]
        return rename(state, rules)
    if _is_leftthomas(state):
        # One number for every part: the first, the blocks, the convolution after them, and the upsampler at the end.
        blocks, stages = count(state, r"block\d+\.conv1\.weight"), count(state, r"block\d+\.\d+\.conv\.weight")
        parts = [("block1", "first"), (f"block{blocks + 2}", "after")]
        parts += [(f"block{i + 2}", f"blocks.{i}") for i in range(blocks)]
        parts += [(rf"block{blocks + 3}\.{stages}", "last"), (f"block{blocks + 3}", "stages")]
        named = rename(state, [(rf"{theirs}\.", f"{own}.") for theirs, own in parts])
        return rename(named, [(r"(blocks\.\d+)\.bn(\d)\.", r"\1.norm\2.")])
    return dict(state)


ARCHITECTURE = Architecture(
    name="srresnet", network=SRResNet, detects=lambda state: _is_own(_own_names(state)), read=_read, first_layer="first"
)
