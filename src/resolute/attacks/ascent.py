"""The one loop under every gradient attack: climb an objective inside a ball, keep the best point of every image."""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ball import L2, Ball
from resolute.attacks.objective import Bound, FeatureShift, Objective, OutputShift
from resolute.randomness import generator_for

Images = Float[Tensor, "b c h w"]
Progress = Callable[[int, int], None]
Precision = Literal["float32", "bfloat16"]
Start = Literal["zero", "tiny", "uniform"]

TINY = 1e-3 / 255


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ascent:
    """What to climb and how: the part in which one gradient attack differs from another.

    Attributes:
        objective: the quantity to maximise.
        ball: the perturbations allowed.
        steps: gradient steps a restart.
        step_size: length of a step in the ball's norm, on the scale of [0, 1].
        start: ``zero``, the clean image; ``tiny``, a random point within 1e-3/255 of it; ``uniform``, a random point
            of the whole ball.
        restarts: independent runs, each from a start of its own.
    """

    objective: Objective
    ball: Ball
    steps: int
    step_size: float
    start: Start = "tiny"
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1 or self.step_size <= 0:
            raise ValueError("an attack needs at least one step, of a length above zero, and at least one restart")
        # A distance from the clean image is flat there, and the attack would end where it began.
        if self.start == "zero" and isinstance(self.objective, OutputShift | FeatureShift):
            raise ValueError(
                f"the gradient of {type(self.objective).__name__} is exactly zero at the clean image, so start='zero' "
                "never moves; use start='tiny' or start='uniform'"
            )


@dataclasses.dataclass(frozen=True)
class Adversarial:
    """What an attack found, one entry an image.

    Attributes:
        images: ``(b, 3, h, w)`` attacked images on the 8-bit grid, inside the ball where the clean images are on the
            grid too: what a file would hold.
        unrounded: ``(b, 3, h, w)`` the best iterates before rounding.
        objective: ``(b,)`` objective at ``images``.
        objective_unrounded: ``(b,)`` objective at ``unrounded``.
        gradients: gradient evaluations spent on each image.
    """

    images: Images
    unrounded: Images
    objective: Float[Tensor, " b"]
    objective_unrounded: Float[Tensor, " b"]
    gradients: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack of one budget. Subclasses are final and say what is climbed and how; the climbing is shared.

    Args:
        epsilon: radius of the ball, on the scale of [0, 1].
        precision: arithmetic of the search. ``bfloat16`` is faster where the processor has it and finds perturbations
            of the same strength; the verdict is always float32.
    """

    epsilon: float
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        # An l2 norm over all pixels and channels may well exceed the range of one.
        if not self.epsilon > 0 or (self.epsilon > 1 and not isinstance(self.ascent().ball, L2)):
            raise ValueError(f"epsilon is a radius in (0, 1], such as 4/255, not {self.epsilon}")
        self.ascent()  # so that a plan that cannot work is refused before a model is loaded for it

    @abstractmethod
    def ascent(self) -> Ascent:
        """Return what this attack climbs and how."""

    @final
    def __call__(self, model: nn.Module, x: Images, *, seed: int = 0, progress: Progress | None = None) -> Adversarial:
        """Attack a batch; the model comes back as it was: parameters, buffers, training flags and gradients.

        Args:
            model: any differentiable module that takes ``x``.
            x: clean images, RGB float in [0, 1].
            seed: of the random starts.
            progress: called with (steps done, steps in all) after every step.

        Raises:
            ValueError: ``x`` is no image batch in [0, 1].
            FloatingPointError: the objective or its gradient is not finite.
        """
        x = x.detach()
        _check(x)
        plan = self.ascent()
        with frozen(model), torch.enable_grad():
            bound = plan.objective.bind(model, x)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                best = _climb(bound, x, plan, seed, progress)
            with torch.no_grad():
                rounded = plan.ball.round(best, x)
                values, values_unrounded = bound(rounded), bound(best)
        return Adversarial(rounded, best, values, values_unrounded, plan.steps * plan.restarts)


def _climb(bound: Bound, clean: Images, plan: Ascent, seed: int, progress: Progress | None) -> Images:
    best = clean.clone()
    best_value = torch.full((clean.shape[0],), -torch.inf, device=clean.device)
    total = plan.steps * plan.restarts
    for restart in range(plan.restarts):
        x = _start(clean, plan, seed, restart)
        for step in range(plan.steps):
            x = x.detach().requires_grad_()
            value = bound(x)
            (gradient,) = torch.autograd.grad(value.sum(), x)
            _raise_unless_finite(value, gradient, step)
            best, best_value = _keep_better(best, best_value, x, value)
            x = plan.ball.project(plan.ball.ascend(x.detach(), gradient, plan.step_size), clean)
            if progress is not None:
                progress(restart * plan.steps + step + 1, total)
        with torch.no_grad():
            best, best_value = _keep_better(best, best_value, x, bound(x))
    return best


def _start(clean: Images, plan: Ascent, seed: int, restart: int) -> Images:
    if plan.start == "zero":
        return clean.clone()
    radius = plan.ball.epsilon if plan.start == "uniform" else min(TINY, plan.ball.epsilon)
    # One generator an image, so that its start does not depend on its place in a batch.
    starts = [plan.ball.random(image.unsqueeze(0), generator_for(seed, "start", restart), radius) for image in clean]
    return plan.ball.project(torch.cat(starts), clean)


def _keep_better(
    best: Images, best_value: Float[Tensor, " b"], x: Images, value: Float[Tensor, " b"]
) -> tuple[Images, Float[Tensor, " b"]]:
    value = value.detach().float()
    better = value > best_value
    return torch.where(better.view(-1, 1, 1, 1), x.detach(), best), torch.where(better, value, best_value)


def _raise_unless_finite(value: Tensor, gradient: Tensor, step: int) -> None:
    if not bool(torch.isfinite(value).all() & torch.isfinite(gradient).all()):
        raise FloatingPointError(
            f"the objective or its gradient is not finite at step {step}: "
            "check the model for NaN weights, or attack in float32"
        )


def _check(x: Tensor) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images are a float tensor (batch, channels, height, width), not {tuple(x.shape)} {x.dtype}")
    if x.numel() == 0 or not bool(torch.isfinite(x).all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise ValueError("images are not empty, finite and in [0, 1]; divide 8-bit values by 255")


@contextlib.contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Put a model in evaluation mode with frozen parameters, and give it back as it was.

    Frozen parameters halve the cost of the backward pass, and keep gradients of an attack out of a training run.
    """
    training = {name: module.training for name, module in model.named_modules()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for name, module in model.named_modules():
            module.training = training[name]
