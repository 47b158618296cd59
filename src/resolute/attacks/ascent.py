"""What all attacks share, and the one loop under those that use gradients: climb, keep the best point of each image."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any, Literal, Protocol, cast, final, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from resolute import notebook
from resolute.attacks.ball import Ball, Images, Length, Linf
from resolute.attacks.features import in_precision_of
from resolute.attacks.objective import Bound, FeatureShift, Objective, OutputShift, RegionShift, bound_to
from resolute.attacks.options import Count, check_fields
from resolute.errors import ConfigError, ModelWarning
from resolute.models.base import frozen
from resolute.randomness import generator_for
from resolute.runtime import full_float32, has_bfloat16, out_of_memory, without_denormals

Progress = Callable[[int, int], None]
Arithmetic = Literal["float32", "bfloat16"]
Precision = Literal["float32", "bfloat16", "mixed"]
Start = Literal["zero", "tiny", "uniform"]

TINY = 1e-3 / 255

# Of the steps of a search in two precisions, the share that is taken in bfloat16.
_COARSE = 0.9

# A start beside which the model's arithmetic sees nothing is moved away, by so much at a time, until at least half of
# the image has a gradient: from 1e-3/255 to 10/255.
_STRETCH, _STRETCHES, _FLAT = 10.0, 4, 0.5

# What sums in float32 may lie beyond a budget, as a share of it or of a level.
_EXCESS = 1e-3

# Of a radius in l2: the whole range of some billions of pixels.
LARGEST = 1e5

# Training flags, frozen parameters and hooks are the model's, and cuDNN's arithmetic the process's: threads take turns.
_ALONE = threading.RLock()

# Convolutions whose image ``arithmetic`` keeps in float32.
_REDUCED = set[nn.Module]()

NO_SLOPE = (
    "the gradient is zero everywhere in the image: the model rounds or saturates inside, and an attack that follows it "
    "finds nothing, which says nothing about the model; use Square or RandomNoise, and `resolute check`"
)

Move = Callable[[Images, Float[Tensor, " b"], Images], Images]
Visit = Callable[[int, Images, Float[Tensor, " b"], Images], None]


@runtime_checkable
class StepRule(Protocol):
    """How a climb gets from one point to the next: what sets FGSM, MI-FGSM and APGD apart."""

    def begin(self, plan: Ascent, clean: Images) -> Move:
        """Return the moves of one run: a function of a point, its values and its gradients that gives the next one."""
        ...


@final
@dataclasses.dataclass(frozen=True)
class Straight:
    """Steps of one length along the gradient, each followed by a projection."""

    def begin(self, plan: Ascent, clean: Images) -> Move:
        def move(x: Images, value: Float[Tensor, " b"], gradient: Images) -> Images:
            return plan.ball.project(plan.ball.ascend(x, gradient, plan.step_size), clean)

        return move


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ascent:
    """What to climb and how: the part in which one gradient attack differs from another.

    Attributes:
        objective: the quantity to maximise.
        ball: the perturbations allowed.
        steps: gradient steps a restart.
        step_size: length of a step in the ball's norm, on the scale of [0, 1]; of the first one where the rule changes
            it. A tensor holds one an image.
        start: ``zero``, the clean image; ``tiny``, a random point within 1e-3/255 of it; ``uniform``, a random point
            of the whole ball.
        restarts: independent runs, each from a start of its own.
        rule: how a step is made of a gradient.
    """

    objective: Objective
    ball: Ball
    steps: Count
    step_size: Length
    start: Start = "tiny"
    restarts: Count = 1
    rule: StepRule = Straight()

    def __post_init__(self) -> None:
        check_fields(self)
        if not bool(torch.as_tensor(self.step_size > 0).all()):
            raise ConfigError("the length of a step is above zero", ("step_size",))
        # A distance from the clean image is flat there, and the attack would end where it began.
        if self.start == "zero" and isinstance(self.objective, OutputShift | RegionShift | FeatureShift):
            raise ConfigError(
                f"the gradient of {type(self.objective).__name__} is exactly zero at the clean image, so start='zero' "
                "never moves; use start='tiny' or start='uniform'"
            )


@final
@dataclasses.dataclass(frozen=True)
class Adversarial:
    """What an attack found, one entry an image.

    Attributes:
        images: ``(b, 3, h, w)`` attacked images on the 8-bit grid, inside the ball where the clean images are on the
            grid too: what a file would hold.
        unrounded: ``(b, 3, h, w)`` the best iterates before rounding.
        objective: ``(b,)`` objective at ``images``; infinite where the model's output is not finite.
        objective_unrounded: ``(b,)`` objective at ``unrounded``.
        gradients: evaluations spent on each image: of the gradient, or of the objective alone by attacks without.
        clean: ``(b, 3, h, w)`` the images that were attacked.
    """

    images: Images
    unrounded: Images
    objective: Float[Tensor, " b"]
    objective_unrounded: Float[Tensor, " b"]
    gradients: int
    clean: Images

    def split(self) -> list[Adversarial]:
        """Return what was found image by image, each a batch of one."""
        tensors = (self.images, self.unrounded, self.objective, self.objective_unrounded, self.clean)
        parts = zip(*(tensor.split(1) for tensor in tensors), strict=True)
        return [Adversarial(a, b, value, before, self.gradients, clean) for a, b, value, before, clean in parts]

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape))
        return f"Adversarial({size}, {self._caption(self.objective.mean())}, {self.gradients} evaluations an image)"

    def _repr_html_(self) -> str:  # pyright: ignore[reportUnusedFunction], notebooks call it
        captions = [self._caption(value, index) for index, value in enumerate(self.objective)]
        return notebook.attacked_images(repr(self), self.clean, self.images, captions)

    def plot(self, index: int = 0) -> Any:
        """Draw one image, clean, attacked and their difference, and return the matplotlib axes.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        caption = self._caption(self.objective[index], index)
        return notebook.plot_attacked(self.clean[index], self.images[index], caption)

    def _caption(self, value: Tensor, index: int | None = None) -> str:
        moved = (self.images - self.clean) if index is None else (self.images[index] - self.clean[index])
        return f"objective {value.item():.4g}, largest change {moved.abs().max().item() * 255:.3g}/255"


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a search is given: the model is frozen meanwhile, and ``progress`` takes (evaluations done, in all).

    ``coarse`` is ``bound`` in bfloat16, for the first steps of a search in two precisions.
    """

    model: nn.Module
    clean: Images
    bound: Bound
    ball: Ball
    seed: int
    progress: Progress | None
    coarse: Bound | None = None

    def report(self, done: int, total: int) -> None:
        """Tell ``progress``, if anybody listens."""
        if self.progress is not None:
            self.progress(done, total)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An attack of one budget. Subclasses say what is maximised, where, and how it is searched for; the rest is shared.

    Numbers and words are checked when it is made: a wrong one raises ``ConfigError`` (see ``check_fields``).

    Args:
        epsilon: radius of the ball, on the scale of [0, 1].
        precision: arithmetic of the search. ``bfloat16`` is faster where the processor has it; PGD and FDA are as
            strong in it, I-FGSM with its short steps is weaker on some networks (0.7 dB at 1/255 on SRResNet, see the
            benchmarks). ``mixed`` takes the first nine tenths of the steps in it where the processor has it, and the
            others in float32. The verdict is always float32.
    """

    epsilon: float
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_fields(self)
        # An l2 norm over all pixels and channels may well exceed the range of one.
        if not 0 < self.epsilon <= LARGEST or (self.epsilon > 1 and isinstance(self.aim()[1], Linf)):
            raise ConfigError(f"epsilon is a radius in (0, 1], such as 4/255, not {self.epsilon}")
        # So that a plan that cannot work is refused before a model is loaded for it.
        _pair(self, "aim", self.aim(), "objective and ball")

    @abstractmethod
    def aim(self) -> tuple[Objective, Ball]:
        """Return what the verdict is about, and the perturbations allowed."""

    @abstractmethod
    def search(self, task: Problem) -> tuple[Images, int]:
        """Return the best images found, and the evaluations spent on each."""

    @final
    def __call__(self, model: nn.Module, x: Images, *, seed: int = 0, progress: Progress | None = None) -> Adversarial:
        """Attack a batch; the model comes back as it was: parameters, buffers, training flags and gradients.

        Restarts follow one another, and the batch is taken whole; ``attack_all`` fills a device's memory with images,
        budgets and restarts.

        Args:
            model: any module that takes ``x``; a differentiable one for attacks that use gradients.
            x: clean images, RGB float in [0, 1].
            seed: of the random starts.
            progress: called with (steps done, steps in all) after every step.

        Raises:
            ValueError: ``x`` is no image batch in [0, 1].
            ConfigError: the attack finds images beyond its budget, or no images; or the objective gives no one number
                an image.
            FloatingPointError: the objective is not finite at the clean image.
        """
        x = checked(x)
        objective, ball = self.aim()
        with at_work(model, x.device):
            bound = bound_to(objective, model, x)
            with arithmetic(model, self.precision, x.device):
                # Of the same arithmetic, so that what is lost to it drops out of the difference from the clean image.
                climbed = bound_to(objective, model, x) if self.precision == "bfloat16" else bound
                coarse = coarsely(objective, model, x, self.precision)
                found = self.search(Problem(model, x, climbed, ball, seed, progress, coarse))
            best, spent = _pair(self, "search", found, "images and evaluations")
            with torch.no_grad():
                rounded = rounded_within(self, ball, best, x)
                values, values_unrounded = (worst_if_broken(bound(found)) for found in (rounded, best))
                if not bool(values_unrounded.isfinite().all()):
                    raise_unless_finite(bound(x))
        return Adversarial(rounded, best, values, values_unrounded, spent, x)


