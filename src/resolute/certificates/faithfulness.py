"""Did it invent this? What of an output its input bears out, how far its pixels move, and which of them to trust."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resolute.attacks.ascent import Attack
from resolute.attacks.gradient import IFGSM, has_gradient
from resolute.attacks.square import Square
from resolute.certificates.trust import Trust
from resolute.corruptions import encoded
from resolute.defences import surrogate
from resolute.errors import ConfigError
from resolute.images import from_uint8, image_sha256, to_uint8
from resolute.measure.parts import Parts, consistency, parts_of
from resolute.models.base import Restorer, device_of, frozen
from resolute.randomness import stream_seed
from resolute.resize import to_levels
from resolute.runtime import full_float32

Image = Float[Tensor, "3 h w"]
Map = Float[Tensor, "sh sw"]

NUDGES = ("noise", "jpeg", "attack")
# What a pixel of an output that is not finite has moved by, in levels.
_ALL = 255.0


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Nudges:
    """How an input is moved, to see how far that moves each pixel of the output.

    Attributes:
        noise: standard deviation of Gaussian noise, in levels of 255, rounded to 8 bits.
        draws: of that noise; a pixel's movement is a mean over them.
        jpeg: quality at which the input is stored.
        level: radius of an I-FGSM attack in l-infinity, in levels of 255; Square, where the model has no gradient.
        steps: of that attack; Square takes ten times as many queries.

    Raises:
        ConfigError: one is out of range.
    """

    noise: float = 2
    draws: int = 4
    jpeg: int = 85
    level: float = 2
    steps: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.noise <= 255 and 1 <= self.level <= 255):
            raise ConfigError(
                f"noise is above 0 and an attack at least 1 of 255 levels, not {self.noise:g} and {self.level:g}"
            )
        if self.draws < 1 or self.steps < 1 or not 1 <= self.jpeg <= 100:
            raise ConfigError("draws and steps are 1 or more, and a quality of JPEG is 1 to 100")

    @property
    def passes(self) -> int:
        """About how many forward passes all of them cost."""
        return self.draws + 1 + 3 * self.steps

    def attack(self, model: Restorer, low: Float[Tensor, "1 3 h w"]) -> Attack:
        """Return the attack on a model: by gradients where it has any."""
        if has_gradient(model, low):
            return IFGSM(epsilon=self.level / 255, steps=self.steps)
        return Square(epsilon=self.level / 255, queries=10 * self.steps)

    def noisy(self, low: Image, draw: int, seed: int) -> Image:
        """Return an input with one draw of noise, in 8 bits; it differs from image to image, and not between models."""
        rng = np.random.default_rng(stream_seed(seed, image_sha256(low), draw))
        pixels = to_uint8(low)
        return from_uint8(to_levels(pixels + rng.normal(0.0, self.noise, pixels.shape)))

    def stored(self, low: Image) -> Image:
        """Return an input as a JPEG file has it."""
        return from_uint8(encoded(to_uint8(low), "JPEG", self.jpeg))


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Faithfulness:
    """What an output owes to its input, and how far to trust it.

    Attributes:
        output: ``(3, sh, sw)``, clamped to [0, 1], unrounded; zeros where it is not finite.
        consistency: of the output, shrunk, with the input: PSNR on RGB, in dB; 0 where it is not finite.
        parts: what the input says, what contradicts it, and what it can neither confirm nor refute; a batch of one.
        moved: how far each pixel moves, the largest change of its channels in levels of 255, for each of ``NUDGES``.
        trusted: the pixels to trust; None without a calibration.
        broken: the output is not finite.
    """

    output: Float[Tensor, "3 sh sw"]
    consistency: float
    parts: Parts
    moved: Mapping[str, Map]
    trusted: Bool[Tensor, "sh sw"] | None
    broken: bool


def faithful(
    model: Restorer,
    low: Image,
    nudges: Nudges | None = Nudges(),
    trust: Trust | None = None,
    *,
    rate: float = 0.1,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Faithfulness:
    """Ask of an output what of it the input bears out, how far its pixels move, and which of them to trust.

    Args:
        model: with its defences.
        low: the input, in [0, 1], on the 8-bit grid.
        nudges: how the input is moved; None for not at all.
        trust: a calibration of this model, see ``calibrate_trust``; None for no mask.
        rate: the expected share of the trusted pixels of a photograph whose error may exceed the calibration's bound.
        seed: of noise and attack.
        progress: called with the share that is done, in [0, 1].

    Raises:
        ConfigError: the calibration is of another model, or too small for the rate.

    Example:
        >>> from resolute.certificates import calibrate_trust
        >>> from resolute.measure.parts import rms
        >>> from resolute.models import Bicubic
        >>> from resolute.images import sample_image
        >>> photograph, model = sample_image("coffee"), Bicubic(4)
        >>> crops = [photograph[:, :96, left : left + 96] for left in range(0, 480, 48)]
        >>> trust = calibrate_trust(model, crops[1:], "crops", bound=32)
        >>> found = faithful(model, photograph[:, 200:224, 200:224], Nudges(draws=1, steps=2), trust)
        >>> bool(rms(found.parts.added) < 1), list(found.moved), tuple(found.trusted.shape)
        (True, ['noise', 'jpeg', 'attack'], (96, 96))
    """
    if trust is not None:
        trust.require(model)
        trust.threshold(rate)
    tell = progress or _untold
    device = device_of(model)

    def restored(image: Image) -> Float[Tensor, "3 sh sw"]:
        with torch.no_grad(), full_float32(), frozen(model):
            return model(image[None].to(device))[0].cpu()

    output = restored(low)
    broken = not bool(output.isfinite().all())
    trusted = None if trust is None else trust.mask(output, model.scale, rate)
    output = torch.zeros_like(output) if broken else output.clamp(0, 1)
    moved: dict[str, Map] = {}
    if nudges is not None:

        def change(image: Image) -> Map:
            other = restored(image)
            if broken or not bool(other.isfinite().all()):
                return torch.full(output.shape[-2:], _ALL)
            return (other.clamp(0, 1) - output).abs().amax(dim=0) * 255

        noise = torch.zeros(output.shape[-2:])
        for draw in range(nudges.draws):
            noise += change(nudges.noisy(low, draw, seed)) / nudges.draws
            tell((draw + 2) / (nudges.passes + 1))
        moved["noise"] = noise
        moved["jpeg"] = change(nudges.stored(low))
        begun = (nudges.draws + 2) / (nudges.passes + 1)
        tell(begun)
        moved["attack"] = change(
            low if broken else _attacked(model, low, nudges, seed, lambda share: tell(begun + (1 - begun) * share))
        )
    tell(1.0)
    return Faithfulness(
        output, 0.0 if broken else float(consistency(output[None], low[None])), parts_of(output[None], low[None]),
        moved, trusted, broken,
    )  # fmt: skip


def _untold(share: float) -> None:
    """Leave a share that is done to nobody."""


def _attacked(model: Restorer, low: Image, nudges: Nudges, seed: int, tell: Callable[[float], None]) -> Image:
    climbed, image = surrogate(model), low[None].to(device_of(model))
    with frozen(climbed):
        attack = nudges.attack(climbed, image)
    found = attack(climbed, image, seed=seed, progress=lambda done, total: tell(done / total))
    return from_uint8(to_uint8(found.images[0]))
