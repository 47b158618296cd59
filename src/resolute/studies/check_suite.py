"""The check of a model for gradient masking: does a failed attack say something about the model, or about the attack?

The list is that of Carlini et al. (arXiv:1902.06705) and of the flags of AutoAttack (Croce & Hein, ICML 2020), put in
terms of SR-PSNR. No list proves that a defence holds; each flag says why a figure may flatter it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks import APGD, FGSM, Attack, GradientAttack, OutputShift, RandomNoise, Square
from resolute.attacks.ascent import Adversarial
from resolute.defences import surrogate, undefended
from resolute.defences.resizing import redrawn
from resolute.errors import ConfigError
from resolute.models.base import Restorer, frozen
from resolute.randomness import generator_for, stream_seed
from resolute.studies.flags import Evidence, Flag, sr_psnr

Images = Float[Tensor, "b 3 h w"]
Large = Float[Tensor, "b 3 sh sw"]
Progress = Callable[[float, int, str], None]

# Below the resolution of any file and far above that of float32: an image moved by this much is the same image.
_SAME = 1e-6
_RANDOM_IMAGES = 4

# Half the distance over which differences are taken, as a share of the budget: small beside it, large beside rounding.
_DIFFERENCE = 0.1

_TITLES = {
    "climb": "APGD",
    "twice": "APGD, twice the steps",
    "half": "APGD, half the budget",
    "double": "APGD, twice the budget",
    "whole": "APGD, no limit",
    "single": "FGSM",
    "noise": "random noise",
    "square": "Square",
}


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSuite:
    """The checks of one model, at one budget.

    Attributes:
        epsilon: l-infinity budget, on the scale of [0, 1].
        steps: of the gradient attack, APGD; the runs at other budgets, from random starts and on other models take
            half as many.
        restarts: random starts.
        draws: random perturbations.
        queries: of Square.
        seed: of everything random.

    Raises:
        ConfigError: a number is too small, or the budget not in (0, 0.5].

    Example:
        >>> from resolute.models import Bicubic
        >>> from resolute.defences import EightBit
        >>> x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> flags = CheckSuite().quickly().run(EightBit(Bicubic(2)), (x * 255).round() / 255)
        >>> flags[0].name, flags[0].raised, flags[0].figure
        ('zero-gradients', True, 100.0)
    """

    epsilon: float = 4 / 255
    steps: int = 200
    restarts: int = 4
    draws: int = 100
    queries: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 0.5:
            raise ConfigError(f"a check takes a budget in (0, 0.5], such as 4/255, not {self.epsilon:g}")
        if min(self.steps, self.restarts, self.draws, self.queries) < 2:
            raise ConfigError("a check needs at least two steps, restarts, draws and queries")

    def quickly(self) -> CheckSuite:
        """Return the same checks with a fifth of the work or less."""
        return dataclasses.replace(self, steps=min(20, self.steps), restarts=2, draws=30, queries=100)

    def run(
        self, model: Restorer, images: Images, *, twin: Restorer | None = None, progress: Progress | None = None
    ) -> list[Flag]:
        """Attack a model in many ways and return all flags, the raised ones first.

        Args:
            model: under check, on the device of the images.
            images: low-resolution images, RGB float in [0, 1], on the 8-bit grid.
            twin: the model without its defence, to transfer attacks from; where there are defences of Resolute around
                the model, the model inside by default.
            progress: called with (attacks done, attacks in all, title of the one at work).

        Raises:
            ConfigError: the model's output for the images is not finite.
        """
        return self.evidence(model, images, twin=twin, progress=progress).flags()

    def evidence(
        self, model: Restorer, images: Images, *, twin: Restorer | None = None, progress: Progress | None = None
    ) -> Evidence:
        """Return what the flags are made of; arguments and errors as for ``run``."""
        # Random defences draw anew for the clean image and for the judge, on whom no attack has climbed.
        judge = redrawn(model, stream_seed(self.seed, "judge"))
        output = _output(redrawn(model, stream_seed(self.seed, "clean")), images)
        if not bool(output.isfinite().all()):
            raise ConfigError("the output of the model for clean images is not finite; check its weights")
        gradient = self._gradient(model, images)
        sources = _sources(model, twin)
        runs, total = self._attacks(), len(_TITLES) + self.restarts + len(sources)
        done = 0

        def attack(method: Attack, target: Restorer, title: str, seed: int = 0) -> Adversarial | None:
            nonlocal done

            def step(taken: int, steps: int) -> None:
                if progress is not None:
                    progress(done + taken / steps, total, title)

            step(0, 1)
            blind = target is model and isinstance(method, GradientAttack) and not gradient.usable
            found = None if blind else method(target, images, seed=self.seed + seed, progress=step)
            done += 1
            return found

        def psnr(found: Adversarial | None) -> Float[Tensor, " b"]:
            return sr_psnr(output, _output(judge, images if found is None else found.images))

        found = {name: attack(method, model, _TITLES[name]) for name, method in runs.items()}
        climb = found["climb"]
        start = dataclasses.replace(runs["half"], epsilon=self.epsilon, start="uniform")  # pyright: ignore[reportCallIssue]
        restarts = [psnr(attack(start, model, f"random start {i + 1}", i)) for i in range(self.restarts)]
        scout = dataclasses.replace(runs["half"], epsilon=self.epsilon)
        transfers = {name: psnr(attack(scout, source, f"on {name}")) for name, source in sources.items()}
        if progress is not None:
            progress(total, total, "done")
        return Evidence(
            steps=self.steps,
            runs={name: psnr(adversarial) for name, adversarial in found.items()},
            unrounded=psnr(None) if climb is None else sr_psnr(output, _output(judge, climb.unrounded)),
            restarts=restarts,
            transfers=transfers,
            random_images=self._random_images(judge, images, output),
            flat=gradient.flat,
            error=gradient.error,
            jump=_jump(model, images),
            saturated=100 * max(0.0, _at_the_ends(output) - _at_the_ends(images)),
        )

    def _attacks(self) -> dict[str, Attack]:
        fewer = self.steps // 2
        return {
            # From beside the clean image, so that nothing but gradients can move it.
            "climb": APGD(epsilon=self.epsilon, steps=self.steps, start="tiny"),
            "twice": APGD(epsilon=self.epsilon, steps=2 * self.steps, start="tiny"),
            "half": APGD(epsilon=self.epsilon / 2, steps=fewer, start="tiny"),
            "double": APGD(epsilon=self.epsilon * 2, steps=fewer, start="tiny"),
            "whole": APGD(epsilon=1.0, steps=fewer, start="tiny"),
            "single": FGSM(epsilon=self.epsilon),
            "noise": RandomNoise(epsilon=self.epsilon, draws=self.draws),
            "square": Square(epsilon=self.epsilon, queries=self.queries),
        }

    def _gradient(self, model: Restorer, images: Images) -> _Gradient:
        """Hold the gradient of the output's shift against differences of it, at a random point of the ball."""
        generator = generator_for(self.seed, "gradient")
        noise, coins = (torch.rand(images.shape, generator=generator).to(images) for _ in range(2))
        with frozen(model), torch.enable_grad():
            bound = OutputShift().bind(model, images)
            x = (images + self.epsilon * (2 * noise - 1)).requires_grad_()
            value = bound(x).sum()
            gradient = torch.zeros_like(x)
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, x, materialize_grads=True, allow_unused=True)
            # Where the gradient names no direction, any will do.
            uphill = torch.where(gradient == 0, (coins - 0.5).sign(), gradient.sign()).nan_to_num()
            with torch.no_grad():
                step = _DIFFERENCE * self.epsilon
                slope = (bound(x + step * uphill) - bound(x - step * uphill)) / (2 * step)
        promised = (gradient * uphill).flatten(1).sum(dim=1)
        larger = torch.maximum(promised.abs(), slope.abs()).clamp_min(1e-30)
        finite = gradient.isfinite()
        return _Gradient(
            flat=100 * float((~finite | (gradient == 0)).float().mean()),
            error=100 * float(((promised - slope).abs() / larger).nan_to_num(1.0).mean()),
            # One value that is not finite stops an attack; all of them zero leave it where it is.
            usable=bool(finite.all()) and bool((gradient != 0).any()),
        )

    def _random_images(self, judge: Restorer, images: Images, output: Large) -> Float[Tensor, " b"]:
        values = [
            sr_psnr(output, _output(judge, torch.rand(images.shape, generator=generator).to(images)))
            for generator in (generator_for(self.seed, "image", draw) for draw in range(_RANDOM_IMAGES))
        ]
        return torch.stack(values).mean(dim=0)


