"""Purifiers: transformations of the image before a metric sees it, with the parameters of the field's comparison.

Gushchin et al. (arXiv:2404.06957) compare them as defences; none of them certifies anything.
"""

from __future__ import annotations

import dataclasses
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.defences.wrappers import smoothed
from resolute.errors import ConfigError
from resolute.images import from_uint8, to_uint8
from resolute.models.base import Card, Restorer
from resolute.models.weights import weights_sha256
from resolute.randomness import generator_for


class Purifier(nn.Module, ABC):
    """A transformation of images before a metric sees them.

    Attributes:
        card: name and parameters; a metric behind it (``DenoisedScorer``) is named and keyed by them.
    """

    def __init__(self, name: str, **parameters: float) -> None:
        super().__init__()
        architecture: dict[str, object] = {"class": type(self).__name__, **parameters}
        self.card = Card(name=name, architecture=architecture, scale=1, licence="MIT")

    @abstractmethod
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 new_h new_w"]:
        """Purify images in [0, 1]."""


@final
class Jpeg(Purifier):
    """Compress with JPEG, as Pillow does by default, and decode again.

    JPEG has no gradient. Backwards it passes for the identity (straight through, BPDA; Athalye et al., ICML 2018), so
    that an adaptive attack has one to climb.

    Args:
        quality: 1 to 95; 50 in the comparison.

    Example:
        >>> Jpeg(50)(torch.rand(2, 3, 8, 12)).shape
        torch.Size([2, 3, 8, 12])
    """

    def __init__(self, quality: int = 50) -> None:
        if not 1 <= quality <= 95:
            raise ConfigError(f"the quality of JPEG is in 1 to 95, not {quality}")
        super().__init__(f"jpeg-{quality}", quality=quality)
        self.quality = quality

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        found = torch.stack([self._compressed(image) for image in x.detach()]).to(x)
        return x + (found - x).detach() if x.requires_grad else found

    def _compressed(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
        buffer = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(buffer, "JPEG", quality=self.quality)
        with Image.open(buffer) as decoded:
            return from_uint8(np.asarray(decoded.convert("RGB")))


@final
class Resize(Purifier):
    """Shrink, bilinear with antialiasing, and leave it at that size.

    Args:
        share: of the sides that remains; 0.5 in the comparison.

    Example:
        >>> Resize(0.5)(torch.rand(1, 3, 8, 12)).shape
        torch.Size([1, 3, 4, 6])
    """

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"resize keeps a share in (0, 1] of the sides, not {share}")
        super().__init__(f"resize-{share:g}", share=share)
        self.share = share

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 new_h new_w"]:
        size = [max(1, round(side * self.share)) for side in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)


@final
class Crop(Purifier):
    """Cut a square at a random place.

    The place depends on the seed and the size of the image alone, so a clean and an attacked image are cropped alike,
    whatever came before: their difference is due to the attack. An adaptive attacker then knows the place.

    Args:
        side: of the square, in pixels; 128 in the comparison. Smaller images keep theirs.
        seed: of the place.

    Example:
        >>> x = torch.rand(1, 3, 40, 50)
        >>> Crop(32)(x).shape, torch.equal(Crop(32)(x), Crop(32)(x))
        (torch.Size([1, 3, 32, 32]), True)
    """

    def __init__(self, side: int = 128, seed: int = 0) -> None:
        if side < 1:
            raise ConfigError(f"a crop has a pixel or more, not {side}")
        super().__init__(f"crop-{side}", side=side, seed=seed)
        self.side, self.seed = side, seed

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 new_h new_w"]:
        height, width = x.shape[-2:]
        shares = torch.rand(2, generator=generator_for(self.seed, "crop", height, width), dtype=torch.float64).tolist()
        top, left = (
            int(share * (max(0, side - self.side) + 1)) for share, side in zip(shares, (height, width), strict=True)
        )
        return x[..., top : top + self.side, left : left + self.side]


@final
class Blur(Purifier):
    """Blur with a Gaussian kernel, of standard deviation ``0.3 * ((size - 1) / 2 - 1) + 0.8`` as OpenCV takes it.

    Args:
        size: of the kernel, odd; 3 in the comparison.

    Example:
        >>> bool(torch.allclose(Blur(3)(torch.full((1, 3, 8, 8), 0.5)), torch.tensor(0.5)))
        True
    """

    kernel: Tensor

    def __init__(self, size: int = 3) -> None:
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"the kernel of a blur has an odd size, not {size}")
        super().__init__(f"blur-{size}", size=size)
        sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
        weights = [math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)]
        line = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("kernel", (line / line.sum()).float(), persistent=False)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return smoothed(x, self.kernel).clamp(0, 1)


