"""The noise of smoothing: streams keyed by (seed, image, sample index), Gaussian or exact on the 8-bit grid."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Kind = Literal["gaussian", "grid"]

_WORD = 2**64
# Bits of a 64-bit number behind its first 16, and what stands for a level that these leave open.
_REST = np.uint64(48)
_OPEN = np.iinfo(np.int32).min


@runtime_checkable
class Noise(Protocol):
    """Noisy copies of one image; copy i depends on (seed, image, i) alone."""

    def fill(self, out: Float[Tensor, "b 3 h w"], first: int) -> None:
        """Write the noisy copies ``first``, ``first + 1``, ... clipped to [0, 1], into ``out``."""
        ...


def noise_for(kind: Kind, image: Float[Tensor, "3 h w"], sigma: float, seed: int) -> Noise:
    """Return the noise of the given kind around an image in [0, 1], on the image's device.

    Raises:
        ValueError: ``grid`` noise for an image that is not on the 8-bit grid.
    """
    return GridNoise(image, sigma, seed) if kind == "grid" else GaussianNoise(image, sigma, seed)


@final
class GaussianNoise:
    """``clip(x + sigma * N(0, I))`` in float32.

    Counter-based generators (Philox) throughout: on a CPU one stream an image whose counter holds the sample index, and
    Box-Muller on its words, several times as fast as NumPy's normals; on another device that device's own Philox.
    """

    def __init__(self, image: Float[Tensor, "3 h w"], sigma: float, seed: int) -> None:
        self.sigma = sigma
        self.key = stream_key(image, seed)
        # Noise is drawn in (h, w, 3) order, so that a batch is in channels_last layout without a copy.
        self.pixels = image.permute(1, 2, 0).contiguous()

    def fill(self, out: Float[Tensor, "b 3 h w"], first: int) -> None:
        rows = out.permute(0, 2, 3, 1)
        for i in range(len(out)):
            row = rows[i]
            if row.device.type == "cpu":
                noise = normals(generator(self.key, first + i), row.numel(), self.sigma)
                torch.add(self.pixels, noise.view(row.shape), out=row).clamp_(0, 1)
            else:
                source = torch.Generator(row.device).manual_seed((self.key + first + i) % 2**63)
                row.copy_(torch.randn(row.shape, generator=source, device=row.device))
                row.mul_(self.sigma).add_(self.pixels).clamp_(0, 1)


def normals(source: np.random.Generator, count: int, scale: float = 1.0) -> Float[Tensor, " count"]:
    """Return normal numbers of standard deviation ``scale`` in float32, by Box and Muller's transform.

    Of each 64-bit word 31 bits make the radius and 32 the angle. So the law is that of a normal number up to 6.6
    standard deviations, where its mass ends, and to float32 precision in between.

    Example:
        >>> drawn = normals(np.random.Generator(np.random.Philox(key=1)), 100_001)
        >>> len(drawn), round(abs(float(drawn.mean())), 2), round(float(drawn.std()), 2)
        (100001, 0.0, 1.0)
    """
    half = (count + 1) // 2
    words = torch.from_numpy(source.bit_generator.random_raw(half).view(np.int32))
    # Masked, not halved: a float32 resolves small integers exactly, and it is the small ones that make the tails.
    radius = words[:half].bitwise_and(2**31 - 1).float().add_(0.5).mul_(2.0**-31).log_().mul_(-2 * scale**2).sqrt_()
    angle = words[half:].float().mul_(2.0**-31 * math.pi)
    drawn = torch.empty(2 * half)
    torch.mul(angle.cos(), radius, out=drawn[:half])
    torch.mul(angle.sin_(), radius, out=drawn[half:])
    return drawn[:count]


@final
class GridNoise:
    """Gaussian noise rounded to the 8-bit grid, drawn exactly: no floating-point number enters the noisy image.

    In floating point the sum ``x + noise`` carries traces of x, which breaks the theorem (Voráček & Hein, ICLR 2023).
    For an image on the grid ``{0, ..., 255}/255``, rounding ``x + N(0, sigma^2)`` to that grid is adding an integer J
    with ``P[J = j] = Phi((j + 1/2)/s) - Phi((j - 1/2)/s)``, ``s = 255 sigma``, the same law for every image. Rounding
    and clipping belong to the scorer, so the theorem holds for the Gaussian noise beneath. J is drawn by inverting its
    distribution in 64-bit integers; ``total_variation`` bounds what their rounding can add to the error probability.
    """

    def __init__(self, image: Float[Tensor, "3 h w"], sigma: float, seed: int) -> None:
        levels = (image * 255).round()
        if not torch.equal(levels / 255, image):
            raise ValueError("grid noise needs an image on the 8-bit grid, as a file of 8 bits a channel holds it")
        self.levels = levels.permute(1, 2, 0).to(torch.int32).cpu().numpy()
        self.key = stream_key(image, seed)
        self.law = rounded_gaussian(sigma)

    def fill(self, out: Float[Tensor, "b 3 h w"], first: int) -> None:
        rows = out.permute(0, 2, 3, 1)
        for i in range(len(out)):
            words = generator(self.key, first + i).bit_generator.random_raw
            noisy = self.law.draw(words, self.levels.size).reshape(self.levels.shape)
            np.add(noisy, self.levels, out=noisy)
            np.clip(noisy, 0, 255, out=noisy)
            rows[i].copy_(torch.from_numpy(noisy)).div_(255)


@final
class RoundedGaussian:
    """Gaussian noise in whole levels, in integers: every level has a probability of k/2^64.

    A draw is the level on whose share of 2^64 a 64-bit number falls. Of most numbers the first 16 bits tell the level;
    only of the others the 48 that follow are drawn.

    Attributes:
        least: the smallest level.
        ends: where the share of each level ends, ascending, without those that end at 2^64.
        total_variation: at most this far is the law of a draw from the rounded Gaussian.
    """

    def __init__(self, weights: Sequence[int], total_variation: float) -> None:
        self.least = -(len(weights) // 2)
        self.ends = np.array([end for end in itertools.accumulate(weights) if end < _WORD], np.uint64)
        self.total_variation = total_variation
        begin = np.arange(2**16, dtype=np.uint64) << _REST
        low, high = (self._level(words) for words in (begin, begin | np.uint64(2**48 - 1)))
        self._levels = np.where(low == high, low, _OPEN).astype(np.int32)

    def draw(self, words: Callable[[int], NDArray[np.uint64]], count: int) -> NDArray[np.int32]:
        """Return so many levels from a source of so many random 64-bit numbers as it is asked for."""
        digits = words((count + 3) // 4).view(np.uint16)[:count]
        drawn = self._levels.take(digits)
        (rest,) = np.nonzero(drawn == _OPEN)
        begin = digits[rest].astype(np.uint64) << _REST
        drawn[rest] = self._level(begin | (words(len(rest)) >> np.uint64(16)))
        return drawn

    def _level(self, words: NDArray[np.uint64]) -> NDArray[np.intp]:
        return np.searchsorted(self.ends, words, side="right") + self.least


@functools.cache
def rounded_gaussian(sigma: float) -> RoundedGaussian:
    """Return the law of J for noise of standard deviation ``sigma`` on the scale of [0, 1].

    Raises:
        ValueError: sigma is not in (0, 10].
    """
    import mpmath

    if not 0 < sigma <= 10:
        raise ValueError(f"sigma is in (0, 10], not {sigma}")
    most = max(8, math.ceil(10 * 255 * sigma))
    with mpmath.workdps(50):
        scale = mpmath.mpf(sigma) * 255
        exact = [mpmath.ncdf((j + mpmath.mpf(1) / 2) / scale) for j in range(-most - 1, most + 1)]
        masses = [(b - a) * _WORD for a, b in itertools.pairwise(exact)]
        weights = [int(mpmath.nint(mass)) for mass in masses]
        weights[most] += _WORD - sum(weights)
        outside = 2 * exact[0]
        error = sum(abs(weight - mass) for weight, mass in zip(weights, masses, strict=True)) / _WORD + outside
        total_variation = math.nextafter(float(error / 2), 1)
    return RoundedGaussian(weights, total_variation)


def stream_key(image: Float[Tensor, "3 h w"], seed: int) -> int:
    """Return the 127-bit key of an image's noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{values_sha256(image)}".encode()).digest()[:16], "big") >> 1


def generator(key: int, index: int) -> np.random.Generator:
    """Return the generator of sample ``index``: the same key, 2^192 counters away from its neighbours."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, index]))


def values_sha256(image: Float[Tensor, "3 h w"]) -> str:
    """Return the sha256 of an image's shape and float32 values."""
    digest = hashlib.sha256(str(tuple(image.shape)).encode())
    digest.update(image.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
