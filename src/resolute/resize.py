"""Bicubic resizing as MATLAB's ``imresize`` does it, and cropping to a multiple of the scale.

Published super-resolution figures rest on low-resolution images made by ``imresize``. Its cubic kernel (a = -1/2) is
widened when shrinking, and on 8-bit images it rounds after each of its two passes; Pillow, OpenCV and torch differ in
at least one of these. Releases of MATLAB differ at the border: published files made by mirroring the image
(most of those in circulation for Set5, Set14 and BSD100) and by repeating its last pixel (Set5 as released with RCAN)
both exist, and differ only within three low-resolution pixels of the border.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

Border = Literal["mirror", "replicate"]


def downscale(image: UInt8[np.ndarray, "h w c"], scale: int, border: Border = "mirror") -> UInt8[np.ndarray, "h1 w1 c"]:
    """Shrink an 8-bit image by an integer factor, byte for byte as ``imresize(image, 1/scale)``.

    Args:
        image: any number of channels.
        scale: at least 1.
        border: what lies beyond the image: its ``mirror`` image, or its last pixel again (``replicate``).

    Example:
        >>> downscale(np.full((8, 12, 3), 200, dtype=np.uint8), 4).shape
        (2, 3, 3)
    """
    height, width = image.shape[:2]
    return _two_passes(image, _weights(height, -scale, border), _weights(width, -scale, border))


def upscale(image: UInt8[np.ndarray, "h w c"], scale: int, border: Border = "mirror") -> UInt8[np.ndarray, "h1 w1 c"]:
    """Enlarge an 8-bit image by an integer factor, byte for byte as ``imresize(image, scale)``."""
    height, width = image.shape[:2]
    return _two_passes(image, _weights(height, scale, border), _weights(width, scale, border))


def upscale_tensor(x: Float[Tensor, "b c h w"], scale: int) -> Float[Tensor, "b c h1 w1"]:
    """Enlarge float images by an integer factor with the same weights, unrounded, linear and differentiable.

    Example:
        >>> upscale_tensor(torch.ones(1, 3, 4, 5), 3).shape
        torch.Size([1, 3, 12, 15])
    """
    rows = torch.tensor(_weights(x.shape[-2], scale, "mirror")).to(x)
    columns = torch.tensor(_weights(x.shape[-1], scale, "mirror")).to(x)
    return rows @ x @ columns.T


def upscaling_norm(size: tuple[int, int], scale: int) -> float:
    """Return by how much ``upscale_tensor`` lengthens a change of an image of this (height, width) at most.

    Example:
        >>> round(upscaling_norm((8, 8), 1), 6), 4 < upscaling_norm((8, 9), 4) < 5
        (1.000001, True)
    """
    # One part in a million more than computed, which no rounding of singular values reaches.
    return math.prod(float(np.linalg.norm(_weights(side, scale, "mirror"), 2)) for side in size) * (1 + 1e-6)


def downscale_tensor(x: Float[Tensor, "b c h w"], scale: int) -> Float[Tensor, "b c h1 w1"]:
    """Shrink float images by an integer factor with the same weights, unrounded, linear and differentiable.

    Example:
        >>> downscale_tensor(torch.ones(1, 3, 8, 7), 2).shape
        torch.Size([1, 3, 4, 4])
    """
    rows = torch.tensor(_weights(x.shape[-2], -scale, "mirror")).to(x)
    columns = torch.tensor(_weights(x.shape[-1], -scale, "mirror")).to(x)
    return rows @ x @ columns.T


def unshrink_tensor(x: Float[Tensor, "b c h w"], scale: int) -> Float[Tensor, "b c h1 w1"]:
    """Return the smallest images, in l2, that ``downscale_tensor`` shrinks to ``x``: its Moore-Penrose pseudo-inverse.

    Example:
        >>> x = torch.rand(1, 3, 4, 5, dtype=torch.float64)
        >>> torch.allclose(downscale_tensor(unshrink_tensor(x, 3), 3), x)
        True
    """
    rows, columns = (torch.from_numpy(_inverse(scale * side, scale)).to(x) for side in x.shape[-2:])
    return rows @ x @ columns.T


def mod_crop(image: UInt8[np.ndarray, "h w c"], scale: int) -> UInt8[np.ndarray, "h1 w1 c"]:
    """Crop bottom and right so that height and width are multiples of ``scale``.

    Raises:
        ValueError: a side is shorter than ``scale``, so nothing would be left.
    """
    height, width = image.shape[:2]
    if min(height, width) < scale:
        raise ValueError(f"an image of {width}x{height} pixels is too small for scale {scale}")
    return image[: height - height % scale, : width - width % scale]


def middle(pixels: NDArray[Any], side: int, factor: int = 1) -> NDArray[Any]:
    """Cut the middle out of a large picture.

    Args:
        pixels: ``(h, w)`` or ``(h, w, c)``.
        side: longest side to keep, in units of ``factor``.
        factor: cut at multiples of this, so that an image and its enlargement keep the same part.

    Example:
        >>> middle(np.arange(10)[None], 4)
        array([[3, 4, 5, 6]])
    """
    box: list[slice] = []
    for length in pixels.shape[:2]:
        whole = length // factor
        start = max(0, whole - side) // 2
        box.append(slice(start * factor, min(whole, start + side) * factor))
    return pixels[box[0], box[1]]


def _two_passes(image: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.uint8]:
    tall = to_levels(np.tensordot(rows, image.astype(np.float64), axes=(1, 0)))
    return to_levels(np.einsum("ow,hwc->hoc", columns, tall.astype(np.float64), optimize=True))


def to_levels(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round to the nearest of the 256 levels, halves upwards as MATLAB does, and clip.

    Example:
        >>> to_levels(np.array([-1.0, 0.5, 300.0])).tolist()
        [0, 1, 255]
    """
    return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _weights(length: int, factor: int, border: Border) -> NDArray[np.float64]:
    """Return the (outputs, length) matrix of one pass; a negative factor shrinks."""
    scale = float(factor) if factor > 0 else -1.0 / factor
    outputs = int(np.ceil(length * scale))
    stretch = min(scale, 1.0)
    support = 4.0 / stretch
    centre = np.arange(1, outputs + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - support / 2)
    index = left[:, None] + np.arange(int(np.ceil(support)) + 2)
    weight = stretch * _cubic(stretch * (centre[:, None] - index))
    weight /= weight.sum(axis=1, keepdims=True)
    matrix = np.zeros((outputs, length))
    place = index.astype(int) - 1
    if border == "mirror":
        inside = np.concatenate([np.arange(length), np.arange(length)[::-1]])[place % (2 * length)]
    else:
        inside = place.clip(0, length - 1)
    np.add.at(matrix, (np.arange(outputs)[:, None], inside), weight)
    matrix.setflags(write=False)
    return matrix


@functools.lru_cache(maxsize=64)
def _inverse(length: int, scale: int) -> NDArray[np.float64]:
    """Return the pseudo-inverse of the matrix that shrinks so many samples; its rows are independent."""
    matrix = _weights(length, -scale, "mirror")
    return np.linalg.solve(matrix @ matrix.T, matrix).T.astype(np.float64, copy=False)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
