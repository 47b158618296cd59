"""What asking after faithfulness comes to: records, sentences and tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, final

from resolute.certificates.gap import least_photographs
from resolute.chart import BICUBIC
from resolute.figures import CAP, capped, figure
from resolute.measure.intervals import mean
from resolute.studies.record import Record, on_common_images
from resolute.studies.results import UNFINISHED, Results
from resolute.studies.study import count
from resolute.table import Column, Table, row


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class FaithfulRecord(Record):
    """What one output owes to its input, how far its pixels move, and how many of them to trust.

    Levels are of 255. Figures with the truth are None without one, those of trust without a calibration, and those of
    movement where a calibration was made. Consistency in dB, None for infinity.

    Attributes:
        consistency: the output, shrunk as MATLAB does, against the input, RGB; 0 where it is not finite.
        truth_consistency: the truth, shrunk and compared likewise: low where the input was not made by this shrinking.
        added: root mean square of the part that the input can neither confirm nor refute, in levels.
        added_share: its share of the output's variance, in percent.
        truth_added: ``added`` of the truth, in levels.
        contradicted: root mean square of the part that contradicts the input, in levels.
        nudges: how the input was moved.
        noise_moved: how far noise moves a pixel, the largest change of its channels, a mean over pixels, in levels.
        noise_most: the same, the 99th percentile.
        jpeg_moved: ``noise_moved`` for JPEG.
        jpeg_most: ``noise_most`` for JPEG.
        attack_moved: ``noise_moved`` for the attack.
        attack_most: ``noise_most`` for the attack.
        psnr_y: output against the truth, in dB, on Y, border shaved.
        bound: of the error of a trusted pixel, in levels.
        rate: the expected share of the trusted pixels whose error may exceed the bound.
        photographs: that the calibration is of, in words.
        calibrated: how many.
        calibration: hash of the calibration.
        trusted: share of the pixels that are, in percent.
        wrong: share of the pixels with an error beyond the bound, in percent.
        wrong_trusted: that of the trusted pixels; None where none is trusted.
        wrong_others: that of the others; None where there are none.
        losses: of a photograph to calibrate with, at each threshold.
        broken: the output is not finite: its figures are the worst there are.
    """

    view: ClassVar[str] = "faithfulness"

    consistency: float | None
    truth_consistency: float | None
    added: float
    added_share: float
    truth_added: float | None
    contradicted: float
    nudges: str
    noise_moved: float | None
    noise_most: float | None
    jpeg_moved: float | None
    jpeg_most: float | None
    attack_moved: float | None
    attack_most: float | None
    psnr_y: float | None
    bound: float
    rate: float
    photographs: str = ""
    calibrated: int = 0
    calibration: str = ""
    trusted: float | None = None
    wrong: float | None = None
    wrong_trusted: float | None = None
    wrong_others: float | None = None
    losses: tuple[float, ...] = ()
    broken: bool = False


Figure = Callable[[FaithfulRecord], float | None]

# What rounding to 8 bits leaves of the consistency of a truth lies well above, in dB, whatever is beyond its border.
_OTHERWISE = 45.0


def results_of(records: Sequence[FaithfulRecord]) -> Results:
    """Return what records come to: sentences about each model but bicubic interpolation, means, and image by image."""
    if not records:
        return Results([UNFINISHED], [])
    models = list(dict.fromkeys(record.model for record in records))
    if any(record.losses for record in records):
        return Results([_calibrated(_of(records, model)) for model in models], [_each(records)])
    named = [model for model in models if model != BICUBIC] or models
    common = on_common_images(records)
    sentences = [sentence for model in named for sentence in _sentences(common, model)]
    tables = _tables(common, models)
    several = len({(record.dataset, record.image) for record in records}) > 1
    return Results(sentences, [*tables, _each(records)] if several else tables, brief=tables)


def trust_in_words(record: FaithfulRecord) -> str:
    """Say what the mask of an output means, and what it is worth here where the truth is known."""
    if record.trusted is None:
        return (
            f"Which pixels to trust is not told: a rate of {_percent(record.rate)} takes a calibration of "
            f"{record.model} for errors of {record.bound:g} levels with {least_photographs(record.rate)} or more "
            "photographs, and none was found. --calibrate FOLDER makes one of high-resolution photographs."
        )
    if not record.trusted:
        told = f"No pixel is trusted to be within {record.bound:g} levels of the truth at a rate of"
        return f"{told} {_percent(record.rate)}."
    told = (
        f"{record.trusted:.0f} % of the pixels are trusted to be within {record.bound:g} levels of the truth: on "
        f"photographs like the {record.calibrated} of the calibration ({record.photographs}) at most "
        f"{_percent(record.rate)} of them are not, in expectation"
    )
    if record.wrong_trusted is None:
        return told + "; of other photographs, or inputs made otherwise, nothing is promised."
    others = "" if record.wrong_others is None else f", and {record.wrong_others:.1f} % of the others"
    return f"{told}; here {record.wrong_trusted:.1f} % are not{others}."


def worst_first(records: Sequence[FaithfulRecord]) -> list[FaithfulRecord]:
    """Return what is shown: the outputs of models but bicubic interpolation, those that add most first."""
    shown = [record for record in records if record.model != BICUBIC] or list(records)
    return sorted(shown, key=lambda record: -record.added)


def _percent(rate: float) -> str:
    return f"{100 * rate:g} %"


def _of(records: Sequence[FaithfulRecord], model: str) -> list[FaithfulRecord]:
    return [record for record in records if record.model == model]


def _mean(records: Sequence[FaithfulRecord], read: Figure, digits: int = 1) -> str:
    return figure(mean(map(read, records)), digits)


def _consistency(record: FaithfulRecord) -> float | None:
    return capped(record.consistency)


def _psnr(record: FaithfulRecord) -> float | None:
    # Of an output of two low-resolution pixels a side shaving leaves nothing to measure.
    return capped(record.psnr_y, known=record.truth_added is not None and min(record.width, record.height) > 2)


def _sentences(records: Sequence[FaithfulRecord], model: str) -> list[str]:
    own, usual = _of(records, model), _of(records, BICUBIC) if model != BICUBIC else []
    first = own[0]
    images = count(len(own), "image") if len(own) > 1 else first.image
    told = (
        f"Did {model} invent this? Of its output on {images}, {_mean(own, lambda r: r.added)} levels of 255 (root mean "
        f"square) are detail that the input can neither confirm nor refute, and "
        f"{_mean(own, lambda r: r.contradicted)} contradict the input"
    )
    if usual:
        told += f"; for bicubic interpolation it is {_mean(usual, lambda r: r.added)} and "
        told += _mean(usual, lambda r: r.contradicted)
    if any(one.truth_added is not None for one in own):
        told += f"; the truth has {_mean(own, lambda r: r.truth_added)} of such detail"
    broken = sum(one.broken for one in own)
    sentences = [f"{told}." + (f" {count(broken, 'output')} not finite." if broken else "")]
    sentences.append(trust_in_words(_pooled(own)))
    beside = [f"bicubic interpolation {_mean(usual, _consistency)}"] if usual else []
    if any(one.truth_consistency is not None for one in own):
        beside.append(f"the truth itself {_mean(own, lambda r: r.truth_consistency)}")
    around = f" ({', '.join(beside)})" if beside else ""
    sentences.append(f"Shrunk again, the output fits its input with {_mean(own, _consistency)} dB{around}.")
    otherwise = sum(one.truth_consistency is not None and one.truth_consistency < _OTHERWISE for one in own)
    if otherwise:
        sentences.append(
            f"Not even the truth fits {otherwise} of {count(len(own), 'input')}: another shrinking made them, and is "
            "part of what is called added and contradicted."
        )
    if first.noise_moved is not None:
        moved: tuple[Figure, ...] = (lambda r: r.noise_moved, lambda r: r.jpeg_moved, lambda r: r.attack_moved)
        noise, jpeg, attack = (_mean(own, read) for read in moved)
        base = f" (bicubic interpolation {', '.join(_mean(usual, read) for read in moved)})" if usual else ""
        sentences.append(
            f"Noise moves a pixel by {noise} levels on average, JPEG by {jpeg}, an attack by {attack}{base}: "
            f"{first.nudges}."
        )
    return sentences


def _pooled(records: Sequence[FaithfulRecord]) -> FaithfulRecord:
    """Return the first record with the means of what concerns trust."""
    with_truth = [record for record in records if record.wrong is not None]
    return dataclasses.replace(
        records[0],
        trusted=mean(record.trusted for record in records),
        # A mask that is empty has nothing wrong in it.
        wrong_trusted=mean(record.wrong_trusted or 0.0 for record in with_truth),
        wrong_others=mean(record.wrong_others for record in records),
    )


def _calibrated(records: Sequence[FaithfulRecord]) -> str:
    first = records[0]
    return (
        f"{first.model} on {count(len(records), 'photograph')}: {_mean(records, lambda r: r.wrong)} % of the pixels "
        f"are more than {first.bound:g} levels from the truth."
    )


def _columns(first: FaithfulRecord) -> dict[str, list[tuple[Column, Figure]]]:
    """Return what tables show of a record, by their titles."""
    wrong = f"share with an error of more than {first.bound:g} levels"
    moves = "how far a pixel moves, a mean"
    return {
        "What the input bears out": [
            (Column("added", "levels", "detail that the input can neither confirm nor refute", key=True),
             lambda r: r.added),
            (Column("of the variance", "%", "share of that detail in the output's variance", 1),
             lambda r: r.added_share),
            (Column("contradicted", "levels", "what contradicts the input"),
             lambda r: r.contradicted),
            (Column("consistency", "dB", "output, shrunk, against the input"), _consistency),
            (Column("PSNR", "dB", "against the truth, on Y, border shaved", better="higher"), _psnr),
        ],
        "How far pixels move": [
            (Column("noise", "levels", moves), lambda r: r.noise_moved),
            (Column("noise, most", "levels", "under noise, the 99th percentile"), lambda r: r.noise_most),
            (Column("JPEG", "levels", moves), lambda r: r.jpeg_moved),
            (Column("JPEG, most", "levels", "under JPEG, the 99th percentile"), lambda r: r.jpeg_most),
            (Column("attack", "levels", moves), lambda r: r.attack_moved),
            (Column("attack, most", "levels", "under the attack, the 99th percentile"), lambda r: r.attack_most),
        ],
        "Which to trust": [
            (Column("trusted", "%", "share of the pixels", 1), lambda r: r.trusted),
            (Column("of them wrong", "%", f"{wrong}, of the trusted pixels", 1),
             lambda r: None if r.wrong is None or r.trusted is None else r.wrong_trusted or 0.0),
            (Column("of the others", "%", f"{wrong}, of the others", 1), lambda r: r.wrong_others),
            (Column("of all", "%", f"{wrong}, of all pixels", 1), lambda r: r.wrong),
        ],
    }  # fmt: skip


def _there(records: Sequence[FaithfulRecord], columns: Sequence[tuple[Column, Figure]]) -> list[tuple[Column, Figure]]:
    return [(column, read) for column, read in columns if any(read(record) is not None for record in records)]


def _tables(records: Sequence[FaithfulRecord], models: Sequence[str]) -> list[Table]:
    first = records[0]
    moved = f"{first.nudges[:1].upper()}{first.nudges[1:]}; the largest change of a pixel's channels."
    trusted = (
        f"Within {first.bound:g} levels of the truth; of the trusted pixels of a photograph like those of the "
        f"calibration at most {_percent(first.rate)} are not, in expectation."
    )
    levels = "Levels are of 255, root mean squares."
    if any(CAP in (_consistency(one), _psnr(one)) for one in records):
        levels += f" Above {CAP:g} dB a PSNR counts as {CAP:g}."
    captions = levels, moved, trusted
    found: list[Table] = []
    for (title, columns), caption in zip(_columns(first).items(), captions, strict=True):
        kept = _there(records, columns)
        rows = [
            row(model, len(own := _of(records, model)), *(mean(map(read, own)) for _, read in kept)) for model in models
        ]
        if kept:
            heads = [Column("model"), Column("images"), *(column for column, _ in kept)]
            found.append(Table(title, heads, rows, caption=caption))
    return found


def _each(records: Sequence[FaithfulRecord]) -> Table:
    columns = [one for own in _columns(records[0]).values() for one in own if not one[0].name.endswith("most")]
    kept = _there(records, columns)
    rows = [
        row(record.image, record.model, *(read(record) for _, read in kept))
        for record in sorted(records, key=lambda one: (one.dataset, one.image))
    ]
    return Table("Image by image", [Column("image"), Column("model"), *(column for column, _ in kept)], rows)
