"""Pictures as a page holds them: WebP inside data URIs, each once."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image


class Album:
    """The pictures of a page: each is stored once, and known by its number.

    Attributes:
        uris: data URIs, in the order of their numbers.
        size: of all of them, in bytes.

    Example:
        >>> album = Album()
        >>> black = np.zeros((2, 2, 3), np.uint8)
        >>> album.add(black), album.add(black), album.add(black + 255)
        (0, 0, 1)
        >>> album.forget(0)
        >>> album.uris, album.size
        ([], 0)
    """

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.size = 0
        self._numbers: dict[str, int] = {}

    def add(self, pixels: UInt8[np.ndarray, "h w 3"], *, lossless: bool = False, quality: int = 88) -> int:
        """Store a picture and return its number."""
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, format="WEBP", lossless=lossless, quality=quality, method=4)
        uri = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
        if uri not in self._numbers:
            self._numbers[uri] = len(self.uris)
            self.uris.append(uri)
            self.size += len(uri)
        return self._numbers[uri]

    def forget(self, count: int) -> None:
        """Drop the newest pictures, until so many are left."""
        for uri in self.uris[count:]:
            del self._numbers[uri]
            self.size -= len(uri)
        del self.uris[count:]


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
