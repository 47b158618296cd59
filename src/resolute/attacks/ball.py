"""Which perturbations are allowed: the l-infinity and l2 balls around the clean image, and the 8-bit grid."""

from __future__ import annotations

import dataclasses
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "b c h w"]

_BISECTIONS = 50

# In float32 a perturbation of exactly k levels may read as k - 3e-5; with this slack it counts as k.
_SLACK = 1e-4


@runtime_checkable
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

    def round(self, x: Images, clean: Images) -> Images:
        """Return ``x`` on the 8-bit grid, as a file would hold it, still allowed where ``clean`` is on the grid too."""
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
        >>> clean = torch.full((1, 3, 1, 1), 100 / 255)
        >>> float(Linf(7.65 / 255).round(clean + 7.65 / 255, clean)[0, 0, 0, 0] * 255)
        107.0
    """

    epsilon: float

    def project(self, x: Images, clean: Images) -> Images:
        return torch.clamp(x, clean - self.epsilon, clean + self.epsilon).clamp(0.0, 1.0)

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        uniform = torch.rand(clean.shape, generator=generator, device=generator.device).to(clean)
        return clean + (2.0 * uniform - 1.0) * radius

    def ascend(self, x: Images, gradient: Images, step: float) -> Images:
        return x + step * gradient.sign()

    def round(self, x: Images, clean: Images) -> Images:
        # The nearest level, not the one towards the clean pixel: that would undo the last step of an attack whose
        # path is only as long as the radius, and at 1/255 all of it.
        lowest = torch.ceil((clean - self.epsilon) * 255.0 - _SLACK)
        highest = torch.floor((clean + self.epsilon) * 255.0 + _SLACK)
        return torch.round(x * 255.0).clamp(lowest, highest).clamp(0.0, 255.0) / 255.0

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
        # The nearest allowed image is clamp(clean + share * shift) for the largest share of the shift that the ball
        # holds. Where the clamp bites that is more than epsilon / norm(shift), and bisection finds it.
        shift = x - clean
        inside = x.clamp(0.0, 1.0)
        low = torch.zeros_like(shift[:, :1, :1, :1])
        high = torch.ones_like(low)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            held = self._holds((clean + middle * shift).clamp(0.0, 1.0) - clean)
            low, high = torch.where(held, middle, low), torch.where(held, high, middle)
        return torch.where(self._holds(inside - clean), inside, (clean + low * shift).clamp(0.0, 1.0))

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        direction = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
        length = torch.rand(clean.shape[0], generator=generator, device=generator.device).to(clean)
        length = radius * length ** (1 / clean[0].numel())
        return clean + direction * (length / self.norm(direction)).view(-1, 1, 1, 1)

    def ascend(self, x: Images, gradient: Images, step: float) -> Images:
        return x + gradient * (step / self.norm(gradient).clamp_min(1e-30)).view(-1, 1, 1, 1)

    def round(self, x: Images, clean: Images) -> Images:
        # Each pixel towards its clean value, which never lengthens a perturbation; the nearest levels might.
        levels = x * 255.0
        rounded = torch.where(x > clean, torch.floor(levels + _SLACK), torch.ceil(levels - _SLACK))
        return rounded.clamp(0.0, 255.0) / 255.0

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return torch.linalg.vector_norm(perturbation.flatten(1), dim=1)

    def _holds(self, perturbation: Images) -> Bool[Tensor, "b 1 1 1"]:
        return (self.norm(perturbation) <= self.epsilon).view(-1, 1, 1, 1)
