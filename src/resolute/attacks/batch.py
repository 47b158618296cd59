"""Many images, budgets and restarts climbed in one batch, as many at a time as the memory holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import (
    Adversarial,
    Ascent,
    Attack,
    Best,
    GradientAttack,
    Precision,
    arithmetic,
    ascend,
    at_work,
    checked,
    coarsely,
    raise_unless_finite,
    rounded_within,
    start_of,
    worst_if_broken,
)
from resolute.attacks.ball import Ball, Images, Length
from resolute.attacks.noise import RandomNoise
from resolute.attacks.objective import bound_to
from resolute.attacks.square import Square
from resolute.runtime import out_of_memory

Image = Float[Tensor, "1 c h w"]

# Of the memory that a device has free: kernels need room for themselves, and estimates err.
SHARE = 0.8

# Low-resolution pixels of a batch on a CPU: beyond these a larger one gains nothing.
PIXELS = 16384

# What flows back takes about as much again as what was kept for it; see benchmarks/batches.py.
_WAYS = 2


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One clean image and one attack of one budget; ``seed`` is of the random starts."""

    attack: Attack
    image: Image
    seed: int = 0


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """A batch in which every image has a ball of its own.

    Example:
        >>> from resolute.attacks import Linf
        >>> clean = torch.full((2, 3, 1, 1), 0.5)
        >>> moved = Stacked((Linf(1 / 255), Linf(4 / 255))).project(clean + 1, clean) - clean
        >>> (moved[:, 0, 0, 0] * 255).round().tolist()
        [1.0, 4.0]
    """

    balls: tuple[Ball, ...]

    @property
    def epsilon(self) -> float:
        return max(ball.epsilon for ball in self.balls)

    def project(self, x: Images, clean: Images) -> Images:
        return self._each(lambda ball, part: ball.project(x[part], clean[part]))

    def random(self, clean: Images, generator: torch.Generator, radius: float) -> Images:
        return self._each(lambda ball, part: ball.random(clean[part], generator, radius))

    def ascend(self, x: Images, gradient: Images, step: Length) -> Images:
        return self._each(
            lambda ball, part: ball.ascend(x[part], gradient[part], step[part] if isinstance(step, Tensor) else step)
        )

    def round(self, x: Images, clean: Images) -> Images:
        return self._each(lambda ball, part: ball.round(x[part], clean[part]))

    def norm(self, perturbation: Images) -> Float[Tensor, " b"]:
        return self._each(lambda ball, part: ball.norm(perturbation[part]))

    def _each(self, verb: Callable[[Ball, slice], Tensor]) -> Tensor:
        found: list[Tensor] = []
        begin = 0
        for ball, run in groupby(self.balls):
            end = begin + len(list(run))
            found.append(verb(ball, slice(begin, end)))
            begin = end
        return torch.cat(found)


def attack_all(
    model: nn.Module,
    jobs: Sequence[Job],
    *,
    memory: int | None = None,
    values: bool = True,
    progress: Callable[[float], None] | None = None,
) -> list[Adversarial]:
    """Attack many images, each with an attack and a budget of its own, and return what was found for each.

    Gradient attacks that climb the same objective with as many steps by the same rule share batches: images of one
    size, their budgets and their restarts. Others are run one after the other. What is found is what each attack finds
    alone, but for rounding: on float32 hardware sums of a batch may differ in the last bits.

    Args:
        model: differentiable where an attack uses gradients; it comes back as it was.
        jobs: what to attack, and how.
        memory: bytes that a batch may take beyond the model; None for a share of what a CUDA device has free, and for
            ten images of 40 x 40 pixels or as much on a CPU, where larger batches gain nothing; 0 for one run at a
            time. A batch for which memory does not suffice all the same is halved.
        values: take the objective of what is found, which costs three passes a job; without, it is NaN.
        progress: called with the share of the work that is done, in [0, 1], every job counting the same.

    Raises:
        ValueError: an image is none, see ``Attack``.
        FloatingPointError: an objective is not finite at the clean image.
        MemoryError: a single image does not fit.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import Bicubic
        >>> x = torch.full((1, 3, 6, 6), 0.5)
        >>> jobs = [Job(PGD(epsilon=level / 255, steps=3, restarts=2), x) for level in (1, 4)]
        >>> found = attack_all(Bicubic(2), jobs, memory=2**20)
        >>> [round(float((one.images - x).abs().max()) * 255) for one in found], found[0].gradients
        ([1, 4], 6)
    """
    done = 0.0

    def report(jobs_done: float) -> None:
        nonlocal done
        done += jobs_done
        if progress is not None:
            progress(min(1.0, done / len(jobs)))

    found: dict[int, Adversarial] = {}
    for group in _groups(jobs):
        if isinstance(jobs[group[0]].attack, GradientAttack):
            found |= zip(group, _climbed(model, [jobs[i] for i in group], memory, values, report), strict=True)
        else:
            job, before = jobs[group[0]], done

            def step(steps_done: int, steps: int, before: float = before, jobs: int = len(group)) -> None:
                report(before + jobs * steps_done / steps - done)

            images = torch.cat([jobs[i].image for i in group])
            together = job.attack(model, images, seed=job.seed, progress=step)
            found |= zip(group, together.split(), strict=True)
    return [found[i] for i in range(len(jobs))]


