"""Adversarial training of super-resolution models (Choi et al., ACCV 2020, section 5.6).

Every low-resolution patch is trained on twice, clean and attacked, both towards the same original. The paper's attack
is I-FGSM of 8/255 with T = 1. Its loss (eq. 14) is flat at the clean image, where one step cannot begin, so the
distance that the attack raises is that from the ground truth, as in the authors' published attack code;
``reference = "self"`` takes eq. 14 by its letter, from a start within 1e-3/255 of the clean patch.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import TINY
from resolute.attacks.ball import Linf
from resolute.models.base import frozen

Reference = Literal["truth", "self"]


def attacked_patches(
    model: nn.Module,
    low: Float[Tensor, "b 3 h w"],
    high: Float[Tensor, "b 3 sh sw"],
    *,
    epsilon: float = 8 / 255,
    steps: int = 1,
    reference: Reference = "truth",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b 3 h w"]:
    """Return the patches after ``steps`` steps of I-FGSM, each of length ``epsilon / steps``.

    The model is in evaluation mode meanwhile, without the noise of a regulariser, and comes back as it was.

    Args:
        model: maps ``low`` to images like ``high``.
        low: clean patches, in [0, 1].
        high: their originals.
        epsilon: largest change of a pixel.
        steps: T of I-FGSM.
        reference: what the output is driven away from, the ``truth`` or the model's own clean output.
        generator: of the start beside the clean patch, for ``self``.

    Example:
        >>> from resolute.models import EDSR
        >>> model, low, high = EDSR(scale=2, blocks=1, channels=4), torch.rand(2, 3, 6, 6), torch.rand(2, 3, 12, 12)
        >>> bool((attacked_patches(model, low, high) - low).abs().max() <= 8.001 / 255)
        True
    """
    ball = Linf(epsilon)
    with frozen(model), torch.enable_grad():
        x, target = low, high
        if reference == "self":
            with torch.no_grad():
                target = model(low)
            start = torch.rand(low.shape, generator=generator, device=low.device) * 2 - 1
            x = ball.project(low + min(TINY, epsilon) * start, low)
        for _ in range(steps):
            x = x.detach().requires_grad_()
            distance = (model(x).float() - target.float()).square().sum()
            (gradient,) = torch.autograd.grad(distance, x)
            x = ball.project(ball.ascend(x.detach(), gradient, epsilon / steps), low)
    return x.detach()
