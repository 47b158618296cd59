"""Boards of quality metrics: what is proven of smoothed scores, and apart from it what was measured of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from resolute.certificates.certificate import sampled_median
from resolute.figures import DASH
from resolute.leaderboard.certified import finished
from resolute.measure.agreement import agreement_difference, agreement_interval, least_srocc
from resolute.studies.record import grouped
from resolute.studies.score_attacked import ScoreAttackRecord, refutes
from resolute.studies.score_study import parted
from resolute.studies.scored import ScoreRecord
from resolute.studies.study import count
from resolute.table import Column, Row, Table, TableCell, row

# Radii that every metric is asked about: its samples answer any, and what was asked for first may be anything.
RADII = (0.05, 0.1, 0.25, 0.5, 1.0)
# Chance that any figure of a row is wrong.
ALPHA = 0.001
RESAMPLES = 1000


@final
@dataclasses.dataclass(frozen=True)
class ScoreBoard:
    """Metrics that can be ranked together: on the same images with the same opinions.

    Attributes:
        id: of its section.
        images: how many there are.
        certified: a row for every metric, defence, noise and radius.
        measured: a row for every metric and defence, without an attack.
    """

    id: str
    images: int
    certified: Table
    measured: Table


@dataclasses.dataclass(frozen=True)
class _Line:
    """One metric behind one defence in one folder; ``called`` is its defence, with the folder where two share one."""

    called: str
    records: Sequence[ScoreRecord]

    @property
    def first(self) -> ScoreRecord:
        return self.records[0]

    @property
    def opinions(self) -> list[float]:
        return [one.mos for one in self.records if one.mos is not None]


def score_boards(runs: Sequence[Path]) -> tuple[list[ScoreBoard], list[str]]:
    """Return the boards of finished studies, and why anything is left out.

    Left out are unfinished studies, and a metric behind a defence where a record contradicts its own samples, where an
    attack refutes a certificate or where an image has no opinion. Folders are never mixed: where two of them answer one
    question differently, both stand, the second with the name of its folder.
    """
    found: dict[tuple[object, ...], list[_Line]] = {}
    notes: list[str] = []
    for run, source in finished(runs, "record", notes):
        scores, attacks = parted(source.records)
        for conditions, own in grouped(scores, _conditions).items():
            if fault := _fault(own, attacks):
                notes.append(f"{run.name}, {own[0].defence} ({own[0].metric_alone}): {fault}")
                continue
            known = found.setdefault(conditions, [])
            figures = [one.figures() for one in own]
            if all([one.figures() for one in line.records] != figures for line in known):
                called = f"{own[0].defence}, {run.name}" if known else own[0].defence
                known.append(_Line(called, own))
    lines = [line for known in found.values() for line in known]
    groups = [group for group in grouped(lines, _images).values() if any(line.first.smoothing for line in group)]
    return [_board(f"metrics-{number}", group) for number, group in enumerate(groups)], notes


def _conditions(one: ScoreRecord) -> tuple[object, ...]:
    made = one.smoothing and dataclasses.replace(one.smoothing, seed=None, drawn=False)
    return one.metric_alone, one.defence, one.model, one.weights, one.lower_better, repr(made)


def _images(line: _Line) -> str:
    return hashlib.sha256(json.dumps(sorted((one.pixels, one.mos) for one in line.records)).encode()).hexdigest()


def _fault(own: Sequence[ScoreRecord], attacks: Sequence[ScoreAttackRecord]) -> str:
    """Return why the figures of a metric cannot stand on a board; empty where they can."""
    if len(own) < 2 or any(one.mos is None for one in own):
        return "agreement takes two images, and an opinion of each"
    for one in own:
        if contradiction := _contradiction(one):
            return f"the record of {one.image} contradicts itself: {contradiction}"
    clean = {one.key: one for one in own}
    refuted = sum(a.clean_key in clean and refutes(clean[a.clean_key], a) for a in attacks)
    return f"{count(refuted, 'attack')} within the radius refute a certificate" if refuted else ""


def _contradiction(one: ScoreRecord) -> str:
    made, certificate = one.smoothing, one.certificate
    if made is None or certificate is None:
        return "samples without noise" if one.samples else ""
    if one.size is not None or one.lengthening != 1:
        return "images of this study are not resized after they were read"
    if one.epsilon < 0 or not certificate.low < certificate.high:
        return "the radius or the range is none"
    if one.span is not None and one.span != certificate.high - certificate.low < math.inf:
        return "the span is not that of the range"
    if bool(one.samples) == bool(one.non_finite) or one.non_finite < 0:
        return "scores that are not finite have no samples, and others have"
    if one.non_finite:
        return "" if one.score is one.lower is one.upper is None else "a score of samples that are not finite"
    ordered = np.sort(one.samples)
    if len(ordered) > made.n or (len(ordered) < made.n and not made.sequential):
        return f"{len(ordered)} samples of {made.n}"
    if not certificate.low <= ordered[0] <= ordered[-1] <= certificate.high:
        return "samples outside the range"
    if one.score != sampled_median(ordered):
        return "the score is not the median of the samples"
    return "" if (one.lower, one.upper) == one.interval(one.epsilon) else "the interval is not that of the samples"


def _board(id: str, lines: Sequence[_Line]) -> ScoreBoard:
    images = len(lines[0].records)
    columns = [
        Column("metric"), Column("defence"),
        Column("certified SROCC", "", "against opinions, that no attack within the radius on any of the images can go "
        "below", 3, better="higher", key=True),
        Column("pairs in order", "%", "pairs of images whose order is proven, whichever it is", better="higher"),
        Column("δ", "% of range", "larger side of the interval, a mean over images", better="lower"),
        Column("not bounded", "", "images of which a side of the interval is no more than the range"),
        Column("radius", "l2", "over all values of the image at the size at which it is judged"),
        Column("sigma", digits=3), Column("samples"), Column("noise"), Column("weights", code=True), Column("seeds"),
    ]  # fmt: skip
    certified = Table(
        "Certified", columns,
        [_certified_row(line, radius) for line in lines if line.first.smoothing is not None for radius in RADII],
        caption="Proven of true medians under noise, for every perturbation of every image within the radius, whatever "
        f"its maker knows of the metric; each row with a confidence of {100 * (1 - ALPHA):g} % for all its images "
        "together. A certified SROCC of -1 says that it may not even be above 0.",
        sort="certified SROCC", choices={"radius": f"{RADII[0]:g}"},
    )  # fmt: skip
    plain = [
        Column("metric"), Column("defence"), Column("SROCC", digits=3, better="higher", key=True),
        Column("without defence", "", "SROCC of the metric alone", 3, better="higher"),
        Column("τ, SROCC", "", "what the defence costs, paired over images", 3, signed=True, better="lower"),
        Column("sigma", digits=3), Column("weights", code=True),
    ]  # fmt: skip
    measured = Table(
        "Measured", plain, [_measured_row(line) for line in lines], sort="SROCC",
        caption="Measured on the images as they are, without an attack, with 95 % bootstrap intervals over images; "
        "nothing here is proven of attacked images.",
    )  # fmt: skip
    return ScoreBoard(id, images, certified, measured)


def _certified_row(line: _Line, radius: float) -> Row:
    first, made = line.first, line.first.smoothing
    assert made is not None
    certificates = [one.certificate for one in line.records]
    bounds = [one.at(radius, ALPHA / len(certificates)) for one in certificates if one is not None]
    ends = [(one.lower, one.upper) for one in bounds]
    low, high = zip(*[(-b, -a) if first.lower_better else (a, b) for a, b in ends], strict=True)
    deltas = [
        max(b - one.score, one.score - a) / one.span if one.score is not None and one.span else math.inf
        for one, (a, b) in zip(line.records, ends, strict=True)
    ]
    return row(
        first.metric_alone, line.called, least_srocc(low, high, line.opinions), 100 * _ordered(low, high),
        100 * sum(deltas) / len(deltas), sum(one.vacuous for one in bounds), f"{radius:g}", made.sigma, made.n,
        "exact" if made.noise == "grid" else "float32", first.weights[:8] or "none",
        "drawn after the image" if all(one.smoothing and one.smoothing.drawn for one in line.records) else "given",
    )  # fmt: skip


def _ordered(low: Sequence[float], high: Sequence[float]) -> float:
    """Return the share of pairs of intervals that lie apart."""
    below = np.searchsorted(np.sort(high), low, side="left")
    return float(below.sum()) / (len(low) * (len(low) - 1) / 2)


def _measured_row(line: _Line) -> Row:
    first, sign = line.first, -1 if line.first.lower_better else 1
    scores = [sign * one.score for one in line.records if one.score is not None]
    alone = [sign * one.undefended for one in line.records if one.undefended is not None]
    finite = len(scores) == len(line.records), len(alone) == len(line.records)
    bad = TableCell("not finite", tone="bad")
    defended = first.smoothing is not None or [one.undefended for one in line.records] != [
        one.score for one in line.records
    ]
    return row(
        first.metric_alone, line.called,
        agreement_interval(scores, line.opinions, resamples=RESAMPLES) if finite[0] else bad,
        agreement_interval(alone, line.opinions, resamples=RESAMPLES) if finite[1] else bad,
        agreement_difference(alone, scores, line.opinions, resamples=RESAMPLES) if all(finite) and defended else DASH,
        first.smoothing.sigma if first.smoothing else DASH, first.weights[:8] or "none",
    )  # fmt: skip
