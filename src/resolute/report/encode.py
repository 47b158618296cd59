"""Pictures as a page holds them: WebP inside data URIs, each once."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
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
