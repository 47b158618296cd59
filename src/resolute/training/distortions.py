"""Synthetic distortions with a score: what a quality metric learns from before it sees any human opinion.

The score of a distorted image is ``1 - GMSD / WORST`` against its original, at least 0. Of the full-reference measures
that are a few lines long, GMSD agrees best with human opinion on images distorted like these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from resolute.corruptions import encoded
from resolute.errors import ConfigError
from resolute.folders import find_images
from resolute.measure.gmsd import gmsd
from resolute.randomness import stream_seed
from resolute.resize import to_levels
from resolute.training.rated import random_crop, read_all, shuffled, spread, to_images

WORST = 0.3

# Of the opinion of a photograph, at the highest level of a distortion.
_LOST = 0.8

_BICUBIC = Image.Resampling.BICUBIC

# Of each original that is held out.
_VALIDATION_LEVELS = 6

Distortion = Callable[[NDArray[np.uint8], float, np.random.Generator], NDArray[np.uint8]]


def blur(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur with a Gaussian of 0.5 to 4 pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.5 * 8.0**level)))


def noise(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add Gaussian noise with a standard deviation of 3 to 60 levels, on all channels alike in a third of the cases."""
    channels = 1 if rng.random() < 1 / 3 else 3
    grain = rng.standard_normal((*image.shape[:2], channels), dtype=np.float32)
    return to_levels(image + grain * (3 * 20.0**level))


def jpeg(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Compress with JPEG, quality 80 down to 5."""
    return encoded(image, "JPEG", round(80 * 16.0**-level))


def shrink(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shrink 1.3 to 6 times and enlarge again, both bicubic."""
    height, width = image.shape[:2]
    factor = 1.3 * (6 / 1.3) ** level
    small = Image.fromarray(image).resize((max(1, round(width / factor)), max(1, round(height / factor))), _BICUBIC)
    return np.asarray(small.resize((width, height), _BICUBIC))


def contrast(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lower or raise the contrast up to four times, around the mean of the image."""
    factor = 4.0 ** (-level if rng.random() < 0.5 else level)
    mean = float(image.mean())
    return to_levels((image - mean) * factor + mean)


def brightness(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Darken or brighten by up to 120 levels; what runs into black or white is lost."""
    return to_levels(image + 120.0 * level * (-1 if rng.random() < 0.5 else 1))


def quantise(image: NDArray[np.uint8], level: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Keep 24 down to 3 levels a channel."""
    step = 255.0 / (round(24 * 8.0**-level) - 1)
    return to_levels(np.round(image / step) * step)


DISTORTIONS: tuple[Distortion, ...] = (blur, noise, jpeg, shrink, contrast, brightness, quantise)


def distort(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Distort an image in a random way and to a random degree; one in twelve stays as it is, one in three gets two.

    Example:
        >>> image = np.zeros((16, 16, 3), dtype=np.uint8)
        >>> distort(image, np.random.default_rng(0)).shape
        (16, 16, 3)
    """
    count = int(rng.choice(3, p=(1 / 12, 7 / 12, 4 / 12)))
    for index in sorted(rng.choice(len(DISTORTIONS), count, replace=False)):
        image = DISTORTIONS[index](image, float(rng.random()), rng)
    return image


def worsened(
    image: UInt8[np.ndarray, "h w 3"], opinion: float, rng: np.random.Generator, share: float, low: float = 0.0
) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """Distort a ``share`` of photographs, half of those by noise alone, and lower the opinion of them by the levels.

    Of what the opinion is above ``low``, a distortion at its highest level leaves a fifth, at its lowest all.

    Example:
        >>> image = np.zeros((16, 16, 3), dtype=np.uint8)
        >>> _, opinion = worsened(image, 60.0, np.random.default_rng(0), share=1.0)
        >>> 2.4 < opinion < 60
        True
    """
    if rng.random() >= share:
        return image, opinion
    alone = rng.random() < 0.5
    chosen = [noise] if alone else [DISTORTIONS[i] for i in sorted(rng.choice(len(DISTORTIONS), 2, replace=False))]
    # Of two, the second comes in every other case.
    for distortion in chosen[: 1 + int(rng.random() < 0.5)]:
        level = float(rng.random())
        image, opinion = distortion(image, level, rng), low + (opinion - low) * (1 - _LOST * level)
    return image, opinion


class DistortedImages:
    """Folders of good images, distorted on the way into a batch; the originals in memory as bytes.

    Args:
        folders: with the images, not searched recursively.
        crop: side of the crops.
        validation: images held out, spread evenly over the sorted files; each comes back in several distortions.
        seed: of the distortions in the validation.
        progress: called with (images read, images in all).

    Raises:
        ConfigError: too few images are large enough for one crop.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        crop: int,
        validation: int,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if crop == 0:
            raise ConfigError("synthetic distortions need crops: set data.crop in the recipe")
        self.crop = crop
        files = find_images(list(folders))
        held_out = spread(len(files), validation)
        self.training: list[NDArray[np.uint8]] = []
        self.validation: list[tuple[NDArray[np.uint8], float]] = []
        for index, (file, image) in enumerate(zip(files, read_all(files, progress), strict=True)):
            if index in held_out:
                self.validation += [_scored(image, seed, file.name, i) for i in range(_VALIDATION_LEVELS)]
            elif min(image.shape[:2]) >= crop:
                self.training.append(image)
        if not self.training:
            raise ConfigError(
                f"none of the {len(files)} images that are not held out has {crop} pixels on both sides; "
                "give larger or more images with --data, or a smaller data.crop in the recipe"
            )

    def batch(
        self, seed: int, step: int, size: int, rank: int = 0, ranks: int = 1
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, " b"]]:
        """Return this rank's share of the batch of ``step``: distorted crops and their scores in [0, 1]."""
        originals: list[NDArray[np.uint8]] = []
        distorted: list[NDArray[np.uint8]] = []
        for index in range(rank, size, ranks):
            rng = np.random.default_rng(stream_seed(seed, "distorted", step, index))
            image = self.training[shuffled(seed, step * size + index, len(self.training))]
            part = random_crop(image, self.crop, rng.random(2))
            originals.append(part[:, ::-1] if rng.random() < 0.5 else part)
            distorted.append(distort(originals[-1], rng))
        return to_images(distorted), score(to_images(originals), to_images(distorted))


def score(original: Float[Tensor, "b 3 h w"], distorted: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Return the score in [0, 1] of a distorted image, 1 for the original.

    Example:
        >>> x = to_images([np.zeros((32, 32, 3), dtype=np.uint8)])
        >>> score(x, x).item()
        1.0
    """
    return (1 - gmsd(original, distorted) / WORST).clamp(min=0)


def _scored(image: NDArray[np.uint8], seed: int, name: str, index: int) -> tuple[NDArray[np.uint8], float]:
    distorted = distort(image, np.random.default_rng(stream_seed(seed, "held out", name, index)))
    return distorted, score(to_images([image]), to_images([distorted])).item()
