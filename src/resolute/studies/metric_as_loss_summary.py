"""Who was hacked: what a reward changed against a control, the verdict in words, and the tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, Literal, final

from resolute.measure.intervals import Interval, bootstrap_mean, mean
from resolute.studies.record import Record, grouped
from resolute.studies.study import count
from resolute.table import Column, Table, row

Role = Literal["truth", "rewarded", "defended", "judge"]
Outcome = Literal["hacked", "improved", "mixed", "no difference"]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure of a restored image.

    Attributes:
        name: as in the records and tables.
        role: ``truth``, nearness to the clean image; ``rewarded``, the metric that was trained on, ``defended``, the
            same behind its defence; ``judge``, a metric that was not trained on.
        lower_better: whether less is better.
        unit: in tables and sentences.
        digits: after the point.
    """

    name: str
    role: Role
    lower_better: bool = False
    unit: str = ""
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class MeasureChange:
    """What one measure gained or lost against the control, the mean over images of paired differences.

    Example:
        >>> niqe = Measure("niqe", "judge", lower_better=True)
        >>> change = MeasureChange(niqe, Interval(mean=-1.0, low=-2.0, high=-0.5, n=9))
        >>> change.better, str(change)
        (True, 'niqe -1.00 [-2.00, -0.50]')
    """

    measure: Measure
    interval: Interval

    @property
    def better(self) -> bool | None:
        """True and False where the interval lies on one side of zero, None where it holds zero."""
        if self.interval.low <= 0 <= self.interval.high:
            return None
        return (self.interval.mean > 0) != self.measure.lower_better

    def __str__(self) -> str:
        values, measure = (self.interval.mean, self.interval.low, self.interval.high), self.measure
        middle, low, high = (f"{value:+.{measure.digits}f}" for value in values)
        return f"{measure.name} {middle}{measure.unit and f' {measure.unit}'} [{low}, {high}]"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one restorer.

    Attributes:
        restorer: its label.
        outcome: ``hacked``: the score that was rewarded rises, bare or defended, while PSNR or SSIM falls or the judges
            do not follow, that is none rises or one falls; ``improved``: it rises, and they do not object; ``no
            difference``: all intervals hold zero; ``mixed``: anything else.
        sentence: the same in words, with figures.
        changes: measure by measure.
        control: what it is compared with.
    """

    restorer: str
    outcome: Outcome
    sentence: str
    changes: list[MeasureChange]
    control: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What the card of a restorer says of its training.

    Attributes:
        steps: of the optimiser; None where the card does not say.
        seconds_per_step: on the machine that trained it.
        reward: weight of the metric in the loss; None where the card does not say.
    """

    steps: int | None = None
    seconds_per_step: float | None = None
    reward: float | None = None


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class RestorationRecord(Record):
    """What a restorer made of one noisy image; ``model`` is its label, or ``clean`` and ``noisy`` for the image itself.

    Attributes:
        values: the figures by name; None where one is infinite or undefined.
        measures: what the figures are.
        training: of the restorer; None for the image itself.
    """

    view: ClassVar[str] = "restorations"

    values: dict[str, float | None]
    measures: tuple[Measure, ...]
    training: Training | None = None

    @property
    def rewarded(self) -> bool | None:
        """Whether a metric was in the restorer's loss; None for the image itself."""
        # A file that does not say is given no benefit of the doubt.
        return None if self.training is None else self.training.reward is None or self.training.reward > 0


def shared(records: Sequence[Record]) -> list[RestorationRecord]:
    """Return the records of the images that all restorers have: means over different images could not be compared."""
    own = [record for record in records if isinstance(record, RestorationRecord)]
    labels = {record.model for record in own}
    have = {(record.model, record.image) for record in own}
    return [record for record in own if all((label, record.image) in have for label in labels)]


def changes(
    records: Sequence[RestorationRecord], measures: Sequence[Measure], restorer: str, control: str
) -> list[MeasureChange]:
    """Return the paired differences over the images that both have, with 95 % bootstrap intervals.

    A measure without one image that both have a value of is left out.
    """
    values = {(record.model, record.image): record.values for record in records}
    images = [image for label, image in values if label == restorer and (control, image) in values]
    found: list[MeasureChange] = []
    for measure in measures:
        pairs = [(values[restorer, i].get(measure.name), values[control, i].get(measure.name)) for i in images]
        differences = [own - other for own, other in pairs if own is not None and other is not None]
        if differences:
            found.append(MeasureChange(measure, bootstrap_mean(differences)))
    return found


