"""Adversarial training of super-resolution models: the patches that an attacker makes of a batch.

The paper's form (Choi et al., ACCV 2020, section 5.6) trains on every low-resolution patch twice, clean and attacked,
both towards the same original, with I-FGSM of 8/255 and T = 1. Its loss (eq. 14) is flat at the clean image, where one
step cannot begin, so the distance that the attack raises is that from the ground truth, as in the authors' published
attack code; ``reference = "self"`` takes eq. 14 by its letter, from a start within 1e-3/255 of the clean patch.

Multi-step training (Madry et al., ICLR 2018) starts at a random point of the ball and takes several steps whose lengths
add up to more than its radius. How many decides whether the model becomes robust or learns to mislead so short an
attack, which a judge of more steps sees through (docs/harden.md). One step of 1.25 times the radius is the "fast" form
(Wong et al., ICLR 2020); ``replay`` the "free" one (Shafahi et al., NeurIPS 2019), whose attack costs nothing: a batch
is trained on several times in a row, and the gradient of every training step also moves its perturbation.
"""

from __future__ import annotations

from typing import Literal, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resolute.attacks.ascent import TINY, walk
from resolute.attacks.ball import Linf
from resolute.defences.method import STRICT, InputMethod, Low, Moment, Seen
from resolute.errors import ConfigError
from resolute.models.base import frozen

Reference = Literal["truth", "self"]
PatchStart = Literal["clean", "uniform"]


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Adversarial(InputMethod):
    """Train on attacked patches. The defaults are the paper's (section 5.6).

    Attributes:
        level: largest change of a pixel, in levels of 255.
        steps: of the attack on the patches; 0 with ``replay`` alone.
        relative_step: length of a step as a share of ``level``; None for ``1 / steps``.
        start: at the ``clean`` patch, or at a ``uniform`` random point of the ball.
        reference: attack the distance from the ``truth``, or from the model's own clean output (``self``).
        share: of the patches of a batch that are attacked while the others stay clean; 0, as in the paper, to train on
            every patch twice, once clean and once attacked.
        combine: of the losses of clean and attacked patches, the ``mean`` or the ``sum``.
        ramp: share of the training over which ``level`` rises from 0.
        replay: how many steps in a row train on one batch, each with the perturbation that the last gradient gives.

    Example:
        >>> low, high = torch.rand(4, 3, 6, 6), torch.rand(4, 3, 12, 12)
        >>> from resolute.models import EDSR
        >>> model = EDSR(scale=2, blocks=1, channels=4)
        >>> moment = Moment(torch.Generator().manual_seed(0))
        >>> seen = Adversarial(share=0.5, start="uniform").inputs(model, Seen.of(low, high), moment)
        >>> seen.clean, torch.equal(seen.low[:2], low[:2]), torch.equal(seen.low, low)
        (2, True, False)
    """

    level: float = pydantic.Field(default=8.0, gt=0, le=255)
    steps: int = pydantic.Field(default=1, ge=0)
    relative_step: float | None = pydantic.Field(default=None, gt=0, le=2)
    start: PatchStart = "clean"
    reference: Reference = "truth"
    share: float = pydantic.Field(default=0.0, ge=0, le=1)
    combine: Literal["mean", "sum"] = "mean"
    ramp: float = pydantic.Field(default=0.0, ge=0, le=1)
    replay: int = pydantic.Field(default=1, ge=1)

    def __post_init__(self) -> None:
        if self.steps == 0 and self.replay == 1:
            raise ConfigError("the attack on the patches takes 1 step or more, or none with `replay`", ("steps",))

    def clean(self, batch: int) -> int:
        """Return how many patches of a batch stay clean: all of them, where every patch is trained on twice."""
        return batch - max(1, round(self.share * batch)) if self.share else batch

    def inputs(self, model: nn.Module, seen: Seen, moment: Moment) -> Seen:
        chosen = self._chosen(seen)
        attacked = attacked_patches(
            model, seen.low[chosen], seen.high[chosen], epsilon=self.level / 255 * moment.risen(self.ramp),
            steps=self.steps, relative_step=self.relative_step, start=self.start, reference=self.reference,
            generator=moment.generator,
        )  # fmt: skip
        return self._with(seen, attacked)

    def moved_on(self, attacked: Low, gradient: Low, seen: Seen, moment: Moment) -> Seen:
        """Return the batch with attacked patches one step on, along the gradient that the training step before had."""
        epsilon = self.level / 255 * moment.risen(self.ramp)
        ball = Linf(epsilon)
        length = epsilon * (1.0 if self.relative_step is None else self.relative_step)
        return self._with(seen, ball.project(ball.ascend(attacked, gradient, length), seen.low[self._chosen(seen)]))

    def _chosen(self, seen: Seen) -> slice:
        """Return which patches are attacked: the paper attacks the very patches that are clean as well."""
        clean = self.clean(len(seen.low))
        return slice(0, None) if clean == len(seen.low) else slice(clean, None)

    def _with(self, seen: Seen, attacked: Low) -> Seen:
        clean = self.clean(len(seen.low))
        high = torch.cat([seen.high[:clean], seen.high[self._chosen(seen)]])
        return Seen(torch.cat([seen.low[:clean], attacked]), high, clean)


