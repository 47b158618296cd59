"""From the records of the study of DMS-IQA to its figures: agreement, certified delta, and what attacks did."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from resolute.figures import Interval
from resolute.measure.agreement import Agreement, agreement_difference, agreement_of, plcc, srocc
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
    delta: Spread | None
    width: Spread | None
    delta_raw: Spread | None
    width_raw: Spread | None
    samples: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much the second defence agrees better than the first, paired over images."""

    first: str
    second: str
    metric: str
    srocc: Interval
    plcc: Interval

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
        differences: between the defences that are ordered.
        orders: for each metric, whether agreement rises in that order.
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
        differences = compare(scores, order, resamples=resamples)
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
        found = [found.sentence() for found in self.differences]
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
        defended = any(score.smoothing is not None or score.score != score.undefended for score in ours)
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
                Spread.of([deltas[score.key] / (score.span or 1) for score in spans]),
                Spread.of([(widths[score.key] or 0) / (score.span or 1) for score in spans]),
                Spread.of([deltas[score.key] for score in proven]),
                Spread.of([widths[score.key] or 0 for score in proven]),
                float(np.mean([max(1, len(score.samples)) for score in ours])),
                float(np.mean([score.seconds for score in ours])),
            )
        )  # fmt: skip
    return found


def compare(rows: Sequence[ScoreRecord], defences: Sequence[str], *, resamples: int = 1000) -> list[Difference]:
    """Compare each pair of the defences, for each metric; a positive difference is the later one's gain."""
    groups = _by_contender(rows)
    found: list[Difference] = []
    for metric in dict.fromkeys(metric for metric, _ in groups):
        for first, second in itertools.combinations(defences, 2):
            a, b = groups.get((metric, first), []), groups.get((metric, second), [])
            values = [_difference(b, a, measure, resamples) for measure in (srocc, plcc)]
            if values[0] is not None and values[1] is not None:
                found.append(Difference(first, second, metric, values[0], values[1]))
    return found


def rising(differences: Sequence[Difference], defences: Sequence[str]) -> list[tuple[str, Verdict]]:
    """Return for each metric whether SROCC rises along the defences, as the intervals of neighbours tell."""
    found: list[tuple[str, Verdict]] = []
    steps = list(itertools.pairwise(defences))
    for metric in dict.fromkeys(difference.metric for difference in differences):
        ours = {(d.first, d.second): d.srocc for d in differences if d.metric == metric}
        if not all(step in ours for step in steps):
            continue
        falls, rises = any(ours[step].high < 0 for step in steps), all(ours[step].low > 0 for step in steps)
        found.append((metric, "refuted" if falls else "confirmed" if rises else "undecided"))
    return found


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


def _oriented(rows: Sequence[ScoreRecord]) -> list[float]:
    return [(-1 if row.lower_better else 1) * row.score for row in rows if row.score is not None]


def _difference(
    first: Sequence[ScoreRecord], second: Sequence[ScoreRecord], measure: Callable[..., float], resamples: int
) -> Interval | None:
    theirs = {row.image: row for row in second if row.score is not None}
    ours = [row for row in first if row.score is not None and row.mos is not None]
    pairs = [(row, theirs[row.image]) for row in ours if row.image in theirs]
    if len(pairs) < 2:
        return None
    a, b = (_oriented(side) for side in zip(*pairs, strict=True))
    opinions = [row.mos for row, _ in pairs if row.mos is not None]
    return agreement_difference(a, b, opinions, measure, resamples=resamples)