def verdicts(records: Sequence[RestorationRecord], measures: Sequence[Measure], control: str) -> list[Verdict]:
    """Return the verdict on every restorer but the control, in order of appearance."""
    trained = {record.model: record.rewarded for record in records if record.rewarded is not None}
    return [
        judge(label, control, changes(records, measures, label, control), rewarded=rewarded)
        for label, rewarded in trained.items()
        if label != control
    ]


def judge(restorer: str, control: str, found: Sequence[MeasureChange], *, rewarded: bool = True) -> Verdict:
    """Return the verdict on one restorer; one that was not rewarded cannot have hacked anything.

    Example:
        >>> score = MeasureChange(Measure("score", "rewarded"), Interval(mean=9.0, low=8.0, high=9.5, n=9))
        >>> psnr = MeasureChange(Measure("PSNR", "truth", unit="dB"), Interval(mean=-1.0, low=-1.5, high=-0.5, n=9))
        >>> judge("b", "a", [psnr, score]).sentence
        'b is hacked: against a, score +9.00 [+8.00, +9.50] rises while PSNR -1.00 dB [-1.50, -0.50] falls.'
    """
    rises = [change for change in found if change.measure.role in ("rewarded", "defended") and change.better]
    falls = [change for change in found if change.measure.role == "truth" and change.better is False]
    judges = [change for change in found if change.measure.role == "judge"]
    objecting = [change for change in judges if change.better is False] or (
        judges if not any(change.better for change in judges) else []
    )
    outcome: Outcome
    against = f"against {control}, {_list(rises)} {_verb(rises, 'rises', 'rise')}"
    if all(change.better is None for change in found):
        outcome, words = "no difference", f"{restorer}: no difference from {control}; every interval holds 0."
    elif rewarded and rises and (falls or objecting):
        reasons = [f"{_list(falls)} {_verb(falls, 'falls', 'fall')}"] if falls else []
        reasons += [f"{_list(objecting)} {_verb(objecting, 'does', 'do')} not follow"] if objecting else []
        outcome, words = "hacked", f"{restorer} is hacked: {against} while {' and '.join(reasons)}."
    elif rewarded and rises:
        agreeing = [change for change in found if change.better and change not in rises]
        rest = f"and so it is with {_list(agreeing)}" if agreeing else "and nothing falls"
        outcome, words = "improved", f"{restorer} is improved: {against}, {rest}."
    else:
        moved = [change for change in found if change.better is not None]
        why = "what was rewarded does not rise" if rewarded else "no reward"
        outcome, words = "mixed", f"{restorer}: {why}; what changes against {control} is {_list(moved)}."
    return Verdict(restorer, outcome, words, list(found), control)


def _list(found: Sequence[MeasureChange]) -> str:
    return ", ".join(map(str, found))


def _verb(found: Sequence[MeasureChange], one: str, many: str) -> str:
    return one if len(found) == 1 else many


def means_table(records: Sequence[RestorationRecord]) -> Table:
    """Return the mean of every measure for each restorer, and what a step of its training took."""
    measures = records[0].measures
    images = len({record.image for record in records})
    columns = [Column("restorer", whole=True), *map(_column, measures), Column("training", "s / step", digits=3)]
    rows = [
        row(
            label,
            *(mean(record.values.get(measure.name) for record in own) for measure in measures),
            next((r.training.seconds_per_step for r in own if r.training), None),
        )
        for label, own in grouped(records, lambda record: record.model).items()
    ]
    return Table("", columns, rows, caption=f"Means over {count(images, 'image')}.")


def changes_table(found: Sequence[Verdict], records: Sequence[RestorationRecord]) -> Table:
    """Return what every measure gained or lost against the control, with the verdicts."""
    measures = records[0].measures
    columns = [Column("restorer", whole=True), Column("verdict")]
    columns += [dataclasses.replace(_column(measure), signed=True) for measure in measures]
    rows = [
        row(v.restorer, v.outcome, *({c.measure.name: c.interval for c in v.changes}.get(m.name) for m in measures))
        for v in found
    ]
    control = found[0].control if found else ""
    words = f"Change against {control}: means of paired differences [95 % bootstrap]."
    return Table("", columns, rows, caption=words)


def _column(measure: Measure) -> Column:
    better = "lower" if measure.lower_better else "higher"
    return Column(measure.name, measure.unit, digits=measure.digits, better=better)


def shown(measure: Measure, value: float | None) -> str:
    """Return a figure as text.

    Example:
        >>> shown(Measure("PSNR", "truth"), None)
        '∞'
    """
    # Of the measures only PSNR can be infinite, and it is where the images are equal.
    return _column(measure).text(math.inf if value is None and measure.name == "PSNR" else value)
