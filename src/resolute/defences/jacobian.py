"""A penalty on the Jacobian of a model: the plainest way to ask of a network that small changes stay small.

Not of the papers; a baseline that a defence of feature layers has to beat at equal clean PSNR.
"""

from __future__ import annotations

from typing import Literal, final

import pydantic
import torch
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from resolute.attacks.ascent import walk
from resolute.defences.method import STRICT, Distance, High, Low, Moment, TwinMethod
from resolute.models.base import frozen


@final
@dataclass(frozen=True, kw_only=True, config=STRICT)
class Jacobian(TwinMethod):
    """A penalty on the mean square gain of the model along one direction an image.

    Along a ``random`` one it estimates the squared Frobenius norm of the Jacobian; along the ``worst`` one, found by
    power iteration from a random start, its squared spectral norm, both divided by the number of output values.

    Attributes:
        weight: of the penalty, per unit of the loss on its own scale.
        level: length of the finite differences: their root mean square, in levels of 255.
        direction: ``random`` or ``worst``.
        iterations: of the search for the worst direction.
    """

    weight: float = pydantic.Field(default=1.0, gt=0)
    level: float = pydantic.Field(default=1.0, gt=0, le=255)
    direction: Literal["random", "worst"] = "random"
    iterations: int = pydantic.Field(default=2, ge=1)

    def twin(self, model: nn.Module, low: Low, moment: Moment) -> Low:
        length = self.level / 255
        shift = probe_shift(low, length, moment.generator)
        if self.direction == "worst":
            shift = worst_shift(model, low, shift, self.iterations)
        return low + shift

    def penalty(self, output: High, other: High, shift: Low, distance: Distance) -> Float[Tensor, ""]:
        return self.weight * jacobian_penalty(output, other, shift)


def probe_shift(low: Low, epsilon: float, generator: torch.Generator | None = None) -> Low:
    """Return Gaussian shifts of standard deviation ``epsilon``, one an image."""
    return epsilon * torch.randn(low.shape, generator=generator, device=low.device)


def worst_shift(model: nn.Module, low: Low, shift: Low, iterations: int = 2) -> Low:
    """Return shifts of the length of ``shift`` towards the direction along which the output moves most, for each image.

    The gradient of ``||f(x + v) - f(x)||^2`` in ``v`` is ``2 J^T J v``: one iteration of the power method for the
    largest singular value of the Jacobian ``J``.

    Example:
        >>> model = nn.Conv2d(3, 3, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.zero_(); model.weight[0, 1] = 2.0
        >>> found = worst_shift(model, torch.zeros(1, 3, 4, 4), torch.randn(1, 3, 4, 4), iterations=1)
        >>> [bool(found[0, channel].abs().max() > 1e-6) for channel in range(3)]
        [False, True, False]
    """
    length = shift.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with frozen(model), torch.enable_grad():
        with torch.no_grad():
            clean = model(low).float()

        def gain(x: Low) -> Float[Tensor, " n"]:
            return (model(x).float() - clean).square().flatten(1).sum(dim=1)

        def move(x: Low, _value: Tensor, gradient: Low) -> Low:
            norm = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            # Where the output does not move at all, the direction is as good as any.
            return torch.where(norm > 0, low + length * gradient / norm.clamp_min(torch.finfo(norm.dtype).tiny), x)

        return walk(low + shift, gain, move, iterations) - low


def jacobian_penalty(clean: High, shifted: High, shift: Low) -> Float[Tensor, ""]:
    """Estimate the mean square gain of a model from one random shift an image.

    ``E ||J v||^2`` over Gaussian ``v`` of unit variance is the squared Frobenius norm of the Jacobian ``J``, as in
    Hutchinson's estimator; ``J v`` is taken as a difference of two outputs, which needs no second derivative. Divided
    by the number of output values it is the mean square of what one unit of input noise becomes, at any image size.

    Args:
        clean: outputs for the clean images.
        shifted: outputs for the shifted images.
        shift: the shift, from ``probe_shift``.

    Example:
        >>> shift = probe_shift(torch.zeros(4, 3, 50, 50), 1 / 255, torch.Generator().manual_seed(0))
        >>> round(float(jacobian_penalty(torch.zeros_like(shift), 3 * shift, shift)), 3)
        9.0
    """
    return (shifted - clean).square().mean() / shift.square().mean()
