"""Attacks on quality scores: cells, records, answers, and how a defended score stands against its certificate."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import ClassVar, Literal, final

from resolute.attacks.score import Image, Origin, ScoreAttack, norms
from resolute.certificates.median import prepared
from resolute.images import from_uint8, image_sha256, to_uint8
from resolute.studies.record import Record, record_key
from resolute.studies.scored import Contestant, ScoreCell, ScoreRecord, finite, score_of
from resolute.studies.study import Answer, Bench, Cell, Progress, about

Verdict = Literal[
    "inside, as proven", "inside, as observed", "outside", "outside by sampling", "refuted", "abstained", "vacuous"
]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreAttackRecord(Record):
    """What an attack did to one image's score; of an adaptive attack and the transferred one, the worse counts.

    Attributes:
        defence: what the metric stands behind; as in the record of the clean image.
        clean_key: key of the record of the clean image.
        configuration: the attack with all its settings.
        adaptive: whether it also climbed the defended score.
        origin: which attack counts, ``transferred`` or ``adaptive``.
        norm: of the budget, ``linf`` or ``l2``.
        budget: levels of 255 for ``linf``, the radius for ``l2``.
        rounded: whether the attacked image is on the 8-bit grid.
        clean: what the metric alone says of the clean image.
        attacked: what the metric alone says of the attacked one.
        defended: what the defended score is of it, under fresh noise; None where it is not finite.
        true_lower: bound on the attacked image's own true median; None where it has none.
        true_upper: bound on the attacked image's own true median; None where it has none.
        true_error: chance that these bounds fail.
        linf: norm of the change, on the scale of [0, 1].
        l2: norm of the change.
    """

    view: ClassVar[str] = "score_attacks"

    defence: str = ""
    clean_key: str
    configuration: str
    adaptive: bool
    origin: str
    norm: str
    budget: float
    rounded: bool
    clean: float | None
    attacked: float | None
    defended: float | None
    true_lower: float | None = None
    true_upper: float | None = None
    true_error: float = 0.0
    linf: float
    l2: float

    @property
    def title(self) -> str:
        """The attack in a few words."""
        size = f"{self.budget:g}/255" if self.norm == "linf" else f"l2 {self.budget:g}"
        return f"{'adaptive' if self.adaptive else 'on the metric'}, {size}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScoreAttackCell(Cell):
    """One attack on one contestant and image."""

    contestant: Contestant
    attack: ScoreAttack
    clean: ScoreCell
    kept: bool

    @staticmethod
    def of(clean: ScoreCell, attack: ScoreAttack, *, kept: bool) -> ScoreAttackCell:
        """Return the cell that asks what an attack does to the score of a clean image.

        With ``kept`` the attacked image becomes a file.
        """
        contestant = clean.contestant
        adaptive = attack.adaptive and contestant.smoothing is not None
        searched = attack.steps * 3 * (1 + attack.draws if adaptive else 1)
        return ScoreAttackCell(
            key=record_key("score attack", clean.key, repr(attack), kept),
            title=f"{clean.title}, {attack.title}",
            # What is found on the bare metric serves all that stand before it.
            like=("score attack", _searched(contestant, attack), repr(attack), clean.name, image_sha256(clean.image)),
            shape=clean.shape,
            joint=True,
            cost=clean.cost + searched * clean.shape[0] * clean.shape[1],
            needs=() if clean.problem else (clean.key,),
            problem=clean.problem,
            contestant=contestant,
            attack=attack,
            clean=clean,
            kept=kept,
        )


def _searched(contestant: Contestant, attack: ScoreAttack) -> str:
    card = contestant.bare.card
    alone = f"{card.name} {card.sha256}" if card is not None else ""
    return repr(contestant.identity) if attack.adaptive else alone


def attacked(cell: ScoreAttackCell, bench: Bench, progress: Progress) -> Answer:
    """Attack an image and judge what was found: of the adaptive attack and the transferred one, the worse counts.

    The defender's noise is fresh: neither the one that the clean image was scored with nor the attacker's.

    Raises:
        ConfigError: the metric cannot be attacked.
    """
    began = time.perf_counter()
    contestant, attack = cell.contestant, cell.attack
    clean = prepared(cell.clean.image.to(bench.device), None)
    score, card = bench.record(cell.clean.key), contestant.scorer.card
    assert isinstance(score, ScoreRecord)
    assert card is not None

    def search() -> dict[Origin, Image]:
        found = attack(
            bench.place(contestant.bare), clean, defended=bench.place(contestant.scorer), sigma=contestant.sigma,
            size=cell.clean.size, progress=lambda done, total: progress(0.5 * done / total),
        )  # fmt: skip
        return {origin: from_uint8(to_uint8(x)).to(clean) if attack.grid else x for origin, x in found.items()}

    images = bench.shared(("found", _searched(contestant, attack), repr(attack), image_sha256(clean)), search)
    tried: dict[Origin, ScoreAttackRecord] = {}
    for number, (origin, image) in enumerate(images.items()):

        def told(done: int, total: int, number: int = number) -> None:
            progress(0.5 + 0.5 * (number + done / total) / len(images))

        defended, true_lower, true_upper, true_error = bench.shared(
            ("judged", contestant.identity, image_sha256(image)),
            lambda image=image, told=told: _judged(contestant, image, cell.clean.size, bench, told),
        )
        linf, l2 = norms(image - clean)
        tried[origin] = ScoreAttackRecord(
            **about(cell, card, score.image, clean, attack.seed),
            defence=contestant.defence,
            clean_key=score.key,
            configuration=repr(attack),
            adaptive=attack.adaptive,
            origin=origin,
            norm=attack.norm,
            budget=round(attack.epsilon * (255 if attack.norm == "linf" else 1), 6),
            rounded=attack.grid,
            clean=score.undefended,
            attacked=finite(score_of(bench.place(contestant.bare), image)),
            defended=defended,
            true_lower=true_lower,
            true_upper=true_upper,
            true_error=true_error,
            linf=linf,
            l2=l2,
            seconds=round(time.perf_counter() - began, 3),
        )
    worst = max(tried, key=lambda origin: harm(score, tried[origin]))
    return Answer(tried[worst], {"attacked": images[worst].cpu()} if cell.kept else {})


def _judged(
    contestant: Contestant, image: Image, size: tuple[int, int] | None, bench: Bench, told: Callable[[int, int], None]
) -> tuple[float | None, float | None, float | None, float]:
    """Return the defended score, bounds on the image's own true median, and the chance that these fail."""
    if contestant.smoothing is None:
        return finite(score_of(bench.place(contestant.scorer), image)), None, None, 0.0
    alone = dataclasses.replace(contestant, width=0.0)
    seed = contestant.smoothing.seed
    made = alone.certify(bench, image, size, None if seed is None else seed + 1, told)
    bounds = made.at(0.0)
    return finite(made.score), finite(bounds.lower), finite(bounds.upper), made.error


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


