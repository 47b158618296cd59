"""What a choice between models comes to: records, sentences, tables and charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar, final

from resolute.chart import BICUBIC, Chart, axis, curve, layout_of, look_of, roomy, rounded
from resolute.figures import CAP, Interval, capped, figure
from resolute.measure.intervals import bootstrap_mean, mean
from resolute.studies.record import Record, grouped
from resolute.studies.results import UNFINISHED, Results
from resolute.studies.study import count
from resolute.table import Column, Table, TableCell, row

CLEAN, ATTACK = "clean", "attack"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoiceRecord(Record):
    """What one super-resolution model makes of one image, as it is, damaged or attacked.

    PSNR in dB; None stands for infinity, where two images are equal, and for what has no ground truth. ``seconds`` of
    the image as it is are those of a pass of the model, a median.

    Attributes:
        trial: ``clean``, a corruption, or ``attack``.
        metric: the quality metric; empty for none.
        psnr_y: output against the ground truth, on Y, border shaved.
        ssim_y: the same, SSIM.
        consistency: output, shrunk as MATLAB does, against the input that the model was given, RGB.
        sr_psnr: output against that for the clean input, RGB; None for that itself too.
        score: of the output by the metric; None without one, and for other trials than the clean one.
        memory: bytes of weights and of all tensors that are alive at once at most; None for other trials, and where
            the model runs outside PyTorch.
        pixels_out: of the output.
        lower_better: a lower score means better quality.
        broken: an output is not finite: its figures are 0.
    """

    view: ClassVar[str] = "choices"

    trial: str
    metric: str
    psnr_y: float | None
    ssim_y: float | None
    consistency: float | None
    sr_psnr: float | None
    score: float | None
    memory: int | None
    pixels_out: int
    lower_better: bool = False
    broken: bool = False


Values = Callable[[Sequence[ChoiceRecord]], list[float]]

# Images of which all favour one of two equal models in less than one of twenty cases: 2 / 2^6.
FEWEST = 6


@final
@dataclasses.dataclass(frozen=True)
class Aspect:
    """One thing that matters in a choice.

    Attributes:
        title: of the column.
        unit: of the figure.
        best: what the model is called that is the best at it.
        of: figures of the records of one model, one for each image.
        sign: 1 where more is better, -1 where less is.
        digits: after the point.
        meaning: for the column.
    """

    title: str
    unit: str
    best: str
    of: Values
    sign: int = 1
    digits: int = 2
    meaning: str = ""

    def value(self, records: Sequence[ChoiceRecord]) -> float | None:
        """Return the mean over images; None where there is nothing to measure."""
        return mean(self.of(records))

    def interval(self, records: Sequence[ChoiceRecord]) -> Interval | None:
        """Return the mean over images with its interval."""
        values = self.of(records)
        return bootstrap_mean(values) if values else None


def _figures(name: str, trials: Callable[[str], bool]) -> Values:
    """Return what reads a figure of some trials: its mean over them for each image."""

    def read(records: Sequence[ChoiceRecord]) -> list[float]:
        own = [record for record in records if trials(record.trial)]
        images = grouped(own, lambda one: (one.dataset, one.image)).values()
        found = [mean(getattr(one, name) for one in image) for image in images]
        return [value for value in found if value is not None]

    return read


def _per_megapixel(records: Sequence[ChoiceRecord]) -> list[float]:
    return [one.seconds / one.pixels_out * 1e6 for one in records if one.trial == CLEAN]


def _megabytes(records: Sequence[ChoiceRecord]) -> list[float]:
    known = [one.memory for one in records if one.memory is not None]
    return [max(known) / 1e6] if known else []


def _scores(records: Sequence[ChoiceRecord]) -> list[float]:
    """Return the scores of a model; none where an output has no score, which is not finite."""
    scores = [one.score for one in records if one.trial == CLEAN]
    known = [score for score in scores if score is not None]
    return known if len(known) == len(scores) else []


def _clean(trial: str) -> bool:
    return trial == CLEAN


def _attacked(trial: str) -> bool:
    return trial == ATTACK


def _damaged(trial: str) -> bool:
    return trial not in (CLEAN, ATTACK)


def aspects(records: Sequence[ChoiceRecord]) -> list[Aspect]:
    """Return what can be told of the records: against the truth where it is known, else from the clean output."""
    truth = any(one.psnr_y is not None for one in records)
    kept, against = ("psnr_y", "against the truth") if truth else ("sr_psnr", "from the output for the clean input")
    metric, lower = next(((one.metric, one.lower_better) for one in records if one.metric), ("", False))
    found = [
        Aspect("PSNR", "dB", "closest to the truth", _figures("psnr_y", _clean), 1, 2, "on Y, clean input"),
        Aspect("SSIM", "", "closest in structure", _figures("ssim_y", _clean), 1, 4, "on Y, clean input"),
        Aspect(
            "score", "", "scored best", _scores, -1 if lower else 1, 2,
            f"of the output by {metric}, without reference: an opinion that can be wrong, and gamed",
        ),
        Aspect(
            "consistency", "dB", "most faithful to its input", _figures("consistency", _clean), 1, 2,
            "the output, shrunk, against the input",
        ),
        Aspect("damaged", "dB", "best under mild damage", _figures(kept, _damaged), 1, 2, f"PSNR {against}"),
        Aspect("attacked", "dB", "best under attack", _figures(kept, _attacked), 1, 2, f"PSNR {against}"),
        Aspect("time", "s/MP", "fastest", _per_megapixel, -1, 3, "seconds a megapixel of output"),
        Aspect("memory", "MB", "smallest", _megabytes, -1, 1, "the most on any image"),
    ]  # fmt: skip
    models = grouped(records, lambda one: one.model).values()
    return [one for one in found if any(map(one.of, models))]


def results_of(records: Sequence[ChoiceRecord]) -> Results:
    """Return what records come to, for the images that all models have answered."""
    models = grouped(records, lambda one: one.model)
    done = [{(one.dataset, one.image, one.trial) for one in own} for own in models.values()]
    common = set.intersection(*done) if done else set()
    shared = {
        name: [_capped(one) for one in own if (one.dataset, one.image, one.trial) in common]
        for name, own in models.items()
    }
    if not any(trial == CLEAN for *_, trial in common):
        return Results([UNFINISHED], [])
    told = aspects([one for own in shared.values() for one in own])
    table = _table(shared, told)
    return Results(_sentences(shared, told), [table], _charts(shared, told))


def _capped(record: ChoiceRecord) -> ChoiceRecord:
    """Return a record in which a PSNR between equal images is the cap, so that no mean leaves that image out."""
    return dataclasses.replace(
        record,
        psnr_y=capped(record.psnr_y, known=record.ssim_y is not None),
        sr_psnr=capped(record.sr_psnr, known=record.trial != CLEAN),
        consistency=capped(record.consistency),
    )


def behind(models: dict[str, list[ChoiceRecord]], told: Sequence[Aspect]) -> dict[str, str]:
    """Return for each model that another one equals or passes in everything, which one that is."""
    values = {name: [one.sign * value for one in told if (value := one.value(own)) is not None]
              for name, own in models.items()}  # fmt: skip
    found: dict[str, str] = {}
    for name, own in values.items():
        for other, theirs in values.items():
            if len(theirs) == len(own) and theirs != own and all(a >= b for a, b in zip(theirs, own, strict=True)):
                found[name] = other
                break
    return found


def _sentences(models: dict[str, list[ChoiceRecord]], told: Sequence[Aspect]) -> list[str]:
    images = len({(one.dataset, one.image) for own in models.values() for one in own})
    where = f"Of {count(len(models), 'model')} on {count(images, 'image')}"
    if len(models) == 1:
        (name, own), *_ = models.items()
        figures = [f"{one.title} {figure(one.value(own) or 0.0, one.digits)} {one.unit}".rstrip() for one in told]
        return [f"{name} on {count(images, 'image')}: {', '.join(figures)}."]
    winners: dict[tuple[str, ...], list[str]] = {}
    for one in told:
        known = {name: one.sign * value for name, own in models.items() if (value := one.value(own)) is not None}
        first = tuple(name for name in known if known[name] == max(known.values()))
        winners.setdefault(first, []).append(one.best)
    parts = [
        f"{name} is {_listed(words)}" if not others else f"{_listed([name, *others])} are equally {_listed(words)}"
        for (name, *others), words in winners.items()
    ]
    sentences = [f"{where}, {'; '.join(parts)}."]
    beaten = behind(models, told)
    sentences += [f"{other} is at least as good as {name} in everything measured." for name, other in beaten.items()]
    close: list[str] = []
    if images < FEWEST:
        sentences.append(
            f"{count(images, 'image')} cannot show that models differ on others: that takes {FEWEST}, as on fewer all "
            "may favour one by chance."
        )
    for one in told if images >= FEWEST else ():
        if one.title in ("time", "memory"):  # a measurement each, not a sample of photographs
            continue
        known = {name: value for name, own in models.items() if (value := one.value(own)) is not None}
        best = max(known, key=lambda name: one.sign * known[name])
        near = [name for name in known if name not in (best, BICUBIC) and not _apart(models, one, best, name)]
        if near:
            close.append(f"in {one.title}, {_listed(near)} from {best}")
    if close:
        sentences.append(
            f"On so few images some cannot be told apart, the 95 % interval of their difference holding 0: "
            f"{'; '.join(close)}."
        )
    broken = sum(one.broken for own in models.values() for one in own)
    return [*sentences, *([f"{count(broken, 'output')} not finite."] if broken else [])]


def _apart(models: dict[str, list[ChoiceRecord]], aspect: Aspect, best: str, other: str) -> bool:
    """Tell whether two models differ in an aspect, by a paired interval over images."""
    ours, theirs = aspect.of(models[best]), aspect.of(models[other])
    if len(ours) != len(theirs):
        return False
    difference = bootstrap_mean([a - b for a, b in zip(ours, theirs, strict=True)])
    return not difference.low <= 0 <= difference.high


def _listed(words: Sequence[str]) -> str:
    """Return words with commas and an "and".

    Example:
        >>> _listed(["fastest", "smallest", "scored best"])
        'fastest, smallest and scored best'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _table(models: dict[str, list[ChoiceRecord]], told: Sequence[Aspect]) -> Table:
    columns = [
        Column("model"),
        *(
            Column(one.title, one.unit, one.meaning, one.digits, better="higher" if one.sign > 0 else "lower")
            for one in told
        ),
    ]  # fmt: skip
    best = {
        one.title: max(one.sign * value for own in models.values() if (value := one.value(own)) is not None)
        for one in told
    }
    rows = []
    for name, own in models.items():
        cells = []
        for one in told:
            value = one.value(own)
            leads = value is not None and one.sign * value == best[one.title] and len(models) > 1
            cells.append(TableCell(one.interval(own) if one is told[0] else value, tone="good" if leads else ""))
        rows.append(row(name, *cells))
    caption = "Means over images; what is best is marked. " + "; ".join(f"{one.title}: {one.meaning}" for one in told)
    equal = any(CAP in (one.psnr_y, one.sr_psnr, one.consistency) for own in models.values() for one in own)
    caption += f". Above {CAP:g} dB a PSNR counts as {CAP:g}" if equal else ""
    return Table("Which model", columns, rows, caption=f"{caption}.")


