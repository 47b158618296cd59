"""Random resizing and padding of the input (Xie et al., ICLR 2018), as section 5.6 of Choi et al. applies it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.defences.wrappers import Defended, Features, Images, Large, surrogate
from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.randomness import generator_for

# Xie et al. resize 299 pixels to at most 331.
GROWTH = 331 / 299

# Draws that an attacker who knows of the randomness averages, from a stream of his own.
EOT_DRAWS = 8
_ATTACKER = 1


@dataclasses.dataclass(frozen=True)
class _Draw:
    height: int
    width: int
    top: int
    left: int


@final
class RandomResizing(Defended):
    """Enlarge the input to a random size, pad it with zeros at a random place, and bring the output back to size.

    Every image has a draw of its own, from a generator keyed by the seed and the image's bytes: neither the batch nor
    the order of calls changes it, and every step of an attack meets a fresh one. Judge what was
    found on fresh ones (``redrawn``).

    Args:
        inner: the model behind it.
        growth: largest size as a multiple of the given one, above 1 up to 2.
        draws: outputs to average: 1 where the defence is deployed, more in the eyes of an attacker who climbs the
            expectation (EOT; Athalye et al., ICML 2018). A feature attack sees the first.
        seed: of the draws.

    Raises:
        ConfigError: no such growth, or no draw.

    Example:
        >>> from resolute.models import Bicubic
        >>> x = torch.linspace(0, 1, 2 * 3 * 12 * 18).view(2, 3, 12, 18)
        >>> model = RandomResizing(Bicubic(2), growth=2)
        >>> model(x).shape, torch.equal(model(x)[1:], model(x[1:])), torch.equal(model(x), model(x))
        (torch.Size([2, 3, 24, 36]), True, True)
        >>> torch.equal(model(x), RandomResizing(Bicubic(2), growth=2, seed=1)(x))
        False
    """

    def __init__(self, inner: Restorer, growth: float = GROWTH, *, draws: int = 1, seed: int = 0) -> None:
        if not 1 < growth <= 2:
            raise ConfigError(f"resize takes the largest growth, above 1 up to 2, such as resize=1.1, not {growth:g}")
        if draws < 1:
            raise ConfigError(f"random resizing averages one draw or more, not {draws}")
        label = "resize" if growth == GROWTH else f"resize={growth:g}"
        super().__init__(inner, label, {"growth": growth, "draws": draws, "seed": seed})
        self.growth, self.draws, self.seed = growth, draws, seed

    def features(self, x: Images) -> Features:
        return self.inner.features(self._padded(x, self._drawn(x, 0)))

    def forward(self, x: Images) -> Large:
        outputs = [self._once(x, self._drawn(x, draw)) for draw in range(self.draws)]
        return torch.stack(outputs).mean(dim=0)

    def surrogate(self) -> RandomResizing:
        return RandomResizing(surrogate(self.inner), self.growth, draws=EOT_DRAWS, seed=self.seed + _ATTACKER)

    def _once(self, x: Images, draws: list[_Draw]) -> Large:
        size = [side * self.scale for side in x.shape[-2:]]
        found: list[Tensor] = []
        for output, draw in zip(self.inner(self._padded(x, draws)).split(1), draws, strict=True):
            top, left, height, width = (
                length * self.scale for length in (draw.top, draw.left, draw.height, draw.width)
            )
            found.append(_resized(output[..., top : top + height, left : left + width], size))
        return torch.cat(found)

    def _padded(self, x: Images, draws: list[_Draw]) -> Float[Tensor, "b 3 h2 w2"]:
        height, width = (self._largest(side) for side in x.shape[-2:])
        padded: list[Tensor] = []
        for image, draw in zip(x.split(1), draws, strict=True):
            right, bottom = width - draw.left - draw.width, height - draw.top - draw.height
            padded.append(F.pad(_resized(image, [draw.height, draw.width]), (draw.left, right, draw.top, bottom)))
        return torch.cat(padded)

    def _largest(self, side: int) -> int:
        return max(side + 1, round(side * self.growth))

    def _drawn(self, x: Images, draw: int) -> list[_Draw]:
        height, width = x.shape[-2:]
        largest = self._largest(height), self._largest(width)
        found: list[_Draw] = []
        for image in x.detach().float().cpu().contiguous():
            digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
            generator = generator_for(self.seed, "resizing", draw, digest)
            size, top, left = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
            # One share for both sides, so that the shape of the image stays; the largest size is left out, as there.
            rows, columns = (side + int(size * (most - side)) for side, most in zip(x.shape[-2:], largest, strict=True))
            places = int(top * (largest[0] - rows + 1)), int(left * (largest[1] - columns + 1))
            found.append(_Draw(rows, columns, *places))
        return found


def redrawn(model: Restorer, seed: int) -> Restorer:
    """Return a copy of a model whose random defences draw anew: the judge of what was found on the model itself.

    Example:
        >>> from resolute.models import Bicubic
        >>> x, model = torch.linspace(0, 1, 3 * 12 * 12).view(1, 3, 12, 12), RandomResizing(Bicubic(2), growth=2)
        >>> torch.equal(redrawn(model, 0)(x), model(x)), torch.equal(redrawn(model, 1)(x), model(x))
        (True, False)
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, RandomResizing):
            module.seed = seed
    return model


def _resized(x: Float[Tensor, "b 3 h w"], size: list[int]) -> Float[Tensor, "b 3 h1 w1"]:
    # torch has no antialiased interpolation in bfloat16, in which attacks may search.
    return F.interpolate(x.float(), size, mode="bicubic", antialias=True, align_corners=False)
