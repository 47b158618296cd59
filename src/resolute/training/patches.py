"""Batches of matching low- and high-resolution patches, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from resolute.errors import ConfigError
from resolute.images import read_image, to_uint8
from resolute.pairing import ImageFiles, matched_images, read_pair
from resolute.randomness import stream_seed
from resolute.resize import downscale, middle
from resolute.training.rated import spread, to_images

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Batch = tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 sh sw"]]


class Patches:
    """Folders of high-resolution images and their low-resolution twins, in memory as bytes.

    A twin that was given is used as it is; the others are MATLAB's bicubic.

    Args:
        folders: with the images, or image files; pairs among them are taken as they are, see ``matched_images``.
        scale: downscaling factor.
        patch: side of a low-resolution patch.
        validation: images held out, spread evenly over the sorted files.
        progress: called with (images read, images in all).
        largest: side in pixels beyond which an image is cut to its middle; None to take all of it.

    Attributes:
        training, validation: low- and high-resolution images.
        names: of the files for validation, those of equal names with their folders.

    Raises:
        ConfigError: too few images are large enough for one patch.
    """

    def __init__(
        self,
        folders: Sequence[Path | ImageFiles],
        scale: int,
        patch: int,
        validation: int = 0,
        progress: Callable[[int, int], None] | None = None,
        largest: int | None = None,
    ) -> None:
        self.scale = scale
        self.patch = patch
        files = matched_images(folders, scale)
        held_out = spread(len(files), validation)
        self.training: list[Pair] = []
        self.validation: list[Pair] = []
        self.names: list[str] = []
        names = distinct([image.path for image in files])
        for index, image in enumerate(files):
            pair = _read(image, scale, largest)
            if progress is not None:
                progress(index + 1, len(files))
            if min(pair[0].shape[:2]) >= patch:
                (self.validation if index in held_out else self.training).append(pair)
                self.names += [names[index]] if index in held_out else []
        if not self.training and self.validation:
            raise ConfigError(
                f"data.validation holds out all of the {len(self.validation)} images that are large enough, and none "
                "is left to train on; lower it, or give more images"
            )
        if not self.training:
            raise ConfigError(
                f"none of the {len(files)} images has {scale * patch} pixels on both sides, as a patch of {patch} at "
                f"scale {scale} needs; give larger images with --data, or a smaller data.patch in the recipe"
            )
        pixels = np.array([low.shape[0] * low.shape[1] for low, _ in self.training], dtype=np.float64)
        self._probability = pixels / pixels.sum()

    def batch(self, seed: int, step: int, size: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Return this rank's share of the batch of ``step``; larger images are drawn more often, flips at random."""
        rng = np.random.default_rng(stream_seed(seed, "patches", step))
        chosen = rng.choice(len(self.training), size, p=self._probability)
        places = rng.random((size, 2))
        flips = rng.random((size, 3)) < 0.5
        lows: list[NDArray[np.uint8]] = []
        highs: list[NDArray[np.uint8]] = []
        for index, place, flip in list(zip(chosen, places, flips, strict=True))[rank::ranks]:
            low, high = self.training[int(index)]
            top, left = (int(share * (side - self.patch + 1)) for share, side in zip(place, low.shape[:2], strict=True))
            bottom, right, s = top + self.patch, left + self.patch, self.scale
            lows.append(_augment(low[top:bottom, left:right], flip))
            highs.append(_augment(high[s * top : s * bottom, s * left : s * right], flip))
        return to_images(lows), to_images(highs)


def _read(image: ImageFiles, scale: int, largest: int | None) -> Pair:
    """Return the low- and the high-resolution image, of large ones the middle."""
    if image.low is None:
        high = to_uint8(read_image(image.path))
        high = high if largest is None else middle(high, largest)
        high = high[: high.shape[0] // scale * scale, : high.shape[1] // scale * scale]
        return (downscale(high, scale) if high.size else high), high
    low, high = read_pair(image.path, image.low, scale)
    if largest is not None:
        low, high = middle(low, largest // scale), middle(high, largest // scale, scale)
    return low, high


def distinct(files: Sequence[Path]) -> list[str]:
    """Return the names of files, with their folders where two have the same.

    Example:
        >>> distinct([Path("a/1.png"), Path("b/1.png"), Path("b/2.png")])
        ['a/1.png', 'b/1.png', '2.png']
    """
    names = [path.name for path in files]
    told = [name if names.count(name) == 1 else str(path) for name, path in zip(names, files, strict=True)]
    # A name that is no valid text holds lone surrogates, which JSON and pages cannot.
    return [name.encode(errors="replace").decode() for name in told]


def _augment(image: NDArray[np.uint8], flip: NDArray[np.bool_]) -> NDArray[np.uint8]:
    image = image[::-1] if flip[0] else image
    image = image[:, ::-1] if flip[1] else image
    return image.transpose(1, 0, 2) if flip[2] else image
