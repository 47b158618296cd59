"""The tables of certified photographs: certificates, and what attacks did to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from resolute.studies.score_attacked import ScoreAttackRecord, verdict
from resolute.studies.score_words import certified_words
from resolute.studies.scored import SHARES, ScoreRecord
from resolute.studies.study import count
from resolute.table import Cell as Entry
from resolute.table import Column, Table, row


def certificates_table(scores: Sequence[ScoreRecord], names: dict[str, str], epsilon: float) -> Table:
    """Return certificates, one image a row; what is the same for all is in the caption."""
    first = scores[0]
    better: Literal["higher", "lower"] = "lower" if first.lower_better else "higher"
    columns = [
        Column("image"),
        Column("without noise", better=better),
        Column("score", better=better, key=True),
        Column("from"),
        Column("to"),
        *(
            Column(
                f"safe {share:.0%}",
                "l2",
                f"radius up to which the true median moves by at most {share:.0%} of the range",
                4,
            )
            for share in SHARES
        ),
        Column("samples"),
    ]
    rows = []
    for score in scores:
        made = score.at(epsilon)
        ends = (
            (None, None)
            if made is None or made.abstained
            else (
                Entry(made.lower, note=_unbounded(made.bounds.ranks.low)),
                Entry(made.upper, note=_unbounded(made.bounds.ranks.high)),
            )
        )
        rows.append(
            row(
                names[score.key],
                score.undefended,
                score.score,
                *ends,
                _safe(score, score.safe_1),
                _safe(score, score.safe_5),
                Entry("abstained", tone="bad") if score.non_finite else len(score.samples),
            )
        )
    sigma = first.smoothing.sigma if first.smoothing else 0.0
    words = (
        f"{first.model}, {better} is better. Score: sampled median under noise of sigma {sigma:g}. "
        f"{certified_words(first, epsilon)}"
    )
    unproven = [
        score for score in scores if score.span and not score.non_finite and None in (score.safe_1, score.safe_5)
    ]
    notes = (
        [
            f"No safe radius is shown for {count(len(unproven), 'image')}: the samples are too few to prove one; "
            "draw more with --samples."
        ]
        if unproven
        else []
    )
    return Table("Certificates", columns, rows, caption=words, notes=notes)


def _unbounded(rank: int | None) -> str:
    return "not bounded" if rank is None else ""


def _safe(score: ScoreRecord, radius: float | None) -> Entry:
    certificate = score.certificate
    limited = radius is not None and certificate is not None and certificate.exhausted(radius)
    return Entry(radius, note=f"as far as {len(score.samples)} samples reach" if limited else "")


def attacks_table(
    pairs: Sequence[tuple[ScoreRecord, ScoreAttackRecord]], names: dict[str, str], epsilon: float
) -> Table:
    """Return attacks on certified images, one a row: what the metric alone says, and what the smoothed one says."""
    columns = [
        Column("image"),
        Column("attack"),
        Column("without noise, clean"),
        Column("attacked"),
        Column("defended, clean"),
        Column("attacked, defended"),
        Column("l2 norm", digits=3),
        Column("defended score is"),
    ]
    rows = []
    for score, attack in pairs:
        found = verdict(score, attack, epsilon)
        tone = "bad" if found == "refuted" else "unsure" if found == "outside" else ""
        rows.append(
            row(
                names[score.key], attack.title, attack.clean, attack.attacked, score.score, attack.defended, attack.l2,
                Entry(found, tone=tone),
            )
        )  # fmt: skip
    words = (
        "Attacked images, as saved in 8 bits; the defended score is a median under fresh noise. Adaptive: the worse of "
        "the attack on the metric alone and one through the noise, and the denoiser if there is one. The interval is "
        f"proven for the true median and changes of l2 norm up to {epsilon:g}; beyond, staying inside is an "
        "observation and no guarantee."
    )
    return Table("Attacks", columns, rows, caption=words)
