"""Layer types of ncnn as modules of PyTorch: those of which published super-resolution networks consist."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.models.ncnn_file import Options, Weights

# By how many pixels, or how many times, a layer may enlarge an image: no network does so by more.
_MOST = 64

Build = Callable[[Options, Weights], nn.Module]


@final
class Activated(nn.Sequential):
    """A convolution with the activation that ncnn has made one layer with it."""


@final
class Combined(nn.Module):
    """Two images, or an image and a number, in one operation.

    Example:
        >>> Combined(torch.sub, 2.0)(torch.ones(1))
        tensor([-1.])
    """

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor], scalar: float | None = None) -> None:
        super().__init__()
        self.operation, self.scalar = operation, scalar

    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        second = first.new_tensor(self.scalar) if self.scalar is not None else rest[0]
        return self.operation(first, second)


@final
class Weighted(nn.Module):
    """A sum of images, each times a number."""

    def __init__(self, factors: tuple[float, ...]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, *images: Tensor) -> Tensor:
        factors = self.factors or (1.0,) * len(images)
        return sum(
            (image if factor == 1 else image * factor for image, factor in zip(images[1:], factors[1:], strict=True)),
            start=images[0] if factors[0] == 1 else images[0] * factors[0],
        )


@final
class Joined(nn.Module):
    """Images joined along a dimension."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, *images: Tensor) -> Tensor:
        return torch.cat(images, self.dimension)


@final
class Resized(nn.Module):
    """An image times a height and a width, its sides rounded down."""

    def __init__(self, mode: str, height: float, width: float, corners: bool) -> None:
        super().__init__()
        self.mode, self.height, self.width = mode, height, width
        self.corners = None if mode == "nearest" else corners

    def forward(self, x: Tensor) -> Tensor:
        size = [
            side * int(factor) if factor == int(factor) else int(side * factor)
            for side, factor in zip(x.shape[-2:], (self.height, self.width), strict=True)
        ]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.corners)


@final
class Padded(nn.Module):
    """An image with more around it."""

    def __init__(self, sides: tuple[int, int, int, int], mode: str, value: float) -> None:
        super().__init__()
        self.sides, self.mode, self.value = sides, mode, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.sides, self.mode, self.value if self.mode == "constant" else None)


def _convolution(options: Options, weights: Weights, grouped: bool = False) -> nn.Module:
    outputs, width = options.whole(0), options.whole(1)
    kernel = options.whole(11, width), width
    across, stride, left = options.whole(2, 1), options.whole(3, 1), options.whole(4)
    dilation, strides = (options.whole(12, across), across), (options.whole(13, stride), stride)
    top, right = options.whole(14, left), options.whole(15, left)
    bottom, value = options.whole(16, top), options.real(18)
    bias, groups = options.whole(5), options.whole(7, 1) if grouped else 1
    inputs, rest = divmod(options.whole(6) * groups, max(outputs * kernel[0] * kernel[1], 1))
    if rest or min(outputs, inputs, *kernel, *dilation, *strides, groups) < 1 or outputs % groups or inputs % groups:
        raise options.refused("has sizes that do not fit each other")
    if not 0 <= min(left, right, top, bottom) <= max(left, right, top, bottom) <= _MOST or value:
        raise options.refused("is padded in a way that is not known here")
    weight = weights.stored(outputs, inputs // groups, *kernel)
    same = top == bottom and left == right
    made = nn.Conv2d(
        inputs, outputs, kernel, strides, (top, left) if same else 0, dilation, groups, bias=bool(bias), device="meta"
    )
    made.weight = nn.Parameter(weight)
    if bias:
        made.bias = nn.Parameter(weights.plain(outputs))
    after = _activation(options)
    parts = [] if same else [nn.ZeroPad2d((left, right, top, bottom))]
    return Activated(*parts, made, *after) if parts or after else made


def _activation(options: Options) -> list[nn.Module]:
    """Return what a convolution ends in: none, or one module."""
    kind, (first, second, *_) = options.whole(9), (*options.array(10), 0.0, 0.0)
    match kind:
        case 0:
            return []
        case 1:
            return [nn.ReLU()]
        case 2:
            return [nn.LeakyReLU(first)]
        case 3:
            return [nn.Hardtanh(first, second)]
        case 4:
            return [nn.Sigmoid()]
        case 5:
            return [nn.Mish()]
        case _:
            raise options.refused(f"ends in the activation {kind}, which is not known here")


def _prelu(options: Options, weights: Weights) -> nn.Module:
    slopes = options.whole(0)
    made = nn.PReLU(slopes, device="meta")
    made.weight = nn.Parameter(weights.plain(slopes))
    return made


def _binary(options: Options) -> nn.Module:
    operations: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
        0: torch.add, 1: torch.sub, 2: torch.mul, 3: torch.div, 4: torch.maximum, 5: torch.minimum,
        7: torch.rsub, 8: _divided_into,
    }  # fmt: skip
    kind, scalar, number = options.whole(0), options.whole(1), options.real(2)
    if kind not in operations:
        raise options.refused(f"has the operation {kind}, which is not known here")
    return Combined(operations[kind], number if scalar else None)


