"""The page of a hardening: the verdict, the picture that shows it, the table, and how it was made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from resolute.errors import ImageError
from resolute.figures import interval
from resolute.files import write_text
from resolute.images import read_kept, to_uint8
from resolute.report.assets import MEGABYTES, render
from resolute.report.encode import Album
from resolute.training.hardened import Hardening, tables

# What the tiles of an image show: role and picture, as ``Hardening.pictures`` names them, and the words for them.
_TILES = (
    ("before", "original", "original"),
    ("before", "clean output", "before, clean input"),
    ("before", "output", "before, attacked"),
    ("after", "clean output", "hardened, clean input"),
    ("after", "output", "hardened, attacked"),
    ("before", "attacked", "attacked input, before"),
    ("after", "attacked", "attacked input, hardened"),
)

# On the page, those with the lowest figures first.
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class ImageCase:
    """One image on the page: its name, figures, and pictures as (words, number in the album)."""

    image: str
    facts: str
    tiles: list[tuple[str, int]]


def write_hardening(folder: Path, out: Path | None = None) -> Path:
    """Write the page of the hardening in ``folder`` and return its path.

    Args:
        folder: that ``harden`` wrote.
        out: the file to write; ``report.html`` in the folder if not given.

    Raises:
        ConfigError: the folder holds no hardening.
        OutputError: the file cannot be written.
    """
    made, album = Hardening.read(folder), Album()
    cases = _cases(made, folder, album)
    page = render(
        "hardening.html.j2",
        {
            "made": made,
            "sentences": made.sentences(),
            "tables": tables(made),
            "gains": {quantity: interval(made.gain(quantity)) for quantity in ("clean", "truth", "kept")},
            "cases": cases,
            "album": album.uris,
        },
    )
    path = out or folder / "report.html"
    write_text(path, page)
    return path


def _cases(made: Hardening, folder: Path, album: Album) -> list[ImageCase]:
    found: list[ImageCase] = []
    pairs = zip(made.before.judged, made.after.judged, strict=True)
    for before, after in sorted(pairs, key=lambda pair: pair[0].truth)[:_SHOWN]:
        files = made.pictures.get(before.image, {})
        paths = [(words, files[role][what]) for role, what, words in _TILES if what in files.get(role, {})]
        try:
            pixels = [(words, to_uint8(read_kept(folder, path))) for words, path in paths]
        except ImageError:
            # Missing or damaged; the figures do without.
            continue
        if len(pixels) < len(_TILES) or album.size > MEGABYTES * 1_000_000 * 0.9:
            continue
        tiles = [
            (words, album.add(picture, lossless=words.startswith("attacked input"), quality=90))
            for words, picture in pixels
        ]
        facts = (
            f"against the original {before.truth:.1f} → {after.truth:.1f} dB, SR-PSNR {before.kept:.1f} → "
            f"{after.kept:.1f} dB, clean {before.clean:.2f} → {after.clean:.2f} dB"
        )
        found.append(ImageCase(before.image, facts, tiles))
    return found
