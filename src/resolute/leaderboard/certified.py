"""Boards of what is proven of smoothed super-resolution models, which are never those of what attacks reached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.figures import DASH
from resolute.measure.intervals import bootstrap_mean
from resolute.report.reading import StudyFolder, read_source
from resolute.studies.kinds import KINDS
from resolute.studies.record import grouped
from resolute.studies.restoration import Restoration
from resolute.studies.restored import RestorationRecord
from resolute.studies.study import count
from resolute.table import Column, Table, row


@final
@dataclasses.dataclass(frozen=True)
class CertifiedBoard:
    """Certificates that can be ranked together: on the same images, with the same confidence.

    Attributes:
        id: of its table.
        title: the scale and the data set.
        images: how many there are.
        table: a row for every model, noise and radius.
        alpha: chance that a figure of one image is wrong.
    """

    id: str
    title: str
    images: int
    table: Table
    alpha: float


def kind_in(run: Path) -> str:
    """Return the kind of the study in a folder; empty where that cannot be read, or says none that is known."""
    kind = Store(run).facts().get("kind")
    return kind if isinstance(kind, str) and kind in KINDS else ""


def finished(runs: Sequence[Path], called: str, notes: list[str]) -> Iterator[tuple[Path, StudyFolder]]:
    """Yield the finished studies in folders, whose records are all there; note why others are left out."""
    for run in runs:
        try:
            source = read_source(run)
        except ConfigError as error:
            notes.append(f"{run.name}: {error}")
            continue
        if source.lacking:
            notes.append(f"{run.name} is not finished: {count(source.lacking, called)} are missing")
        else:
            yield run, source


@dataclasses.dataclass(frozen=True)
class _Line:
    """One model under one noise at one radius in one folder, which is named where another answers the same."""

    folder: str
    scale: int
    records: Sequence[RestorationRecord]

    @property
    def figures(self) -> dict[str, dict[str, object]]:
        return {one.pixels: one.figures() for one in self.records}


def certified_boards(runs: Sequence[Path]) -> tuple[list[CertifiedBoard], list[str]]:
    """Return the boards of finished studies, and why anything is left out.

    Left out are unfinished studies. Whose seeds were given instead of drawn once the image was fixed is said: whoever
    chose them may have tried several. Folders are never mixed, for anyone may have made one: where two of them answer
    one question differently, which may be two draws or a lie, both stand, the second with the name of its folder.
    """
    found: dict[tuple[str | float, ...], list[_Line]] = {}
    notes: list[str] = []
    for run, source in finished(runs, "certificate", notes):
        scale = source.study.scale if isinstance(source.study, Restoration) else 0
        own = [record for record in source.records if isinstance(record, RestorationRecord)]
        for conditions, theirs in grouped(own, _conditions).items():
            records = _once(theirs)
            # Of another scale, images of equal pixels make another task; folders may hold others for another radius.
            images = hashlib.sha256(json.dumps(sorted(one.pixels for one in records)).encode()).hexdigest()
            known = found.setdefault((images, scale, *conditions), [])
            line = _Line(run.name if known else "", scale, records)
            if all(line.figures != other.figures for other in known):
                known.append(line)
    groups = grouped(found, lambda key: key[:4]).values()
    boards = [
        _board(f"certified-{number}", [line for key in keys for line in found[key]])
        for number, keys in enumerate(groups)
    ]
    return boards, notes


def _conditions(one: RestorationRecord) -> tuple[str | float, ...]:
    return one.alpha, one.noise, one.model, one.weights, one.dataset, one.epsilon, one.sigma, one.copies


def _once(records: Sequence[RestorationRecord]) -> list[RestorationRecord]:
    """Return one record an image: what is least certified of it, where it was asked about several times."""

    def least(record: RestorationRecord) -> float:
        return record.certified[1] if record.certified is not None else -math.inf

    return [min(own, key=least) for own in grouped(records, lambda one: one.pixels).values()]


def _board(id: str, lines: Sequence[_Line]) -> CertifiedBoard:
    first = lines[0].records[0]
    columns = [
        Column("model"), Column("certified SR-PSNR", "dB", "that no attack within the radius can go below, a mean over "
        "images with its 95 % bootstrap interval", better="higher", key=True),
        Column("least on any image", "dB", better="higher"), Column("radius", "l2", "over all values of the input", 4),
        Column("sigma", digits=3), Column("clean PSNR", "dB", "of the certified output", better="higher"),
        Column("without noise", "dB", "clean PSNR of the model itself", better="higher"),
        Column("copies"), Column("weights", code=True), Column("seeds"),
    ]  # fmt: skip
    rows = []
    for line in lines:
        own, one = line.records, line.records[0]
        called = f"{one.model}, {line.folder}" if line.folder else one.model
        proven = [certified[1] for each in own if (certified := each.certified) is not None]
        whole = len(proven) == len(own)
        rows.append(
            row(
                called, bootstrap_mean(proven) if whole else DASH, min(proven) if whole else DASH, one.epsilon,
                one.sigma, _mean_of_all([each.kept_psnr for each in own]),
                _mean_of_all([each.plain_psnr for each in own]), one.copies, one.weights[:8] or "none",
                "drawn after the image" if all(each.drawn for each in own) else "given",
            )
        )  # fmt: skip
    title = f"\u00d7{lines[0].scale}, {first.dataset or 'images given as files'}"
    return CertifiedBoard(id, title, len(lines[0].records), Table(f"Certified, {title}", columns, rows), first.alpha)


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return a mean over all images of a board; None where one of them has no such figure."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
