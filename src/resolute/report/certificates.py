"""The page about certificates: each image with its interval as a bar, to be sorted and filtered, without a network."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch.nn import functional as F

from resolute.errors import ImageError
from resolute.files import write_text
from resolute.images import read_image, to_uint8
from resolute.report import gamed
from resolute.report.assets import MEGABYTES, asset, environment
from resolute.report.encode import Album
from resolute.studies.attacked import alarms, certified_words

Row = Mapping[str, Any]

# Longest side of a picture on the page, in pixels; with some hundred images it can still be mailed.
PICTURE = 320


@dataclasses.dataclass(frozen=True)
class Shown:
    """One image as the page shows it; places are shares of the axis in per cent, None where there is nothing to show.

    Attributes:
        row: its record.
        picture: data URI, empty where the image is not to be had any more.
        low, high, score, undefended: places on the axis.
        curve: ``points`` of the polygon between the bounds over the radius, in a box of 100 x 60.
    """

    row: Row
    picture: str
    low: float | None
    high: float | None
    score: float | None
    undefended: float | None
    curve: str


def write_certificates(out: Path, rows: Sequence[Row], *, megabytes: float = MEGABYTES) -> Path:
    """Write ``report.html`` about certificates into the folder ``out`` and return its path.

    Args:
        out: folder of the run, for its ``certification.json``.
        rows: records as ``Certification.run`` returns them; images that were attacked are shown side by side.
        megabytes: that the page may take, in millions of bytes; pictures beyond it are left out.

    Raises:
        OutputError: the file cannot be written.
    """
    facts = json.loads((out / "certification.json").read_text(encoding="utf-8"))
    page = out / "report.html"
    write_text(page, _render(rows, facts, int(megabytes * 1_000_000)).encode(errors="replace").decode())
    return page


def _render(rows: Sequence[Row], facts: Mapping[str, Any], room: int) -> str:
    low, high = _axis(rows)
    gaming = _gamed(rows, room // 2)
    album = Album()
    # What stands around a picture: words, figures and the curve.
    room -= len(gaming) + 6_000 * len(rows)
    shown = [_shown(row, album, low, high, room) for row in rows]
    widths = [row["upper"] - row["lower"] for row in rows if _bounded(row)]
    return (
        environment()
        .get_template("certificates.html.j2")
        .render(
            version=metadata.version("resolute"),
            metric=rows[0]["scorer"],
            made=rows[0]["smoothing"],
            epsilon=rows[0]["epsilon"],
            certified=certified_words(max(rows, key=lambda row: row["error"])),
            alarms=alarms(rows),
            shown=shown,
            left_out=album.size > room,
            low=low,
            high=high,
            width=statistics.median(widths) if widths else None,
            vacuous=sum(row["vacuous"] and not row["non_finite"] for row in rows),
            abstained=sum(row["non_finite"] > 0 for row in rows),
            moved=sum(_outside(row) for row in rows),
            gamed=gaming,
            provenance=facts["provenance"],
            settings={name: value for name, value in facts["certification"].items() if name != "attacks"},
            style=Markup(asset("page.css") + asset("certificates.css")),
            script=Markup(asset("certificates.js")),
        )
    )


def _gamed(rows: Sequence[Row], room: int) -> Markup:
    examples, more = gamed.examples(rows, room=room)
    if not examples:
        return Markup()
    template = environment().get_template("gamed.html.j2")
    told = {"summary": gamed.summary(rows), "metric": rows[0]["scorer"], "epsilon": rows[0]["epsilon"]}
    return Markup(template.render(examples=examples, more=more, **told))


def _shown(row: Row, album: Album, low: float, high: float, room: int) -> Shown:
    def place(value: float | None) -> float | None:
        return None if value is None else 100 * min(max((value - low) / (high - low), 0.0), 1.0)

    return Shown(
        row=row,
        picture=_picture(row["path"], album) if album.size <= room else "",
        low=0.0 if row["lower"] is None else place(row["lower"]),
        high=100.0 if row["upper"] is None else place(row["upper"]),
        score=place(row["score"]),
        undefended=place(row["undefended"]),
        curve=_curve(row["curve"], low, high),
    )


def _curve(curve: Sequence[Sequence[float | None]], low: float, high: float) -> str:
    """Return the band between the bounds over the radius, where both exist."""
    band = [point for point in curve if point[1] is not None and point[2] is not None]
    if not band:
        return ""
    reach = max(float(point[0] or 0) for point in curve) or 1.0

    def spot(radius: float | None, value: float | None) -> str:
        share = (float(value or 0) - low) / (high - low)
        return f"{100 * float(radius or 0) / reach:.2f},{60 - 60 * min(max(share, 0.0), 1.0):.2f}"

    upper = [spot(point[0], point[2]) for point in band]
    lower = [spot(point[0], point[1]) for point in reversed(band)]
    return " ".join([*upper, *lower])


def _picture(path: str, album: Album) -> str:
    try:
        image = read_image(Path(path))
    except ImageError:
        return ""
    shrink = PICTURE / max(image.shape[1:])
    if shrink < 1:
        size = tuple(max(1, round(side * shrink)) for side in image.shape[1:])
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    with torch.no_grad():
        return album.uris[album.add(to_uint8(image), quality=80)]


def _axis(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the axis: what the intervals and scores span, with some air, inside the proven range."""
    values = [row[name] for row in rows for name in ("lower", "upper", "score", "undefended") if row[name] is not None]
    values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    air = 0.05 * (max(values) - min(values)) or 0.5
    low, high = min(values) - air, max(values) + air
    proven = rows[0]["low"], rows[0]["high"]
    return (low if proven[0] is None else max(low, proven[0])), (high if proven[1] is None else min(high, proven[1]))


def _bounded(row: Row) -> bool:
    return row["lower"] is not None and row["upper"] is not None


def _outside(row: Row) -> bool:
    """Tell whether the metric without noise gives a score outside the interval of the smoothed one."""
    return _bounded(row) and not row["lower"] <= row["undefended"] <= row["upper"]
