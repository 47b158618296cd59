"""One attack on a score: search it on a metric or through a defence, and measure what it does to a contender."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.gradient import IFGSM, PGD
from resolute.attacks.objective import Objective, ScoreGain
from resolute.errors import ConfigError
from resolute.models.base import Scorer
from resolute.studies.certified import Certification, Row
from resolute.studies.gaming import SmoothedGain, norms

Step = Callable[[int, int], None]
Image = Float[Tensor, "3 h w"]

# In float32 a perturbation on the sphere may come out longer than its radius by the last bits.
INSIDE = 1 - 1e-6


@dataclasses.dataclass(frozen=True)
class Budget:
    """How far an attack may go.

    Attributes:
        norm: of the perturbation, over all pixels and channels.
        size: as reported: levels of 255 for ``linf``, the radius for ``l2``.
        epsilon: the radius on the scale of [0, 1].
    """

    norm: Literal["linf", "l2"]
    size: float
    epsilon: float

    @property
    def attack(self) -> str:
        """The attack that it is spent with."""
        return "I-FGSM" if self.norm == "linf" else "PGD"

    @property
    def title(self) -> str:
        """What a person calls it.

        Example:
            >>> Budget("linf", 4, 4 / 255).title, Budget("l2", 0.05, 0.05).title
            ('I-FGSM 4/255', 'PGD l2 0.05')
        """
        return f"I-FGSM {self.size:g}/255" if self.norm == "linf" else f"PGD l2 {self.size:g}"


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """An attacked image.

    Attributes:
        image: in [0, 1].
        rounded: whether it is on the 8-bit grid.
        configuration: ``repr`` of the attack.
    """

    image: Image
    rounded: bool
    configuration: str


def search(
    scorer: Scorer, clean: Image, budget: Budget, steps: int, sigma: float, draws: int, seed: int, step: Step
) -> Found:
    """Attack the score of ``scorer`` towards better quality.

    Args:
        scorer: the bare metric; for an adaptive attack, the metric behind its denoiser or purifier.
        clean: the image, in [0, 1].
        budget: how far.
        steps: of the attack.
        sigma: of the noise to average over, 0 for none.
        draws: noisy copies a step averages over.
        seed: of the attack.
        step: called with (steps done, steps in all).

    Raises:
        ConfigError: the metric has no gradient.
    """
    if scorer.card is not None and scorer.card.differentiable is False:
        raise ConfigError(f"{scorer.card.name} has no gradient to climb; set attacks.images to 0")
    sign: Literal[1, -1] = -1 if scorer.lower_better else 1
    objective: Objective = SmoothedGain(sign, sigma, draws) if sigma > 0 else ScoreGain(sign)
    if budget.norm == "linf":
        attack = IFGSM(epsilon=budget.epsilon, steps=steps, objective=objective)
    else:
        attack = PGD(
            epsilon=budget.epsilon * INSIDE, steps=steps, relative_step=2.5 / steps, objective=objective, norm="l2",
            start="tiny",
        )  # fmt: skip
    found = attack(scorer, clean[None], seed=seed, progress=step)
    rounded = budget.norm == "linf"
    return Found((found.images if rounded else found.unrounded)[0], rounded, repr(attack))


def apply(found: Found, clean: Image, scorer: Scorer, row: Row, certification: Certification | None) -> Row:
    """Score an attacked image by a contender and hold it against the certificate of the clean one.

    Args:
        found: the attacked image.
        clean: what it was.
        scorer: of the contender.
        row: the contender's record of the clean image.
        certification: how it is smoothed; None where it is not.
    """
    linf, l2 = norms(found.image.double() - clean.double())
    interval = certified_at(row, l2) if certification is not None else None
    left = strayed = None
    if certification is None:
        with torch.no_grad():
            attacked: float | None = float(scorer(found.image[None]))
    else:
        made = certification.certify(scorer, found.image, lambda _done, _total: None)
        attacked = None if made.abstained else made.score
        if interval is not None and attacked is not None:
            # The certificate is about the true median, which the samples place within bounds of its own.
            true = made.at(0.0)
            left = true.lower > interval[1] or true.upper < interval[0]
            strayed = not interval[0] <= attacked <= interval[1]
    towards = -1 if row["lower_better"] else 1
    gain = None if attacked is None or row["score"] is None else towards * (attacked - row["score"])
    return {
        "rounded": found.rounded,
        "configuration": found.configuration,
        "l2": l2,
        "linf": linf * 255,
        "clean": row["score"],
        "attacked": attacked,
        "gain": gain,
        "gain_share": gain / row["span"] if gain is not None and row["span"] else None,
        "interval": interval,
        "left": left,
        "strayed": strayed,
    }


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