def _pair(attack: Attack, verb: str, found: object, what: str) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(pair := cast("tuple[Any, ...]", found)) != 2:
        raise ConfigError(f"{verb} of {type(attack).__name__} returns no pair, {what}, but a {type(found).__name__}")
    return pair


def rounded_within(attack: Attack, ball: Ball, best: object, clean: Images) -> Images:
    """Return what an attack found on the 8-bit grid; attacks and balls of others are held to the budget.

    Raises:
        ConfigError: it lies beyond the budget or outside [0, 1], or rounding moves it by more than a level.
    """
    name = type(attack).__name__
    if not isinstance(best, Tensor) or best.shape != clean.shape:
        got = str(tuple(best.shape)) if isinstance(best, Tensor) else f"a {type(best).__name__}"
        raise ConfigError(f"{name} finds {got} for images of shape {tuple(clean.shape)}; return the same shape")
    rounded = ball.round(best, clean)
    size, moved = float(ball.norm(best - clean).max()), float((rounded - best).abs().max())
    if not size <= attack.epsilon * (1 + _EXCESS) + _EXCESS / 255:
        allowed = f"{attack.epsilon * 255:.4g}/255"
        raise ConfigError(
            f"{name} goes beyond its budget: it finds an image {size * 255:.4g}/255 from the clean one, "
            f"and {allowed} is allowed; project onto the ball of radius epsilon"
        )
    low, high = (float(end) for end in torch.stack([best, rounded]).aminmax())
    if not (low >= 0 and high <= 1):
        raise ConfigError(f"{name} finds images with values from {low:.3g} to {high:.3g}; clamp them to [0, 1]")
    if not moved * 255 <= 1 + _EXCESS:
        raise ConfigError(f"round of {type(ball).__name__} moves a pixel by {moved * 255:.3g}/255, more than one level")
    return rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientAttack(Attack, ABC):
    """An attack that climbs by gradients. Subclasses are final and say what is climbed and how; the climb is shared."""

    @abstractmethod
    def ascent(self) -> Ascent:
        """Return what this attack climbs and how."""

    @final
    def aim(self) -> tuple[Objective, Ball]:
        plan = self.ascent()
        return plan.objective, plan.ball

    @final
    def search(self, task: Problem) -> tuple[Images, int]:
        return climb(self.ascent(), task)


