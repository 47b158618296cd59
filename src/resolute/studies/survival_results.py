"""What corruptions come to: records, sentences, tables and charts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, final

import pydantic

from resolute.chart import BICUBIC, Chart, axis, curve, layout_of, look_of, roomy, rounded
from resolute.corruptions import CORRUPTIONS, SEVERITIES
from resolute.figures import CAP, Interval, capped, figure, or_infinite, printed_difference
from resolute.measure.intervals import bootstrap_mean, mean
from resolute.studies.record import Record, grouped, on_common_images
from resolute.studies.results import UNFINISHED, Results
from resolute.studies.study import count
from resolute.table import Column, Table, row


def _known(kind: str) -> str:
    if kind not in CORRUPTIONS:
        raise ValueError("no such corruption")
    return kind


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class SurvivalRecord(Record):
    """What one corruption at one severity did to one super-resolution model on one image.

    PSNR in dB; None stands for infinity, where two images are equal, and for what has no ground truth.

    Attributes:
        corruption: its kind.
        severity: 1 to 5.
        level: what that is, such as a quality or a standard deviation.
        input_psnr: damaged against clean input, RGB.
        clean_psnr_y: clean output against the ground truth, on Y, border shaved; None without one.
        psnr_y: output for the damaged input against the ground truth, as ``clean_psnr_y``.
        clean_ssim_y: clean output against the ground truth, SSIM on Y, border shaved; None without one.
        ssim_y: output for the damaged input against the ground truth, as ``clean_ssim_y``.
        clean_consistency: clean output, shrunk as MATLAB does, against the clean input, RGB.
        consistency: output for the damaged input, shrunk as MATLAB does, against the damaged input, RGB.
        sr_psnr: output for the damaged against that for the clean input, RGB.
        broken: an output is not finite: its figures are 0.
    """

    view: ClassVar[str] = "survival"

    corruption: Annotated[str, pydantic.AfterValidator(_known)]
    severity: Annotated[int, pydantic.Field(ge=SEVERITIES[0], le=SEVERITIES[-1])]
    level: str
    input_psnr: float | None
    clean_psnr_y: float | None
    psnr_y: float | None
    clean_ssim_y: float | None
    ssim_y: float | None
    clean_consistency: float | None
    consistency: float | None
    sr_psnr: float | None
    broken: bool = False


Figure = Callable[[SurvivalRecord], float | None]


def results_of(records: Sequence[SurvivalRecord]) -> Results:
    """Return what records come to; against the truth where it is known, and otherwise against the clean output."""
    if not records:
        return Results([UNFINISHED], [])
    every = list(map(_capped, records))
    with_truth = [record for record in every if record.psnr_y is not None]
    own = on_common_images(with_truth or every)
    models = list(dict.fromkeys(record.model for record in own))
    kinds = [kind for kind in CORRUPTIONS if any(record.corruption == kind for record in own)]
    sentences = [_sentence(own, model) for model in models if model != BICUBIC or len(models) == 1]
    tables = [_overview(own, models, kinds), _by_severity(own, models, kinds)]
    return Results(sentences, tables, _charts(own, models, kinds), brief=tables[:1])


def score(record: SurvivalRecord) -> float | None:
    """Return what is judged: PSNR against the truth, or SR-PSNR where there is none."""
    return record.sr_psnr if record.psnr_y is None else record.psnr_y


def survived(records: Sequence[SurvivalRecord], figure_of: Figure = score) -> Interval | None:
    """Return the mean over corruptions and severities, with an interval over images; None where nothing is finite."""
    each = [mean(map(figure_of, own)) for own in grouped(records, lambda one: (one.dataset, one.image)).values()]
    known = [value for value in each if value is not None]
    return bootstrap_mean(known) if known else None


def worst_first(records: Sequence[SurvivalRecord], severity: int, images: int) -> list[SurvivalRecord]:
    """Return what is shown: of every model and corruption the images that lose most at one severity."""
    chosen = [record for record in records if record.severity == severity and record.model != BICUBIC]
    found: list[SurvivalRecord] = []
    for own in grouped(chosen, lambda record: (record.model, record.corruption)).values():
        found += sorted(own, key=_kept_capped)[:images]
    return sorted(found, key=_kept_capped)


def decibels(value: float | None) -> str:
    """Return a figure in dB, infinity where two images are equal.

    Example:
        >>> decibels(31.456)
        '31.46 dB'
    """
    return f"{figure(or_infinite(value))} dB"


def _capped(record: SurvivalRecord) -> SurvivalRecord:
    """Return a record in which a PSNR between equal images is the cap, so that no mean leaves that image out."""
    return dataclasses.replace(
        record,
        clean_psnr_y=capped(record.clean_psnr_y, known=record.clean_ssim_y is not None),
        psnr_y=capped(record.psnr_y, known=record.ssim_y is not None),
        clean_consistency=capped(record.clean_consistency),
        consistency=capped(record.consistency),
        sr_psnr=capped(record.sr_psnr),
    )


def _kept_capped(record: SurvivalRecord) -> float:
    return _kept(_capped(record))


def _kept(record: SurvivalRecord) -> float:
    before, after = record.clean_psnr_y, score(record)
    return (math.inf if after is None else after) - (before or 0.0)


def _of(records: Sequence[SurvivalRecord], model: str, kind: str = "", severity: int = 0) -> list[SurvivalRecord]:
    return [
        one for one in records if one.model == model and kind in ("", one.corruption) and severity in (0, one.severity)
    ]


def _sentence(records: Sequence[SurvivalRecord], model: str) -> str:
    own = _of(records, model)
    overall, clean = survived(own), survived(own, lambda one: one.clean_psnr_y)
    if overall is None or (clean is None and overall.low == CAP):
        return f"{model}: no output moved."
    images = len({(one.dataset, one.image) for one in own})
    kinds = grouped(own, lambda one: one.corruption)
    over = (
        f"over {count(len(kinds), 'corruption')} at {count(len({o.severity for o in own}), 'severity', 'severities')}"
    )
    where = f"{over} of {count(images, 'image')}"
    broken = sum(one.broken for one in own)
    end = f" {count(broken, 'output')} not finite." if broken else ""
    worst = min(kinds, key=lambda kind: mean(map(_kept, kinds[kind])) or 0.0)
    title = CORRUPTIONS[worst].title
    if clean is None:
        moved = f"{model}: outputs stay within {overall.mean:.2f} dB of those for clean inputs on average {where}"
        return f"{moved}; least under {title}.{end}"
    told = f"{model} has {clean.mean:.2f} dB on clean inputs and keeps {overall.mean:.2f} dB on average {where}"
    loss, left = mean(map(_kept, kinds[worst])) or 0.0, mean(map(score, kinds[worst]))
    # As the table beside it adds up, unless it is of other images.
    printed = printed_difference(clean.mean, left)
    loss = printed if printed is not None and abs(printed - loss) < 0.015 else loss
    told += f"; it loses most to {title}, {-loss:.2f} dB."
    beside = _of(records, BICUBIC)
    usual, usual_clean = survived(beside), survived(beside, lambda one: one.clean_psnr_y)
    if model == BICUBIC or usual is None or usual_clean is None:
        return told + end
    if clean.mean < usual_clean.mean:
        worse = figure(printed_difference(clean.mean, usual_clean.mean))
        return f"{told} On clean inputs it is {worse} dB worse than bicubic interpolation.{end}"
    lead = printed_difference(usual.mean, overall.mean)
    before = printed_difference(usual_clean.mean, clean.mean)
    told += f" Its lead over bicubic interpolation goes from {figure(before)} to {figure(lead)} dB"
    behind = grouped(kinds, lambda kind: _behind_from(records, model, kind))
    lost = [
        f"{', '.join(CORRUPTIONS[kind].title for kind in own)} from severity {first} on"
        for first, own in sorted(behind.items())
        if first
    ]
    return f"{told}{'; it is behind under ' + '; under '.join(lost) if lost else ''}.{end}"


def _behind_from(records: Sequence[SurvivalRecord], model: str, kind: str) -> int:
    """Return the severity from which on a model is behind bicubic interpolation; 0 where it never is."""
    first = 0
    for severity in SEVERITIES:
        ours, usual = (mean(map(score, _of(records, name, kind, severity))) for name in (model, BICUBIC))
        if ours is not None and usual is not None:
            first = (first or severity) if ours < usual else 0
    return first


def _overview(records: Sequence[SurvivalRecord], models: Sequence[str], kinds: Sequence[str]) -> Table:
    truth = records[0].psnr_y is not None
    meaning = "mean over severities and images, in dB, " + ("against the truth" if truth else "from the clean output")
    columns = [
        Column("model"), *([Column("clean", "dB", "PSNR for clean inputs", better="higher")] if truth else []),
        Column("survived", "dB", f"{meaning}; with a 95 % bootstrap interval over images", better="higher", key=True),
        *(Column(CORRUPTIONS[kind].title, "dB", meaning, better="higher") for kind in kinds),
        Column("consistency", "dB", "output, shrunk, against the damaged input, a mean"),
    ]  # fmt: skip
    rows = [
        row(
            model, *([survived(_of(records, model), lambda one: one.clean_psnr_y)] if truth else []),
            survived(_of(records, model)), *(mean(map(score, _of(records, model, kind))) for kind in kinds),
            mean(one.consistency for one in _of(records, model)),
        )
        for model in models
    ]  # fmt: skip
    caption = f"Each corruption: {meaning}."
    if any(CAP in (one.clean_psnr_y, one.psnr_y, one.sr_psnr, one.consistency) for one in records):
        caption += f" Above {CAP:g} dB a PSNR counts as {CAP:g}."
    return Table("What survives", columns, rows, caption=caption)


def _by_severity(records: Sequence[SurvivalRecord], models: Sequence[str], kinds: Sequence[str]) -> Table:
    severities = [s for s in SEVERITIES if any(record.severity == s for record in records)]
    columns = [
        Column("corruption"),
        Column("model"),
        *(Column(f"severity {s}", "dB", better="higher") for s in severities),
    ]
    rows = [
        row(
            CORRUPTIONS[kind].title, model,
            *(mean(map(score, _of(records, model, kind, s))) for s in severities), section=not number,
        )
        for kind in kinds
        for number, model in enumerate(models)
    ]  # fmt: skip
    levels = "; ".join(f"{CORRUPTIONS[kind].title}: {', '.join(map(str, CORRUPTIONS[kind].levels))}" for kind in kinds)
    return Table("By severity", columns, rows, caption=f"Means over images. Severities are, {levels}.")


def _charts(records: Sequence[SurvivalRecord], models: Sequence[str], kinds: Sequence[str]) -> list[Chart]:
    truth = records[0].psnr_y is not None
    plots: list[tuple[str, str, Figure, str]] = [
        ("survived", "PSNR, dB" if truth else "SR-PSNR, dB", score, "What is left"),
        ("consistency", "consistency, dB", lambda one: one.consistency, "Whether outputs still fit their inputs"),
    ]
    texts = {
        "survived": "Severity 0 is the clean input." if truth else "From the output for the clean input.",
        "consistency": "The output, shrunk again, against the damaged input that the model was given. A model that is "
        "far from it has put something of its own into the picture, or has taken the damage away.",
    }
    charts: list[Chart] = []
    for name, y, read, section in plots:
        for kind in kinds:
            data = []
            for model in models:
                own = _of(records, model, kind)
                severities = sorted({one.severity for one in own})
                points = [(s, mean(map(read, _of(own, model, kind, s)))) for s in severities]
                if name == "survived" and truth:
                    points.insert(0, (0, mean(one.clean_psnr_y for one in own)))
                colour, marker = look_of(model, models)
                line = curve(
                    model, [x for x, _ in points], [rounded(v) for _, v in points], "%{x}: %{y:.2f} dB", "lines+markers"
                )
                look = {"line": {"color": colour, "width": 2}, "marker": {"symbol": marker, "size": 7}}
                data.append({**line, **look})
            title = CORRUPTIONS[kind].title
            layout = roomy(layout_of(axis("severity", dtick=1), axis(y)), len(models))
            words = f"{section} under {title}, by severity, one curve a model; the figures are in the tables."
            charts.append(
                Chart(
                    f"{name}-{kind}", title, words, {"data": data, "layout": layout}, section=section, text=texts[name]
                )
            )
    return charts