def attacked_patches(
    model: nn.Module,
    low: Float[Tensor, "b 3 h w"],
    high: Float[Tensor, "b 3 sh sw"],
    *,
    epsilon: float = 8 / 255,
    steps: int = 1,
    relative_step: float | None = None,
    start: PatchStart = "clean",
    reference: Reference = "truth",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Return the patches after ``steps`` sign steps that raise the distance of the output from a reference.

    The model is in evaluation mode meanwhile, without the noise of a regulariser, and comes back as it was.

    Args:
        model: maps ``low`` to images like ``high``.
        low: clean patches, in [0, 1].
        high: their originals.
        epsilon: largest change of a pixel.
        steps: T of I-FGSM, or the steps of PGD; 0 for the start itself.
        relative_step: length of a step as a share of ``epsilon``; None for ``1 / steps``, as in I-FGSM.
        start: the ``clean`` patch, or ``uniform``, a random point of the ball.
        reference: what the output is driven away from, the ``truth`` or the model's own clean output.
        generator: of the start, on any device.

    Returns:
        Attacked patches; those given where the distance or its gradient is not finite.

    Example:
        >>> from resolute.models import EDSR
        >>> model, low, high = EDSR(scale=2, blocks=1, channels=4), torch.rand(2, 3, 6, 6), torch.rand(2, 3, 12, 12)
        >>> attacked = attacked_patches(model, low, high, steps=3, relative_step=0.5, start="uniform")
        >>> bool((attacked - low).abs().max() <= 8.001 / 255)
        True
    """
    ball = Linf(epsilon)
    length = epsilon * (1 / max(steps, 1) if relative_step is None else relative_step)
    with frozen(model), torch.enable_grad():
        x, target = low, high
        if reference == "self":
            with torch.no_grad():
                target = model(low)
        if start == "uniform" or reference == "self":
            radius = epsilon if start == "uniform" else min(TINY, epsilon)
            drawn_on = low.device if generator is None else generator.device
            away = torch.rand(low.shape, generator=generator, device=drawn_on).to(low.device) * 2 - 1
            x = ball.project(low + radius * away, low)

        def distance(x: Tensor) -> Tensor:
            return (model(x).float() - target.float()).square().flatten(1).sum(dim=1)

        def move(x: Tensor, _value: Tensor, gradient: Tensor) -> Tensor:
            return ball.project(ball.ascend(x, gradient, length), low)

        # Not ``ascend``, which keeps the best point: that takes one more forward pass a training step, and recipes of
        # adversarial training are stated for the last point.
        return walk(x, distance, move, steps)