def climb(plan: Ascent, task: Problem, first: Images | None = None) -> tuple[Images, int]:
    """Climb, the first run from ``first`` if given; return the best points, and the gradients spent on each image."""
    best = Best(task.clean)
    total = plan.steps * plan.restarts
    for restart in range(plan.restarts):
        start = start_of(plan, task.clean, task.seed, restart)
        if restart == 0 and first is not None:
            start = plan.ball.project(first, task.clean)

        def report(steps: int, before: int = restart * plan.steps) -> None:
            task.report(before + steps, total)

        own = Best(task.clean)
        ascend(plan, task.clean, task.bound, start, own, report, task.coarse)
        best.update(own.images, own.values)
    return best.images, total


def ascend(
    plan: Ascent,
    clean: Images,
    bound: Bound,
    start: Images,
    best: Best,
    report: Callable[[int], None],
    coarse: Bound | None = None,
) -> None:
    """Climb once from a start, and tell the best points so far and whoever listens of every step.

    With ``coarse`` the first steps climb that, and what is best by then is valued again by ``bound``.
    """
    climbed = coarse or bound
    switch = round(_COARSE * plan.steps) if coarse is not None else 0

    def visit(step: int, x: Images, value: Float[Tensor, " b"], gradient: Images) -> None:
        nonlocal climbed
        if step == 0 and not bool(gradient.any()) and bool(value.isfinite().all()):
            warnings.warn(NO_SLOPE, ModelWarning, stacklevel=2)
        best.update(x, value)
        if step + 1 == switch:
            climbed = bound
            with torch.no_grad():
                best.values = worst_if_broken(bound(best.images).float())
        report(step + 1)

    def away(x: Images) -> Images:
        return plan.ball.project(clean + _STRETCH * (x - clean), clean)

    last = walk(start, lambda x: climbed(x), plan.rule.begin(plan, clean), plan.steps, visit, away)
    with torch.no_grad():
        best.update(last, bound(last))


