"""Statistics of natural images, which the classical metrics BRISQUE and NIQE are built on (Mittal et al., 2012, 2013).

Luminance minus its local mean over its local deviation is close to Gaussian in a good photograph; noise, blur and
compression change its shape. All of it is in float64, one image by itself, and differentiable but for two roundings
that the published code has: of luminance to integers, and of shapes to a grid. Gradients pass through both.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.errors import CheckpointError

# Right, below, and the two diagonals: the neighbours whose products are looked at.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))

# Keeps roots and quotients finite on flat images; far below what one grey level contributes.
_TINY = 1e-20


def luminance(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the luminance of RGB in [0, 1] on [0, 255], rounded as 8-bit grey images are, in float64."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=x.device).view(1, 3, 1, 1)
    grey = 255 * (weights * x).sum(dim=1, keepdim=True)
    return grey + (grey.round() - grey).detach()


def normalize_locally(
    grey: Float[Tensor, "b 1 h w"], border: Literal["constant", "replicate"]
) -> Float[Tensor, "b 1 h w"]:
    """Return ``(grey - local mean) / (local deviation + 1)``, under a Gaussian of 7 x 7 pixels and deviation 7/6."""
    taps = torch.exp(-0.5 * ((torch.arange(7, dtype=grey.dtype, device=grey.device) - 3) / (7 / 6)) ** 2)
    taps = taps / taps.sum()

    def blur(maps: Tensor) -> Tensor:
        padded = F.pad(maps, (3, 3, 3, 3), mode=border)
        return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, 7)), taps.view(1, 1, 7, 1))

    mean = blur(grey)
    deviation = ((blur(grey**2) - mean**2).abs() + _TINY).sqrt()
    return (grey - mean) / (deviation + 1)


def symmetric_fit(maps: Float[Tensor, "*b h w"]) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Return shape and variance of the generalised Gaussian with the moments of every map."""
    square = maps.square().mean(dim=(-2, -1)) + _TINY
    ratio = square / (maps.abs().mean(dim=(-2, -1)).square() + _TINY)
    # The published search is for the nearest ratio, not for the nearest inverse ratio.
    return _shape(-ratio, -1 / _ratios(maps.device)), square


def asymmetric_fit(
    maps: Float[Tensor, "*b h w"],
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Return shape, left and right deviation of the asymmetric generalised Gaussian with the moments of every map."""
    left, right = (_one_sided(maps, maps < 0), _one_sided(maps, maps > 0))
    balance = left / right
    ratio = maps.abs().mean(dim=(-2, -1)).square() / (maps.square().mean(dim=(-2, -1)) + _TINY)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    return _shape(ratio, _ratios(maps.device)), left, right


def neighbour_products(maps: Float[Tensor, "*b h w"]) -> list[Float[Tensor, "*b h w"]]:
    """Return every map times itself shifted to each of its neighbours; what leaves on one side enters on the other."""
    return [maps * torch.roll(maps, shift, dims=(-2, -1)) for shift in _NEIGHBOURS]


def gamma_ratio(shape: Tensor, over: float, under: float) -> Tensor:
    """Return ``Γ(over / shape) / Γ(under / shape)``."""
    return (torch.lgamma(over / shape) - torch.lgamma(under / shape)).exp()


def parameter_file(name: str, data: Path | None) -> Path:
    """Return the place of a parameter file of a classical metric in the folder of research data.

    Args:
        name: below ``iqa/weights`` there.
        data: the folder, or that one itself; by default the one that RESOLUTE_DATA names.

    Raises:
        CheckpointError: no folder is named, or it lacks the file.
    """
    folder = data or (Path(os.environ["RESOLUTE_DATA"]) if os.environ.get("RESOLUTE_DATA") else None)
    if folder is None:
        raise CheckpointError(f"iqa/weights/{name} is needed: name the folder that holds it with RESOLUTE_DATA")
    for path in (folder / "iqa" / "weights" / name, folder / name):
        if path.exists():
            return path
    raise CheckpointError(f"{folder} lacks iqa/weights/{name}; name the folder that holds it with RESOLUTE_DATA")


def _one_sided(maps: Tensor, side: Tensor) -> Tensor:
    total = (maps * side).square().sum(dim=(-2, -1))
    return (total / side.sum(dim=(-2, -1)).clamp_min(1) + _TINY).sqrt()


@functools.cache
def _ratios(device: torch.device) -> Tensor:
    """Return (mean of the absolute value)^2 over the mean square, for the shapes 0.2, 0.201, ... 10."""
    shapes = _shapes(device)
    return gamma_ratio(shapes, 2, 1) * gamma_ratio(shapes, 2, 3)


@functools.cache
def _shapes(device: torch.device) -> Tensor:
    return torch.arange(200, 10001, dtype=torch.float64, device=device) / 1000


def _shape(values: Tensor, rising: Tensor) -> Tensor:
    """Return the shapes whose entries of a rising table are nearest; the gradient is that of interpolation."""
    shapes = _shapes(values.device)
    right = torch.searchsorted(rising, values.detach().contiguous()).clamp(1, len(rising) - 1)
    below, above = rising[right - 1], rising[right]
    share = ((values - below) / (above - below)).clamp(0, 1)
    smooth = torch.lerp(shapes[right - 1], shapes[right], share)
    nearest = torch.where(share < 0.5, shapes[right - 1], shapes[right])
    return smooth + (nearest - smooth).detach()
