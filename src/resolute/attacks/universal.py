"""Universal perturbations of super-resolution models (Choi et al., ICCV 2019): one for many images."""

from __future__ import annotations

import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.ascent import Ascent, Problem, Progress, at_work, checked, climb
from resolute.attacks.ball import Images, Length, Linf, levels
from resolute.attacks.objective import Objective, OutputShift, bound_to

Perturbation = Float[Tensor, "1 c h w"]


def universal(
    model: nn.Module,
    images: Images,
    epsilon: float,
    steps: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
    objective: Objective = OutputShift(),
) -> Perturbation:
    """Return the one perturbation that raises the mean objective of all images: I-FGSM, its gradient a mean over them.

    It is whole levels of 255, so that images on the 8-bit grid stay there and all get the same.

    A perturbation is at home at one size: cut equal crops out of the images first, 80 x 80 in the paper. All of them
    take part in every step and are held in memory at once. Each image is compared with its own clean output.

    Args:
        model: the model, which comes back as it was.
        images: at least two, RGB float in [0, 1].
        epsilon: largest change of a pixel, on the scale of [0, 1].
        steps: of ``epsilon / steps`` each.
        seed: of the start, within 1e-3/255 of nothing.
        progress: called with (steps done, steps in all).
        objective: what to raise.

    Raises:
        ValueError: fewer than two images, or a budget that is none.
        FloatingPointError: the objective is not finite at the clean images.

    Example:
        >>> from resolute.models import Bicubic
        >>> shift = universal(Bicubic(2), torch.rand(3, 3, 6, 6), epsilon=4 / 255, steps=4)
        >>> shift.shape, bool(shift.abs().max() <= 4.001 / 255)
        (torch.Size([1, 3, 6, 6]), True)
    """
    images = checked(images)
    if images.shape[0] < 2:
        raise ValueError("a universal perturbation is one for many images; give two or more crops of one size")
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon is a radius in (0, 1], such as 4/255, not {epsilon}")
    ball = _Shifts(epsilon)
    plan = Ascent(objective=objective, ball=ball, steps=steps, step_size=epsilon / max(steps, 1))
    with at_work(model, images.device):
        bound = bound_to(objective, model, images)

        def mean(shift: Perturbation) -> Float[Tensor, " 1"]:
            return bound((images + shift).clamp(0.0, 1.0)).mean(dim=0, keepdim=True)

        nothing = torch.zeros_like(images[:1])
        shift, _ = climb(plan, Problem(model, nothing, mean, ball, seed, progress))
    return ball.round(shift, nothing)


def perturbed(images: Images, shift: Perturbation) -> Images:
    """Return images with one perturbation added to each, on the 8-bit grid and in [0, 1].

    Raises:
        ValueError: the images have another size than the perturbation.

    Example:
        >>> perturbed(torch.zeros(2, 3, 4, 4), torch.full((1, 3, 4, 4), 2 / 255)).mul(255).mean().item()
        2.0
    """
    if images.shape[1:] != shift.shape[1:]:
        raise ValueError(
            f"the perturbation is for images of {tuple(shift.shape[1:])}, not {tuple(images.shape[1:])}; crop them"
        )
    return torch.round((images + shift) * 255.0).clamp(0.0, 255.0) / 255.0


@final
@dataclasses.dataclass(frozen=True)
class _Shifts:
    """The l-infinity ball around nothing, where perturbations live that are added to images afterwards."""

    epsilon: float

    def project(self, x: Perturbation, clean: Perturbation) -> Perturbation:
        return x.clamp(-self.epsilon, self.epsilon)

    def random(self, clean: Perturbation, generator: torch.Generator, radius: float) -> Perturbation:
        return Linf(self.epsilon).random(clean, generator, radius)

    def ascend(self, x: Perturbation, gradient: Perturbation, step: Length) -> Perturbation:
        return Linf(self.epsilon).ascend(x, gradient, step)

    def round(self, x: Perturbation, clean: Perturbation) -> Perturbation:
        most = levels(self.epsilon)
        return torch.round(x * 255.0).clamp(-most, most) / 255.0

    def norm(self, perturbation: Perturbation) -> Float[Tensor, " 1"]:
        return Linf(self.epsilon).norm(perturbation)
