"""Images of high resolution and the low-resolution files that belong to them, by their names and their sizes."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxtyping import UInt8
from numpy import ndarray

from resolute.errors import ImageError, ImageNote
from resolute.folders import find_images, folders_in, images_in
from resolute.images import image_size, read_image, to_uint8
from resolute.marks import Marks, marks_of, marks_of_file
from resolute.resemblance import alike, warn_of_shrunk, warn_of_unrelated

# Where releases keep the high-resolution images, in lower case; the first that there is counts.
_HIGH = ("hr", "hr_jpg", "gtmod12", "original")

Size = tuple[int, int]
Low = UInt8[ndarray, "h w 3"]
High = UInt8[ndarray, "sh sw 3"]


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """One image of those that were given.

    Attributes:
        name: of its file without suffix; of a pair what its two names have in common.
        path: its file; of a pair the one of high resolution.
        low: the low-resolution file of a pair; None otherwise.
    """

    name: str
    path: Path
    low: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All its files."""
        return [self.path] if self.low is None else [self.path, self.low]


def matched_images(
    paths: Iterable[Path | str | ImageFiles], scale: int, *, high: bool = True, every: int = 1
) -> list[ImageFiles]:
    """Return the images that paths name, those of one picture as pairs, and say how many pairs there are.

    A pair is two files whose names differ in marks of resolution and scale alone (``img_001_SRF_4_HR``, ``baby_LR_x4``,
    ``0801x4``) or in the folders that they lie in (``HR``, ``LR_bicubic/X4``), and whose sizes differ by the scale.

    Args:
        paths: files and folders; of a folder that holds no image the folders inside it by the names of releases. What
            was matched before stays as it is.
        scale: of the model; pairs of other scales are left out.
        high: whether an image without a low-resolution file is one of high resolution.
        every: take each n-th image only.

    Raises:
        ImageError: a path does not exist, a folder holds no image, two files are a pair by their names and not by their
            sizes, or several low-resolution files belong to one image.
    """
    given = list(paths)
    matched = [one for one in given if isinstance(one, ImageFiles)]
    named = [Path(one) for one in given if not isinstance(one, ImageFiles)]
    found = [*matched, *_matched(named, scale, high)][::every]
    pairs = [one for one in found if one.low is not None and one not in matched]
    warn_of_unrelated([(one.low, one.path, f"{one.low.name} and {one.path.name}") for one in pairs if one.low])
    return found


def _matched(paths: Sequence[Path], scale: int, high: bool) -> list[ImageFiles]:
    files = find_images(folder for path in paths for folder in _folders(path, scale, high))
    if scale < 2:
        return [ImageFiles(path.stem, path) for path in files]
    groups: dict[str, list[tuple[Path, Marks]]] = {}
    for path in files:
        marks = marks_of_file(path)
        groups.setdefault(marks.rest.lower(), []).append((path, marks))
    pairs = {key: pair for key, group in groups.items() if len(group) > 1 and (pair := _pair(group, scale))}
    results = tuple(beginning for pair in pairs.values() if (beginning := _beginning(pair)))
    found: list[ImageFiles] = []
    dropped: list[Path] = []
    seen: set[Path] = set()
    for path in files:
        marks = marks_of_file(path)
        pair = pairs.get(marks.rest.lower())
        if pair is not None and path in pair.files:
            found += [pair] if pair.path not in seen else []
            seen.add(pair.path)
        elif path.stem.startswith(results) or (pair is not None and (marks.role == "low" or marks.scale)):
            dropped.append(path)
        else:
            found.append(ImageFiles(path.stem, path))
    _tell(list(pairs.values()), found, dropped)
    warn_of_shrunk([image.path for image in found if image.low is None], scale)
    return found


def high_folder(folder: Path) -> Path | None:
    """Return the folder of high-resolution images inside one of a data set; None where it is not clear which.

    Raises:
        ImageError: a folder cannot be listed.
    """
    parts = {part.name.lower(): part for part in folders_in(folder)}
    known = next((parts[name] for name in _HIGH if name in parts), None)
    marked = [part for name, part in parts.items() if marks_of(name).role == "high" and images_in(part)]
    return known or (marked[0] if len(marked) == 1 else None)


def read_pair(high: Path, low: Path, scale: int) -> tuple[Low, High]:
    """Read a low-resolution image as it is, and the part of the high-resolution one that it shows.

    Raises:
        BrokenImageError: one cannot be read.
        ImageError: their sizes do not differ by the scale.
    """
    return fitted(high, to_uint8(read_image(high)), to_uint8(read_image(low)), scale, low)