def walk(
    start: Images,
    bound: Bound,
    move: Move,
    steps: int,
    visit: Visit | None = None,
    away: Callable[[Images], Images] | None = None,
) -> Images:
    """Take steps from a start, and return where they end: the loop under all that follows gradients in an image.

    An image whose value or gradient is not finite has nowhere to go on to: its value counts as infinite, and its
    gradient as zero.

    Args:
        start: ``(b, c, h, w)``.
        bound: the objective.
        move: returns the next points.
        steps: how many.
        visit: is shown number, points, values and gradients before every step.
        away: returns points farther from the clean image, for starts so near it that the model's arithmetic does not
            tell them apart.

    Raises:
        ConfigError: no gradient reaches the image.
    """
    x = start
    for step in range(steps):
        x, value, gradient = _slope(x, bound)
        for _ in range(_STRETCHES if step == 0 and away is not None else 0):
            flat = (gradient == 0).flatten(1).float().mean(dim=1) > _FLAT
            if not bool(flat.any()):
                break
            assert away is not None
            x, value, gradient = _slope(torch.where(flat.view(-1, 1, 1, 1), away(x), x), bound)
        if visit is not None:
            visit(step, x, value, gradient)
        x = move(x, value, gradient)
    return x.detach()


def _slope(x: Images, bound: Bound) -> tuple[Images, Float[Tensor, " b"], Images]:
    """Return points, values and gradients."""
    x = x.detach().requires_grad_()
    value = bound(x)
    # What flows back is of the size of one, whatever the objective's: half precision inside a model holds nothing much
    # smaller, as squares of differences near the clean image are. Powers of two change no bit of it.
    size = value.detach().float().abs().sqrt().clamp(1e-6, 1e6) / x[0].numel()
    size = torch.exp2(torch.log2(size).nan_to_num().round())
    # As with grad_outputs of 1 / size, for which PyTorch would import sympy: seconds.
    whole = (value * (1 / size).to(value)).sum()
    found = torch.autograd.grad(whole, x, allow_unused=True)[0] if value.requires_grad else None
    if found is None:
        raise ConfigError(
            "no gradient reaches the image: the model or the objective detaches, rounds or runs under no_grad; use an "
            "attack without gradients, Square or RandomNoise"
        )
    gradient = found * size.view(-1, 1, 1, 1)
    finite = value.isfinite() & gradient.isfinite().flatten(1).all(dim=1)
    return (
        x.detach(),
        torch.where(finite, value.detach(), torch.inf),
        torch.where(finite.view(-1, 1, 1, 1), gradient, torch.zeros_like(gradient)),
    )


