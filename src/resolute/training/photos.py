"""Clean images to learn from, with human scores where they come with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from resolute.errors import ConfigError
from resolute.folders import find_images
from resolute.resize import middle
from resolute.training.rated import TABLE, Crops, read_all, read_ratings, shrunk, spread

# A validation takes longer than a thousand steps if it denoises large images whole.
_VALIDATED = 384


class Photos(Crops):
    """Folders of images, in memory as bytes; a folder with ``mos.csv`` brings its own split and the scores.

    Args:
        folders: with the images, not searched recursively but for what ``mos.csv`` names.
        crop: side of the crops.
        validation: images held out of the folders without ``mos.csv``, spread evenly over their sorted files.
        progress: called with (images read, images in all).
        zoom: see ``Crops``.

    Attributes:
        training, validation: images, and the human score of each or NaN; of large ones for validation the middle, or
            with ``zoom`` all of it that is square, shrunk to a crop.
        rated: whether every image for training has a human score.

    Raises:
        ConfigError: too few images are large enough for one crop, or a ``mos.csv`` is wrong.
    """

    stream = "photos"

    def __init__(
        self,
        folders: Sequence[Path],
        crop: int,
        validation: int,
        progress: Callable[[int, int], None] | None = None,
        *,
        zoom: bool = False,
    ) -> None:
        super().__init__(crop, zoom)
        rated = [folder for folder in folders if (folder / TABLE).is_file()]
        plain = [folder for folder in folders if folder not in rated]
        found = [(rating.path, rating.mos, rating.split) for folder in rated for rating in read_ratings(folder)]
        files = find_images(plain) if plain or not rated else []
        held_out = spread(len(files), validation)
        found += [(file, math.nan, "val" if i in held_out else "train") for i, file in enumerate(files)]
        found = [item for item in found if item[2] != "test"]
        images = read_all([path for path, *_ in found], progress)
        for (_, mos, split), image in zip(found, images, strict=True):
            side = min(image.shape[:2])
            if split == "val":
                whole = zoom and side > crop
                self.validation.append((shrunk(middle(image, side), crop) if whole else middle(image, _VALIDATED), mos))
            elif side >= crop:
                self.training.append((image, mos))
        if not self.training:
            raise ConfigError(
                f"none of the {len(found)} images is both for training and of {crop} pixels on both sides; "
                "give larger or more images with --data, or a smaller data.crop in the recipe"
            )
        self.rated = not any(math.isnan(mos) for _, mos in self.training)