def fitted(
    name: Path | str,
    large: UInt8[ndarray, "h1 w1 3"],
    small: UInt8[ndarray, "h2 w2 3"],
    scale: int,
    low: Path | str = "its low-resolution form",
) -> tuple[Low, High]:
    """Return a low-resolution image, and the part of the high-resolution one that it shows.

    Raises:
        ImageError: their sizes do not differ by the scale; the text has their names.
    """
    if not _fit((large.shape[1], large.shape[0]), (small.shape[1], small.shape[0]), scale):
        raise _wrong(name, low, (large.shape[1], large.shape[0]), (small.shape[1], small.shape[0]), scale)
    # Where the last rows of the large one make no whole pixel, some programs leave them out, and some add a pixel.
    height, width = (min(a, b // scale) for a, b in zip(small.shape[:2], large.shape[:2], strict=True))
    return small[:height, :width], large[: height * scale, : width * scale]


def _folders(path: Path, scale: int, high: bool) -> list[Path]:
    """Return where the images below a path lie, where that is clear; the path itself otherwise."""
    if not path.is_dir() or images_in(path):
        return [path]
    large = high_folder(path)
    parts = folders_in(path)
    if large is None:
        mixed = [part for part in parts if marks_of(part.name).scale == scale and images_in(part)]
        return mixed if len(mixed) == 1 else [path]
    low = [part for part in parts if marks_of(part.name).role == "low"] if scale > 1 else []
    held = [sub for part in low for sub in (part, *folders_in(part)) if images_in(sub)]
    fitting = [sub for sub in held if marks_of_file(sub / "x").scale in (0, scale)]
    return [large, *fitting] if fitting or high else [path]


def _pair(group: Sequence[tuple[Path, Marks]], scale: int) -> ImageFiles | None:
    """Return the pair among files of one name; None where there is none."""
    highs = [one for one in group if one[1].role == "high"]
    lows = [one for one in group if one[1].role == "low"]
    plain = [one for one in group if not one[1].role and not one[1].scale]
    scaled = [one for one in group if not one[1].role and one[1].scale]
    said = bool(lows)
    lows = lows or (scaled if highs or plain else []) or (plain if highs else [])
    tops = highs or ([one for one in (*plain, *scaled) if one not in lows] if lows else [])
    if not lows and not tops and len(plain) == 2:
        lows = tops = plain
    lows, tops = _of_scale(lows, scale), _of_scale(tops, scale)
    if not lows or not tops:
        return None
    fitting = [(top, low) for top, _ in tops for low, _ in lows if top != low and _sizes_fit(top, low, scale)]
    if lows == tops:
        # Where no mark says so, two pictures of different sets may well have one name.
        fitting = [(top, low) for top, low in fitting if alike(low, top)]
    if not fitting:
        top, low = tops[0][0], lows[0][0]
        sizes = image_size(top), image_size(low)
        # NAMEx4 may also be what a model has made of NAME.
        smaller = sizes[0] is not None and sizes[1] is not None and min(sizes[1]) < min(sizes[0])
        if (said and highs) or (lows != plain and smaller):
            raise _wrong(top, low, *sizes, scale)
        return None
    if len({(top.resolve(), low.resolve()) for top, low in fitting}) > 1:
        names = " and ".join(str(path) for path in dict.fromkeys(path for pair in fitting[:2] for path in pair))
        raise ImageError(f"{names} belong to one picture, and it is not clear which to use; name fewer of them")
    top, low = fitting[0]
    return ImageFiles(marks_of_file(top).rest, top, low)


def _beginning(pair: ImageFiles) -> str:
    """Return how the results of methods are called in releases that hold them too: ``img_001_SRF_4_`` before a name."""
    found = re.fullmatch(r"(.+[_-](?:srf_?|x)\d_)(?:hr|gt)", pair.path.stem, re.IGNORECASE)
    return found[1] if found else ""


def _of_scale(group: Sequence[tuple[Path, Marks]], scale: int) -> list[tuple[Path, Marks]]:
    """Return those that are said to be of a scale or say none, where there are such."""
    return [one for one in group if one[1].scale in (0, scale)] or list(group)


def _sizes_fit(high: Path, low: Path, scale: int) -> bool:
    large, small = image_size(high), image_size(low)
    # What is wrong with a file that cannot be opened is said when it is read.
    return large is None or small is None or _fit(large, small, scale)


def _fit(large: Size, small: Size, scale: int) -> bool:
    return all(abs(a - scale * b) < scale for a, b in zip(large, small, strict=True)) and large > small


def _wrong(high: Path | str, low: Path | str, large: Size | None, small: Size | None, scale: int) -> ImageError:
    sizes = [f"{name} is {size[0]} x {size[1]}" for name, size in ((low, small), (high, large)) if size]
    return ImageError(
        f"{' and '.join(sizes)}: no pair for scale {scale}; give a model or files of the same scale, or leave one out"
    )


def _tell(pairs: Sequence[ImageFiles], found: Sequence[ImageFiles], dropped: Sequence[Path]) -> None:
    if not pairs:
        return
    first = pairs[0]
    assert first.low is not None
    words = f"1 pair of {first.path.name} and {first.low.name}"
    if len(pairs) > 1:
        words = (
            f"{len(pairs)} pairs of a high- and a low-resolution image, such as {first.path.name} and {first.low.name}"
        )
    single = len(found) - len(pairs)
    words += ": the low-resolution image is taken as it is, the other is the ground truth"
    words += f"; {single} without a partner" if single else ""
    words += f"; {len(dropped)} other forms of them left out, such as {dropped[0].name}" if dropped else ""
    warnings.warn(words, ImageNote, stacklevel=3)
