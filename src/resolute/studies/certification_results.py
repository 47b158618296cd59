"""What certified photographs come to: sentences, certificates, what attacks did to them, and charts of intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from resolute.chart import GREY, Chart, Figure, axis, curve, error_bars, layout_of, plain_text
from resolute.figures import Interval
from resolute.studies.gains_table import gains_tables
from resolute.studies.results import Results
from resolute.studies.score_attacked import ScoreAttackRecord, verdict
from resolute.studies.score_words import attack_words, certified_words, refutation, score_words
from resolute.studies.scored import SHARES, ScoreRecord, width_of
from resolute.studies.study import count
from resolute.table import Column, Table, TableCell, row

# Records of clean images with attacks on them.
Pairs = Sequence[tuple[ScoreRecord, ScoreAttackRecord]]


def results_of(
    scores: Sequence[ScoreRecord], attacks: Sequence[ScoreAttackRecord], names: dict[str, str], epsilon: float
) -> Results:
    """Return what records come to at a radius; ``names`` has by key what an image is called."""
    if not scores:
        return Results(["Nothing was certified."], [])
    pairs = [(score, attack) for score in scores for attack in attacks if attack.clean_key == score.key]
    if len(scores) == 1:
        sentences = [score_words(scores[0], epsilon), *(attack_words(*pair, epsilon) for pair in pairs)]
    else:
        sentences = [_summary(scores, epsilon)]
        # Of several images that is told whose undefended score moved most.
        worst = max(pairs, key=lambda pair: abs((pair[1].attacked or 0) - (pair[1].clean or 0)))[0] if pairs else None
        sentences += [f"{names[s.key]}: {attack_words(s, attack, epsilon)}" for s, attack in pairs if s is worst]
    refuted = [f"{names[s.key]}: {refutation(s, a)}" for s, a in pairs if verdict(s, a, epsilon) == "refuted"]
    tables = [_certificates_table(scores, names, epsilon), *([_attacks_table(pairs, names, epsilon)] if pairs else [])]
    tables += gains_tables(pairs)
    charts = [*_intervals_chart(scores, names, epsilon), *_curves_chart(scores, names, epsilon)]
    return Results(sentences, tables, charts, " ".join(refuted))


def _summary(scores: Sequence[ScoreRecord], epsilon: float) -> str:
    widths = [width for score in scores if (width := width_of(score, epsilon)) is not None]
    abstained = sum(score.non_finite > 0 for score in scores)
    told = f"{count(len(scores), 'image')} judged by {scores[0].model}. " + (
        f"For every perturbation of l2 norm up to {epsilon:g} each true median provably stays in its interval; "
        f"the median width of {len(widths)} that are bounded on both sides is {statistics.median(widths):.3g}."
        if widths
        else f"The samples do not suffice to bound any score at an l2 norm of {epsilon:g}."
    )
    told += f" {count(abstained, 'score')} abstained: not finite on noisy copies." if abstained else ""
    ends = sum(score.certificate is not None and score.certificate.saturated for score in scores)
    if not ends:
        return told
    return told + (
        f" The score of {count(ends, 'image')} is an end of the range that {scores[0].model} declares: if that "
        "range is too small, scores are cut off there and the intervals say nothing."
    )


def _certificates_table(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> Table:
    """Return certificates, one image a row; what is the same for all is in the caption."""
    first = scores[0]
    better = "lower" if first.lower_better else "higher"
    meaning = "radius up to which the true median moves by at most {:.0%} of the range"
    columns = [
        Column("image"), Column("without noise", better=better), Column("score", better=better, key=True),
        Column("from"), Column("to"),
        *(Column(f"safe {share:.0%}", "l2", meaning.format(share), 4) for share in SHARES.values()), Column("samples"),
    ]  # fmt: skip
    rows = [
        row(
            names[score.key], score.undefended, score.score, *_ends(score, epsilon), _safe(score, score.safe_1),
            _safe(score, score.safe_5), TableCell("abstained", tone="bad") if score.non_finite else len(score.samples),
        )
        for score in scores
    ]  # fmt: skip
    sigma = first.smoothing.sigma if first.smoothing else 0.0
    words = (
        f"{first.model}, {better} is better. Score: sampled median under noise of sigma {sigma:g}. "
        f"{certified_words(first, epsilon)}"
    )
    few = sum(bool(s.span) and not s.non_finite and None in (s.safe_1, s.safe_5) for s in scores)
    notes = (
        [f"No safe radius is shown for {count(few, 'image')}: the samples are too few; draw more with --samples."]
        if few
        else []
    )
    made = [score.certificate for score in scores if score.certificate is not None and not score.non_finite]
    needed = max((one.needed(epsilon) for one in made if one.at(epsilon).vacuous), default=0)
    if 0 < needed < math.inf:
        notes.append(f"At a radius of {epsilon:g} it takes {needed:,} samples to bound both sides: --samples {needed}.")
    return Table("Certificates", columns, rows, caption=words, notes=notes)


def _ends(score: ScoreRecord, epsilon: float) -> list[TableCell]:
    made = score.at(epsilon)
    if made is None or made.abstained:
        return [TableCell(None), TableCell(None)]
    ends = ((made.lower, made.bounds.ranks.low), (made.upper, made.bounds.ranks.high))
    return [TableCell(end, note="not bounded" if rank is None else "") for end, rank in ends]


def _safe(score: ScoreRecord, radius: float | None) -> TableCell:
    certificate = score.certificate
    limited = radius is not None and certificate is not None and certificate.exhausted(radius)
    return TableCell(radius, note=f"as far as {len(score.samples)} samples reach" if limited else "")


def _attacks_table(pairs: Pairs, names: dict[str, str], epsilon: float) -> Table:
    """Return attacks on certified images, one a row: what the metric alone says, and what the smoothed one says."""
    columns = [
        Column("image"), Column("attack"), Column("without noise, clean"), Column("attacked"),
        Column("defended, clean"), Column("attacked, defended"), Column("l2 norm", digits=3),
        Column("defended score is"),
    ]  # fmt: skip
    rows = []
    for score, attack in pairs:
        found = verdict(score, attack, epsilon)
        entry = TableCell(found, tone="bad" if found == "refuted" else "unsure" if found == "outside" else "")
        facts = attack.title, attack.clean, attack.attacked, score.score, attack.defended, attack.l2
        rows.append(row(names[score.key], *facts, entry))
    words = (
        "Attacked images, as saved in 8 bits; the defended score is a median under fresh noise. Adaptive: the worse of "
        "the attack on the metric alone and one through the noise, and the denoiser if there is one. The interval is "
        f"proven for the true median and changes of l2 norm up to {epsilon:g}; beyond, staying inside is an "
        "observation and no guarantee."
    )
    return Table("Attacks", columns, rows, caption=words)


def _intervals_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> list[Chart]:
    """Draw every certified interval with its score, the widest at the top."""
    shown: list[tuple[Interval, str]] = []
    for score in scores:
        low, high = score.interval(epsilon)
        bounded = width_of(score, epsilon) is not None
        if bounded and score.score is not None and low is not None and high is not None:
            shown.append((Interval(score.score, low, high, 1), plain_text(names[score.key])))
    if not shown:
        return []
    shown.sort(key=lambda one: one[0].high - one[0].low)
    values = [value for value, _ in shown]
    points = curve("", [round(v.mean, 4) for v in values], [name for _, name in shown], "%{y}: %{x:.2f}", "markers")
    points |= {"error_x": error_bars(values), "marker": {"size": 8, "color": "#2f86d0"}, "showlegend": False}
    layout: Figure = {
        "height": 120 + 26 * len(shown),
        "margin": {"l": 10, "r": 10, "t": 10, "b": 50},
        "xaxis": axis("median score, points"),
        "yaxis": {"automargin": True, "type": "category"},
    }
    title = f"Certified intervals, l2 radius {epsilon:g}"
    words = "The interval of every image with its sampled median, the widest on top."
    return [Chart("certified-intervals", title, words, {"data": [points], "layout": layout})]


def _curves_chart(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> list[Chart]:
    """Draw the width of the interval over the radius, one curve an image, as far as it is bounded."""
    data: list[Figure] = []
    for score in scores:
        certificate = score.certificate
        if certificate is not None and not certificate.abstained:
            bounds = [bounds for bounds in certificate.curve(score.radii()) if not bounds.vacuous]
            x, y = [round(one.epsilon, 5) for one in bounds], [round(one.width, 5) for one in bounds]
            data += [curve(names[score.key], x, y, "%{x}: %{y:.3f}")] if bounds else []
    # In a grey that is seen on both grounds.
    look = {"color": GREY, "width": 1.5, "dash": "dot"}
    line = {"type": "line", "x0": epsilon, "x1": epsilon, "yref": "paper", "y0": 0, "y1": 1, "line": look}
    layout = layout_of(
        axis("l2 radius", rangemode="tozero"), axis("width of the interval, points of the score", rangemode="tozero")
    )
    layout |= {"shapes": [line], "showlegend": len(data) <= 12}
    words = "Width of the certified interval over the radius; each radius holds with the same confidence by itself."
    return [Chart("certified-widths", "Width over the radius", words, {"data": data, "layout": layout})] if data else []
