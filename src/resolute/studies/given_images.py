"""Images that code gives: the paths of files, or the images themselves, alone or with their low-resolution forms."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from resolute.errors import ImageError, ImageNote, ResoluteError
from resolute.images import read_image, to_uint8
from resolute.of_file import OwnCode
from resolute.plugins import Plugin
from resolute.resemblance import warn_of_unrelated

Pixels = UInt8[ndarray, "_ _ 3"]
Made = tuple[Pixels, ...]

# More would not fit into memory, and no study ends with them.
MAX_IMAGES = 10_000

_FORMS = "paths, tensors (3, h, w) in [0, 1], 8-bit arrays (h, w, 3), images of Pillow, or pairs of such"


def given_images(code: Plugin | OwnCode) -> Sequence[Path | Made]:
    """Return what a data set of one's own, or of another package, consists of.

    It is called without arguments, as a class or as a function, and returns or yields the path of a folder, paths of
    files, images, or pairs of an image with its low-resolution form, in either order. An image is a tensor (3, h, w) in
    [0, 1], an 8-bit array (h, w, 3) or one of Pillow.

    Raises:
        ConfigError: it cannot be loaded or fails, or gives something else.
        ImageError: a file of a pair cannot be read.
    """
    made = code.load()
    try:
        found: Any = made() if callable(made) else made
        if isinstance(found, str | Path):
            return [Path(found)]
        if not callable(made) and not isinstance(made, list | tuple):
            raise code.error("is no callable that returns the path of a folder, or paths, and no list of images")
        if not isinstance(found, Iterable) or isinstance(found, Tensor | ndarray | Image.Image):
            raise code.error(f"returns an object of type {type(found).__name__}, not a path or several of {_FORMS}")
        items = list(islice(cast("Iterable[object]", found), MAX_IMAGES + 1))
        given = [_given(item, number, code) for number, item in enumerate(items, start=1)]
    except ResoluteError:
        raise
    except (Exception, SystemExit) as error:  # Code of somebody else can raise anything.
        raise code.failed("cannot find its images", error) from error
    if len(items) > MAX_IMAGES:
        raise code.error(f"gives more than {MAX_IMAGES} images")
    if not given:
        raise code.error("gives no image")
    if pairs := sum(isinstance(one, tuple) and len(one) > 1 for one in given):
        words = "1 pair" if pairs == 1 else f"{pairs} pairs"
        warnings.warn(
            f"{words} of {code.name}: the low-resolution image is taken as it is, the other is the ground truth",
            ImageNote,
            stacklevel=3,
        )
        warn_of_unrelated(
            [
                (one[1], one[0], f"number {place}")
                for place, one in enumerate(given, start=1)
                if isinstance(one, tuple) and len(one) > 1
            ]
        )
    return given


def _given(item: object, number: int, code: Plugin | OwnCode) -> Path | Made:
    if isinstance(item, str | Path):
        return Path(item)
    pair = cast("Sequence[object]", item) if isinstance(item, list | tuple) else [item]
    if len(pair) not in (1, 2):
        raise code.error(f"gives {len(pair)} things together as image {number}; a pair is two of {_FORMS}")
    try:
        images = [_pixels(one) for one in pair]
    except (TypeError, ValueError, ImageError) as error:
        raise code.error(f"gives as image {number} {error}") from None
    return tuple(sorted(images, key=lambda image: image.size, reverse=True))


def _pixels(image: object) -> Pixels:
    if isinstance(image, str | Path):
        return to_uint8(read_image(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3 and image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise ValueError("a tensor with values outside [0, 1]; divide by 255 or clamp it")
        return to_uint8(image.to(torch.float32))
    if isinstance(image, ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    shape = f" of shape {tuple(cast('Tensor', image).shape)}" if isinstance(image, Tensor | ndarray) else ""
    raise TypeError(f"an object of type {type(image).__name__}{shape}, which is none of {_FORMS}")
