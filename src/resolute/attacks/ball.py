"""Which perturbations are allowed: the l-infinity and l2 balls around the clean image, parts of it, the 8-bit grid."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Literal, Protocol, final, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resolute.errors import BudgetWarning, ConfigError

Images = Float[Tensor, "b c h w"]
Length = float | Float[Tensor, " b"]
Norm = Literal["linf", "l2"]

_BISECTIONS = 50

# In float32 a perturbation of exactly k levels may read as k - 3e-5; with this slack it counts as k.
SLACK = 1e-4


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

    def ascend(self, x: Images, gradient: Images, step: Length) -> Images:
        """Move ``x`` by the step of this length, one for all or one an image, that raises a linear objective most."""
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

    def ascend(self, x: Images, gradient: Images, step: Length) -> Images:
        return x + (step.view(-1, 1, 1, 1) if isinstance(step, Tensor) else step) * gradient.sign()

    def round(self, x: Images, clean: Images) -> Images:
        # The nearest level, not the one towards the clean pixel: that would undo the last step of an attack whose
        # path is only as long as the radius, and at 1/255 all of it.
        lowest = torch.ceil((clean - self.epsilon) * 255.0 - SLACK)
        highest = torch.floor((clean + self.epsilon) * 255.0 + SLACK)
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

    def ascend(self, x: Images, gradient: Images, step: Length) -> Images:
        return x + gradient * (step / self.norm(gradient).clamp_min(1e-30)).view(-1, 1, 1, 1)

    def round(self, x: Images, clean: Images) -> Images:
        # Each pixel towards its clean value, which never lengthens a perturbation; the nearest levels might.
        levels = x * 255.0
        rounded = torch.where(x > clean, torch.floor(levels + SLACK), torch.ceil(levels - SLACK))
        return rounded.clamp(0.0, 255.0) / 255.0

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return torch.linalg.vector_norm(perturbation.flatten(1), dim=1)

    def _holds(self, perturbation: Images) -> Bool[Tensor, "b 1 1 1"]:
        return (self.norm(perturbation) <= self.epsilon).view(-1, 1, 1, 1)


def ball_of(norm: Norm, epsilon: float) -> Linf | L2:
    """Return the ball of a norm by its name, or raise ``ConfigError``."""
    if norm not in get_args(Norm):
        raise ConfigError(f"the norm is linf or l2, not {norm!r}")
    return Linf(epsilon) if norm == "linf" else L2(epsilon)


@runtime_checkable
class Region(Protocol):
    """A part of an image, whatever its size."""

    def mask(self, height: int, width: int) -> Bool[Tensor, "{height} {width}"]:
        """Return True at the pixels that belong to the region."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Rectangle:
    """The pixels between two rows and two columns, given as shares of the height and the width.

    Example:
        >>> Rectangle().mask(4, 4).int().tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """

    top: float = 0.25
    left: float = 0.25
    bottom: float = 0.75
    right: float = 0.75

    def __post_init__(self) -> None:
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ConfigError(f"a rectangle is top < bottom, left < right, shares of the sides in [0, 1], not {self}")

    def mask(self, height: int, width: int) -> Bool[Tensor, "{height} {width}"]:
        rows = (torch.arange(height) + 0.5) / height
        columns = (torch.arange(width) + 0.5) / width
        return ((rows >= self.top) & (rows < self.bottom))[:, None] & ((columns >= self.left) & (columns < self.right))


@final
@dataclasses.dataclass(frozen=True)
class Masked:
    """The perturbations of another ball that leave every pixel outside a region as it is.

    Example:
        >>> clean = torch.full((1, 3, 4, 4), 0.5)
        >>> moved = Masked(Linf(4 / 255), Rectangle()).project(clean + 1, clean) - clean
        >>> (moved[0, 0] * 255).round().int().tolist()
        [[0, 0, 0, 0], [0, 4, 4, 0], [0, 4, 4, 0], [0, 0, 0, 0]]
    """

    ball: Linf | L2
    region: Region

    @property
    def epsilon(self) -> float:
        return self.ball.epsilon

    def project(self, x: Images, clean: Images) -> Images:
        return self._within(self.ball.project(self._within(x, clean), clean), clean)

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        return self._within(self.ball.random(clean, generator, radius), clean)

    def ascend(self, x: Images, gradient: Images, step: Length) -> Images:
        return self.ball.ascend(x, self._within(gradient, torch.zeros_like(gradient)), step)

    def round(self, x: Images, clean: Images) -> Images:
        return self._within(self.ball.round(x, clean), clean)

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return self.ball.norm(perturbation)

    def _within(self, x: Images, otherwise: Images) -> Images:
        return torch.where(self.region.mask(x.shape[-2], x.shape[-1]).to(x.device), x, otherwise)


def levels(epsilon: float) -> int:
    """Return by how many whole levels of 255 an l-infinity budget lets a pixel of an 8-bit image change.

    Example:
        >>> levels(4 / 255), levels(0.031), levels(0.003)
        (4, 7, 0)
    """
    return math.floor(epsilon * 255.0 + SLACK)


def check_levels(ball: Ball) -> None:
    """Refuse a budget of which 8-bit images can hold nothing, and warn of an l-infinity budget between two levels.

    Raises:
        ConfigError: the budget is below one level, in either norm.

    Example:
        >>> check_levels(Linf(0.003))
        Traceback (most recent call last):
        ...
        resolute.errors.ConfigError: epsilon: a budget of 0.765/255 is nothing to an 8-bit image; give 1/255 or more
    """
    whole, size = levels(ball.epsilon), f"{ball.epsilon * 255.0:.4g}/255"
    if whole < 1:
        raise ConfigError(f"a budget of {size} is nothing to an 8-bit image; give 1/255 or more", ("epsilon",))
    if isinstance(ball.ball if isinstance(ball, Masked) else ball, Linf) and ball.epsilon * 255.0 - whole > SLACK:
        warnings.warn(
            f"of a budget of {size} the 8-bit grid of images allows {whole}/255; give {whole}/255 or {whole + 1}/255",
            BudgetWarning,
            stacklevel=3,
        )
