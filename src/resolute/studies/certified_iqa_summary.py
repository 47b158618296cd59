"""From the records of the study of DMS-IQA to its figures: agreement, certified delta, and what attacks did."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from resolute.figures import Interval
from resolute.measure.agreement import (
    Agreement,
    agreement_difference,
    agreement_interval,
    agreement_of,
    plcc,
    srocc,
)
from resolute.measure.intervals import bootstrap_mean
from resolute.studies.record import grouped
from resolute.studies.score_attacked import ScoreAttackRecord, apart, gain, refutes
from resolute.studies.scored import ScoreRecord, width_of

Verdict = Literal["confirmed", "refuted", "undecided"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean, median and 90th percentile over images."""

    mean: float
    median: float
    p90: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        """Return the spread of values; None of none."""
        if not values:
            return None
        return Spread(float(np.mean(values)), float(np.median(values)), float(np.quantile(values, 0.9)))


@dataclasses.dataclass(frozen=True)
class ContenderSummary:
    """How one contender did.

    Attributes:
        contender: its defence.
        metric: that is defended.
        images: with a score and an opinion.
        abstained, vacuous: certificates that claim nothing, and those that say no more than the metric's range.
        agreement: with opinions; None below two images.
        tau_srocc, tau_plcc: how much less it agrees than the undefended metric, paired; None for that metric itself.
        fidelity: SROCC of the defended scores with what the metric alone says of the same images; None for that metric.
        shift, distance: mean of what the defence adds to the score, towards better quality, and of its size, over the
            metric's range; None for that metric, and where it has no range.
        delta, width: larger side and width of the certified interval at epsilon, over the metric's range; None for a
            contender without certificates. Vacuous ones are not in it.
        delta_raw, width_raw: the same on the metric's scale.
        samples, seconds: means an image.
    """

    contender: str
    metric: str
    certified: bool
    images: int
    abstained: int
    vacuous: int
    agreement: Agreement | None
    tau_srocc: Interval | None
    tau_plcc: Interval | None
    fidelity: Interval | None
    shift: Interval | None
    distance: Interval | None
    delta: Spread | None
    width: Spread | None
    delta_raw: Spread | None
    width_raw: Spread | None
    samples: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much the second defence agrees better than the first, paired over images.

    Attributes:
        first, second: the defences.
        metric: that they stand before, or both metrics.
        srocc, plcc: of agreement with opinions.
        fidelity: of SROCC with the metric's own clean scores; None where each has a metric of its own.
        delta: of the certified delta, over the metric's range; None unless both are certified.
    """

    first: str
    second: str
    metric: str
    srocc: Interval
    plcc: Interval
    fidelity: Interval | None
    delta: Interval | None

    def sentence(self) -> str:
        """Say what was found."""
        parts: list[str] = []
        for name, value in (("SROCC", self.srocc), ("PLCC", self.plcc)):
            word = "no difference shown" if value.low <= 0 <= value.high else "higher" if value.low > 0 else "lower"
            parts.append(f"{name} {word} ({value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}])")
        return f"{self.second} against {self.first}: {'; '.join(parts)}."


@dataclasses.dataclass(frozen=True)
class Shift:
    """What one attack did to one contender: shares of the metric's range, towards better quality.

    Attributes:
        mean, median: empirical, over ``images``; None where the metric has no range.
        l2: mean norm of the perturbations.
        checked: attacked images at whose l2 norm a certified interval exists.
        left: of those, whose true median provably lies outside: the certificate is refuted.
        strayed: of those, whose sampled median lies outside, as sampling alone may cause.
        certified: mean certified delta at that norm, over the range; None unless all have one.
    """

    contender: str
    metric: str
    mode: str
    attack: str
    norm: str
    budget: float
    images: int
    mean: float | None
    median: float | None
    l2: float
    checked: int
    left: int
    strayed: int
    certified: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the records of a study come to.

    Attributes:
        scores: records of clean images.
        differences: between the defences that are certified or ordered, and the undefended ones.
        orders: whether agreement rises in that order, and of which metric; none where a step lacks its scores.
        order: in which agreement should rise.
        epsilon: l2 radius of the certificates.
    """

    scores: Sequence[ScoreRecord]
    standings: list[ContenderSummary]
    differences: list[Difference]
    orders: list[tuple[str, Verdict]]
    shifts: list[Shift]
    order: Sequence[str]
    epsilon: float

    @staticmethod
    def of(
        scores: Sequence[ScoreRecord], attacks: Sequence[ScoreAttackRecord], *, order: Sequence[str] = (),
        epsilon: float = 0.05, resamples: int = 1000,
    ) -> Summary:  # fmt: skip
        """Summarise records."""
        groups = grouped(scores, lambda score: score.defence)
        others = [
            name
            for name, ours in groups.items()
            if name not in order and (ours[0].smoothing is not None or not _defended(ours))
        ]
        differences = compare(scores, [*others, *order], epsilon=epsilon, resamples=resamples)
        return Summary(
            scores, standings(scores, epsilon, resamples=resamples), differences, rising(differences, order),
            shifts(attacks, scores), order, epsilon,
        )  # fmt: skip

    @property
    def left(self) -> int:
        """Attacks that refute a certificate: the true median provably lies outside."""
        return sum(shift.left for shift in self.shifts)

    @property
    def checked(self) -> int:
        """Attacks within a radius that is certified."""
        return sum(shift.checked for shift in self.shifts)

    def alarm(self) -> str:
        """Return the alarm about refuted certificates; empty where none is."""
        if not self.left:
            return ""
        chance = 2 * max(score.certificate.error for score in self.scores if score.certificate is not None)
        return (
            f"{self.left} of {self.checked} certificates that were tried are refuted: an attack within the radius "
            f"moved the true median out of the interval. By chance at most {chance * self.checked:.3g} are to be "
            "expected: check that the metric gives equal images equal scores, and report it."
        )

    def sentences(self) -> list[str]:
        """Return the summary in words."""
        found = [one.sentence() for one in self.differences if {one.first, one.second} <= set(self.order)]
        ends = {
            "confirmed": "every step is a rise that chance does not explain",
            "refuted": "a step is a fall that chance does not explain",
            "undecided": "the images are too few, or the differences too small, to tell",
        }
        order = " < ".join(self.order)
        found += [
            f"The order SROCC {order} is {verdict} for {metric}: {ends[verdict]}." for metric, verdict in self.orders
        ]
        deltas = [
            f"{s.contender} {100 * s.delta.mean:.2f} %" if s.delta else f"{s.contender} nothing"
            for s in self.standings
            if s.certified
        ]
        if deltas:
            found.append(
                f"Certified for every perturbation of l2 norm up to {self.epsilon:g}, mean over images, as a share of "
                f"the metric's range: {', '.join(deltas)}."
            )
        if self.checked:
            strayed = sum(shift.strayed for shift in self.shifts)
            found.append(
                f"{self.checked} attacks stayed within a radius that is certified: the sampled median of {strayed} "
                f"attacked images lies outside its interval, and the true median of {self.left} provably does."
            )
        return found


