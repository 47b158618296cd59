"""Images that look like the shrunk form of others, whatever they are called."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resolute.errors import ImageWarning
from resolute.images import image_size

_SCALES = (2, 3, 4, 8)
_SIDE = 16

# In levels of 255, between thumbnails of an image and of its shrunk form; and the least that a thumbnail must show.
_ALIKE, _CONTRAST = 6.0, 4.0


def warn_of_shrunk(files: Sequence[Path], scale: int) -> None:
    """Warn where files are others' shrunk forms by their sizes and by how they look, with an ``ImageWarning``.

    Args:
        files: that count as images of their own.
        scale: that is looked for besides the usual ones.
    """
    sizes: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in files:
        if size := image_size(path):
            sizes[size].append(path)
    thumbnails: dict[Path, NDArray[np.float32] | None] = {}
    shrunk: dict[Path, Path] = {}
    for small in sizes:
        for large in sizes:
            if any(all(abs(a - s * b) < s for a, b in zip(large, small, strict=True)) for s in {*_SCALES, scale}):
                for low in sizes[small]:
                    for high in sizes[large]:
                        if low not in shrunk and high != low and _alike(low, high, thumbnails):
                            shrunk[low] = high
    if shrunk:
        low, high = next(iter(shrunk.items()))
        looks = "1 image looks" if len(shrunk) == 1 else f"{len(shrunk)} images look"
        warnings.warn(
            f"{looks} like the shrunk form of {'another' if len(shrunk) == 1 else 'others'}, as {low.name} of "
            f"{high.name}, and counts as an image of its own; call pairs NAME_HR and NAME_LR, or put them into folders "
            "HR and LR",
            ImageWarning,
            stacklevel=3,
        )


def _alike(low: Path, high: Path, thumbnails: dict[Path, NDArray[np.float32] | None]) -> bool:
    for path in (low, high):
        if path not in thumbnails:
            thumbnails[path] = _thumbnail(path)
    one, other = thumbnails[low], thumbnails[high]
    if one is None or other is None or min(one.std(), other.std()) < _CONTRAST:
        return False
    return float(np.abs(one - other).mean()) < min(_ALIKE, 0.5 * float(one.std()))


def _thumbnail(path: Path) -> NDArray[np.float32] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                small = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
                return np.asarray(small, dtype=np.float32)
    except Exception:  # What is wrong with it is said when it is read.
        return None
