"""What the local page says, as HTML; every name in it is escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from resolute.certificates.certificate import Certificate
from resolute.figures import figure
from resolute.serve.hardening import STEPS, Hardened
from resolute.serve.jobs import Trial
from resolute.serve.stream import Step
from resolute.studies.summary import attack_title as title
from resolute.training.hardened import tables

CSS = """
.r-bar { height: .6rem; border-radius: .3rem; background: var(--border-color-primary); overflow: hidden; }
.r-bar i { display: block; height: 100%; background: var(--color-accent); }
.r-curve { width: 100%; height: 5rem; margin-top: .5rem; }
.r-curve polyline { fill: none; stroke: var(--color-accent); stroke-width: 2; vector-effect: non-scaling-stroke; }
.r-refused { padding: .6rem .9rem; border-left: 4px solid #c0392b; }
.r-table { border: 0 !important; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.r-table.r-table tr { border: 0 !important; }
.r-table.r-table th { padding: .2rem 1rem .2rem 0; border: 0 !important; font-weight: 400; text-align: left; }
.r-table.r-table td {
  padding: .2rem 0; border: 0 !important; font-weight: 600; text-align: right; white-space: nowrap;
}
.r-wide td, .r-wide thead th { padding-left: 1rem !important; text-align: right !important; }
.r-wide thead th:first-child { padding-left: 0 !important; text-align: left !important; }
.r-verdict { font-size: 1.15rem; font-weight: 600; }
.r-score { font-size: 2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
#faithful-gallery .grid-wrap, #harden-gallery .grid-wrap {
  min-height: 0 !important; max-height: none !important;
}
#faithful-gallery .caption-label, #harden-gallery .caption-label {
  overflow: visible !important; white-space: normal !important;
}
.r-pixels img { width: 100% !important; height: 100% !important; object-fit: contain; image-rendering: pixelated; }
@media (max-width: 40rem) {
  #faithful-gallery .grid-container, #harden-gallery .grid-container { grid-template-columns: 1fr 1fr !important; }
}
footer { display: none !important; }
"""


def progress(step: Step) -> str:
    """Return a bar, how far it is in words, and the curve of what is climbed."""
    share = step.done / max(step.total, 1)
    # Of a mean of squares, so that the page speaks of the same figure during the attack and after it.
    kept = [-10 * math.log10(value) for value in step.values if value > 0]
    what = step.what
    text = f"{what}: {step.done} of {step.total}" + (f", {step.note}" if step.note else "")
    if kept:
        text += f", SR-PSNR {figure(min(kept), 1)} dB so far, before rounding"
    return (
        f'<p role="status">{html.escape(text)}</p>'
        f'<div class="r-bar" role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{100 * share:.0f}"'
        f' aria-label="{html.escape(what)}"><i style="width:{100 * share:.1f}%"></i></div>{_curve(kept, step.total)}'
    )


def refused(error: Exception) -> str:
    """Return why something was not done."""
    return f'<p class="r-refused" role="alert">{html.escape(str(error))}</p>'


def said(text: str) -> str:
    """Return a plain line."""
    return f'<p role="status">{html.escape(text)}</p>'


def figures(trial: Trial) -> str:
    """Return the figures of an attack."""
    record = trial.record
    # None stands for images that are equal.
    sr, lr = (math.inf if value is None else value for value in (record.sr_psnr, record.lr_psnr))
    rows = [
        ("SR-PSNR: how far the output moved; higher is more robust", figure(sr), "dB"),
        ("LR-PSNR: how far the input moved", figure(lr), "dB"),
        ("largest change of a sample", f"{record.linf:g}", "/ 255"),
    ]
    if record.clean_psnr_y is not None and record.attacked_psnr_y is not None:
        rows += [
            ("against the photograph, clean, Y", figure(record.clean_psnr_y), "dB"),
            ("against the photograph, attacked, Y", figure(record.attacked_psnr_y), "dB"),
        ]
    lines = "".join(f'<tr><th scope="row">{name}</th><td>{value} {unit}</td></tr>' for name, value, unit in rows)
    head = f"{title(record.attack)} at {record.epsilon * 255:g}/255 on {record.model}: {record.seconds:.1f} s"
    return f'<p>{html.escape(head)}</p><table class="r-table"><tbody>{lines}</tbody></table>'


def sentences(told: Sequence[str]) -> str:
    """Return sentences, the first one large."""
    first, *others = (html.escape(sentence) for sentence in told)
    return f'<p class="r-verdict">{first}</p>' + "".join(f"<p>{sentence}</p>" for sentence in others)


def hardened(found: Hardened) -> str:
    """Return what a hardening was worth: its sentences and figures, and by what it was judged."""
    table = tables(found.made)[0]
    head = "".join(f"<th>{html.escape(column.name)}</th>" for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(one.name)}</th>'
        + "".join(f"<td>{figure(value.mean)}</td>" for value in (one.clean, one.truth, one.kept))
        + "</tr>"
        for one in found.made.standings
    )
    judge = (
        f"Judged on this one photograph by APGD on the output and PGD on the distance from the original, {STEPS} steps "
        "each, one start, the same before and after; the worst counts, in dB. That is a first look: the command "
        "resolute harden takes a hundred photographs, ten minutes and a stronger judge, and so should what is deployed."
    )
    return (
        f'{sentences(found.made.sentences())}<table class="r-table r-wide"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table><p>{html.escape(judge)}</p>"
    )


def certified(found: Certificate) -> str:
    """Return a certificate: the score, its interval, and what that does and does not mean."""
    interval = "nothing is certified" if found.abstained else f"[{_end(found.lower)}, {_end(found.upper)}]"
    score = "abstained" if found.abstained else figure(found.score)
    return (
        f'<p class="r-score">{score} <span>{interval}</span></p><p>{html.escape(found.words())}</p>'
        "<p>This is a certified figure, for a far smaller change than attacks use; it is on no scale with those of the "
        "other tabs.</p>"
    )


def _end(value: float) -> str:
    return figure(value) if math.isfinite(value) else "none"


def _curve(values: list[float], total: int) -> str:
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    last = max(total, len(values) - 1)
    points = " ".join(
        f"{100 * index / last:.2f},{28 - 26 * (value - low) / ((high - low) or 1):.2f}"
        for index, value in enumerate(values)
    )
    label = f"SR-PSNR over the steps, from {high:.1f} down to {low:.1f} dB"
    return (
        f'<svg class="r-curve" viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<polyline points="{points}"/></svg>'
    )
