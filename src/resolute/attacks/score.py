"""The attack on a quality score, bare or defended: better quality within a budget, by gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resolute.attacks.ascent import Ascent, Problem, Progress, at_work, climb
from resolute.attacks.ball import Ball, Norm, ball_of
from resolute.attacks.objective import Bound, Images, Objective, ScoreGain
from resolute.attacks.options import Count, check_fields
from resolute.errors import ConfigError
from resolute.models.base import Scorer
from resolute.models.fitted import resized
from resolute.randomness import generator_for

Image = Float[Tensor, "3 h w"]
Origin = Literal["transferred", "adaptive"]

# Noisy copies whose activations are held at a time; the others are computed again for the gradient.
AT_ONCE = 4

# In float32 a perturbation on the sphere may come out longer than its radius by the last bits.
INSIDE = 1 - 1e-6


def noisy_scores(
    score: Callable[[Tensor], Tensor], x: Float[Tensor, "b 3 h w"], sigma: float, noise: Float[Tensor, "b n 3 h w"]
) -> Float[Tensor, "b n"]:
    """Return the scores of noisy copies clipped to [0, 1], for noise of standard deviation 1.

    Example:
        >>> def brightness(x):
        ...     return x.mean(dim=(1, 2, 3))
        >>> noise = torch.tensor([-4.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 2, 2)
        >>> noisy_scores(brightness, torch.full((1, 3, 2, 2), 0.5), 0.25, noise).tolist()
        [[0.0, 0.5, 0.75]]
    """
    copies = (x.unsqueeze(1) + sigma * noise).clamp(0, 1)
    return score(copies.flatten(0, 1)).view(noise.shape[:2])


@final
@dataclasses.dataclass(frozen=True)
class SmoothedGain:
    """The mean score under fresh noise at every call: what an attacker climbs who knows of the smoothing.

    Args:
        sign: 1 to raise the score, -1 to lower it.
        sigma: standard deviation of the noise.
        draws: noisy copies at each call.
        seed: of the noise, which is not the defender's.
        size: (height, width) that the defender resizes images to before the noise; None where it does not.
    """

    sign: Literal[1, -1]
    sigma: float
    draws: int
    seed: int = 0
    size: tuple[int, int] | None = None

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        generator = generator_for(self.seed, "smoothed gain")

        def part(x: Images, noise: Float[Tensor, "b n 3 h w"]) -> Float[Tensor, "b n"]:
            return noisy_scores(model, x, self.sigma, noise.to(x))

        def gain(x: Images) -> Float[Tensor, " b"]:
            x = x if self.size is None else resized(x, self.size)
            noise = torch.randn((len(x), self.draws, *x.shape[1:]), generator=generator)
            scores = [
                checkpoint(part, x, share, use_reentrant=False, preserve_rng_state=False)
                for share in noise.split(AT_ONCE, dim=1)
            ]
            return self.sign * torch.cat(scores, dim=1).float().mean(dim=1)

        return gain


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreAttack:
    """An attack on a score: up where higher is better, down where lower is.

    On the bare metric it is I-FGSM in the l-infinity ball and PGD in the l2 ball, from beside the clean image. The
    adaptive attack is PGD on the defended score, through denoiser and noise, from the image that the first one found.

    Attributes:
        epsilon: radius, on the scale of [0, 1].
        norm: of the radius, over all pixels and channels.
        steps: gradient steps of each climb.
        adaptive: attack the defended score too.
        draws: noisy copies that a step on a smoothed score averages over.
        seed: of the start and of the noise.
        grid: the attacked image is on the 8-bit grid, as a file holds it.

    Raises:
        ConfigError: a field is out of range; on the grid, a radius below 1/255, which no 8-bit image can show.

    Example:
        >>> ScoreAttack(epsilon=2 / 255).steps
        10
    """

    epsilon: float
    norm: Norm = "linf"
    steps: Count = 10
    adaptive: bool = False
    draws: Count = 16
    seed: int = 0
    grid: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.epsilon < (1.0001 if self.norm == "linf" else math.inf):
            raise ConfigError(f"the radius of an attack is above 0, and at most 1 for linf, not {self.epsilon:g}")
        if self.grid and self.epsilon < 0.999 / 255:
            raise ConfigError(f"an attack changes an 8-bit image by 1/255 at least, not by {self.epsilon:g}")

    def __call__(
        self,
        metric: Scorer,
        image: Image,
        *,
        defended: Scorer | None = None,
        sigma: float = 0.0,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
    ) -> dict[Origin, Image]:
        """Return the attacked images: ``transferred``, found on the bare metric, and ``adaptive`` where asked for.

        Which of the two is worse for the defender is for the defended score to say, under noise that the attack has
        not seen.

        Args:
            metric: without a defence.
            image: in [0, 1]; on the 8-bit grid where the attack is to be.
            defended: the metric behind its denoiser or purifier; by default the metric itself.
            sigma: standard deviation of the noise of the defence; 0 for none.
            size: (height, width) that the defence resizes the image to before the noise.
            progress: called with (steps done, steps in all).

        Raises:
            ConfigError: the metric has no gradient, or none that is finite on this image.
        """
        card = metric.card or metric.describe(type(metric).__name__)
        if card.differentiable is False:
            raise ConfigError(f"{card.name} has no gradient for an attack to climb; choose another metric")
        total = self.steps * (2 if self.adaptive else 1)

        def report(done: int, _total: int, before: int = 0) -> None:
            if progress is not None:
                progress(before + done, total)

        sign: Literal[1, -1] = -1 if metric.lower_better else 1
        try:
            transferred = self._climb(metric, ScoreGain(sign), image, None, report)
            found: dict[Origin, Image] = {"transferred": self._finished(transferred, image)}
            if self.adaptive:
                objective = SmoothedGain(sign, sigma, self.draws, self.seed, size) if sigma > 0 else ScoreGain(sign)
                last = self._climb(
                    defended or metric, objective, image, transferred,
                    lambda done, total: report(done, total, self.steps),
                )  # fmt: skip
                found["adaptive"] = self._finished(last, image)
        except FloatingPointError as error:
            raise ConfigError(f"{card.name} cannot be attacked on this image: {error}") from None
        return found

    @property
    def title(self) -> str:
        """The attack in a few words.

        Example:
            >>> ScoreAttack(epsilon=2 / 255).title, ScoreAttack(epsilon=0.3, norm="l2", adaptive=True).title
            ('on the metric, 2/255', 'adaptive, l2 0.3')
        """
        size = f"{255 * self.epsilon:.3g}/255" if self.norm == "linf" else f"l2 {self.epsilon:g}"
        return f"{'adaptive' if self.adaptive else 'on the metric'}, {size}"

    def _ball(self) -> Ball:
        return ball_of(self.norm, self.epsilon if self.norm == "linf" else self.epsilon * INSIDE)

    def _climb(
        self, scorer: Scorer, objective: Objective, image: Image, first: Image | None, report: Progress
    ) -> Image:
        # A path only as long as the radius is the strongest from the clean image, and too short from the border.
        share = 1 / self.steps if self.norm == "linf" and first is None else 2.5 / self.steps
        plan = Ascent(
            objective=objective, ball=self._ball(), steps=self.steps, step_size=share * self.epsilon, start="tiny"
        )
        clean = image.detach().float()[None]
        with at_work(scorer, clean.device):
            task = Problem(scorer, clean, objective.bind(scorer, clean), plan.ball, self.seed, report)
            best, _ = climb(plan, task, None if first is None else first[None])
        return best[0]

    def _finished(self, x: Image, clean: Image) -> Image:
        if not self.grid:
            return x
        return self._ball().round(x[None], clean[None])[0] if self.norm == "linf" else onto_grid(x, clean, self.epsilon)


def onto_grid(x: Image, clean: Image, epsilon: float) -> Image:
    """Return the image on the 8-bit grid, in the l2 ball around ``clean``, whose change is most nearly along ``x``'s.

    The change is scaled until, rounded to whole levels, it is as long as the ball allows: at a small radius its largest
    entries remain, by one level each, where plain rounding would undo all of it.

    Args:
        x: an image.
        clean: on the 8-bit grid.
        epsilon: l2 radius; it holds ``(255 * epsilon) ** 2`` changes by one level.

    Example:
        >>> clean = torch.full((3, 2, 2), 102 / 255)
        >>> x = clean + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1) / 255
        >>> (255 * (onto_grid(x, clean, 2 / 255) - clean)).sum(dim=(1, 2)).round().tolist()
        [4.0, 0.0, 0.0]
    """
    start, change, room = (clean * 255).round(), (x - clean) * 255, (255 * epsilon) ** 2 + 1e-6

    def scaled(by: float) -> Image:
        return (start + (by * change).round()).clamp(0, 255) - start

    def fits(by: float) -> bool:
        return float(scaled(by).double().square().sum()) <= room

    # A change of nothing, or one that the range of an image stops, fits at any scale.
    low, high = 0.0, 1.0
    while fits(high) and high < 1e6:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return (start + scaled(low)) / 255


def norms(change: Image) -> tuple[float, float]:
    """Return the l-infinity and the l2 norm of a change.

    Example:
        >>> norms(torch.full((3, 2, 2), 0.5))
        (0.5, 1.7320508075688772)
    """
    change = change.double()
    return float(change.abs().max()), float(torch.linalg.vector_norm(change))