def _divided_into(first: Tensor, second: Tensor) -> Tensor:
    return second / first


def _eltwise(options: Options) -> nn.Module:
    kind, factors = options.whole(0), options.array(1)
    if kind == 1:
        return Weighted(factors)
    return Combined(torch.maximum if kind == 2 else torch.mul)


def _concat(options: Options) -> nn.Module:
    axis = options.whole(0)
    # ncnn knows no batch: its channels come first, and are third from the end.
    return Joined(axis + 1 if axis >= 0 else axis)


def _interp(options: Options) -> nn.Module:
    kind, corners = options.whole(0), options.whole(6)
    height, width = options.real(1, 1.0), options.real(2, 1.0)
    modes = {1: "nearest", 2: "bilinear", 3: "bicubic"}
    if kind not in modes or not (0 < height <= _MOST and 0 < width <= _MOST):
        raise options.refused("resizes in a way that is not known here")
    return Resized(modes[kind], height, width, bool(corners))


def _padding(options: Options) -> nn.Module:
    top, bottom, left, right = (options.whole(key) for key in range(4))
    modes = {0: "constant", 1: "replicate", 2: "reflect"}
    kind, value = options.whole(4), options.real(5)
    if kind not in modes or not 0 <= min(top, bottom, left, right) <= max(top, bottom, left, right) <= _MOST:
        raise options.refused("pads in a way that is not known here")
    return Padded((left, right, top, bottom), modes[kind], value)


def _relu(options: Options) -> nn.Module:
    slope = options.real(0)
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _weightless(make: Callable[[Options], nn.Module]) -> Build:
    return lambda options, _weights: make(options)


LAYERS: dict[str, Build] = {
    "BinaryOp": _weightless(_binary),
    "Clip": _weightless(lambda options: nn.Hardtanh(options.real(0, -3e38), options.real(1, 3e38))),
    "Concat": _weightless(_concat),
    "Convolution": _convolution,
    "ConvolutionDepthWise": functools.partial(_convolution, grouped=True),
    "Eltwise": _weightless(_eltwise),
    "Interp": _weightless(_interp),
    "Mish": _weightless(lambda _: nn.Mish()),
    "Noop": _weightless(lambda _: nn.Identity()),
    "PReLU": _prelu,
    "Padding": _weightless(_padding),
    "PixelShuffle": _weightless(lambda options: nn.PixelShuffle(options.whole(0, 1))),
    "ReLU": _weightless(_relu),
    "Reorg": _weightless(lambda options: nn.PixelUnshuffle(options.whole(0, 1))),
    "Sigmoid": _weightless(lambda _: nn.Sigmoid()),
    "Swish": _weightless(lambda _: nn.SiLU()),
    "TanH": _weightless(lambda _: nn.Tanh()),
}