def _groups(jobs: Sequence[Job]) -> list[list[int]]:
    groups: list[list[int]] = []
    for i, job in enumerate(jobs):
        group = next((group for group in groups if _alike(jobs[group[0]], job)), None)
        if group is None:
            groups.append(group := [])
        group.append(i)
    return groups


def _alike(a: Job, b: Job) -> bool:
    if a.attack.precision != b.attack.precision or a.image.shape != b.image.shape:
        return False
    if not isinstance(a.attack, GradientAttack) or not isinstance(b.attack, GradientAttack):
        # What they draw is the same for all images.
        return isinstance(a.attack, Square | RandomNoise) and (a.attack, a.seed) == (b.attack, b.seed)
    one, other = a.attack.ascent(), b.attack.ascent()
    return (one.objective, one.steps, one.rule) == (other.objective, other.steps, other.rule)


@dataclasses.dataclass(frozen=True, eq=False)
class _BatchRun:
    job: int
    plan: Ascent
    clean: Image
    start: Image


def _climbed(
    model: nn.Module, jobs: list[Job], memory: int | None, values: bool, report: Callable[[float], None]
) -> list[Adversarial]:
    plans = [job.attack.ascent() for job in jobs if isinstance(job.attack, GradientAttack)]
    cleans = [checked(job.image) for job in jobs]
    runs = [
        _BatchRun(i, plan, clean, start_of(plan, clean, jobs[i].seed, restart))
        for i, (plan, clean) in enumerate(zip(plans, cleans, strict=True))
        for restart in range(plan.restarts)
    ]
    precision, device = jobs[0].attack.precision, cleans[0].device
    best = [Best(clean) for clean in cleans]
    with at_work(model, device):
        size = _batch_size(model, runs[0], precision, memory)
        waiting = [runs[i : i + size] for i in range(0, len(runs), size)]
        while waiting:
            batch = waiting.pop(0)
            try:
                points, reached = _together(model, batch, precision, report)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    height, width = batch[0].clean.shape[-2:]
                    raise MemoryError(
                        f"one gradient for an image of {width} x {height} pixels does not fit into memory; "
                        "attack it in tiles, or on a device with more"
                    ) from None
                half = len(batch) // 2
                waiting[:0] = [batch[:half], batch[half:]]
                continue
            for run, x, value in zip(batch, points.split(1), reached.split(1), strict=True):
                best[run.job].update(x, value)
        return [
            _judged(model, job.attack, plan, clean, one.images, values)
            for job, plan, clean, one in zip(jobs, plans, cleans, best, strict=True)
        ]


def _together(
    model: nn.Module, batch: list[_BatchRun], precision: Precision, report: Callable[[float], None]
) -> tuple[Images, Float[Tensor, " b"]]:
    clean = torch.cat([run.clean for run in batch])
    plan = dataclasses.replace(
        batch[0].plan,
        ball=Stacked(tuple(run.plan.ball for run in batch)),
        step_size=torch.cat([run.clean.new_zeros(1) + run.plan.step_size for run in batch]),
        restarts=1,
    )
    best = Best(clean)
    share = sum(1 / (run.plan.steps * run.plan.restarts) for run in batch)
    with arithmetic(model, precision, clean.device):
        bound = bound_to(plan.objective, model, clean)
        coarse = coarsely(plan.objective, model, clean, precision)
        ascend(plan, clean, bound, torch.cat([run.start for run in batch]), best, lambda _: report(share), coarse)
        if not bool(best.values.isfinite().all()):
            with torch.no_grad():
                raise_unless_finite(bound(clean))
    return best.images, best.values


def _judged(model: nn.Module, attack: Attack, plan: Ascent, clean: Image, best: Image, values: bool) -> Adversarial:
    with torch.no_grad():
        rounded = rounded_within(attack, plan.ball, best, clean)
        value = value_unrounded = torch.full((len(best),), torch.nan)
        if values:
            bound = bound_to(plan.objective, model, clean)
            value, value_unrounded = (worst_if_broken(bound(found)) for found in (rounded, best))
        return Adversarial(rounded, best, value, value_unrounded, plan.steps * plan.restarts, clean)


def _batch_size(model: nn.Module, run: _BatchRun, precision: Precision, memory: int | None) -> int:
    if memory == 0:
        return 1
    if memory is None:
        if run.clean.device.type != "cuda":
            return max(1, PIXELS // (run.clean.shape[-2] * run.clean.shape[-1]))
        free, _ = torch.cuda.mem_get_info(run.clean.device)
        memory = int(SHARE * free)
    return max(1, memory // footprint(model, run.plan, run.clean, precision))


def footprint(model: nn.Module, plan: Ascent, clean: Images, precision: Precision = "float32") -> int:
    """Estimate the bytes that one gradient of a batch takes, weights left out.

    Counted where autograd saves tensors for the way back, so that it is the same on every device and costs one forward
    pass.

    Example:
        >>> from resolute.attacks import PGD
        >>> from resolute.models import EDSR
        >>> model, x = EDSR(scale=2, blocks=1, channels=4), torch.rand(2, 3, 8, 8)
        >>> plan = PGD(epsilon=4 / 255).ascent()
        >>> footprint(model, plan, x) == 2 * footprint(model, plan, x[:1])
        True
    """
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with at_work(model, clean.device), arithmetic(model, precision, clean.device):
        bound = bound_to(plan.objective, model, clean)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            bound(clean.clone().requires_grad_())
    return max(1, _WAYS * sum(kept.values()))
