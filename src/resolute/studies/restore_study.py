"""What all studies of super-resolution models have in common: the photographs, and how a study uses them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from resolute.errors import ImageError
from resolute.folders import read_each
from resolute.images import from_uint8, to_uint8
from resolute.of_file import was_run
from resolute.resize import downscale, mod_crop
from resolute.studies.attacked import Subject
from resolute.studies.datasets import Photo, find_photos, middle, own_set
from resolute.studies.grid_cases import Scene
from resolute.studies.originals import Originals
from resolute.studies.study import Compared, Described, Pictured, Study, count


class RestoreStudy(Study, Pictured, Compared, Described, abc.ABC):
    """A study of super-resolution models on photographs; the settings that all have are those of ``Grid``.

    Attributes:
        truths: where a study has it, the ground truth of images that are inputs: one file, or files and folders that
            hold one of each image's name.
    """

    models: tuple[str, ...]
    images: tuple[str, ...]
    high_resolution: bool
    names: tuple[str, ...]
    every: int
    crop: int
    scale: int
    skip_broken: bool
    truths: tuple[str, ...] = ()

    def photos(self) -> list[Photo]:
        """Return the photographs that the study is about, unread.

        Raises:
            ImageError: a data set or a file is not to be found.
        """
        found = find_photos(self.images, self.every, self.scale, high=self.high_resolution)
        if self.truths:
            found = _with_truths(found, self.truths)
        if not self.names:
            return found
        named = {photo.name: photo for photo in found}
        missing = [name for name in self.names if name not in named]
        if missing:
            there = f"{count(len(found), 'image')} without {', '.join(missing[:3])}{' ...' if missing[3:] else ''}"
            raise ImageError(f"the study {self.name} is about images by name, and {' '.join(self.images)} has {there}")
        return [named[name] for name in self.names]

    def subjects(self) -> list[Subject]:
        """Read and prepare the images.

        Raises:
            ImageError: an image cannot be found or read, or is too small.
        """
        return read_each(self.photos(), self.subject, self.skip_broken)

    def subject(self, photo: Photo) -> Subject:
        """Read one photograph, and return it as the study uses it.

        Raises:
            ImageError: it cannot be read, or is too small.
        """
        if not photo.paired:
            return self.prepare(photo.name, photo.read(), photo.dataset)
        low, high = photo.read_pair(self.scale)
        if self.crop:
            side = self.crop // self.scale if self.high_resolution else self.crop
            low, high = middle(low, side), middle(high, side, self.scale)
        return Subject(photo.name, low.unsqueeze(0), high.unsqueeze(0), photo.dataset, given=True)

    def prepare(self, name: str, image: Float[Tensor, "3 h w"], dataset: str = "") -> Subject:
        """Return one image as the study uses it."""
        pixels = to_uint8(middle(image, self.crop))
        if not self.high_resolution:
            return Subject(name, from_uint8(pixels).unsqueeze(0), None, dataset)
        try:
            pixels = mod_crop(pixels, self.scale)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from None
        low = from_uint8(downscale(pixels, self.scale)).unsqueeze(0)
        return Subject(name, low, from_uint8(pixels).unsqueeze(0), dataset)

    def scene(self) -> Scene:
        """Return what is needed to show the study's images again."""
        # A folder may come from anyone, and what it names is no reason to run code.
        images = tuple(one for one in self.images if not ((code := own_set(one)) and not was_run(code)))
        replace = dataclasses.replace
        return Scene(self.models, self.scale, replace(self, every=1, images=images).photos, self.subject)


def _with_truths(photos: Sequence[Photo], truths: Sequence[str]) -> list[Photo]:
    originals = Originals.of(truths)
    assert originals is not None
    without = next((photo.name for photo in photos if photo.path is None), "")
    if without:
        raise ImageError(f"{without} is no file, and truths belong to files; name images by their files")
    return [
        photo
        if photo.paired
        else dataclasses.replace(photo, path=Path(originals.path_of(str(photo.path))), low=photo.path)
        for photo in photos
    ]
