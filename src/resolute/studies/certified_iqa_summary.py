"""From the records of the study of DMS-IQA to its figures: agreement, certified delta, and what attacks did."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resolute.errors import ConfigError
from resolute.measure.agreement import Agreement, agreement_difference, agreement_of, plcc, srocc
from resolute.measure.intervals import Interval
from resolute.studies.certified import Row
from resolute.studies.certified_iqa import ATTACKS, CERTIFICATES
from resolute.studies.store import read_lines

Verdict = Literal["confirmed", "refuted", "undecided"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean, median and 90th percentile over images."""

    mean: float
    median: float
    p90: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        """Return the spread of values; None of none.

        Example:
            >>> Spread.of([1.0, 2.0, 3.0]).median
            2.0
        """
        if not values:
            return None
        return Spread(float(np.mean(values)), float(np.median(values)), float(np.quantile(values, 0.9)))


@dataclasses.dataclass(frozen=True)
class Standing:
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
        parts = [_compared(name, value) for name, value in (("SROCC", self.srocc), ("PLCC", self.plcc))]
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
class Results:
    """A folder of the study, read and summarised."""

    facts: Mapping[str, Any]
    scores: list[Row]
    standings: list[Standing]
    differences: list[Difference]
    orders: list[tuple[str, Verdict]]
    shifts: list[Shift]

    @staticmethod
    def read(folder: Path, *, resamples: int = 1000) -> Results:
        """Read the results of the last plan that was run in a folder, as far as it got.

        Raises:
            ConfigError: a folder without records of this kind.
        """
        try:
            facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
            names = facts["certificates"], facts["attacks"], facts["study"]["order"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{folder} holds no results of the kind certified-iqa: {error}") from None
        scores, attacks = (
            _joined(read_lines(folder / file), plan) for file, plan in zip((CERTIFICATES, ATTACKS), names, strict=False)
        )
        if not scores:
            raise ConfigError(f"no records in {folder}; run the study into that folder first")
        differences = compare(scores, names[2], resamples=resamples)
        return Results(
            facts, scores, standings(scores, resamples=resamples), differences, order(differences, names[2]),
            shifts(attacks, scores),
        )  # fmt: skip

    @property
    def left(self) -> int:
        """Attacks that refute a certificate: the true median provably lies outside."""
        return sum(shift.left for shift in self.shifts)

    def alarm(self) -> str:
        """Return the alarm about refuted certificates; empty where none is."""
        checked, chance = sum(shift.checked for shift in self.shifts), 2 * self.facts["study"]["alpha"]
        if not self.left:
            return ""
        return (
            f"{self.left} of {checked} certificates that were tried are refuted: an attack within the radius moved the "
            f"true median out of the interval. By chance at most {chance * checked:.2g} are to be expected: check that "
            "the metric gives equal images equal scores, and report it."
        )

    def sentences(self) -> list[str]:
        """Return the summary in words."""
        found = [found.sentence() for found in self.differences]
        rising = " < ".join(self.facts["study"]["order"])
        ends = {
            "confirmed": "every step is a rise that chance does not explain",
            "refuted": "a step is a fall that chance does not explain",
            "undecided": "the images are too few, or the differences too small, to tell",
        }
        found += [
            f"The order SROCC {rising} is {verdict} for {metric}: {ends[verdict]}." for metric, verdict in self.orders
        ]
        epsilon = self.facts["study"]["epsilon"]
        deltas = [
            f"{s.contender} {100 * s.delta.mean:.2f} %" if s.delta else f"{s.contender} nothing"
            for s in self.standings
            if s.certified
        ]
        if deltas:
            found.append(
                f"Certified for every perturbation of l2 norm up to {epsilon:g}, mean over images, as a share of the "
                f"metric's range: {', '.join(deltas)}."
            )
        checked, strayed = sum(shift.checked for shift in self.shifts), sum(shift.strayed for shift in self.shifts)
        if checked:
            found.append(
                f"{checked} attacks stayed within a radius that is certified: the sampled median of {strayed} attacked "
                f"images lies outside its interval, and the true median of {self.left} provably does."
            )
        if alarm := self.alarm():
            found.append(alarm)
        return found


def standings(rows: Sequence[Row], *, resamples: int = 1000) -> list[Standing]:
    """Return how each contender did, in order of appearance; tau is that of definition 3.1.

    Example:
        >>> standings([])
        []
    """
    found: list[Standing] = []
    for (metric, contender), ours in _by_contender(rows).items():
        # Every record has the undefended score of its image, so that none need be a contender.
        bare = [] if ours[0]["bare"] else [row | {"score": row["undefended"]} for row in ours]
        scored = [row for row in ours if row["score"] is not None]
        certified = [row for row in ours if row["certified"]]
        proven = [row for row in certified if not row["non_finite"] and not row["vacuous"]]
        spans = [row for row in proven if row["span"]]
        opinions = [row["mos"] for row in scored]
        agreement = agreement_of(_oriented(scored), opinions, resamples=resamples) if len(scored) > 1 else None
        taus = [_difference(bare, ours, measure, resamples) if bare else None for measure in (srocc, plcc)]
        found.append(
            Standing(
                contender,
                metric,
                bool(certified),
                len(scored),
                sum(row["non_finite"] > 0 for row in certified),
                sum(row["vacuous"] and not row["non_finite"] for row in certified),
                agreement,
                taus[0],
                taus[1],
                Spread.of([row["delta"] / row["span"] for row in spans]),
                Spread.of([(row["upper"] - row["lower"]) / row["span"] for row in spans]),
                Spread.of([row["delta"] for row in proven]),
                Spread.of([row["upper"] - row["lower"] for row in proven]),
                float(np.mean([row["samples"] for row in ours])),
                float(np.mean([row["seconds"] for row in ours])),
            )
        )
    return found


def compare(rows: Sequence[Row], defences: Sequence[str], *, resamples: int = 1000) -> list[Difference]:
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


def order(differences: Sequence[Difference], defences: Sequence[str]) -> list[tuple[str, Verdict]]:
    """Return for each metric whether SROCC rises along the defences, as the intervals of neighbours tell."""
    found: list[tuple[str, Verdict]] = []
    steps = list(itertools.pairwise(defences))
    for metric in dict.fromkeys(difference.metric for difference in differences):
        ours = {(d.first, d.second): d.srocc for d in differences if d.metric == metric}
        if not all(step in ours for step in steps):
            continue
        if any(ours[step].high < 0 for step in steps):
            found.append((metric, "refuted"))
        else:
            found.append((metric, "confirmed" if all(ours[step].low > 0 for step in steps) else "undecided"))
    return found


def shifts(attacks: Sequence[Row], scores: Sequence[Row]) -> list[Shift]:
    """Return what each attack did to each contender."""
    spans = {(row["metric"], row["contender"]): row["span"] for row in scores}
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in attacks:
        name = (row["metric"], row["contender"])
        groups[*name, row["mode"], row["attack"], row["norm"], row["budget"]].append(row)
    found: list[Shift] = []
    for (metric, contender, mode, attack, norm, budget), rows in groups.items():
        gains = Spread.of([row["gain_share"] for row in rows if row["gain_share"] is not None])
        held = [row for row in rows if row["left"] is not None]
        span = spans.get((metric, contender))
        deltas = [
            max(row["interval"][1] - row["clean"], row["clean"] - row["interval"][0]) / span for row in held if span
        ]
        found.append(
            Shift(
                contender,
                metric,
                mode,
                attack,
                norm,
                budget,
                len(rows),
                gains.mean if gains else None,
                gains.median if gains else None,
                float(np.mean([row["l2"] for row in rows])),
                len(held),
                sum(row["left"] for row in held),
                sum(row["strayed"] for row in held),
                float(np.mean(deltas)) if len(deltas) == len(rows) else None,
            )
        )
    return found


def _joined(rows: Sequence[Row], plan: Sequence[Row]) -> list[Row]:
    done = {row["key"]: row for row in rows if "key" in row}
    return [done[entry["key"]] | entry for entry in plan if entry["key"] in done]


def _by_contender(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["metric"], row["contender"]].append(row)
    return groups


def _oriented(rows: Sequence[Row]) -> list[float]:
    return [-row["score"] if row["lower_better"] else row["score"] for row in rows]


def _difference(
    first: Sequence[Row], second: Sequence[Row], measure: Callable[..., float], resamples: int
) -> Interval | None:
    theirs = {row["image"]: row for row in second if row["score"] is not None}
    pairs = [(row, theirs[row["image"]]) for row in first if row["score"] is not None and row["image"] in theirs]
    if len(pairs) < 2:
        return None
    a, b = (_oriented(side) for side in zip(*pairs, strict=True))
    return agreement_difference(a, b, [row["mos"] for row, _ in pairs], measure, resamples=resamples)


def _compared(name: str, value: Interval) -> str:
    figures = f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
    word = "no difference shown" if value.low <= 0 <= value.high else "higher" if value.low > 0 else "lower"
    return f"{name} {word} ({figures})"
