"""What happens to photographs on their way to a model, at five severities: nobody means harm by it.

The kinds and the idea of five severities are those of ImageNet-C (Hendrycks & Dietterich, ICLR 2019); the levels are
milder, since an input of super-resolution is small and has no detail to spare.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from resolute.errors import ConfigError
from resolute.images import from_uint8, to_uint8
from resolute.randomness import stream_seed
from resolute.resize import to_levels

SEVERITIES = (1, 2, 3, 4, 5)

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of damage.

    Attributes:
        title: what a person calls it.
        level: what a level says, to be formatted with it.
        levels: one for each severity.
        apply: returns an image at a level; called with (image, level, random numbers), or, where it is ``of_truth``,
            with the high-resolution image, the level and the scale.
        of_truth: it is made from the high-resolution image, in place of the usual shrinking.
    """

    title: str
    level: str
    levels: tuple[float | str, ...]
    apply: Callable[..., Pixels]
    of_truth: bool = False

    def words(self, severity: int) -> str:
        """Return what this is at a severity.

        Example:
            >>> CORRUPTIONS["jpeg"].words(3)
            'JPEG, quality 70'
        """
        return f"{self.title}, {self.level.format(self.levels[severity - 1])}"


def encoded(pixels: Pixels, format: str, quality: int) -> Pixels:
    """Return an image as a file of a lossy format has it, such as ``JPEG`` or ``WEBP``.

    Example:
        >>> encoded(np.zeros((8, 8, 3), np.uint8), "JPEG", 50).max()
        np.uint8(0)
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def _jpeg(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return encoded(pixels, "JPEG", level)


def _webp(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return encoded(pixels, "WEBP", level)


def _noise(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return to_levels(pixels + rng.normal(0.0, level, pixels.shape))


def _blur(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    from scipy import ndimage  # slow to import, and seldom needed

    return to_levels(ndimage.gaussian_filter(pixels.astype(np.float64), (level, level, 0), mode="reflect"))


def _chroma(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    image = Image.fromarray(pixels).convert("YCbCr")
    small = max(1, round(image.width / level)), max(1, round(image.height / level))
    luma, *colours = image.split()
    colours = [one.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR) for one in colours]
    return np.asarray(Image.merge("YCbCr", [luma, *colours]).convert("RGB"))


def _gamma(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    stored = to_levels((pixels / 255.0) ** level * 255.0)
    return to_levels((stored / 255.0) ** (1 / level) * 255.0)


def _kernel(pixels: Pixels, level: str, scale: int) -> UInt8[np.ndarray, "h1 w1 3"]:
    height, width = pixels.shape[:2]
    small = (width // scale, height // scale)
    return np.asarray(Image.fromarray(pixels).resize(small, Image.Resampling[level.upper()]))


CORRUPTIONS: Mapping[str, Corruption] = {
    "jpeg": Corruption(
        title="JPEG", level="quality {}", levels=(95, 85, 70, 50, 30), apply=_jpeg,
    ),
    "webp": Corruption(
        title="WebP", level="quality {}", levels=(95, 85, 70, 50, 30), apply=_webp,
    ),
    "noise": Corruption(
        title="noise", level="standard deviation {}/255", levels=(1, 2, 4, 8, 16), apply=_noise,
    ),
    "blur": Corruption(
        title="blur", level="Gaussian of {} pixels", levels=(0.3, 0.5, 0.8, 1.2, 1.8), apply=_blur,
    ),
    "chroma": Corruption(
        title="subsampled chroma", level="by {}", levels=(1.5, 2, 3, 4, 6), apply=_chroma,
    ),
    "gamma": Corruption(
        title="stored in 8 bits", level="gamma {}", levels=(1.4, 1.8, 2.2, 2.6, 3.0), apply=_gamma,
    ),
    "kernel": Corruption(
        title="another shrinking", level="{}", levels=("lanczos", "hamming", "box", "bilinear", "nearest"),
        apply=_kernel, of_truth=True,
    ),
}  # fmt: skip


def corrupted(
    image: Float[Tensor, "3 h w"],
    kind: str,
    severity: int,
    *,
    truth: Float[Tensor, "3 sh sw"] | None = None,
    scale: int = 1,
    seed: int = 0,
) -> Float[Tensor, "3 h w"]:
    """Return an image with one kind of damage, on the 8-bit grid.

    Args:
        image: in [0, 1].
        kind: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        truth: of high resolution, in [0, 1]; ``kernel`` shrinks it by the ``scale`` and cannot do without.
        scale: of ``truth`` to ``image``.
        seed: of noise.

    Raises:
        ConfigError: no such kind or severity, or ``kernel`` without a truth.

    Example:
        >>> import torch
        >>> corrupted(torch.rand(3, 16, 24), "jpeg", 3).shape
        torch.Size([3, 16, 24])
    """
    corruption = CORRUPTIONS.get(kind)
    if corruption is None:
        raise ConfigError(f"no corruption is called {kind!r}; choose among {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ConfigError(f"a severity is 1 to {len(SEVERITIES)}, not {severity}")
    level = corruption.levels[severity - 1]
    if not corruption.of_truth:
        rng = np.random.default_rng(stream_seed(seed, kind, severity))
        return from_uint8(corruption.apply(to_uint8(image), level, rng))
    if truth is None:
        raise ConfigError(f"{kind} shrinks the high-resolution image; give it as truth")
    return from_uint8(corruption.apply(to_uint8(truth), level, scale))
