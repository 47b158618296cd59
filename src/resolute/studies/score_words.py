"""What certificates of scores and attacks on them come to in words; every clause is computed from the records."""

from __future__ import annotations

from resolute.studies.score_attacked import ScoreAttackRecord, verdict
from resolute.studies.scored import ScoreRecord


def certified_words(score: ScoreRecord, epsilon: float) -> str:
    """Say in a caption what intervals like that of ``score`` are proven for: the true median, not the sampled one."""
    certificate = score.certificate
    if certificate is None:
        return "The score is not smoothed, and nothing is certified."
    count = certificate.smoothing.deployed
    proven = f"the true median and a median of {count} fresh samples stay" if count else "the true median stays"
    strays = "" if count else "; a sampled median may stray from it"
    return (
        f"With confidence {_percent(1 - certificate.error)} each, {proven} in its interval under every perturbation of "
        f"l2 norm up to {epsilon:g}{strays}."
    )


def score_words(score: ScoreRecord, epsilon: float) -> str:
    """Say in whole sentences what is certified of a score."""
    made = score.at(epsilon)
    return made.words() if made is not None else certified_words(score, epsilon)


def refutation(score: ScoreRecord, attack: ScoreAttackRecord) -> str:
    """Return the alarm about a certificate that an attack refuted."""
    certificate = score.certificate
    assert certificate is not None
    return (
        f"The certificate is refuted. The attacked image is {attack.l2:.3g} away in l2 norm, and its true median lies "
        f"in {_between(attack.true_lower, attack.true_upper)} with confidence {_percent(1 - attack.true_error)}, "
        f"outside the interval {_between(*score.interval(attack.l2))}, certified for that distance with confidence "
        f"{_percent(1 - certificate.error)}. Chance does this to at most "
        f"{_percent(attack.true_error + certificate.error)} of images: check that the metric gives equal images equal "
        "scores, and report it."
    )


def attack_words(score: ScoreRecord, attack: ScoreAttackRecord, epsilon: float) -> str:
    """Tell what an attack did to the metric alone and to the smoothed score, and what was proven of it."""
    better = " (lower is better)" if score.lower_better else ""
    change = f"by a change of at most {255 * attack.linf:.3g}/255"
    alone = f"the undefended score{better} {_went(attack.clean, attack.attacked)}"
    smoothed = _smoothed(score, attack, epsilon)
    proven = _proven(score, attack, epsilon)
    if not attack.adaptive:
        return f"{alone[0].upper()}{alone[1:]} {change}; {smoothed}.{proven}"
    found = "The attack through the defence"
    if attack.origin != "adaptive":
        found = "The attack on the metric alone, at least as strong here as the one through the defence"
    return f"{found}: {smoothed}, {change}; {alone}.{proven}"


def _smoothed(score: ScoreRecord, attack: ScoreAttackRecord, epsilon: float) -> str:
    if score.score is None or score.certificate is None:
        return "the defended score of the clean image is not finite on noisy copies, and nothing is certified"
    if attack.defended is None:
        return f"the defended score was {_number(score.score)}, and is not finite on noisy copies of the attacked image"
    low, high = score.interval(epsilon)
    inside = (low is None or low <= attack.defended) and (high is None or attack.defended <= high)
    where = "inside" if inside else "outside"
    return f"the defended score {_went(score.score, attack.defended)}, {where} its interval {_between(low, high)}"


def _proven(score: ScoreRecord, attack: ScoreAttackRecord, epsilon: float) -> str:
    found = verdict(score, attack, epsilon)
    if found == "refuted":
        return f" {refutation(score, attack)}"
    measured = f" The change has l2 norm {attack.l2:.3g}"
    radius = f"the radius {epsilon:g} for which the interval is proven"
    return {
        "vacuous": " The samples do not suffice to bound the score on both sides, so nothing is concluded.",
        "inside, as proven": f"{measured}, within {radius}.",
        "inside, as observed": f"{measured}, larger than {radius}: that the score is inside is an observation, not a "
        "guarantee.",
        "outside": f"{measured}, larger than {radius}: nothing was promised for it.",
        "outside by sampling": f"{measured}, within {radius}. The proof is of the true median, this score is a sampled "
        f"one: the true median of the attacked image lies in {_between(attack.true_lower, attack.true_upper)} with "
        f"confidence {_percent(1 - attack.true_error)}, which overlaps the interval, so the certificate is not "
        "refuted.",
    }.get(found, "")


def _went(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "is not finite"
    start, end = _number(before), _number(after)
    return f"stayed at {start}" if start == end else f"{'rose' if after > before else 'fell'} from {start} to {end}"


def _between(low: float | None, high: float | None) -> str:
    ends = "\u2212\u221e" if low is None else _number(low), "\u221e" if high is None else _number(high)
    return f"[{ends[0]}, {ends[1]}]"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _number(value: float) -> str:
    return f"{value:.4g}"
