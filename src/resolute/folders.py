"""The image files that paths name, and what else lies in a folder."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from resolute.errors import BrokenImageError, ImageError, ImageWarning, TooSmallError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp")

# Images to a person, and not read.
_UNREAD = (
    ".apng", ".arw", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".hdr", ".heic", ".heif", ".j2k", ".jp2", ".jpe", ".jxl",
    ".jxr", ".mpo", ".nef", ".orf", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf",
)  # fmt: skip

Item = TypeVar("Item")
Read = TypeVar("Read")


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Return the image files that ``paths`` name; a folder stands for the images in it, sorted by name.

    Files come back as given, whatever their suffix, each once. Folders inside a folder and hidden files are skipped. An
    ``ImageWarning`` counts the files in a folder that are images of a kind which is not read.

    Raises:
        ImageError: a path does not exist, or a folder holds no image; the text names folders inside it that do.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not _exists(path):
            raise ImageError(f"cannot find {path}: there is no such file or folder; check the name")
        if not path.is_dir():
            found.append(path)
            continue
        inside = images_in(path)
        unread = _unread(path)
        if not inside:
            raise ImageError(f"no image in {path}: {_remedy(path, unread)}")
        if unread:
            warnings.warn(f"{unread} in {path} left out: convert them to PNG", ImageWarning, stacklevel=2)
        found += inside
    return each_once(found)


def each_once(paths: Iterable[Path]) -> list[Path]:
    """Return the first path to every place: a file that is named twice is one image, and counts once."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.parent.resolve() / path.name, path)
    return list(first.values())


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder itself, sorted by name; hidden ones are skipped.

    Raises:
        ImageError: the folder cannot be listed.
    """
    return sorted(item for item in _listed(folder) if item.suffix.lower() in SUFFIXES and item.is_file())


def folders_in(folder: Path) -> list[Path]:
    """Return the folders of a folder itself, sorted by name; hidden ones are skipped.

    Raises:
        ImageError: the folder cannot be listed.
    """
    return sorted(item for item in _listed(folder) if item.is_dir())


def read_each(items: Sequence[Item], read: Callable[[Item], Read], skip_broken: bool) -> list[Read]:
    """Read all of several images; those that are broken are an error, or left out, with an ``ImageWarning``.

    Those that are too small are always left out so.

    Args:
        items: what to read.
        read: reads one.
        skip_broken: leave out what cannot be read, and say and count it.

    Raises:
        BrokenImageError: one cannot be read and may not be left out, or none can be.
        TooSmallError: all are too small.
    """
    found: list[Read] = []
    broken: list[str] = []
    small: list[str] = []
    for item in items:
        try:
            found.append(read(item))
        except BrokenImageError as error:
            if not skip_broken:
                hint = "; or leave such files out with --skip-broken" if len(items) > 1 else ""
                raise BrokenImageError(f"{error}{hint}") from None
            broken.append(str(error))
        except TooSmallError as error:
            small.append(str(error))
    if small and not found and not broken:
        raise TooSmallError(small[0] if len(items) == 1 else f"all {len(items)} images are too small; {small[0]}")
    left = broken + small
    if broken and not found:
        raise BrokenImageError(f"none of {len(items)} images can be read; the first: {broken[0]}")
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        words = f"{len(left)} of {len(items)} images left out: {'; '.join(left[:5])}{more}"
        warnings.warn(words, ImageWarning, stacklevel=2)
    return found


def _listed(folder: Path) -> list[Path]:
    try:
        return [item for item in folder.iterdir() if not item.name.startswith(".")]
    except OSError as error:
        raise ImageError(f"cannot look into {folder}: {error.strerror}; check its name and permissions") from None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ImageError(f"cannot look into {path}: {error.strerror}; check its name and permissions") from None


def _unread(folder: Path) -> str:
    """Say how many files of a folder are images of kinds that are not read; an empty text where none is."""
    suffixes = [item.suffix.lower() for item in _listed(folder) if item.is_file()]
    kinds = Counter(suffix for suffix in suffixes if suffix in _UNREAD)
    files = "file" if kinds.total() == 1 else "files"
    return f"{kinds.total()} {files} ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))})" if kinds else ""


def _remedy(folder: Path, unread: str) -> str:
    below = [sub for part in folders_in(folder) for sub in (part, *folders_in(part)) if images_in(sub)]
    if below:
        more = " ..." if len(below) > 4 else ""
        return f"they lie in {', '.join(map(str, below[:4]))}{more}; name such a folder"
    held = f"it holds {unread}, which are not read: convert them to PNG, or " if unread else ""
    return f"{held}put some there ({' '.join(SUFFIXES)}) or name another folder"
