"""Photographs as studies of super-resolution models use them: cut, shrunk where they are the ground truth."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from resolute.errors import ImageError
from resolute.images import from_uint8, to_uint8
from resolute.resize import downscale, mod_crop
from resolute.studies.attacked import Subject
from resolute.studies.datasets import Photo, middle


def subject_of(photo: Photo, scale: int, crop: int, *, high: bool) -> Subject:
    """Read one photograph, and return it as a study uses it.

    Args:
        photo: alone, or with its low-resolution form.
        scale: of the models.
        crop: cut the middle square of this many pixels out first; 0 for the whole image.
        high: whether the photograph is of high resolution.

    Raises:
        ImageError: it cannot be read, or is too small.
    """
    if not photo.paired:
        return prepared_subject(photo.name, photo.read(), photo.dataset, scale, crop, high=high)
    low, whole = photo.read_pair(scale)
    if crop:
        side = crop // scale if high else crop
        low, whole = middle(low, side), middle(whole, side, scale)
    return Subject(photo.name, low.unsqueeze(0), whole.unsqueeze(0), photo.dataset, given=True)


def prepared_subject(
    name: str, image: Float[Tensor, "3 h w"], dataset: str, scale: int, crop: int, *, high: bool
) -> Subject:
    """Return one image as a study uses it; see ``subject_of``."""
    pixels = to_uint8(middle(image, crop))
    if not high:
        return Subject(name, from_uint8(pixels).unsqueeze(0), None, dataset)
    try:
        pixels = mod_crop(pixels, scale)
    except ValueError as error:
        raise ImageError(f"{name}: {error}") from None
    low = from_uint8(downscale(pixels, scale)).unsqueeze(0)
    return Subject(name, low, from_uint8(pixels).unsqueeze(0), dataset)
