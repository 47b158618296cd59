"""Images with mean opinion scores: a folder with ``mos.csv``, and batches of crops from it."""

from __future__ import annotations

import csv
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resolute.errors import ConfigError, ImageWarning
from resolute.images import read_image, to_uint8
from resolute.randomness import generator_for, stream_seed

# Of a crop, its score, and what is random.
Alteration = Callable[[NDArray[np.uint8], float, np.random.Generator], tuple[NDArray[np.uint8], float]]

TABLE = "mos.csv"
_COLUMNS = ("path", "mos", "split")
_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Rating:
    """What people say of one image.

    Attributes:
        path: of the image.
        mos: mean opinion score.
        split: ``train``, ``val`` or ``test``.
    """

    path: Path
    mos: float
    split: str


def read_ratings(folder: Path, needed: Sequence[str] = ("train", "val"), *, skip_broken: bool = False) -> list[Rating]:
    """Read ``mos.csv`` of a folder: columns ``path`` (from the folder on), ``mos`` and ``split``, others as you like.

    Args:
        folder: with the table.
        needed: splits that may not be empty.
        skip_broken: leave out lines that are no ratings, or second ones of an image, with an ``ImageWarning``.

    Raises:
        ConfigError: no such table; a column, an image or all images of a split in ``needed`` are missing; a score that
            is no number; an unknown split.
    """
    table = folder / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"cannot read {table} ({error}); a metric learns from a folder with {TABLE}: {', '.join(_COLUMNS)}"
        ) from None
    if missing:
        raise ConfigError(f"{table} lacks the column {missing[0]!r}; its first line must name {', '.join(_COLUMNS)}")
    ratings: list[Rating] = []
    seen: set[Path] = set()
    broken: list[str] = []
    for number, line in enumerate(rows, start=2):
        try:
            rating = _rating(folder, number, line)
            if skip_broken and rating.path in seen:
                raise ConfigError(
                    f"{table}, line {number}: {line['path']} has an opinion already; remove one of the lines"
                )
            seen.add(rating.path)
            ratings.append(rating)
        except ConfigError as error:
            if not skip_broken:
                raise
            broken.append(str(error))
    if broken:
        more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
        warnings.warn(f"left out: {'; '.join(broken[:5])}{more}", ImageWarning, stacklevel=2)
    for split in needed:
        if not any(rating.split == split for rating in ratings):
            raise ConfigError(f"{table} has no image in the split {split!r}; write {split} in that column of some rows")
    return ratings


class Crops:
    """Images in memory as bytes, and batches of crops of them.

    Attributes:
        crop: side of the crops; 0 for whole images.
        zoom: crops have any side from ``crop`` to that of the image, and are shrunk to ``crop``.
        alter: what becomes of a crop and its score on the way into a batch.
        training, validation: images, and the human score of each or NaN.
    """

    # Names the random numbers, so that two kinds of images draw different ones.
    stream: ClassVar[str]

    def __init__(self, crop: int, zoom: bool = False, alter: Alteration | None = None) -> None:
        self.crop, self.zoom, self.alter = crop, zoom, alter
        self.training: list[tuple[NDArray[np.uint8], float]] = []
        self.validation: list[tuple[NDArray[np.uint8], float]] = []

    def batch(
        self, seed: int, step: int, size: int, rank: int = 0, ranks: int = 1
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, " b"]]:
        """Return this rank's share of the batch of ``step``: crops, half of them mirrored, and scores or NaN.

        Every image comes once before any comes again.
        """
        rng = np.random.default_rng(stream_seed(seed, self.stream, step))
        places = rng.random((size, 2))
        mirrored = rng.random(size) < 0.5
        sides = rng.random(size) if self.zoom else np.zeros(size)
        crops: list[NDArray[np.uint8]] = []
        scores: list[float] = []
        for index in range(rank, size, ranks):
            image, mos = self.training[shuffled(seed, step * size + index, len(self.training))]
            part = random_crop(image, self._side(image, sides[index]), places[index])
            part = shrunk(part, self.crop) if self.zoom else part
            if self.alter is not None:
                part, mos = self.alter(part, mos, np.random.default_rng(stream_seed(seed, "altered", step, index)))
            crops.append(part[:, ::-1] if mirrored[index] else part)
            scores.append(mos)
        return to_images(crops), torch.tensor(scores)

    def _side(self, image: NDArray[np.uint8], share: float) -> int:
        return self.crop + int(share * (min(image.shape[:2]) - self.crop + 1)) if self.zoom else self.crop


