"""Which perturbations are allowed: the l-infinity and l2 balls around the clean image, and the 8-bit grid."""

from __future__ import annotations

import dataclasses
from typing import Protocol, final

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b c h w"]


class Ball(Protocol):
    """The perturbations of norm up to ``epsilon``, intersected with the images in [0, 1]."""

    @property
    def epsilon(self) -> float:
        """Radius, on the scale of [0, 1]."""
        ...

    def project(self, x: Images, clean: Images) -> Images:
        """Return the allowed image nearest to ``x``; images in the ball come back unchanged."""
        ...

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        """Return ``clean`` plus a random perturbation of norm up to ``radius``."""
        ...

    def ascend(self, x: Images, gradient: Images, step: float) -> Images:
        """Move ``x`` by the step of length ``step`` that raises a linear objective most."""
        ...

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        """Return the norm of each perturbation."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Linf:
    """Perturbations that change no pixel by more than ``epsilon``.

    Example:
        >>> x = torch.full((1, 3, 2, 2), 0.5)
        >>> round(float(Linf(4 / 255).project(x + 0.1, x).max() - 0.5) * 255, 3)
        4.0
    """

    epsilon: float

    def project(self, x: Images, clean: Images) -> Images:
        return torch.clamp(x, clean - self.epsilon, clean + self.epsilon).clamp(0.0, 1.0)

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        uniform = torch.rand(clean.shape, generator=generator, device=generator.device).to(clean)
        return clean + (2.0 * uniform - 1.0) * radius

    def ascend(self, x: Images, gradient: Images, step: float) -> Images:
        return x + step * gradient.sign()

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return perturbation.abs().flatten(1).amax(dim=1)


@final
@dataclasses.dataclass(frozen=True)
class L2:
    """Perturbations whose Euclidean norm over all pixels and channels is at most ``epsilon``.

    Example:
        >>> x = torch.full((1, 3, 2, 2), 0.5)
        >>> round(float(L2(0.1).norm(L2(0.1).project(x + 0.2, x) - x)), 4)
        0.1
    """

    epsilon: float

    def project(self, x: Images, clean: Images) -> Images:
        # Clamping to [0, 1] moves every pixel towards the clean one, so it cannot leave the ball again.
        shift = x - clean
        shrink = (self.epsilon / self.norm(shift).clamp_min(1e-30)).clamp_max(1.0)
        return (clean + shift * shrink.view(-1, 1, 1, 1)).clamp(0.0, 1.0)

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        direction = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        length = torch.rand(clean.shape[0], generator=generator, device=generator.device).to(clean)
        length = radius * length ** (1 / clean[0].numel())
        return clean + direction * (length / self.norm(direction)).view(-1, 1, 1, 1)

    def ascend(self, x: Images, gradient: Images, step: float) -> Images:
        return x + gradient * (step / self.norm(gradient).clamp_min(1e-30)).view(-1, 1, 1, 1)

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return torch.linalg.vector_norm(perturbation.flatten(1), dim=1)


def round_to_grid(x: Images, clean: Images) -> Images:
    """Round ``x`` to multiples of 1/255, each pixel towards its clean value.

    Where the clean image lies on the grid, as every 8-bit file does, this never lengthens a perturbation; rounding to
    the nearest level can push it out of the ball.

    Example:
        >>> clean = torch.full((1, 3, 1, 1), 100 / 255)
        >>> float(round_to_grid(clean + 7.65 / 255, clean)[0, 0, 0, 0] * 255)
        107.0
    """
    # A perturbation of exactly k levels may read as k - 1e-5 in float32; the slack keeps it at k.
    slack = 1e-3
    levels = x * 255.0
    rounded = torch.where(x > clean, torch.floor(levels + slack), torch.ceil(levels - slack))
    return (rounded / 255.0).clamp(0.0, 1.0)