def _charts(models: dict[str, list[ChoiceRecord]], told: Sequence[Aspect]) -> list[Chart]:
    """Draw quality against what trials leave of it, and against time."""
    named = {one.title: one for one in told}
    quality = named.get("PSNR") or named.get("score") or named.get("consistency")
    charts: list[Chart] = []
    for title in ("attacked", "damaged", "time"):
        other = named.get(title)
        if quality is None or other is None or len(models) < 2:
            continue
        names = list(models)
        data = []
        for name, own in models.items():
            colour, marker = look_of(name, names)
            x, y = other.value(own), quality.value(own)
            point = curve(name, [x], [rounded(y)], "%{x:.3f}, %{y:.2f}", "markers")
            data.append({**point, "marker": {"symbol": marker, "size": 12, "color": colour}})
        log = {"type": "log"} if title == "time" else {}
        label = f"{title}, {other.unit}"
        layout = roomy(layout_of(axis(label, **log), axis(f"{quality.title}, {quality.unit}".rstrip(", "))), len(names))
        words = f"{quality.title} against {title}, a point a model; the figures are in the table."
        charts.append(
            Chart(f"choice-{title}", f"{quality.title} and {title}", words, {"data": data, "layout": layout},
                  section="Time it takes" if title == "time" else "What trials leave",
                  text=f"Better is up, and to the {'left' if other.sign < 0 else 'right'}.")
        )  # fmt: skip
    return charts
