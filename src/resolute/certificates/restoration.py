"""Smoothing of super-resolution models: noisy copies of an input are upscaled, and it is certified what they share."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.attacks.ascent import Progress
from resolute.certificates.certificate import Smoothing
from resolute.certificates.copies import BLOCK, running
from resolute.certificates.median import prepared
from resolute.certificates.noise import Kind, noise_for, values_sha256
from resolute.certificates.order_statistics import median_rank
from resolute.certificates.restored import PIXELS, Group, RestorationCertificate, needed
from resolute.certificates.samples import Samples
from resolute.certificates.spread import Around, Spread
from resolute.certificates.statistic import Statistic
from resolute.defences.wrappers import Confined
from resolute.models.base import Restorer, frozen, name_of
from resolute.resize import upscale_tensor, upscaling_norm
from resolute.runtime import full_float32

# Beyond, half of all noisy pixels of middle grey leave [0, 1] and are clipped.
LARGEST_SIGMA = 0.5
MEMORY = 2**29
# A centre, a length and distances take a block of copies each at least.
LEAST = 3 * BLOCK

# Copies whose mean is the centre from which the others are measured: one in so many, and no more than a thousand, from
# where on what it strays by is of no consequence.
_CENTRE, _ENOUGH = 8, 31 * BLOCK


def certify_restoration(
    model: Restorer,
    image: Float[Tensor, "3 h w"],
    sigma: float = 0.02,
    epsilon: float = 0.01,
    n: int = 1000,
    alpha: float = 0.001,
    *,
    seed: int | None = None,
    noise: Kind = "gaussian",
    statistics: Sequence[Statistic] = (),
    memory: int = MEMORY,
    progress: Progress | None = None,
) -> RestorationCertificate:
    """Certify what a model makes of an image, smoothed by Gaussian noise on its input.

    The noisy copies are clipped to [0, 1] before they are upscaled, and the outputs too. The noise of copy i depends on
    (seed, image, i) alone, so threads and batches change nothing, and tiles (``Tiled``) no more than rounding.

    Args:
        model: the super-resolution model.
        image: its input, RGB float in [0, 1].
        sigma: standard deviation of the noise, at most 0.5.
        epsilon: l2 radius of the perturbations of the input, over all pixels and channels.
        n: noisy copies.
        alpha: chance that a statement fails: that about all pixels together, one about a statistic, one about a norm.
        seed: of the noise, to repeat a run; None to let the operating system draw one now that the image is fixed.
        noise: ``gaussian`` in float32, or ``grid``, exact on the 8-bit grid.
        statistics: measurements of the output to be smoothed and bounded too.
        memory: bytes for samples. Where all fit, order statistics are exact, else they are bracketed by histograms;
            the bounds of the mean are the better the more samples fit.
        progress: called with (samples done, samples in all).

    Raises:
        ValueError: the image is no RGB image in [0, 1], a parameter is out of range, n copies cannot bound all pixels
            at the radius (at least 96), or the model gives equal images different outputs.
        MemoryError: the output has too many values for the memory.
        FloatingPointError: outputs are not finite.

    Example:
        >>> from resolute.models import Bicubic
        >>> image = torch.full((3, 8, 8), 0.5)
        >>> certificate = certify_restoration(Bicubic(2), image, sigma=0.05, epsilon=0.01, n=100, seed=1)
        >>> bool((certificate.lower <= certificate.output).all() and (certificate.output <= certificate.upper).all())
        True
    """
    made = Smoothing(sigma=sigma, n=n, alpha=alpha, seed=seed, noise=noise)
    if sigma > LARGEST_SIGMA:
        raise ValueError(f"noise of sigma {sigma:g} leaves nothing of the picture; take at most {LARGEST_SIGMA:g}")
    image = prepared(image, None)
    if seed is None:
        made = dataclasses.replace(made, seed=secrets.randbits(63), drawn=True)
    assert made.seed is not None
    source = noise_for(noise, image, sigma, made.seed)

    def measured(copies: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        outputs = model(copies).clamp(0, 1)
        values = [outputs, *(statistic.measure(outputs) for statistic in statistics)]
        return torch.cat([value.reshape(len(outputs), -1).float() for value in values], dim=1)

    with frozen(model), full_float32():
        groups, plain = _groups(model, image, statistics)
        _require_samples(made, epsilon, groups[0].count)
        low, high = min(group.low for group in groups), max(group.high for group in groups)
        samples = Samples(n, groups[-1].places.stop, memory, low, high)
        around = Around(min(samples.kept // _CENTRE, _ENOUGH))
        _require_function(model, image, plain)
        with running(measured, source, image, n) as run:
            for start in range(0, n, BLOCK):
                block = run(start)
                if not bool(block.isfinite().all()):
                    raise FloatingPointError(
                        f"{name_of(model)} is not finite on noisy copies of this image: nothing is certified"
                    )
                samples.add(block)
                around.add(block[:, groups[0].places])
                if progress is not None:
                    progress(min(start + BLOCK, n), n)
            spread = around.spread(samples.rows[:, groups[0].places], sigma, alpha)
    if isinstance(model, Confined):
        spread = _near(spread, model, image, around.centre, rounded=noise == "grid")
    samples.settle()
    below, above = samples.bracket(median_rank(n))
    output = ((below + above) / 2)[groups[0].places].view(groups[0].shape)
    return RestorationCertificate(
        epsilon=epsilon, output=output, mean=around.mean.float().view(groups[0].shape),
        plain=plain, smoothing=made, samples=samples, groups=groups, spread=spread, model=name_of(model),
        size=(image.shape[1], image.shape[2]), scale=model.scale, image_sha256=values_sha256(image),
    )  # fmt: skip


def _near(
    spread: Spread, model: Confined, image: Float[Tensor, "3 h w"], centre: Tensor | None, *, rounded: bool
) -> Spread:
    """Return what is known of a model that is confined: it is near a linear map of noise, whose length is known."""
    assert centre is not None
    plain = upscale_tensor(image.double()[None].cpu(), model.scale).flatten()
    gain = upscaling_norm((image.shape[1], image.shape[2]), model.scale)
    # Rounding to the grid lengthens noise by half a level a value at most.
    noise = spread.sigma * (math.sqrt(image.numel()) + 6) + rounded * math.sqrt(image.numel()) / 510
    # The confinement is computed in float32: a part in ten thousand more than asked for is beyond its rounding.
    near = float((plain - centre).norm()) + model.spread * math.sqrt(spread.values) * (1 + 1e-4) + gain * noise
    return dataclasses.replace(spread, near=near, gain=gain)


def _groups(
    model: Restorer, image: Float[Tensor, "3 h w"], statistics: Sequence[Statistic]
) -> tuple[tuple[Group, ...], Float[Tensor, "3 sh sw"]]:
    """Return what is bounded, and the model's output without noise."""
    with torch.no_grad():
        plain = model(image[None]).clamp(0, 1)
        values = {statistic.name: statistic.measure(plain)[0] for statistic in statistics}
    if len(values) < len(statistics) or PIXELS in values:
        raise ValueError(f"two statistics have one name: {', '.join(one.name for one in statistics)}")
    groups = [Group(name=PIXELS, shape=tuple(plain.shape[1:]), places=slice(0, plain[0].numel()), low=0.0, high=1.0)]
    for one in statistics:
        shape, first = tuple(values[one.name].shape), groups[-1].places.stop
        places = slice(first, first + math.prod(shape))
        groups.append(Group(name=one.name, shape=shape, places=places, low=one.low, high=one.high))
    return tuple(groups), plain[0].cpu()


def _require_samples(made: Smoothing, epsilon: float, values: int) -> None:
    """Refuse radii that the samples cannot reach."""
    most = needed(epsilon, made, values)
    if made.n < max(most, LEAST):
        told = "no number of samples bounds" if most == math.inf else f"it takes {max(most, LEAST):,} samples to bound"
        raise ValueError(
            f"at an l2 radius of {epsilon:g} and sigma {made.sigma:g} {told} all {values:,} values of the output, not "
            f"{made.n:,}: take more samples, a larger sigma or a smaller radius"
        )


def _require_function(model: Restorer, image: Float[Tensor, "3 h w"], once: Float[Tensor, "3 sh sw"]) -> None:
    """Refuse a model that is no function of its input, by asking twice."""
    with torch.no_grad():
        again = model(image[None]).clamp(0, 1)[0].cpu()
    # But for the order in which a GPU adds up.
    if not torch.allclose(once, again, rtol=0, atol=1e-5, equal_nan=True):
        raise ValueError(f"{name_of(model)} gives equal images different outputs, and no certificate holds for it")
