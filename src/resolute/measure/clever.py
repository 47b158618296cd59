"""CLEVER for super-resolution (eq. 15; Choi et al., ICCV 2019): how steep the output is around an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import frozen
from resolute.randomness import generator_for


@dataclasses.dataclass(frozen=True)
class Clever:
    """The index of one image, and what it was taken from.

    Attributes:
        index: the largest gradient norm found; larger is more vulnerable. An estimate from samples, not a bound.
        gradient_norms: ``(samples,)`` l1 norms of the gradients, in the order of the draws.
    """

    index: float
    gradient_norms: Float[Tensor, " samples"]


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
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"CLEVER is an index of one image (1, channels, height, width), not {tuple(image.shape)}")
    if samples < 1 or batch < 1 or radius <= 0:
        raise ValueError("samples and batch are at least 1, and radius is positive")
    norms = torch.empty(samples)
    with frozen(model), torch.enable_grad():
        with torch.no_grad():
            clean = model(image)
        for first in range(0, samples, batch):
            draws = range(first, min(first + batch, samples))
            shifts = torch.cat([_uniform(image, radius, seed, j) for j in draws]).requires_grad_()
            moved = torch.linalg.vector_norm((model(image + shifts) - clean).flatten(1), dim=1)
            (gradient,) = torch.autograd.grad(moved.sum(), shifts)
            norms[first : draws.stop] = gradient.abs().flatten(1).sum(dim=1).cpu()
            if progress is not None:
                progress(draws.stop, samples)
    if not bool(norms.isfinite().all()):
        raise FloatingPointError("a gradient is not finite: check the model for NaN weights")
    return Clever(norms.max().item(), norms)


def _uniform(image: Tensor, radius: float, seed: int, draw: int) -> Tensor:
    unit = torch.rand(image.shape, generator=generator_for(seed, "clever", draw))
    return ((2 * unit - 1) * radius).to(image)
