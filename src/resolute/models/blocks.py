"""Layers that several super-resolution networks share, and what their weights tell about them."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import SplitRestorer

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)

Upsampler = Literal["staged", "direct"]


@final
class MeanShift(nn.Conv2d):
    """Add ``sign * peak * mean`` to the three channels, as the 1x1 convolution that official checkpoints contain.

    Frozen here; a checkpoint whose authors let these weights train overwrites them on loading.

    Args:
        sign: -1 on the way in, +1 on the way out.
        peak: what white is to the network.
        mean: of each channel, in [0, 1]; that of DIV2K in every published network.
    """

    def __init__(self, sign: int, peak: float = 255.0, mean: tuple[float, float, float] = DIV2K_MEAN) -> None:
        super().__init__(3, 3, kernel_size=1)
        with torch.no_grad():
            # Arithmetic on the device meta, where models begin, would import torch._dynamo: seconds.
            nn.init.dirac_(self.weight)
            assert self.bias is not None
            self.bias.copy_(sign * peak * torch.tensor(mean, device="cpu"))
        self.requires_grad_(False)
        self.mixes = False
        self.register_load_state_dict_post_hook(_look)

    def forward(self, input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        # The same to the bit, and quicker: libraries have no fast convolution from three channels to three.
        if self.bias is None or self.mixes or self.weight.requires_grad:
            return super().forward(input)
        return input + self.bias.view(3, 1, 1)


def _look(shift: nn.Module, _keys: object) -> None:
    """Take note of whether loaded weights mix the channels."""
    assert isinstance(shift, MeanShift)
    shift.mixes = not torch.equal(shift.weight, torch.eye(3).view(3, 3, 1, 1).to(shift.weight))


@final
class ImageNetNormalize(nn.Module):
    """Subtract ImageNet's mean colour from an image in [0, 1] and divide by its standard deviation."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not in the state dict: no published checkpoint has them.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (x - self.mean) / self.deviation