@dataclasses.dataclass(frozen=True)
class _Gradient:
    """What the gradient is like: values without one in percent, its error in percent, and whether it can be climbed."""

    flat: float
    error: float
    usable: bool


def _sources(model: Restorer, twin: Restorer | None) -> dict[str, Restorer]:
    """Return the models to transfer from: the twin, and what an attacker who knows of the defence would climb."""
    inside, adaptive = undefended(model), surrogate(model)
    found: dict[str, Restorer] = {}
    if twin is not None:
        found["the twin"] = twin
    elif inside is not model:
        found["the model inside"] = inside
    if adaptive.arguments() not in (model.arguments(), inside.arguments()):
        found["the model as an attacker who knows the defence sees it"] = adaptive
    return found


def _output(model: Restorer, x: Images) -> Large:
    with frozen(model), torch.no_grad():
        return model(x).float()


def _jump(model: Restorer, images: Images) -> float:
    """Return how far outputs for the same image are apart, in levels: of a second run, or moved by next to nothing."""
    first, moved = _output(model, images), torch.where(images > 0.5, images - _SAME, images + _SAME)
    return 255 * max(float((_output(model, x) - first).abs().max()) for x in (images, moved))


def _at_the_ends(x: Images) -> float:
    return float(((x <= 0) | (x >= 1)).float().mean())