def refutes(score: ScoreRecord, attack: ScoreAttackRecord) -> bool:
    """Tell whether an attack moved the true median out of what is certified for a change of its size."""
    return apart(score.interval(attack.l2), (attack.true_lower, attack.true_upper))


def gain(score: ScoreRecord, attack: ScoreAttackRecord) -> float | None:
    """Return how far the defended score moved towards better quality; None where one of both is not finite."""
    if attack.defended is None or score.score is None:
        return None
    return (-1 if score.lower_better else 1) * (attack.defended - score.score)


def harm(score: ScoreRecord, attack: ScoreAttackRecord) -> tuple[bool, float]:
    """Return how bad an attack is for the defender, to be compared: a refuted certificate, then the defended score.

    A score that is not finite is the worst there is.
    """
    moved = gain(score, attack)
    return refutes(score, attack), math.inf if moved is None else moved


def verdict(score: ScoreRecord, attack: ScoreAttackRecord, epsilon: float) -> Verdict:
    """Say where the defended score of an attacked image lies, and whether that was proven or has only been observed.

    The ``epsilon`` is the l2 radius of the certificate.
    """
    certificate = score.certificate
    if certificate is None or certificate.abstained or attack.defended is None:
        return "abstained"
    if refutes(score, attack):
        return "refuted"
    bounds = certificate.at(epsilon)
    if bounds.vacuous:
        return "vacuous"
    if bounds.lower <= attack.defended <= bounds.upper:
        return "inside, as proven" if attack.l2 <= epsilon else "inside, as observed"
    return "outside by sampling" if attack.l2 <= epsilon else "outside"
