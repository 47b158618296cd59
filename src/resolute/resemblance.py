"""Images that look like the shrunk form of others, whatever they are called."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.typing import NDArray
from PIL import Image

from resolute.errors import ImageError, ImageWarning
from resolute.images import image_size, read_formats, read_image, to_uint8

# A file, or 8-bit pixels.
Picture = Path | UInt8[ndarray, "_ _ 3"]

_SCALES = (2, 3, 4, 8)
_SIDE = 16

# In levels of 255, between thumbnails of an image and of its shrunk form; and the least that a thumbnail must show.
_ALIKE, _CONTRAST = 6.0, 4.0

# Correlation of the thumbnails of a pair: of crops of photographs one in fifty unrelated pairs lies above, and related
# ones lie below only with noise of 50/255 on images of a few dozen pixels. Many more pairs would take minutes to open.
_RELATED, _LOOKED_AT = 0.5, 100


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
    thumbnail = functools.lru_cache(maxsize=None)(_thumbnail)
    shrunk: dict[Path, Path] = {}
    for large in sizes:
        for small in {size for s in {*_SCALES, scale} for size in _shrunk_sizes(large, s)} & sizes.keys():
            for low in sizes[small]:
                for high in sizes[large] if low not in shrunk else []:
                    if _alike(thumbnail(low), thumbnail(high)):
                        shrunk[low] = high
                        break
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


def warn_of_unrelated(pairs: Sequence[tuple[Picture, Picture, str]]) -> None:
    """Warn where the two images of a pair show different things, with an ``ImageWarning``.

    Brightness, contrast, blur and noise may differ; of many pairs some are looked at.

    Args:
        pairs: low-resolution image, high-resolution image, and what the pair is called.
    """
    looked_at = pairs[:: -(-len(pairs) // _LOOKED_AT) or 1]
    unrelated = [called for low, high, called in looked_at if not _related(low, high)]
    if unrelated:
        warnings.warn(
            f"{len(unrelated)} of {len(looked_at)} pairs do not show one picture in two sizes, first {unrelated[0]}: "
            "all figures against such a ground truth are wrong; check which files belong together",
            ImageWarning,
            stacklevel=3,
        )


def alike(low: Path, high: Path) -> bool:
    """Return whether two files look like one picture in two sizes; so do those that cannot be read, or show nothing."""
    one, other = _thumbnail(low), _thumbnail(high)
    if one is None or other is None or max(one.std(), other.std()) < _CONTRAST:
        return True
    return _alike(one, other)


def _shrunk_sizes(large: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """Return the sizes of an image shrunk by a scale, with and without a last part of a pixel; none of a few pixels."""
    sides = [{side // scale, -(-side // scale)} for side in large]
    return [(width, height) for width in sides[0] for height in sides[1] if min(width, height) >= _SIDE]


def _alike(one: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    if one is None or other is None or min(one.std(), other.std()) < _CONTRAST:
        return False
    return float(np.abs(one - other).mean()) < min(_ALIKE, 0.5 * float(one.std()))


def _small(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)


def _related(low: Picture, high: Picture) -> bool:
    """Return whether one looks like the other; so do those that cannot be read, or show nothing."""
    try:
        # As they are used: upright, and of more than 8 bits the upper ones.
        pictures = [to_uint8(read_image(one)) if isinstance(one, Path) else one for one in (low, high)]
    except ImageError:  # What is wrong with it is said when it is read.
        return True
    one, other = (_small(Image.fromarray(pixels)).mean(axis=2).ravel() for pixels in pictures)
    if min(one.std(), other.std()) < _CONTRAST:
        return True
    return float(np.corrcoef(one, other)[0, 1]) >= _RELATED


def _thumbnail(path: Path) -> NDArray[np.float32] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=read_formats()) as image:
                return _small(image)
    except Exception:  # What is wrong with it is said when it is read.
        return None