def standings(scores: Sequence[ScoreRecord], epsilon: float, *, resamples: int = 1000) -> list[ContenderSummary]:
    """Return how each contender did, in order of appearance; tau is that of definition 3.1."""
    found: list[ContenderSummary] = []
    for (metric, contender), ours in _by_contender(scores).items():
        # Every record has the undefended score of its image, so that none need be a contender.
        bare = [dataclasses.replace(score, score=score.undefended) for score in ours]
        defended = _defended(ours)
        rated = [score for score in ours if score.score is not None and score.mos is not None]
        certified = [score for score in ours if score.smoothing is not None]
        widths = {score.key: width_of(score, epsilon) for score in certified}
        proven = [score for score in certified if widths[score.key] is not None]
        deltas = {score.key: _delta(score, epsilon) for score in proven}
        spans = [score for score in proven if score.span]
        opinions = [score.mos for score in rated if score.mos is not None]
        agreement = agreement_of(_oriented(rated), opinions, resamples=resamples) if len(rated) > 1 else None
        tau_srocc, tau_plcc = (
            _difference(bare, ours, measure, resamples) if defended else None for measure in (srocc, plcc)
        )
        found.append(
            ContenderSummary(
                contender, metric, bool(certified), len(rated), sum(score.non_finite > 0 for score in certified),
                sum(widths[score.key] is None and not score.non_finite for score in certified), agreement,
                tau_srocc, tau_plcc,
                *(_fidelity(ours, resamples) if defended else (None, None, None)),
                Spread.of([deltas[score.key] / (score.span or 1) for score in spans]),
                Spread.of([(widths[score.key] or 0) / (score.span or 1) for score in spans]),
                Spread.of([deltas[score.key] for score in proven]),
                Spread.of([widths[score.key] or 0 for score in proven]),
                float(np.mean([max(1, len(score.samples)) for score in ours])),
                float(np.mean([score.seconds for score in ours])),
            )
        )  # fmt: skip
    return found


