"""What audited submissions come to: their records, sentences, the table and the chart of gaps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from resolute.certificates.gap import UNSEEN
from resolute.chart import GREY, PALETTE, Chart, Figure, axis, curve, layout_of, plain_text
from resolute.figures import figure
from resolute.studies.record import Record
from resolute.studies.results import Results
from resolute.studies.study import count
from resolute.table import Column, Table, TableCell, row

# An amplification at which a change that nobody sees is seen.
AMPLIFICATION = 16


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """What an audit says of one submission, or of an honest photograph that it is calibrated with.

    Attributes:
        scorer: the metric's card.
        defence: of the second score.
        fit: longest side at which both scores were taken; 0 for the image's own.
        copies: noisy copies behind the defended score; 0 where the defence is no noise.
        undefended: what the metric alone says; None where it is not finite.
        defended: what it says behind the defence; None where it is not finite.
        gap: by how much the defence takes quality away; None where a score is not finite, the worst there is.
        photographs: the honest ones that the gap is held against, by source; empty for a calibration itself.
        source: the one of these that says most for the submission.
        calibrated: honest photographs of that source.
        calibration: hash of the calibration.
        at_least: photographs of that source with a gap as large, or larger.
        p: conformal p-value, `(1 + at_least) / (1 + calibrated)`; None for a calibration itself.
        rate: of honest photographs that may be flagged.
        threshold: largest gap that is not flagged at that rate; None where it is infinite.
        smallest: least longer side at which an honest photograph was scored.
        unlike: whether the submission is smaller than that, so that p says nothing of it.
        flagged: whether p is at most the rate, unless it is unlike them.
        reference: file of the original; empty where none was given.
        reference_undefended: what the metric alone says of it.
        reference_defended: what it says of it behind the defence.
        gain: of the undefended score over the reference's, towards better quality.
        defended_gain: the same of the defended score.
        psnr: submission against reference, in dB, RGB; None where both are equal.
        ssim: submission against reference, SSIM on Y.
        unseen: whether the gain exceeds `threshold` at a PSNR of 36 dB or more: a gain without visible improvement.
    """

    view: ClassVar[str] = "audits"

    scorer: dict[str, Any]
    defence: str
    fit: int
    copies: int = 0
    undefended: float | None
    defended: float | None
    gap: float | None
    photographs: str = ""
    source: str = ""
    calibrated: int = 0
    calibration: str = ""
    at_least: int = 0
    p: float | None = None
    rate: float | None = None
    threshold: float | None = None
    smallest: int = 0
    unlike: bool = False
    flagged: bool = False
    reference: str = ""
    reference_undefended: float | None = None
    reference_defended: float | None = None
    gain: float | None = None
    defended_gain: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    unseen: bool = False

    @property
    def suspect(self) -> bool:
        """Whether there is anything to say against it: what equals its reference was not gamed, whatever it scores."""
        return (self.flagged and not self.untouched) or self.unseen

    @property
    def untouched(self) -> bool:
        """Whether it is its reference, pixel by pixel."""
        return self.ssim is not None and self.psnr is None


def suspicion(record: AuditRecord) -> tuple[bool, bool, float]:
    """Return how suspicious a submission is, to be compared: flagged, an unseen gain, the gap."""
    return record.flagged, record.unseen, math.inf if record.gap is None else record.gap


def results_of(records: Sequence[AuditRecord]) -> Results:
    """Return what the records of one audit come to."""
    judged = [record for record in records if record.p is not None]
    if not records:
        return Results(["Nothing was audited."], [])
    if not judged:
        return Results([_calibrated(records)], [_table(records)])
    flagged = [record for record in judged if record.suspect]
    first = judged[0]
    sentences = [
        f"{count(sum(r.flagged for r in judged), 'submission')} of {len(judged)} flagged. A flag says that the score "
        f"of {first.model} exceeds the one behind {first.defence} by more than an honest photograph's would, at a "
        f"false-alarm rate of {_percent(first.rate)} each, by honest photographs: {first.photographs}."
    ]
    if unseen := [record for record in judged if record.unseen]:
        sentences.append(
            f"{count(len(unseen), 'submission')} gained more than {figure(first.threshold)} over the reference without "
            f"visible improvement (PSNR of {UNSEEN:g} dB or more)."
        )
    if 0 < (alone := sum(not record.reference for record in judged)) < len(judged):
        sentences.append(f"{count(alone, 'submission has', 'submissions have')} no reference: judged by the gap alone.")
    if same := sum(record.flagged and record.untouched for record in judged):
        sentences.append(
            f"{count(same, 'of these is its reference', 'of these are their references')}, pixel by pixel, and so not "
            "gamed: an honest photograph that this metric and defence disagree on."
        )
    if unlike := sum(record.unlike for record in judged):
        sentences.append(
            f"{count(unlike, 'submission is', 'submissions are')} unlike the honest photographs, none of which has "
            f"fewer than {first.smallest} pixels on the longer side, and not flagged whatever the gap: calibrate with "
            "photographs of that size."
        )
    alarm = ""
    if flagged:
        worst = sorted(flagged, key=suspicion, reverse=True)
        names = ", ".join(Path(record.image).name for record in worst[:5])
        more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
        alarm = f"{count(len(worst), 'submission looks', 'submissions look')} gamed: {names}{more}."
    return Results(sentences, [_table(judged)], _chart(judged), alarm)


def _calibrated(records: Sequence[AuditRecord]) -> str:
    gaps = [math.inf if record.gap is None else record.gap for record in records]
    middle, high = (float(np.quantile(gaps, share, method="higher")) for share in (0.5, 0.99))
    return (
        f"{count(len(records), 'honest photograph')}: the score of {records[0].model} exceeds the one behind "
        f"{records[0].defence} by {figure(middle)} in the middle and by at most {figure(high)} for 99 % of them."
    )


def words_of(record: AuditRecord) -> list[str]:
    """Say in sentences what was found of one image."""
    told = [
        f"The score of {record.model} is {figure(record.undefended)}, and {figure(record.defended)} behind "
        f"{record.defence}: a gap of {figure(record.gap)}."
    ]
    if record.p is not None:
        has, among = "has" if record.at_least == 1 else "have", record.at_least or "none"
        verdict = "flagged" if record.flagged else "not flagged"
        told.append(
            f"Of {record.calibrated} honest photographs of {record.source} {among} {has} a gap as large: "
            f"p = {_p(record)}, {verdict} at a false-alarm rate of {_percent(record.rate)}."
        )
        if record.unlike:
            told.append(
                f"It is smaller than all of them, scored at {record.smallest} pixels on the longer side or more."
            )
    if record.ssim is not None:
        distance = "is equal to it" if record.psnr is None else f"differs by a PSNR of {record.psnr:.1f} dB"
        seen = ": a gain without visible improvement" if record.unseen else ""
        told.append(
            f"Over the reference the score gained {figure(record.gain, signed=True)}, the defended one "
            f"{figure(record.defended_gain, signed=True)}; the image {distance}, SSIM {record.ssim:.4f}{seen}."
        )
    return told


def _table(records: Sequence[AuditRecord]) -> Table:
    """Return the submissions, the suspicious ones first."""
    first = records[0]
    better = "lower" if first.scorer.get("lower_better") else "higher"
    beside = any(record.reference for record in records)
    columns = [
        Column("image"), Column("score", better=better, key=True),
        Column(f"behind {first.defence}", meaning="score behind the defence", better=better),
        Column("gap", meaning="by how much the defence takes quality away", better="lower"),
        Column("p", meaning="share of honest photographs with such a gap, at most", digits=4), Column("finding"),
    ]  # fmt: skip
    if beside:
        columns += [
            Column("gain", meaning="of the score over the reference's", signed=True),
            Column("gain, defended", meaning="of the defended score over the reference's", signed=True),
            Column("PSNR", "dB", "submission against reference", 1), Column("SSIM", digits=4),
        ]  # fmt: skip
    rows = []
    for record in sorted(records, key=suspicion, reverse=True):
        found = " and ".join(
            ["flagged"] * record.flagged + ["unseen gain"] * record.unseen + ["too small to tell"] * record.unlike
        )
        found += ", but its reference" if record.flagged and record.untouched else ""
        tone = "bad" if record.suspect else ""
        cells = [
            record.image if len(records) == 1 else Path(record.image).name, record.undefended, record.defended,
            math.inf if record.gap is None else record.gap, record.p, TableCell(found, tone=tone),
        ]  # fmt: skip
        if beside:
            psnr = math.inf if record.psnr is None and record.ssim is not None else record.psnr
            cells += [record.gain, record.defended_gain, psnr, record.ssim]
        rows.append(row(*cells, tone=tone))
    size = f"at {first.fit} pixels a side at most" if first.fit else "at the images' own size"
    words = f"{first.model}, {better} is better, both scores {size}."
    if first.p is not None:
        words += (
            " p = (1 + honest photographs of a source with a gap as large) / (1 + all of that source), the largest of "
            f"these: {first.photographs}. Flagged: p of at most {first.rate:g}, a gap above {figure(first.threshold)}."
        )
    return Table("Audit" if first.p is not None else "Honest photographs", columns, rows, caption=words)


def _chart(records: Sequence[AuditRecord]) -> list[Chart]:
    """Draw the gap of every submission over its score, and the largest gap that is not flagged."""
    data: list[Figure] = []
    for name, wanted, colour in (("not flagged", False, GREY), ("flagged", True, PALETTE[0])):
        own = [r for r in records if r.flagged == wanted and r.gap is not None]
        if own:
            points = curve(name, [r.undefended for r in own], [r.gap for r in own], "%{text}: %{y:.2f}", "markers")
            texts = [plain_text(Path(r.image).name) for r in own]
            data.append(points | {"text": texts, "marker": {"size": 8, "color": colour}})
    if not data:
        return []
    line = {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": records[0].threshold, "y1": records[0].threshold,
        "line": {"color": GREY, "width": 1.5, "dash": "dot"},
    }  # fmt: skip
    layout = layout_of(
        axis(f"score of {plain_text(records[0].model)}, points"), axis("gap of the two scores, points")
    ) | {"shapes": [line] if records[0].threshold is not None else []}
    words = "The gap of every submission over its score; what lies above the dotted line is flagged."
    return [
        Chart("audit-gaps", "Gap over score; flagged above the dotted line", words, {"data": data, "layout": layout})
    ]


def _p(record: AuditRecord) -> str:
    return figure(record.p, 2, significant=True)


def _percent(rate: float | None) -> str:
    return f"{100 * (rate or 0):g} %"
