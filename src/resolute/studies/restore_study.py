"""What all studies of super-resolution models have in common: the photographs, and how a study uses them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pydantic
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from resolute.errors import ImageError, TooSmallError
from resolute.folders import read_each
from resolute.images import from_uint8, to_uint8
from resolute.of_file import was_run
from resolute.resize import downscale, mod_crop
from resolute.studies.attacked import Subject
from resolute.studies.datasets import Photo, find_photos, middle, own_set
from resolute.studies.grid_cases import Scene
from resolute.studies.originals import Originals
from resolute.studies.study import Compared, Described, Pictured, Study, count


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class RestoreStudy(Study, Pictured, Compared, Described, abc.ABC):
    """A study of super-resolution models on photographs.

    Attributes:
        models: built-in names or weights files, with input-time defences behind a plus: ``edsr-s+mix=0.75``.
        images: ``samples`` for the photographs inside scikit-image, names of data sets, or image files and folders;
            see ``find_photos``.
        high_resolution: the images are the ground truth, to be cropped to a multiple of the scale and shrunk as
            MATLAB does; otherwise they are the low-resolution inputs themselves, and nothing is measured against truth.
            Pairs of a high- and a low-resolution file are both, whatever is said here; see ``matched_images``.
        truths: the ground truth of images that are inputs: one file, or files and folders that hold one of each image's
            name.
        names: of the photographs that count, all of which must be there; empty for all that there are.
        every: take each n-th image only, of every data set.
        crop: cut the middle square of this many pixels out of every image first; 0 for whole images.
        scale: of the models.
        skip_broken: leave images out that cannot be read, and say so.
    """

    models: tuple[str, ...] = pydantic.Field(min_length=1)
    images: tuple[str, ...] = ("samples",)
    high_resolution: bool = True
    truths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    every: int = pydantic.Field(default=1, ge=1)
    crop: int = pydantic.Field(default=0, ge=0)
    scale: int = pydantic.Field(default=4, ge=1, le=64)
    skip_broken: bool = False

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
        """Read and prepare the images; those that are too small are left out, with an ``ImageWarning``.

        Raises:
            ImageError: an image cannot be found or read, or all are too small.
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
            raise TooSmallError(f"{name}: {error}") from None
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
