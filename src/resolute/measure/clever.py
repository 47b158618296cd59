"""CLEVER for super-resolution (eq. 15; Choi et al., ICCV 2019): how steep the output is around an image."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import walk
from resolute.models.base import frozen
from resolute.randomness import generator_for

Shifts = Float[Tensor, "b c h w"]


@dataclasses.dataclass(frozen=True)
class Clever:
    """The index of one image, what it was taken from, and what it cost.

    Attributes:
        index: the largest gradient norm found; larger is more vulnerable. An estimate from samples, not a bound.
        gradient_norms: ``(gradients,)`` l1 norms of the gradients, draw by draw; of ``clever_power`` start by start,
            and for each from its draw to its last step.
        seconds: what it took.
    """

    index: float
    gradient_norms: Float[Tensor, " gradients"]
    seconds: float

    @property
    def gradients(self) -> int:
        """Gradients taken, each the cost of a forward pass and a backward pass to the image."""
        return len(self.gradient_norms)


def clever(
    model: nn.Module,
    image: Float[Tensor, "1 c h w"],
    *,
    samples: int = 1024,
    radius: float = 1 / 255,
    batch: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Clever:
    """Return ``max_j || grad_Δ || S(X + Δ_j) - S(X) ||_2 ||_1`` over uniform draws of Δ (eq. 15).

    Input and output are on the scale of [0, 1]. The index grows with the number of pixels: compare equal sizes only.
    Memory is bounded by ``batch``, which changes no number: every draw has a stream of its own.

    Args:
        model: a differentiable module; it comes back as it was.
        image: one clean image in [0, 1].
        samples: N_s, 1024 in the paper.
        radius: alpha_c, 1/255 in the paper.
        batch: draws evaluated together.
        seed: of the draws.
        progress: called with (draws done, draws in all).

    Raises:
        ValueError: not one image, or no samples, or no radius.
        FloatingPointError: a gradient is not finite.

    Example:
        >>> from resolute.models import Bicubic
        >>> result = clever(Bicubic(scale=2), torch.full((1, 3, 6, 6), 0.5), samples=4)
        >>> result.gradient_norms.shape, result.index == result.gradient_norms.max().item()
        (torch.Size([4]), True)
    """
    if samples < 1:
        raise ValueError("samples are at least 1")
    return clever_power(model, image, steps=0, starts=samples, radius=radius, batch=batch, seed=seed, progress=progress)


def clever_power(
    model: nn.Module,
    image: Float[Tensor, "1 c h w"],
    *,
    steps: int = 10,
    starts: int = 4,
    radius: float = 1 / 255,
    batch: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Clever:
    """Return the quantity of eq. 15 where repeated steps ``Δ <- radius * sign(gradient)`` from a few draws lead.

    Draws hardly explore: their gradient norms are all alike. A step goes to the corner of the cube where the distance
    is largest if the model is linear; for a linear model neither it nor the gradient norm ever falls, which makes this
    the power method for the norm of a matrix from l-infinity to l2 (Boyd 1974). The first starts are the first draws of
    ``clever`` at the same seed, so that the index is never below what those give.

    Args:
        model: a differentiable module; it comes back as it was.
        image: one clean image in [0, 1].
        steps: after each draw.
        starts: draws to start from.
        radius: alpha_c, 1/255 in the paper.
        batch: starts evaluated together; it changes no number.
        seed: of the draws.
        progress: called with (gradients done, gradients in all).

    Raises:
        ValueError: as ``clever``, or no starts, or a negative number of steps.
        FloatingPointError: a gradient is not finite.

    Example:
        >>> from resolute.models import Bicubic
        >>> image = torch.full((1, 3, 6, 6), 0.5)
        >>> found = clever_power(Bicubic(scale=2), image, steps=3, starts=2)
        >>> found.gradients, found.index >= clever(Bicubic(scale=2), image, samples=2).index
        (8, True)
    """
    if starts < 1 or steps < 0:
        raise ValueError("starts are at least 1, and steps not negative")

    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"CLEVER is an index of one image (1, channels, height, width), not {tuple(image.shape)}")
    if batch < 1 or radius <= 0:
        raise ValueError("batch is at least 1, and radius is positive")
    began, each = time.perf_counter(), steps + 1
    seen: list[Tensor] = []

    def corner(_shifts: Shifts, _value: Tensor, gradient: Shifts) -> Shifts:
        return radius * gradient.sign()

    with frozen(model), torch.enable_grad():
        with torch.no_grad():
            clean = model(image)

        def moved(shifts: Shifts) -> Float[Tensor, " b"]:
            return torch.linalg.vector_norm((model(image + shifts) - clean).flatten(1), dim=1)

        for first in range(0, starts, batch):
            last = min(first + batch, starts)
            path: list[Tensor] = []

            def visit(_step: int, _x: Shifts, value: Tensor, gradient: Shifts, path: list[Tensor] = path) -> None:
                if not bool(value.isfinite().all()):
                    raise FloatingPointError("a gradient is not finite: check the model for NaN weights")
                path.append(gradient.abs().flatten(1).sum(dim=1).cpu())

            # Every norm counts, that of the last gradient too, so that the step behind it leads nowhere.
            units = [torch.rand(image.shape, generator=generator_for(seed, "clever", j)) for j in range(first, last)]
            walk(((2 * torch.cat(units) - 1) * radius).to(image), moved, corner, each, visit)
            seen.append(torch.stack(path, dim=1).flatten())
            if progress is not None:
                progress(last * each, starts * each)
    norms = torch.cat(seen).float()
    return Clever(norms.max().item(), norms, time.perf_counter() - began)
