"""Hold the defended score of an attacked image against the certificate of the clean one, and say what was found."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from resolute.attacks.score import Image, norms
from resolute.certify.certificate import Certificate

Row = Mapping[str, Any]
Verdict = Literal[
    "inside, as proven", "inside, as observed", "outside", "outside by sampling", "refuted", "abstained", "vacuous"
]

# What the table of attacks holds; the records hold the rest.
COLUMNS: tuple[str, ...] = (
    "image", "adaptive", "origin", "norm", "budget", "clean", "attacked", "score", "lower", "upper", "defended",
    "true_lower", "true_upper", "verdict", "linf", "l2", "epsilon", "seconds",
)  # fmt: skip


def judged(certificate: Certificate) -> dict[str, float | None]:
    """Return what the attacked image's own certificate says of its score; None for what is not finite.

    ``true_lower`` and ``true_upper`` bound the true median of the attacked image itself, at radius 0, up to a chance of
    ``true_error``; ``defended`` is the sampled median.
    """
    bounds = certificate.at(0.0)
    figures = {"defended": certificate.score, "true_lower": bounds.lower, "true_upper": bounds.upper}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()} | {
        "true_error": certificate.error
    }


def apart(interval: tuple[float | None, float | None], true: tuple[float | None, float | None]) -> bool:
    """Tell whether two intervals have no point in common; None is an end that is not bounded.

    Where the first was proven for the attacked image's true median and the second bounds that median, a gap between
    them refutes the certificate, up to the chances that either interval misses.

    Example:
        >>> apart((51.0, 53.0), (98.6, 99.3)), apart((51.0, 53.0), (52.9, None)), apart((None, 53.0), (52.9, 54.0))
        (True, False, False)
    """
    (low, high), (true_low, true_high) = interval, true
    above = true_low is not None and high is not None and true_low > high
    below = true_high is not None and low is not None and true_high < low
    return above or below


def harm(row: Row, attack: Row) -> tuple[bool, float]:
    """Return how bad an attack is for the defender, to be compared: a refuted certificate, then the defended score.

    A score that is not finite is the worst there is.

    Example:
        >>> row = {"score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "scorer": {"lower_better": False}}
        >>> harm(row, {"defended": 52.6, "l2": 2.1, "true_lower": 52.0, "true_upper": 53.2})
        (False, 52.6)
    """
    towards = -1 if row["scorer"]["lower_better"] else 1
    score = math.inf if attack["defended"] is None else towards * attack["defended"]
    return refutes(row, attack), score


def certified_at(row: Row, l2: float) -> tuple[float, float] | None:
    """Return the certified interval at the least radius of a record's curve that holds ``l2``; None if none does.

    Example:
        >>> certified_at({"curve": [[0.0, 4.0, 5.0], [0.1, 3.0, 6.0], [0.2, 0.0, 9.0]], "reach": 0.1}, 0.05)
        (3.0, 6.0)
    """
    for radius, lower, upper in row["curve"]:
        if radius >= l2:
            return None if row["reach"] is None or radius > row["reach"] else (lower, upper)
    return None


def held_against(row: Row, score: Row, attacked: Image, clean: Image) -> dict[str, Any]:
    """Hold an attacked image against the record of the clean one, at the least certified radius that holds its change.

    Args:
        row: a contender's record of the clean image.
        score: what ``judged`` returned; ``defended`` alone of a score that is not smoothed.
        attacked: image.
        clean: image that it was.

    Returns:
        ``gain`` towards better quality and its share of the metric's range; ``interval``, None where none is certified
        at that radius; ``left`` and ``strayed``: whether the true median provably lies outside, and the sampled one.
    """
    linf, l2 = norms(attacked.double() - clean.double())
    interval = certified_at(row, l2) if row["certified"] else None
    defended = score["defended"]
    left = strayed = gain = None
    if interval is not None and defended is not None:
        left = apart(interval, (score["true_lower"], score["true_upper"]))
        strayed = not interval[0] <= defended <= interval[1]
    if defended is not None and row["score"] is not None:
        gain = (-1 if row["lower_better"] else 1) * (defended - row["score"])
    return {
        "l2": l2,
        "linf": linf * 255,
        "clean": row["score"],
        "attacked": defended,
        "true_lower": score.get("true_lower"),
        "true_upper": score.get("true_upper"),
        "gain": gain,
        "gain_share": gain / row["span"] if gain is not None and row["span"] else None,
        "interval": interval,
        "left": left,
        "strayed": strayed,
    }


def gain_of(attack: Row) -> tuple[bool, float]:
    """Return how bad a record of ``held_against`` is for the defender, as ``harm`` does."""
    return bool(attack["left"]), math.inf if attack["gain"] is None else attack["gain"]


def verdict(row: Row, attack: Row) -> Verdict:
    """Say where the defended score of an attacked image lies, and whether that was proven or has only been observed.

    Args:
        row: record of the clean image's certificate.
        attack: record of the attack.

    Example:
        >>> row = {"score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "vacuous": False}
        >>> verdict(row, {"defended": 52.6, "l2": 2.1, "true_lower": 52.0, "true_upper": 53.2})
        'inside, as observed'
        >>> verdict(row, {"defended": 99.0, "l2": 0.05, "true_lower": 98.6, "true_upper": 99.3})
        'refuted'
    """
    if row["score"] is None or attack["defended"] is None:
        return "abstained"
    if refutes(row, attack):
        return "refuted"
    if row["vacuous"]:
        return "vacuous"
    if row["lower"] <= attack["defended"] <= row["upper"]:
        return "inside, as proven" if attack["l2"] <= row["epsilon"] else "inside, as observed"
    return "outside by sampling" if attack["l2"] <= row["epsilon"] else "outside"


def refutes(row: Row, attack: Row) -> bool:
    """Tell whether an attack within the radius moved the true median where the certificate says it cannot be."""
    interval, true = (row["lower"], row["upper"]), (attack["true_lower"], attack["true_upper"])
    return row["score"] is not None and attack["l2"] <= row["epsilon"] and apart(interval, true)


def certified_words(row: Row) -> str:
    """Say in a caption what intervals like that of ``row`` are proven for: the true median, not the sampled one.

    Example:
        >>> import textwrap
        >>> row = {"error": 0.001, "epsilon": 0.05, "smoothing": {"deployed": 0}}
        >>> print(textwrap.fill(certified_words(row), 100))
        With confidence 99.9 % each, the true median stays in its interval under every perturbation of l2
        norm up to 0.05; a sampled median may stray from it.
    """
    count = row["smoothing"]["deployed"]
    proven = f"the true median and a median of {count} fresh samples stay" if count else "the true median stays"
    strays = "" if count else "; a sampled median may stray from it"
    return (
        f"With confidence {_percent(1 - row['error'])} each, {proven} in its interval under every perturbation of l2 "
        f"norm up to {row['epsilon']:g}{strays}."
    )


def alarms(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every certificate that an attack refuted.

    Args:
        rows: records of certificates with their ``attacks``.
    """
    return [
        f"{row['image']}: {refutation(row, attack)}"
        for row in rows
        for attack in row.get("attacks", ())
        if verdict(row, attack) == "refuted"
    ]


def refutation(row: Row, attack: Row) -> str:
    """Return the alarm about a certificate that an attack refuted."""
    return (
        f"The certificate is refuted. The attacked image is {attack['l2']:.3g} away in l2 norm, within the radius "
        f"{row['epsilon']:g}, and its true median lies in {_between(attack['true_lower'], attack['true_upper'])} with "
        f"confidence {_percent(1 - attack['true_error'])}, outside the interval "
        f"{_between(row['lower'], row['upper'])}, certified with confidence {_percent(1 - row['error'])}. Chance does "
        f"this to at most {_percent(attack['true_error'] + row['error'])} of images: check that the metric gives equal "
        "images equal scores, and report it."
    )


def words(row: Row, attack: Row) -> str:
    """Tell in plain words what an attack did to the metric alone and to the smoothed one, and what was proven of it.

    Example:
        >>> import textwrap
        >>> row = {"score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "vacuous": False, "error": 0.001,
        ...        "scorer": {"lower_better": False}}
        >>> figures = {"clean": 41.0, "attacked": 78.0, "defended": 52.6, "true_lower": 52.0, "true_upper": 53.2,
        ...            "true_error": 0.001, "l2": 2.1, "linf": 2 / 255, "origin": "transferred"}
        >>> print(textwrap.fill(words(row, figures | {"attack": {"adaptive": False}}), 100))
        The undefended score rose from 41 to 78 by a change of at most 2/255; the defended score rose from
        52.1 to 52.6, inside its interval [51, 53]. The change has l2 norm 2.1, larger than the radius 0.05
        for which the interval is proven: that the score is inside is an observation, not a guarantee.
    """
    better = " (lower is better)" if row["scorer"]["lower_better"] else ""
    change = f"by a change of at most {255 * attack['linf']:.3g}/255"
    alone = f"the undefended score{better} {_went(attack['clean'], attack['attacked'])}"
    smoothed = _smoothed(row, attack)
    if attack["attack"]["adaptive"]:
        found = (
            "The attack through the defence"
            if attack["origin"] == "adaptive"
            else "The attack on the metric alone, at least as strong here as the one through the defence"
        )
        told = f"{found}: {smoothed}, {change}; {alone}."
    else:
        told = f"{alone[0].upper()}{alone[1:]} {change}; {smoothed}."
    return told + _proven(row, attack)


def _smoothed(row: Row, attack: Row) -> str:
    if row["score"] is None:
        return "the defended score of the clean image is not finite on noisy copies, and nothing is certified"
    interval = _between(row["lower"], row["upper"])
    if attack["defended"] is None:
        return (
            f"the defended score was {_number(row['score'])}, and is not finite on noisy copies of the attacked image"
        )
    low, high = row["lower"], row["upper"]
    inside = (low is None or low <= attack["defended"]) and (high is None or attack["defended"] <= high)
    went = _went(row["score"], attack["defended"])
    return f"the defended score {went}, {'inside' if inside else 'outside'} its interval {interval}"


def _proven(row: Row, attack: Row) -> str:
    found = verdict(row, attack)
    length = f" The change has l2 norm {attack['l2']:.3g}"
    radius = f"the radius {row['epsilon']:g} for which the interval is proven"
    if found == "refuted":
        return f" {refutation(row, attack)}"
    if found == "vacuous":
        return " The samples do not suffice to bound the score on both sides, so nothing is concluded."
    if found == "inside, as proven":
        return f"{length}, within {radius}."
    if found == "inside, as observed":
        return f"{length}, larger than {radius}: that the score is inside is an observation, not a guarantee."
    if found == "outside":
        return f"{length}, larger than {radius}: nothing was promised for it."
    if found == "outside by sampling":
        return (
            f"{length}, within {radius}. The proof is of the true median, this score is a sampled one: the true median "
            f"of the attacked image lies in {_between(attack['true_lower'], attack['true_upper'])} with confidence "
            f"{_percent(1 - attack['true_error'])}, which overlaps the interval, so the certificate is not refuted."
        )
    return ""


def to_csv(rows: Sequence[Row]) -> str:
    """Return the main figures of all attacks as CSV, one line for each attack on each image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        for attack in row["attacks"]:
            told = {"verdict": verdict(row, attack), "budget": attack["attack"]["epsilon"]}
            writer.writerow({**row, **attack["attack"], **attack, **told, "epsilon": row["epsilon"]})
    return text.getvalue()


def _went(before: float, after: float) -> str:
    start, end = _number(before), _number(after)
    if start == end:
        return f"stayed at {start}"
    return f"{'rose' if after > before else 'fell'} from {start} to {end}"


def _between(low: float | None, high: float | None) -> str:
    ends = "\u2212\u221e" if low is None else _number(low), "\u221e" if high is None else _number(high)
    return f"[{ends[0]}, {ends[1]}]"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _number(value: float) -> str:
    return f"{value:.4g}"
