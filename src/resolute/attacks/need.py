"""What an attack takes, told beforehand from a small part of the image: bytes and seconds a pixel."""

from __future__ import annotations

import dataclasses
import time
from typing import final

import torch
from torch import nn

from resolute.attacks.ascent import Ascent, Attack, GradientAttack, at_work
from resolute.attacks.ball import Images
from resolute.attacks.batch import footprint

# Side of the part that is tried: beyond this what is taken grows with the pixels.
SIDE = 64

# Images of the size of the input and of the output that are in memory at a time beside what autograd keeps, measured.
_INPUTS, _OUTPUTS = 10, 9


@final
@dataclasses.dataclass(frozen=True)
class Need:
    """What a gradient takes for every pixel of the low-resolution image.

    Attributes:
        kept: bytes inside the model, which tiles save.
        images: bytes of inputs and outputs, which they do not.
        seconds: of one gradient.
        gradients: that the attack takes.
    """

    kept: float
    images: float
    seconds: float
    gradients: int

    @property
    def bytes(self) -> float:
        """All of them."""
        return self.kept + self.images


def need_of(model: nn.Module, attack: Attack, part: Images, scale: int) -> Need:
    """Try one gradient on a part of an image, and return what it took a pixel.

    Args:
        model: under attack.
        attack: with the ground truth of the part filled in where it needs one.
        part: ``(1, 3, h, w)``, of at most ``SIDE`` pixels a side.
        scale: of the model.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import EDSR
        >>> attack, x = PGD(epsilon=4 / 255, steps=5), torch.rand(1, 3, 16, 16)
        >>> deep, flat = (need_of(EDSR(2, blocks, 8), attack, x, 2) for blocks in (8, 1))
        >>> deep.gradients, deep.kept > flat.kept, deep.images == flat.images
        (5, True, True)
    """
    if isinstance(attack, GradientAttack):
        plan = attack.ascent()
        gradients = plan.steps * plan.restarts
    else:
        objective, ball = attack.aim()
        plan = Ascent(objective=objective, ball=ball, steps=1, step_size=ball.epsilon, start="uniform")
        gradients = int(getattr(attack, "queries", 1))
    pixels = part.shape[-2] * part.shape[-1]
    # In float32, as the first pass is in any precision.
    kept = footprint(model, plan, part)
    with at_work(model, part.device):
        bound = plan.objective.bind(model, part)
        began = time.perf_counter()
        value = bound(x := part.clone().requires_grad_())
        if value.requires_grad:
            torch.autograd.grad(value.sum(), x, allow_unused=True)
        seconds = time.perf_counter() - began
    images = 4.0 * part.shape[1] * (_INPUTS + _OUTPUTS * scale**2)
    return Need(kept / pixels, images, seconds / pixels, gradients)
