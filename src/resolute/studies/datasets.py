"""The photographs that a study names: data sets by name, folders and files, or the samples inside scikit-image."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from resolute.errors import ImageError
from resolute.folders import each_once
from resolute.images import SAMPLE_NAMES, from_uint8, read_image, sample_image
from resolute.of_file import OwnCode, own_code
from resolute.pairing import fitted, high_folder, matched_images, read_pair
from resolute.plugins import find_plugin
from resolute.studies.given_images import Made, Pixels, given_images

SAMPLES = "samples"

# The folders that the three sets of the paper go by, in lower case.
DATASETS = {"set5": ("set5",), "set14": ("set14",), "bsd100": ("bsd100", "b100", "bsds100")}
_TITLES = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100", SAMPLES: "sample photographs"}
_PLACES = ("", "sr_test", "benchmark")


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photograph of a study.

    Attributes:
        dataset: the set it belongs to; empty for files and folders that were given as such.
        name: in records, unique within the study.
        path: the file; None for a sample.
        low: the low-resolution file that was given with it; None where there is none.
        stem: the name before it was made unique.
        made: what code gave instead of files: the image, with its low-resolution form behind it where there is one.
    """

    dataset: str
    name: str
    path: Path | None
    low: Path | None = None
    stem: str = ""
    made: tuple[Pixels, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether its low-resolution form was given too."""
        return self.low is not None or len(self.made) > 1

    def read(self) -> Float[Tensor, "3 h w"]:
        """Read it.

        Raises:
            ImageError: the file cannot be read.
        """
        if self.made:
            return from_uint8(self.made[0])
        return sample_image(self.name) if self.path is None else read_image(self.path)

    def read_pair(self, scale: int) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 sh sw"]]:
        """Read the low-resolution image that was given, and the part of the other that it shows, in 8 bits.

        Raises:
            ImageError: a file cannot be read, or their sizes do not differ by the scale.
        """
        if self.made:
            low, high = fitted(self.name, self.made[0], self.made[1], scale)
            return from_uint8(low), from_uint8(high)
        assert self.path is not None
        assert self.low is not None
        low, high = read_pair(self.path, self.low, scale)
        return from_uint8(low), from_uint8(high)


def find_photos(images: Sequence[str], every: int = 1, scale: int = 1, *, high: bool = True) -> list[Photo]:
    """Return the photographs that ``images`` names, every n-th of each set.

    Args:
        images: ``samples``; names in ``DATASETS``, looked for below the folder that RESOLUTE_DATA names; names of
            plug-ins; ``FILE.py:NAME``, see ``given_images``; ``NAME=FOLDER`` for any set; files and folders. Of the
            sets in ``DATASETS`` the high-resolution images count; of others also low-resolution ones that belong to
            them, see ``matched_images``.
        every: take each n-th only.
        scale: of such pairs; 1 where none are looked for.
        high: whether images that belong to no pair are of high resolution.

    Raises:
        ImageError: a set or a file is not to be found; the text says what to put where. Or as ``matched_images``.

    Example:
        >>> [photo.name for photo in find_photos(["samples"], every=4)]
        ['astronaut', 'rocket']
    """
    groups: dict[str, list[Path]] = {}
    made: dict[str, list[Made]] = {}
    for image in images:
        dataset, paths = _look_up(image)
        groups.setdefault(dataset, []).extend(path for path in paths if isinstance(path, Path))
        made.setdefault(dataset, []).extend(one for one in paths if not isinstance(one, Path))
    photos: list[Photo] = []
    for dataset, named in groups.items():
        paths = each_once(named)
        for number, images_made in list(enumerate(made[dataset], start=1))[::every]:
            name = f"{dataset}-{number}"
            photos.append(Photo(dataset, name, None, stem=name, made=images_made))
        if dataset == SAMPLES and not paths:
            photos += [Photo(SAMPLES, name, None, stem=name) for name in SAMPLE_NAMES[::every]]
        else:
            found = matched_images(paths, scale, high=high, every=every)
            photos += [Photo(dataset, one.name, one.path, one.low, one.name) for one in found]
    given, taken = {photo.name for photo in photos}, set[str]()
    # Files of one name lie in two folders more often than one would think.
    for place, photo in enumerate(photos):
        name = photo.name
        if name in taken:
            numbered = (f"{name}-{number}" for number in itertools.count(2))
            name = next(one for one in numbered if one not in given | taken)
            photos[place] = dataclasses.replace(photo, name=name)
        taken.add(name)
    return photos


def middle(image: Float[Tensor, "3 h w"], side: int, factor: int = 1) -> Float[Tensor, "3 h1 w1"]:
    """Cut the middle square of so many pixels out of an image, as far as it reaches; 0 for the whole image.

    With a ``factor`` the side counts in units of so many pixels, and the cut lies at multiples of it.

    Example:
        >>> middle(sample_image("chelsea"), 320).shape
        torch.Size([3, 300, 320])
    """
    if not side:
        return image
    top, left = (factor * max(0, (length // factor - side) // 2) for length in image.shape[1:])
    return image[:, top : top + factor * side, left : left + factor * side].contiguous()


def dataset_title(name: str) -> str:
    """Return a set's name as papers write it.

    Example:
        >>> dataset_title("bsd100"), dataset_title("mine"), dataset_title("")
        ('BSD100', 'mine', 'images')
    """
    return _TITLES.get(name, name or "images")


def _look_up(image: str) -> tuple[str, Sequence[Path | Made]]:
    if image == SAMPLES:
        return SAMPLES, []
    if image in DATASETS:
        return image, [_known_folder(image)]
    named = None if Path(image).exists() else re.fullmatch(r"([\w.-]+)=(.+)", image)
    if named is not None and (code := own_code(named[2])):
        return named[1], given_images(code)
    plugin = None if Path(image).exists() else find_plugin("datasets", image)
    if plugin is not None:
        return (plugin.name if isinstance(plugin, OwnCode) else image), given_images(plugin)
    if named is not None:
        return named[1], [_of_known_set(Path(named[2])) if named[1] in DATASETS else Path(named[2])]
    return "", [Path(image)]


def _known_folder(name: str) -> Path:
    ask = f"name its folder with --images {name}=FOLDER"
    given = os.environ.get("RESOLUTE_DATA", "")
    if not given:
        raise ImageError(
            f"the study needs the images of {dataset_title(name)}: {ask}, or put them in FOLDER/{name} and name FOLDER "
            "with the environment variable RESOLUTE_DATA; with --quick most studies need no data"
        )
    root = Path(given)
    try:
        folders = [
            inside
            for place in (root / place for place in _PLACES)
            if place.is_dir()
            for inside in sorted(place.iterdir())
            if inside.name.lower() in DATASETS[name] and inside.is_dir()
        ]
    except OSError as error:
        raise ImageError(f"cannot look into {root}: {error.strerror}; check its name and permissions") from None
    if folders:
        return _of_known_set(folders[0])
    raise ImageError(
        f"no folder {name} in {root}, which RESOLUTE_DATA names: put the high-resolution images of "
        f"{dataset_title(name)} there, or {ask}"
    )


def _of_known_set(folder: Path) -> Path:
    """Return where the high-resolution images of a set lie in its folder; low-resolution ones are made here."""
    if not folder.is_dir():
        return folder
    # As some releases have it, also where images of another kind lie beside that folder.
    return high_folder(folder) or folder


def own_set(image: str) -> OwnCode | None:
    """Return the code that gives a set of images by ``FILE.py:NAME``, with ``SET=`` in front or not; None for others.

    Example:
        >>> own_set("mine=sets.py:Crops").name, own_set("samples")
        ('Crops', None)
    """
    named = re.fullmatch(r"[\w.-]+=(.+)", image)
    return (own_code(named[1]) if named is not None else None) or own_code(image)
