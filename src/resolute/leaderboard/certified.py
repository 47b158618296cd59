"""Boards of what is proven of smoothed super-resolution models, which are never those of what attacks reached."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import final

from resolute.errors import ConfigError
from resolute.figures import DASH
from resolute.measure.intervals import bootstrap_mean
from resolute.report.reading import read_source
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
        title: the data set.
        images: how many there are.
        table: a row for every model, noise and radius.
        alpha: chance that a figure of one image is wrong.
    """

    id: str
    title: str
    images: int
    table: Table
    alpha: float


def is_certified(run: Path) -> bool:
    """Tell whether a folder is of a study of certified restoration, whose place is not beside attacks."""
    try:
        kind = json.loads((run / "study.json").read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return kind == Restoration.kind


def certified_boards(runs: Sequence[Path]) -> tuple[list[CertifiedBoard], list[str]]:
    """Return the boards of finished studies, and why anything is left out.

    Left out are unfinished studies. Whose seeds were given instead of drawn once the image was fixed is said: whoever
    chose them may have tried several.
    """
    found: dict[str, RestorationRecord] = {}
    notes: list[str] = []
    for run in runs:
        try:
            source = read_source(run)
        except ConfigError as error:
            notes.append(f"{run.name}: {error}")
            continue
        own = {record.key: record for record in source.records if isinstance(record, RestorationRecord)}
        if lacking := len(set(source.store.order()) - own.keys()):
            notes.append(f"{run.name} is not finished: {count(lacking, 'certificate')} are missing")
            continue
        found |= own
    subjects = grouped(found.values(), lambda one: (one.model, one.weights, one.dataset, one.alpha, one.noise))
    sets = {
        key: hashlib.sha256(json.dumps(sorted({one.pixels for one in own})).encode()).hexdigest()
        for key, own in subjects.items()
    }
    groups = grouped(subjects, lambda key: (sets[key], *key[3:]))
    boards = [
        _board(f"certified-{number}", [subjects[key] for key in keys]) for number, keys in enumerate(groups.values())
    ]
    return boards, notes


def _board(id: str, subjects: Sequence[Sequence[RestorationRecord]]) -> CertifiedBoard:
    first = subjects[0][0]
    columns = [
        Column("model"), Column("certified SR-PSNR", "dB", "that no attack within the radius can go below, a mean over "
        "images with its 95 % bootstrap interval", better="higher", key=True),
        Column("least on any image", "dB", better="higher"), Column("radius", "l2", "over all values of the input", 4),
        Column("sigma", digits=3), Column("clean PSNR", "dB", "of the certified output", better="higher"),
        Column("without noise", "dB", "clean PSNR of the model itself", better="higher"),
        Column("copies"), Column("weights", code=True), Column("seeds"),
    ]  # fmt: skip
    rows = []
    for records in subjects:
        for (epsilon, sigma, copies), own in grouped(records, lambda r: (r.epsilon, r.sigma, r.copies)).items():
            proven = [one.certified[1] for one in own if one.certified is not None]
            kept = [one.kept_psnr for one in own if one.kept_psnr is not None]
            plain = [one.plain_psnr for one in own if one.plain_psnr is not None]
            whole = len(proven) == len(own)
            rows.append(
                row(
                    own[0].model, bootstrap_mean(proven) if whole else DASH, min(proven) if whole else DASH, epsilon,
                    sigma, sum(kept) / len(kept) if kept else None, sum(plain) / len(plain) if plain else None, copies,
                    own[0].weights[:8] or "none", "drawn after the image" if all(o.drawn for o in own) else "given",
                )
            )  # fmt: skip
    title = first.dataset or "images given as files"
    images = len({one.pixels for one in subjects[0]})
    return CertifiedBoard(id, title, images, Table(f"Certified, {title}", columns, rows), first.alpha)
