"""The tables of the study of DMS-IQA: agreement with people, certified delta, attacks."""

from __future__ import annotations

import math

from resolute.studies.certified_iqa_summary import ContenderSummary, Shift, Summary, widest_first
from resolute.table import Column, Table, TableCell, row

# So many certificates are listed one by one.
WIDEST = 40


def tables_of(summary: Summary) -> list[Table]:
    """Return the tables, those without a row left out."""
    found = [
        agreement_table(summary), fidelity_table(summary), differences_table(summary), certified_table(summary),
        shifts_table(summary), images_table(summary),
    ]  # fmt: skip
    return [table for table in found if table.rows]


def agreement_table(summary: Summary) -> Table:
    """Return how well each contender agrees with people."""
    columns = [
        Column("defence"), Column("images"),
        *(Column(name, digits=3, better="higher") for name in ("SROCC", "PLCC", "PLCC, logistic")),
        *(Column(f"τ, {name}", digits=3, signed=True, better="lower") for name in ("SROCC", "PLCC")),
    ]  # fmt: skip
    rows = [
        row(
            _name(one), one.images, *((a.srocc, a.plcc, a.plcc_logistic) if (a := one.agreement) else (None,) * 3),
            one.tau_srocc, one.tau_plcc,
        )
        for one in summary.standings
    ]  # fmt: skip
    words = "Agreement with people, 95 % bootstrap intervals; τ is what agreement loses against the metric alone."
    return Table("Agreement", columns, rows, caption=words)


def fidelity_table(summary: Summary) -> Table:
    """Return how near each contender's scores are to those of the metric alone."""
    columns = [
        Column("defence"), Column("SROCC with the clean score", digits=3, better="higher"),
        Column("shift", "% of range", signed=True), Column("distance", "% of range", better="lower"),
    ]  # fmt: skip
    rows = [
        row(_name(one), one.fidelity, one.shift and one.shift.scaled(100), one.distance and one.distance.scaled(100))
        for one in summary.standings
        if one.fidelity is not None
    ]
    words = (
        "Fidelity: the defended score beside that of the metric alone on the same images, 95 % bootstrap intervals; "
        "shift is the mean difference, towards better quality, and distance its mean size."
    )
    return Table("Fidelity", columns, rows, caption=words)


def differences_table(summary: Summary) -> Table:
    """Return how each pair of contenders differs."""
    columns = [
        Column("defence"), Column("against"), *(Column(name, digits=3, signed=True) for name in ("SROCC", "PLCC")),
        Column("SROCC with the clean score", digits=3, signed=True), Column("δ", "% of range", signed=True),
    ]  # fmt: skip
    rows = [
        row(one.second, one.first, one.srocc, one.plcc, one.fidelity, one.delta and one.delta.scaled(100))
        for one in summary.differences
    ]
    words = (
        "Differences, paired over images, with 95 % bootstrap intervals: SROCC and PLCC with people, SROCC with the "
        f"metric's own clean score where both defend the same metric, and certified δ at {summary.epsilon:g}."
    )
    return Table("Differences", columns, rows, caption=words)


def certified_table(summary: Summary) -> Table:
    """Return what is certified of each contender that is smoothed."""
    columns = [
        Column("defence"), Column("δ, mean", "% of range", better="lower"), Column("median", "%"),
        Column("90 %", "%"), Column("width", "%"), Column("δ raw, mean", digits=3, significant=True),
        Column("width raw, mean", digits=3, significant=True), Column("abstained"), Column("vacuous"),
        Column("samples", digits=0), Column("s / image"),
    ]  # fmt: skip
    rows = [
        row(
            _name(one), _percent(one.delta and one.delta.mean), _percent(one.delta and one.delta.median),
            _percent(one.delta and one.delta.p90), _percent(one.width and one.width.mean),
            one.delta_raw and one.delta_raw.mean, one.width_raw and one.width_raw.mean, one.abstained,
            one.vacuous, one.samples, one.seconds,
        )
        for one in summary.standings
        if one.certified
    ]  # fmt: skip
    words = (
        f"Certified for l2 norms up to {summary.epsilon:g}: δ is the larger side of the interval, in per cent of the "
        "metric's range."
    )
    return Table("Certificates", columns, rows, caption=words)


def shifts_table(summary: Summary) -> Table:
    """Return what attacks did to each contender, beside what is certified at their norm."""
    columns = [
        Column("defence"), Column("mode"), Column("attack"), Column("images"),
        Column("l2", digits=3, significant=True), Column("empirical mean", "% of range", signed=True),
        Column("empirical median", "%", signed=True), Column("certified δ", "%"), Column("certified"), Column("left"),
        Column("strayed"),
    ]  # fmt: skip
    rows = [
        row(
            _name(one), one.mode, f"{one.attack} {_budget(one)}", one.images, one.l2, _percent(one.mean),
            _percent(one.median), _percent(one.certified), one.checked, one.left, one.strayed,
            tone="bad" if one.left else "",
        )
        for one in summary.shifts
    ]  # fmt: skip
    words = (
        "Attacks: empirical shifts towards better quality, in per cent of the metric's range, beside the certified δ "
        "at the norm of the perturbation where there is one. “undefended” was found on the metric alone, “adaptive” "
        "is the worse of that attack and one through the defence. Certified counts the images with an interval at "
        "that norm; left, those whose true median is provably outside, must be 0 up to alpha; strayed, those whose "
        "sampled median is."
    )
    return Table("Attacks", columns, rows, caption=words)


def images_table(summary: Summary) -> Table:
    """Return the certificates that say least, one a row, the widest first."""
    columns = [
        Column("image"), Column("defence"), Column("width", "% of range", better="lower"), Column("score"),
        Column("from"), Column("to"), Column("without defence"), Column("opinion"),
    ]  # fmt: skip
    widest = widest_first(summary.scores, summary.epsilon)
    rows = []
    for score, width in widest[:WIDEST]:
        low, high = score.interval(summary.epsilon)
        ends = (
            (None, None)
            if score.non_finite
            else (-math.inf if low is None else low, math.inf if high is None else high)
        )
        rows.append(
            row(
                score.image, f"{score.defence} ({score.metric_alone})",
                _percent(width / score.span) if width is not None and score.span else None,
                TableCell("abstained", tone="bad") if score.non_finite else score.score, *ends, score.undefended,
                score.mos,
            )
        )  # fmt: skip
    left = len(widest) - len(rows)
    more = f" The {left} narrower ones are left out; `resolute query` has all." if left else ""
    words = f"Single images at an l2 norm of {summary.epsilon:g}, the widest interval first.{more}"
    return Table("Images", columns, rows, caption=words)


def _budget(one: Shift) -> str:
    return f"{one.budget:g}/255" if one.norm == "linf" else f"l2 {one.budget:g}"


def _name(one: ContenderSummary | Shift) -> str:
    return f"{one.contender} ({one.metric})"


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
