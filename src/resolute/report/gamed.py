"""Gamed examples: clean and attacked image side by side, and where both scores went."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resolute.attacks.score import ScoreAttack
from resolute.certify.median import prepared
from resolute.errors import ImageError
from resolute.images import read_image, to_uint8
from resolute.report.encode import Album, middle
from resolute.studies.attacked import verdict, words

Row = Mapping[str, Any]

# Longest side of a picture, in pixels: cut, not shrunk, since shrinking would hide the change.
SIDE = 384
# Images shown; the most gamed ones. Their pictures are lossless, for the same reason.
SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of an example, as a data URI, and what it shows."""

    uri: str
    label: str


@dataclasses.dataclass(frozen=True)
class Track:
    """What happened to one score: places are shares of the axis in per cent.

    Attributes:
        label: whose score, under which attack.
        before, after: the clean and the attacked image's; None where the metric abstained.
        low, high: the interval of a defended score.
        text: the figures.
    """

    label: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class Case:
    """One attack on one image."""

    title: str
    verdict: str
    words: str
    pictures: list[Picture]
    tracks: list[Track]


@dataclasses.dataclass(frozen=True)
class Example:
    """One image and the attacks on it; ``low`` and ``high`` are the ends of their common axis."""

    name: str
    low: float
    high: float
    width: int
    height: int
    cases: list[Case]


def examples(rows: Sequence[Row], limit: int = SHOWN, room: int = 4_000_000) -> tuple[list[Example], int]:
    """Return the images whose undefended score an attack moved most, and how many more were attacked.

    Args:
        rows: records with their attacks.
        limit: of the number of images.
        room: for their pictures, in bytes.
    """
    attacked = [row for row in rows if row.get("attacks")]
    attacked.sort(key=lambda row: -max(abs(attack["attacked"] - attack["clean"]) for attack in row["attacks"]))
    found: list[Example] = []
    for row in attacked[:limit]:
        example = _example(row)
        room -= sum(len(picture.uri) for case in example.cases for picture in case.pictures)
        if room < 0:
            break
        found.append(example)
    return found, len(attacked) - len(found)


def summary(rows: Sequence[Row]) -> list[str]:
    """Say for each attack how often the defended score stayed in its interval, and whether that was proven."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for attack in row.get("attacks", ()):
            found.setdefault(ScoreAttack(**attack["attack"]).title, []).append(verdict(row, attack))
    return [
        f"{title}: {', '.join(f'{verdicts.count(kind)} {kind}' for kind in dict.fromkeys(verdicts))}"
        for title, verdicts in found.items()
    ]


def _example(row: Row) -> Example:
    values = [row["lower"], row["upper"], row["score"]]
    values += [attack[name] for attack in row["attacks"] for name in ("clean", "attacked", "defended")]
    values = [value for value in values if value is not None]
    air = 0.06 * (max(values) - min(values)) or 0.5
    low, high = min(values) - air, max(values) + air
    clean = _clean(row)
    cases = [_case(row, attack, clean, low, high) for attack in row["attacks"]]
    height, width = (min(side, SIDE) for side in row["size"])
    return Example(row["image"], low, high, width, height, cases)


def _case(row: Row, attack: Row, clean: np.ndarray | None, low: float, high: float) -> Case:
    def place(value: float | None) -> float | None:
        return None if value is None else 100 * (value - low) / (high - low)

    def figures(before: float | None, after: float | None) -> str:
        return " \u2192 ".join("\u2013" if value is None else f"{value:.2f}" for value in (before, after))

    kind = ScoreAttack(**attack["attack"])
    tracks = [
        Track(
            "undefended", place(attack["clean"]), place(attack["attacked"]), None, None,
            figures(attack["clean"], attack["attacked"]),
        ),
        Track(
            "defended", place(row["score"]), place(attack["defended"]),
            0.0 if row["lower"] is None else place(row["lower"]),
            100.0 if row["upper"] is None else place(row["upper"]),
            figures(row["score"], attack["defended"]),
        ),
    ]  # fmt: skip
    title = kind.title[0].upper() + kind.title[1:]
    return Case(title, verdict(row, attack), words(row, attack), _pictures(attack, clean), tracks)


def _pictures(attack: Row, clean: np.ndarray | None) -> list[Picture]:
    try:
        attacked = to_uint8(read_image(Path(attack["path"])))
    except ImageError:
        return []
    if clean is None or clean.shape != attacked.shape:
        return []
    change = attacked.astype(np.int16) - clean
    times = max(1, 127 // max(1, int(np.abs(change).max())))
    difference = (128 + times * change).clip(0, 255).astype(np.uint8)
    # Not shared with other cases: a page repeats a picture by its data.
    album = Album()
    return [
        Picture(album.uris[album.add(middle(pixels, SIDE), lossless=True)], label)
        for pixels, label in (
            (clean, "clean"),
            (attacked, "attacked"),
            (difference, f"the change, \u00d7{times} around grey"),
        )
    ]


def _clean(row: Row) -> np.ndarray | None:
    try:
        image = read_image(Path(row["path"]))
    except ImageError:
        return None
    return to_uint8(prepared(image, (row["size"][0], row["size"][1]) if row["resized"] else None))
