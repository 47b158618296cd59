"""Game a metric: attack an image, and set what the metric alone says of it beside what the smoothed one says."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.gradient import PGD
from resolute.attacks.objective import Bound, Images, ScoreGain
from resolute.certificates.median import DenoisedScorer, ExpectedScore
from resolute.errors import ConfigError
from resolute.models.base import Scorer, frozen
from resolute.randomness import generator_for

Progress = Callable[[int, int], None]
Verdict = Literal["inside, as proven", "inside, as observed", "outside", "outside by sampling", "abstained", "vacuous"]

# What the table of attacks holds; the records hold the rest.
COLUMNS: tuple[str, ...] = (
    "image", "adaptive", "norm", "budget", "clean", "attacked", "score", "lower", "upper", "defended", "verdict",
    "linf", "l2", "epsilon", "seconds",
)  # fmt: skip

# Up to here a change of every sample is hardly to be seen, on a photograph at its own size.
SEEN = 2.01 / 255


@final
@dataclasses.dataclass(frozen=True)
class SmoothedGain:
    """The score under noise, of another draw at every call: what an attacker climbs who knows of the smoothing.

    Args:
        sign: 1 to raise the score, -1 to lower it.
        sigma: standard deviation of the noise.
        draws: noisy copies at each call.
        seed: of the noise, which the defender does not share.
    """

    sign: Literal[1, -1]
    sigma: float
    draws: int
    seed: int = 1

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        assert isinstance(model, Scorer)
        expected = ExpectedScore(model, self.sigma, self.draws)
        generator = generator_for(self.seed, "gaming")

        def gain(x: Images) -> Float[Tensor, " b"]:
            noise = torch.randn((len(x), self.draws, *x.shape[1:]), generator=generator)
            return self.sign * expected.under(x, noise.to(x)).float()

        return gain


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaming:
    """An attack on the score, up where higher is better and down where lower is, on the 8-bit grid.

    In the l-infinity ball it is PGD from beside the clean image. In the l2 ball it changes as many samples by one level
    as the radius allows, those with the largest gradient: rounding would undo the even change that is best without a
    grid.

    Attributes:
        epsilon: radius, on the scale of [0, 1].
        norm: of the radius, over all pixels and channels.
        steps: gradient steps.
        adaptive: climb the smoothed score, through noise and denoiser, as who knows of the defence does; otherwise the
            metric alone.
        draws: noisy copies that an adaptive step averages over.

    Raises:
        ConfigError: a radius below 1/255, which no 8-bit image can show.

    Example:
        >>> Gaming(epsilon=2 / 255).steps
        10
    """

    epsilon: float
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 10
    adaptive: bool = False
    draws: int = 4

    def __post_init__(self) -> None:
        if not 0.999 / 255 <= self.epsilon < math.inf:
            raise ConfigError(f"an attack changes an 8-bit image by 1/255 at least, not by {self.epsilon:g}")

    def __call__(
        self, scorer: Scorer, image: Float[Tensor, "3 h w"], sigma: float, step: Progress
    ) -> Float[Tensor, "3 h w"]:
        """Return the attacked image, on the 8-bit grid.

        Args:
            scorer: the metric, with its denoiser if there is one.
            image: as it is certified.
            sigma: of the smoothing.
            step: called with (steps done, steps in all).

        Raises:
            ConfigError: the metric has no gradient to climb.
        """
        alone = metric_alone(scorer)
        card = alone.card or alone.describe(type(alone).__name__)
        if card.differentiable is False:
            raise ConfigError(f"{card.name} has no gradient for an attack to climb; choose another metric")
        sign = -1 if alone.lower_better else 1
        objective = SmoothedGain(sign, sigma, self.draws) if self.adaptive else ScoreGain(sign)
        target = scorer if self.adaptive else alone
        if self.norm == "l2":
            with frozen(target):
                return sparse(objective.bind(target, image[None]), image[None], self.epsilon, self.steps, step)[0]
        attack = PGD(epsilon=self.epsilon, steps=self.steps, relative_step=0.25, start="tiny", objective=objective)
        try:
            return attack(target, image[None], progress=step).images[0]
        except FloatingPointError as error:
            raise ConfigError(f"{card.name} cannot be attacked on this image: {error}") from None

    @property
    def title(self) -> str:
        """The attack in a few words.

        Example:
            >>> Gaming(epsilon=2 / 255).title, Gaming(epsilon=0.3, norm="l2", adaptive=True).title
            ('on the metric, 2/255', 'adaptive, l2 0.3')
        """
        size = f"{255 * self.epsilon:.3g}/255" if self.norm == "linf" else f"l2 {self.epsilon:g}"
        return f"{'adaptive' if self.adaptive else 'on the metric'}, {size}"


def sparse(objective: Bound, clean: Images, epsilon: float, steps: int, step: Progress) -> Images:
    """Climb an objective by changing samples by one level of 255 each, the largest gradient first.

    Args:
        objective: ``(1, 3, h, w)`` to ``(1,)``.
        clean: one image.
        epsilon: l2 radius; it holds ``(255 * epsilon) ** 2`` such changes.
        steps: gradients; after each an equal share of the samples is changed.
        step: called with (steps done, steps in all).

    Example:
        >>> clean = torch.full((1, 3, 2, 2), 0.4)
        >>> found = sparse(lambda x: x[:, 0].sum(dim=(1, 2)), clean, 2 / 255, 2, lambda done, total: None)
        >>> [round(value) for value in (255 * (found - clean)).sum(dim=(2, 3))[0].tolist()]
        [4, 0, 0]
    """
    x, left = clean.clone(), min(int((255 * epsilon) ** 2 + 1e-6), clean.numel())
    for taken in range(steps):
        y = x.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(y).sum(), y)
        # A sample at the end of its range cannot move, one that moved already would cost more than its share.
        moved = (x + gradient.sign() / 255).clamp(0, 1)
        free = (x == clean) & ((moved - x).abs() > 0.5 / 255)
        count = left // (steps - taken)
        left -= count
        chosen = torch.zeros_like(x, dtype=torch.bool).flatten()
        chosen[(gradient.abs() * free).flatten().topk(count).indices] = True
        x = torch.where(chosen.view_as(x) & free, moved, x)
        step(taken + 1, steps)
    return (x * 255).round() / 255


def metric_alone(scorer: Scorer) -> Scorer:
    """Return the metric without the denoiser in front of it."""
    return scorer.scorer if isinstance(scorer, DenoisedScorer) else scorer


def norms(change: Float[Tensor, "3 h w"]) -> tuple[float, float]:
    """Return the l-infinity and the l2 norm of a change.

    Example:
        >>> norms(torch.full((3, 2, 2), 0.5))
        (0.5, 1.7320508075688772)
    """
    change = change.double()
    return float(change.abs().max()), float(torch.linalg.vector_norm(change))


def verdict(row: Mapping[str, Any], attack: Mapping[str, Any]) -> Verdict:
    """Say where the defended score of an attacked image lies, and whether that was proven or has only been observed.

    Args:
        row: record of the clean image's certificate.
        attack: record of the attack.

    Example:
        >>> row = {"score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "vacuous": False}
        >>> verdict(row, {"defended": 52.6, "l2": 2.1})
        'inside, as observed'
    """
    if row["score"] is None or attack["defended"] is None:
        return "abstained"
    if row["vacuous"]:
        return "vacuous"
    inside = row["lower"] <= attack["defended"] <= row["upper"]
    if attack["l2"] <= row["epsilon"]:
        return "inside, as proven" if inside else "outside by sampling"
    return "inside, as observed" if inside else "outside"


def words(row: Mapping[str, Any], attack: Mapping[str, Any]) -> str:
    """Tell in plain words what an attack did to the metric alone and to the smoothed one, and what was proven of it.

    Example:
        >>> import textwrap
        >>> row = {"score": 52.1, "lower": 51.0, "upper": 53.0, "epsilon": 0.05, "vacuous": False,
        ...        "scorer": {"lower_better": False}}
        >>> figures = {"clean": 41.0, "attacked": 78.0, "defended": 52.6, "l2": 2.1, "linf": 2 / 255}
        >>> print(textwrap.fill(words(row, figures | {"attack": {"adaptive": False}}), 100))
        The undefended score rose from 41 to 78 by a change that nobody sees, of at most 2/255; the defended
        score rose from 52.1 to 52.6, inside its interval [51, 53]. The change has l2 norm 2.1, larger than
        the radius 0.05 for which the interval is proven: that it stayed inside is an observation, not a
        guarantee.
    """
    better = " (lower is better)" if row["scorer"]["lower_better"] else ""
    seen = "that nobody sees, of" if attack["linf"] <= SEEN else "of"
    change = f"by a change {seen} at most {255 * attack['linf']:.3g}/255"
    alone = f"the undefended score{better} {_went(attack['clean'], attack['attacked'])}"
    found = verdict(row, attack)
    if found == "abstained":
        smoothed = "the defended score is not finite on noisy copies, and nothing is certified"
    else:
        low = "\u2212\u221e" if row["lower"] is None else _number(row["lower"])
        high = "\u221e" if row["upper"] is None else _number(row["upper"])
        where = "inside" if _inside(row, attack["defended"]) else "outside"
        smoothed = f"the defended score {_went(row['score'], attack['defended'])}, {where} its interval [{low}, {high}]"
    if attack["attack"]["adaptive"]:
        told = f"Against an attacker who knows of the defence, {smoothed}, {change}; {alone}."
    else:
        told = f"{alone[0].upper()}{alone[1:]} {change}; {smoothed}."
    length = f" The change has l2 norm {attack['l2']:.3g}"
    radius = f"the radius {row['epsilon']:g} for which the interval is proven"
    return (
        told
        + {
            "inside, as observed": f"{length}, larger than {radius}: that it stayed inside is an observation, not a "
            "guarantee.",
            "outside": f"{length}, larger than {radius}: nothing was promised for it.",
            "inside, as proven": f"{length}, within {radius}.",
            "outside by sampling": f"{length}, within {radius}; the proof is of the true median, and this sampled one "
            "strayed.",
            "vacuous": " The samples do not suffice to bound the score, so the interval says nothing.",
            "abstained": "",
        }[found]
    )


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the main figures of all attacks as CSV, one line for each attack on each image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        for attack in row["attacks"]:
            told = {"verdict": verdict(row, attack), "budget": attack["attack"]["epsilon"]}
            writer.writerow({**row, **attack["attack"], **attack, **told, "epsilon": row["epsilon"]})
    return text.getvalue()


def _inside(row: Mapping[str, Any], score: float) -> bool:
    low, high = row["lower"], row["upper"]
    return (low is None or low <= score) and (high is None or score <= high)


def _went(before: float, after: float) -> str:
    start, end = _number(before), _number(after)
    if start == end:
        return f"stayed at {start}"
    return f"{'rose' if after > before else 'fell'} from {start} to {end}"


def _number(value: float) -> str:
    return f"{value:.4g}"