@final
class Best:
    """The best point of every image so far."""

    def __init__(self, clean: Images) -> None:
        self.images = clean.clone()
        self.values = torch.full((clean.shape[0],), -torch.inf, device=clean.device)

    def update(self, x: Images, value: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Take over the images whose value is higher, and return which they are."""
        value = worst_if_broken(value.detach().float())
        better = value > self.values
        self.images = torch.where(better.view(-1, 1, 1, 1), x.detach(), self.images)
        self.values = torch.where(better, value, self.values)
        return better


def start_of(plan: Ascent, clean: Images, seed: int, restart: int) -> Images:
    """Return where a restart begins, the same for an image alone and in any batch."""
    if plan.start == "zero":
        return clean.clone()
    radius = plan.ball.epsilon if plan.start == "uniform" else min(TINY, plan.ball.epsilon)
    # One generator an image, so that its start does not depend on its place in a batch.
    starts = [plan.ball.random(image.unsqueeze(0), generator_for(seed, "start", restart), radius) for image in clean]
    return plan.ball.project(torch.cat(starts), clean)


def same_budget(outer: Attack, inner: Attack) -> None:
    """Refuse an attack inside another one with another budget, with ``ConfigError``."""
    if inner.epsilon != outer.epsilon:
        raise ConfigError(
            f"{type(outer).__name__} has epsilon={outer.epsilon}, and the {type(inner).__name__} inside it "
            f"{inner.epsilon}; give both the same"
        )


def worst_if_broken(value: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return values with infinity for those that are no numbers: an output that is not finite is the worst there is."""
    return value.nan_to_num(torch.inf, torch.inf)


def raise_unless_finite(clean: Float[Tensor, " b"]) -> None:
    """Refuse a model whose objective at the clean image is not finite, so that a broken one is not taken for fragile.

    Raises:
        FloatingPointError: it is not.
    """
    if not bool(torch.isfinite(clean).all()):
        raise FloatingPointError(
            "the objective is not finite at the clean image: check the model for NaN weights, or attack in float32"
        )


def checked(x: Images) -> Images:
    """Return a batch of images detached, in float32 or finer, and able to take part in gradients wherever made.

    Raises:
        ValueError: it is no batch of images in [0, 1].
    """
    with torch.inference_mode(mode=False):
        x = x.clone() if x.is_inference() else x.detach()
        # Half precision holds no step of a fraction of a level.
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images are a float tensor (batch, channels, height, width), not {tuple(x.shape)} {x.dtype}")
    if x.numel() == 0 or not bool(torch.isfinite(x).all()) or float(x.min()) < 0 or float(x.max()) > 1:
        raise ValueError("images are not empty, finite and in [0, 1]; divide 8-bit values by 255")
    return x


def coarsely(objective: Objective, model: nn.Module, clean: Images, precision: Precision) -> Bound | None:
    """Return an objective bound in bfloat16 for the first steps of a search in two precisions.

    None for other searches, and where the device or a layer has no bfloat16.
    """
    if precision != "mixed" or not has_bfloat16(clean.device):
        return None

    def coarse(x: Images) -> Float[Tensor, " b"]:
        with arithmetic(model, "bfloat16", clean.device):
            return bound(x)

    try:
        with arithmetic(model, "bfloat16", clean.device):
            bound = bound_to(objective, model, clean)
        with torch.no_grad():
            coarse(clean)
    except RuntimeError as error:  # Fourier transforms have none.
        if out_of_memory(error):
            raise
        return None
    return coarse


@contextlib.contextmanager
def arithmetic(model: nn.Module, precision: Precision, device: torch.device) -> Generator[None]:
    """Set up the arithmetic of a search in bfloat16; others need nothing.

    Convolutions that take an image, which are those of three channels, stay float32: of levels between 128 and 255
    bfloat16 tells only whole ones apart, and a step is a fraction of one. A parametric rectifier is made of two plain
    ones: its own way back takes twice as long as a convolution's.
    """
    if precision != "bfloat16":
        yield
        return
    before: list[bool] = []

    def leave(module: nn.Conv2d, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        before.append(torch.is_autocast_enabled(device.type))
        torch.set_autocast_enabled(device.type, False)
        return tuple(x.to(module.weight.dtype) for x in inputs)

    def enter(module: nn.Conv2d, _inputs: object, output: Tensor | None) -> Tensor | None:
        reduced = before.pop()
        torch.set_autocast_enabled(device.type, reduced)
        # What becomes of the image may be rounded, not the image itself, shifted or weighted.
        # A network of double precision stays one.
        rounded = reduced and module.out_channels != 3 and module.weight.dtype != torch.float64
        return output.bfloat16() if rounded and output is not None else output

    with contextlib.ExitStack() as hooks, torch.autocast(device.type, torch.bfloat16):
        for module in model.modules():
            # An attack inside another meets the hooks of that one, which do for both.
            if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module not in _REDUCED:
                _REDUCED.add(module)
                hooks.callback(_REDUCED.discard, module)
                hooks.callback(module.register_forward_pre_hook(leave).remove)
                hooks.callback(module.register_forward_hook(enter, always_call=True).remove)
            elif type(module) is nn.PReLU and "forward" not in vars(module):
                module.forward = functools.partial(_rectified, module)  # pyright: ignore[reportAttributeAccessIssue]
                hooks.callback(delattr, module, "forward")
        yield


def _rectified(module: nn.PReLU, x: Tensor) -> Tensor:
    slope = module.weight.to(x.dtype).view(-1, *(1,) * max(0, x.ndim - 2))
    return torch.relu(x) - slope * torch.relu(-x)


@contextlib.contextmanager
def at_work(model: nn.Module, device: torch.device) -> Generator[None]:
    """Set up what an attack works in: a frozen model and gradients, in float32 until a search says otherwise.

    Threads wait for one another.

    Raises:
        ConfigError: the model was made inside ``torch.inference_mode``.
    """
    if any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers())):
        raise ConfigError("the model was made inside torch.inference_mode and has no gradients; load it outside")
    # Autocast off, for the verdict is float32 wherever this is called, also inside the search of another attack.
    unreduced = torch.autocast(device.type, enabled=False)

    def enter(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(
            in_precision_of(module, x) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
        )

    with _ALONE, contextlib.ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(enter).remove)
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            unreduced,
            full_float32(),
            without_denormals(),
            frozen(model),
        ):
            yield