def compare(
    rows: Sequence[ScoreRecord], defences: Sequence[str], *, epsilon: float = 0.05, resamples: int = 1000
) -> list[Difference]:
    """Compare each pair of the defences; a positive difference in agreement is the later one's gain."""
    groups = grouped(rows, lambda row: row.defence)
    found: list[Difference] = []
    for first, second in itertools.combinations(defences, 2):
        a, b = groups.get(first, []), groups.get(second, [])
        values = [_difference(b, a, measure, resamples) for measure in (srocc, plcc)]
        if values[0] is None or values[1] is None:
            continue
        metrics = list(dict.fromkeys(row.metric_alone for row in (*a, *b)))
        alike = len(metrics) == 1 and _defended(a) and _defended(b)
        found.append(
            Difference(
                first, second, " and ".join(metrics), values[0], values[1],
                _difference(b, a, srocc, resamples, _clean) if alike else None, _delta_difference(b, a, epsilon),
            )
        )  # fmt: skip
    return found


def rising(differences: Sequence[Difference], defences: Sequence[str]) -> list[tuple[str, Verdict]]:
    """Return whether SROCC rises along the defences, as the intervals of neighbours tell, and of which metric."""
    ours = {(one.first, one.second): one for one in differences}
    steps = [ours.get(step) for step in itertools.pairwise(defences)]
    known = [step for step in steps if step is not None]
    if not known or len(known) < len(steps):
        return []
    falls, rises = any(step.srocc.high < 0 for step in known), all(step.srocc.low > 0 for step in known)
    metrics = " and ".join(dict.fromkeys(name for step in known for name in step.metric.split(" and ")))
    return [(metrics, "refuted" if falls else "confirmed" if rises else "undecided")]


def shifts(attacks: Sequence[ScoreAttackRecord], scores: Sequence[ScoreRecord]) -> list[Shift]:
    """Return what each attack did to each contender."""
    clean = {score.key: score for score in scores}
    pairs = [(clean[attack.clean_key], attack) for attack in attacks if attack.clean_key in clean]
    groups = grouped(
        pairs, lambda pair: (pair[0].metric_alone, pair[0].defence, pair[1].adaptive, pair[1].norm, pair[1].budget)
    )
    found: list[Shift] = []
    for (metric, contender, adaptive, norm, budget), ours in groups.items():
        gains = [value / score.span for score, a in ours if score.span and (value := gain(score, a)) is not None]
        spread = Spread.of(gains)
        held = [(score, a) for score, a in ours if a.defended is not None and width_of(score, a.l2) is not None]
        deltas = [_delta(score, a.l2) / score.span for score, a in held if score.span]
        found.append(
            Shift(
                contender, metric, "adaptive" if adaptive else "undefended", "I-FGSM" if norm == "linf" else "PGD",
                norm, budget, len(ours), spread and spread.mean, spread and spread.median,
                float(np.mean([a.l2 for _, a in ours])), len(held), sum(refutes(score, a) for score, a in held),
                sum(apart(score.interval(a.l2), (a.defended, a.defended)) for score, a in held),
                float(np.mean(deltas)) if deltas and len(deltas) == len(ours) else None,
            )
        )  # fmt: skip
    return found