class RatedImages(Crops):
    """The training and validation images of a folder with ``mos.csv``, in memory as bytes.

    Args:
        folder: with ``mos.csv``.
        crop, zoom, alter: see ``Crops``.
        progress: called with (images read, images in all).

    Raises:
        ConfigError: see ``read_ratings``; an image is smaller than a crop, or whole images are of different sizes.
        ImageError: an image cannot be read.
    """

    stream = "rated"

    def __init__(
        self,
        folder: Path,
        crop: int,
        progress: Callable[[int, int], None] | None = None,
        *,
        zoom: bool = False,
        alter: Alteration | None = None,
    ) -> None:
        super().__init__(crop, zoom, alter)
        ratings = [rating for rating in read_ratings(folder) if rating.split != "test"]
        for rating, image in zip(ratings, read_all([rating.path for rating in ratings], progress), strict=True):
            if rating.split == "train":
                self._check_size(image, rating.path)
                self.training.append((image, rating.mos))
            else:
                self.validation.append((image, rating.mos))

    def _check_size(self, image: NDArray[np.uint8], path: Path) -> None:
        size = image.shape[:2]
        if min(size) < self.crop:
            raise ConfigError(f"{path} is smaller than a crop of {self.crop}; set a smaller data.crop in the recipe")
        if self.crop == 0 and self.training and size != self.training[0][0].shape[:2]:
            raise ConfigError(f"{path} is of another size than the first image; set data.crop in the recipe")


def read_all(files: Sequence[Path], progress: Callable[[int, int], None] | None) -> Iterator[NDArray[np.uint8]]:
    """Read images one by one as bytes, and tell how many are read."""
    for done, file in enumerate(files, start=1):
        image = to_uint8(read_image(file))
        if progress is not None:
            progress(done, len(files))
        yield image


def spread(count: int, wanted: int) -> list[int]:
    """Return at most ``wanted`` of ``count`` places, spread evenly.

    Example:
        >>> spread(10, 3), spread(2, 5), spread(10, 0)
        ([0, 4, 9], [0, 1], [])
    """
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def shuffled(seed: int, position: int, count: int) -> int:
    """Return the item at a position of an endless sequence in which every pass over ``count`` items is shuffled anew.

    Example:
        >>> sorted(shuffled(0, position, 4) for position in range(4, 8))
        [0, 1, 2, 3]
    """
    epoch, place = divmod(position, count)
    return int(np.random.default_rng(stream_seed(seed, "order", epoch)).permutation(count)[place])


def random_crop(image: NDArray[np.uint8], side: int, place: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Cut a square of ``side`` pixels at a place given as two shares in [0, 1); the whole image where ``side`` is 0."""
    if side == 0:
        return image
    top, left = (int(share * (length - side + 1)) for share, length in zip(place, image.shape[:2], strict=True))
    return image[top : top + side, left : left + side]


def shrunk(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Shrink a square to ``side`` pixels, bicubic and antialiased.

    Example:
        >>> shrunk(np.zeros((9, 9, 3), dtype=np.uint8), 6).shape
        (6, 6, 3)
    """
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def to_images(images: list[NDArray[np.uint8]]) -> Float[Tensor, "b 3 h w"]:
    """Stack 8-bit images of one size to a batch in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255.0


def batch_noise(size: int, like: Tensor, seed: int, step: int) -> Float[Tensor, "b 3 h w"]:
    """Return normal noise for the whole batch of a step, so that the number of processes does not change it."""
    return torch.randn((size, *like.shape[1:]), generator=generator_for(seed, "noise", step))


def noisy(images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b 3 h w"], sigma: float) -> Float[Tensor, "b 3 h w"]:
    """Return ``clip(images + sigma * noise)``, what a smoothed metric sees."""
    return (images + sigma * noise).clamp(0, 1)


def _rating(folder: Path, number: int, row: dict[str, str]) -> Rating:
    place = f"{folder / TABLE}, line {number}"
    path = folder / (row["path"] or "")
    if not row["path"] or not path.is_file():
        raise ConfigError(f"{place}: there is no image {path}; put it there or remove the line")
    try:
        mos = float(row["mos"] or "")
    except ValueError:
        mos = math.nan
    if not math.isfinite(mos):
        raise ConfigError(f"{place}: {row['mos']!r} is no opinion score; write a number or remove the line")
    if row["split"] not in _SPLITS:
        raise ConfigError(f"{place}: the split is one of {', '.join(_SPLITS)}, not {row['split']!r}")
    return Rating(path, mos, row["split"])