class MeanShifted(SplitRestorer, ABC):
    """A network that subtracts the mean colour of DIV2K first and adds it at the end.

    Args:
        scale: 2, 3 or 4.
        peak: what white is to the network: 255 as in most official code, or 1.
        arguments: of the constructor, but the scale, and the peak where it is 255.
        within: what the official code calls the shift inside the module that holds it; empty where it is the module.
    """

    def __init__(self, scale: int, peak: float, arguments: Mapping[str, object], within: str = "") -> None:
        architecture = type(self).__name__
        require_scale(architecture, scale)
        if peak not in (1.0, 255.0):
            raise ValueError(f"white is 1 or 255 to {architecture}, not {peak}")
        super().__init__(scale)
        self.peak = peak
        self._arguments = {"scale": scale, **arguments, **({} if peak == 255.0 else {"peak": peak})}
        shifts: list[nn.Module] = [MeanShift(-1, peak), MeanShift(+1, peak)]
        self.sub_mean, self.add_mean = (within_name(within, shift) for shift in shifts) if within else shifts

    @abstractmethod
    def extract(self, shifted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Map an image without its mean colour to Φ."""

    @abstractmethod
    def enlarge(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        """Map Φ to an upscaled image without its mean colour."""

    @final
    def arguments(self) -> dict[str, object]:
        return {"class": type(self).__name__, **self._arguments}

    @final
    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.extract(self.sub_mean(x * self.peak))

    @final
    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.add_mean(self.enlarge(phi)) / self.peak


def within_name(name: str, module: nn.Module) -> nn.Sequential:
    """Give a module the longer name that it has in an official code."""
    return nn.Sequential(OrderedDict([(name, module)]))


def conv3x3(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with bias that keeps the size of the image."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, groups=groups)


def conv1x1(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1x1 convolution with bias."""
    return nn.Conv2d(inputs, outputs, kernel_size=1)


def require_scale(architecture: str, scale: int) -> None:
    """Raise ValueError unless ``scale`` is one of the published 2, 3 and 4."""
    if scale not in (2, 3, 4):
        raise ValueError(f"{architecture} upscales by 2, 3 or 4, not {scale}")


def read_peak(state: Mapping[str, Tensor], bias: str = "sub_mean.bias", published: float = 255.0) -> float:
    """Return what white is to a network, which the mean colour that it subtracts tells, unless that is black.

    Example:
        >>> read_peak({"sub_mean.bias": torch.tensor([-0.45, -0.44, -0.40])})
        1.0
    """
    largest = float(state[bias].detach().abs().max())
    if largest > 1:
        return 255.0
    return 1.0 if largest > 0.02 else published


def prime_factors(scale: int) -> tuple[int, ...]:
    """Return the factors by which published networks upscale one after the other.

    Example:
        >>> prime_factors(4), prime_factors(3)
        ((2, 2), (3,))
    """
    return (2, 2) if scale == 4 else (scale,)


def upsampling(scale: int, channels: int, upsampler: Upsampler) -> list[nn.Module]:
    """Return the layers from the feature layer to three channels, in the order of the official EDSR, RCAN and MSRN.

    ``staged`` are two layers: a row of sub-pixel convolutions at the network's width, one a prime factor of the scale,
    and a 3x3 convolution. ``direct`` is one: a convolution to ``3 * scale**2`` channels and a pixel shuffle, several
    times cheaper on a CPU.

    Raises:
        ValueError: another upsampler.
    """
    if upsampler == "direct":
        return [shuffle_stages(channels, 3, (scale,))]
    if upsampler != "staged":
        raise ValueError(f"an upsampler is staged or direct, not {upsampler!r}")
    return [shuffle_stages(channels, channels, prime_factors(scale)), conv3x3(channels, 3)]


def shuffle_stages(channels: int, outputs: int, factors: Sequence[int]) -> nn.Sequential:
    """Return a 3x3 convolution and a pixel shuffle for every factor."""
    stages: list[nn.Module] = []
    for factor in factors:
        stages += [conv3x3(channels, outputs * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*stages)


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    r"""Return how many names of weights a regular expression matches as a whole.

    Example:
        >>> count({"body.0.weight": torch.zeros(1), "body.0.bias": torch.zeros(1)}, r"body\.\d+\.weight")
        1
    """
    return sum(1 for name in state if re.fullmatch(pattern, name))


def read_upsampling(
    state: Mapping[str, Tensor], channels: int, first: str, second: str, last: str
) -> dict[str, object]:
    """Return ``scale`` and ``upsampler`` of a network from the names of its last convolutions.

    Args:
        state: the weights of the network.
        channels: width of the network.
        first: the convolution before the first pixel shuffle.
        second: the one before the second, which is there at scale 4 only.
        last: the convolution to three channels, which a direct upsampler lacks.

    Raises:
        ValueError: there is a third.
    """
    stages, _, number = second.rpartition(".")
    third = 2 * int(number) - int(first.rpartition(".")[2])
    if f"{stages}.{third}.weight" in state:
        raise ValueError("it upscales by 8, and only 2, 3 and 4 are known; load it by its code, as FILE.py:NAME#x8")
    staged = f"{last}.weight" in state or f"{second}.weight" in state
    factor = math.isqrt(state[f"{first}.weight"].shape[0] // (channels if staged else 3))
    scale = factor**2 if f"{second}.weight" in state else factor
    return {"scale": scale, "upsampler": "staged" if staged else "direct"}


def rename(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    r"""Return ``state`` with the beginning of every name rewritten by the first rule that matches it.

    Example:
        >>> list(rename({"conv1.bias": torch.zeros(1), "x": torch.zeros(1)}, [(r"conv(\d)", r"body.\1")]))
        ['body.1.bias', 'x']
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        rule = next((rule for rule in rules if re.match(rule[0], name)), None)
        renamed[re.sub(f"^(?:{rule[0]})", rule[1], name) if rule else name] = tensor
    return renamed