@final
class Flip(Purifier):
    """Mirror the image left to right, top to bottom, or both ways as in the comparison.

    Args:
        horizontal: left to right.
        vertical: top to bottom.

    Example:
        >>> Flip()(torch.arange(4.0).view(1, 1, 2, 2).expand(1, 3, 2, 2))[0, 0].tolist()
        [[3.0, 2.0], [1.0, 0.0]]
    """

    def __init__(self, horizontal: bool = True, vertical: bool = True) -> None:
        if not (horizontal or vertical):
            raise ConfigError("a flip goes one way or the other")
        name = "flip" if horizontal and vertical else "flip-h" if horizontal else "flip-v"
        super().__init__(name, horizontal=horizontal, vertical=vertical)
        self.ways = [way for way, on in ((-1, horizontal), (-2, vertical)) if on]

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return x.flip(self.ways)


@final
class AtSigma(Purifier):
    """A denoiser of deepinv's convention, ``denoiser(x, sigma)``, at one noise level: any such callable or module.

    Args:
        denoiser: maps images and the standard deviation of their noise, on the scale of [0, 1], to images.
        sigma: that it is told.
        name: of the denoiser, in tables and records; that of its class if empty.

    Example:
        >>> AtSigma(lambda x, sigma: x * (1 - sigma), 0.1, "fade")(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [0.8999999761581421, 0.8999999761581421, 0.8999999761581421]
    """

    def __init__(self, denoiser: Callable[[Tensor, float], Tensor], sigma: float, name: str = "") -> None:
        if not sigma >= 0:
            raise ConfigError(f"the standard deviation of noise is 0 or more, not {sigma}")
        name = name or type(denoiser).__name__.lower()
        super().__init__(f"{name}-{sigma:g}", sigma=sigma)
        # A module among the attributes is a submodule: its weights follow .to() and are frozen by attacks.
        self.denoiser = denoiser
        self.sigma = sigma
        if isinstance(denoiser, nn.Module):
            sha256 = weights_sha256(denoiser.state_dict())
            self.card = dataclasses.replace(self.card, sha256=sha256, licence="unknown")

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.denoiser(x, self.sigma)


@final
class ForDeepinv(nn.Module):
    """A denoiser of Resolute's that can be called as deepinv calls its own, ``denoiser(x, sigma)``.

    It was trained for one noise level and removes that, whatever ``sigma`` says.

    Args:
        model: maps images with noise to images without.

    Example:
        >>> from resolute.models.denoisers import UNet
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.equal(ForDeepinv(UNet())(x, 0.1), x)
        True
    """

    def __init__(self, model: Restorer) -> None:
        if model.scale != 1:
            raise ConfigError(f"a denoiser keeps the size of its input; this model upscales by {model.scale}")
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "b 3 h w"], sigma: float | Tensor | None = None) -> Float[Tensor, "b 3 h w"]:
        """Denoise images in [0, 1]."""
        return self.model(x)


# The class of a purifier, and what its parameter is.
_KINDS: dict[str, tuple[Callable[..., Purifier], Callable[[str], float]]] = {
    "jpeg": (Jpeg, int), "resize": (Resize, float), "crop": (Crop, int), "blur": (Blur, int)
}  # fmt: skip
_FLIPS = {"flip": (True, True), "flip-h": (True, False), "flip-v": (False, True)}
NAMES = "jpeg-QUALITY, resize-SHARE, crop-SIDE, blur-SIZE, flip, flip-h, flip-v"


def purifier(name: str) -> Purifier:
    """Return a purifier by name, such as ``jpeg-50``, ``resize-0.5``, ``crop-128``, ``blur-3`` or ``flip``.

    Raises:
        ConfigError: no such purifier, or its parameter is out of range.

    Example:
        >>> purifier("jpeg-50").card.architecture
        {'class': 'Jpeg', 'quality': 50}
    """
    if name in _FLIPS:
        return Flip(*_FLIPS[name])
    kind, _, value = name.partition("-")
    try:
        made, number = _KINDS[kind]
        parameters = [number(value)] if value else []
    except (KeyError, ValueError):
        raise ConfigError(f"no purifier named {name!r}; choose one of {NAMES}") from None
    return made(*parameters)