def widest_first(scores: Sequence[ScoreRecord], epsilon: float) -> list[tuple[ScoreRecord, float | None]]:
    """Return the certified scores with the widths of their intervals, those without one of two sides first."""
    certified = [(score, width_of(score, epsilon)) for score in scores if score.smoothing is not None]
    return sorted(certified, key=lambda pair: -math.inf if pair[1] is None else -pair[1])


def _delta(score: ScoreRecord, epsilon: float) -> float:
    """Return the larger distance from the score to an end of its interval."""
    certificate = score.at(epsilon)
    return 0.0 if certificate is None else certificate.delta


def _by_contender(rows: Sequence[ScoreRecord]) -> dict[tuple[str, str], list[ScoreRecord]]:
    return grouped(rows, lambda row: (row.metric_alone, row.defence))


def _defended(rows: Sequence[ScoreRecord]) -> bool:
    return any(row.smoothing is not None or row.score != row.undefended for row in rows)


def _fidelity(rows: Sequence[ScoreRecord], resamples: int) -> tuple[Interval | None, Interval | None, Interval | None]:
    """Return SROCC with the clean score, and means of the shift from it and of the shift's size, over the range."""
    known = [(row, row.score, row.undefended) for row in rows if row.score is not None and row.undefended is not None]
    scores, clean = [score for _, score, _ in known], [alone for _, _, alone in known]
    shifts = [_towards_better(row, score - alone) / row.span for row, score, alone in known if row.span]
    return (
        agreement_interval(scores, clean, resamples=resamples) if len(known) > 1 else None,
        bootstrap_mean(shifts) if shifts else None,
        bootstrap_mean([abs(shift) for shift in shifts]) if shifts else None,
    )


def _towards_better(row: ScoreRecord, value: float) -> float:
    return -value if row.lower_better else value


def _oriented(rows: Sequence[ScoreRecord]) -> list[float]:
    return [_towards_better(row, row.score) for row in rows if row.score is not None]


def _opinion(row: ScoreRecord) -> float | None:
    return row.mos


def _clean(row: ScoreRecord) -> float | None:
    return None if row.undefended is None else _towards_better(row, row.undefended)


def _difference(
    first: Sequence[ScoreRecord], second: Sequence[ScoreRecord], measure: Callable[..., float], resamples: int,
    truth: Callable[[ScoreRecord], float | None] = _opinion,
) -> Interval | None:  # fmt: skip
    theirs = {row.image: row for row in second if row.score is not None}
    pairs = [
        (row, theirs[row.image], true)
        for row in first
        if row.score is not None and row.image in theirs and (true := truth(row)) is not None
    ]
    if len(pairs) < 2:
        return None
    a, b, truths = zip(*pairs, strict=True)
    return agreement_difference(_oriented(a), _oriented(b), truths, measure, resamples=resamples)


def _delta_difference(first: Sequence[ScoreRecord], second: Sequence[ScoreRecord], epsilon: float) -> Interval | None:
    ours, theirs = (
        {row.image: _delta(row, epsilon) / row.span for row in rows if row.span and width_of(row, epsilon) is not None}
        for rows in (first, second)
    )
    differences = [ours[image] - theirs[image] for image in ours if image in theirs]
    return bootstrap_mean(differences) if differences else None
