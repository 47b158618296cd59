"""Input-time defences: models around a model, without training. What a trained defence must beat at equal clean PSNR.

None of them is new, and none is meant to be good: mixing with bicubic interpolation, blurring, averaging. A defence
that gains no more robustness than they do for the same loss of quality has gained nothing.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from resolute.errors import ConfigError
from resolute.models.base import Restorer, name_of
from resolute.models.weights import sha256_of
from resolute.resize import upscale_tensor

Images = Float[Tensor, "b 3 h w"]
Features = Float[Tensor, "b c h1 w1"]
Large = Float[Tensor, "b 3 sh sw"]


class Defended(Restorer, ABC):
    """A model with something around it.

    ``features`` is Φ of the model inside, on the way of the defended input; ``reconstruct`` is that of the model
    inside too. ``forward`` may do more than the two.

    Attributes:
        inner: the model inside.
        feature_layer: that of the model inside, by its name from here.
        card: the card of the model inside, with the defence added to name, architecture and sha256; None without one.
    """

    inner: Restorer

    def __init__(self, inner: Restorer, label: str, settings: dict[str, object]) -> None:
        super().__init__(inner.scale)
        self.inner = inner
        self.feature_layer = f"inner.{inner.feature_layer}"
        self._settings = settings
        if inner.card is not None:
            self.card = dataclasses.replace(
                inner.card,
                name=f"{inner.card.name}+{label}",
                architecture=self.arguments(),
                sha256=sha256_of(inner.card.sha256, type(self).__name__, settings),
                # What was validated is the model inside.
                training={key: value for key, value in inner.card.training.items() if key != "validation"},
            )

    @final
    def arguments(self) -> dict[str, object]:
        return {"class": type(self).__name__, **self._settings, "inner": self.inner.arguments()}

    @final
    def reconstruct(self, phi: Features) -> Large:
        return self.inner.reconstruct(phi)

    @abstractmethod
    def surrogate(self) -> Restorer:
        """Return what an attacker who knows of the defence differentiates instead (see the function ``surrogate``)."""


def surrogate(model: Restorer) -> Restorer:
    """Return the model that an attacker who knows of the defences around it climbs instead of the model itself.

    Rounding is left out (BPDA with the identity) and randomness is averaged over draws of its own (EOT; both Athalye et
    al., ICML 2018). What is found there is judged on the model itself. Any other model is its own surrogate; the
    weights are shared.

    Example:
        >>> from resolute.models import Bicubic
        >>> broken, x = EightBit(Bicubic(2)), torch.rand(1, 3, 4, 4, requires_grad=True)
        >>> [float(torch.autograd.grad(m(x).sum(), x)[0].abs().max()) > 0 for m in (broken, surrogate(broken))]
        [False, True]
    """
    return model.surrogate() if isinstance(model, Defended) else model


def undefended(model: Restorer) -> Restorer:
    """Return the model inside all the defences around it.

    Example:
        >>> from resolute.models import Bicubic
        >>> type(undefended(OutputBlur(Mixture(Bicubic(2), 0.5), 1.0))).__name__
        'Bicubic'
    """
    while isinstance(model, Defended):
        model = model.inner
    return model


@final
class Mixture(Defended):
    """A share of the model and the rest of bicubic interpolation: ``theta * S(x) + (1 - theta) * bicubic(x)``.

    Args:
        inner: the model S.
        theta: its share, in [0, 1].

    Raises:
        ConfigError: no such share.

    Example:
        >>> from resolute.models import EDSR, Bicubic
        >>> x = torch.rand(1, 3, 6, 6)
        >>> bool(torch.allclose(Mixture(EDSR(2, 1, 4), 0.0)(x), Bicubic(2)(x)))
        True
    """

    def __init__(self, inner: Restorer, theta: float) -> None:
        if not 0 <= theta <= 1:
            raise ConfigError(f"mix takes a share of the model in [0, 1], such as mix=0.5, not {theta:g}")
        super().__init__(inner, f"mix={theta:g}", {"theta": theta})
        self.theta = theta

    def features(self, x: Images) -> Features:
        return self.inner.features(x)

    def forward(self, x: Images) -> Large:
        return self.theta * self.inner(x) + (1.0 - self.theta) * upscale_tensor(x, self.scale)

    def surrogate(self) -> Mixture:
        return Mixture(surrogate(self.inner), self.theta)


@final
class LowPass(Defended):
    """A Gaussian low-pass of the input.

    Args:
        inner: the model behind it.
        sigma: standard deviation of the kernel in low-resolution pixels; 0 does nothing.

    Raises:
        ConfigError: no such kernel.
    """

    def __init__(self, inner: Restorer, sigma: float) -> None:
        super().__init__(inner, f"lowpass={checked_sigma('lowpass', sigma):g}", {"sigma": sigma})
        self.sigma = sigma

    def features(self, x: Images) -> Features:
        return self.inner.features(gaussian(x, self.sigma))

    def forward(self, x: Images) -> Large:
        return self.inner(gaussian(x, self.sigma))

    def surrogate(self) -> LowPass:
        return LowPass(surrogate(self.inner), self.sigma)


@final
class Denoised(Defended):
    """A denoiser before the model, as denoised smoothing has it (Salman et al., NeurIPS 2020).

    Args:
        inner: the model behind it.
        denoiser: a model of scale 1; its card says what it is called.

    Raises:
        ConfigError: the denoiser changes the size of images.

    Example:
        >>> from resolute.models import Bicubic
        >>> from resolute.models.denoisers import UNet
        >>> model, x = Denoised(Bicubic(2), UNet((4, 4))), torch.rand(1, 3, 8, 8)
        >>> bool(torch.equal(model(x), Bicubic(2)(x)))  # one that is not trained returns its input
        True
    """

    def __init__(self, inner: Restorer, denoiser: Restorer) -> None:
        name, sha256 = name_of(denoiser), denoiser.card.sha256 if denoiser.card is not None else ""
        if denoiser.scale != 1:
            raise ConfigError(f"denoise takes a model of scale 1, such as denoise=denoiser-mse-012, not {name}")
        super().__init__(inner, f"denoise={name}", {"denoiser": name, "denoiser_sha256": sha256})
        self.denoiser = denoiser

    def features(self, x: Images) -> Features:
        return self.inner.features(self.denoiser(x))

    def forward(self, x: Images) -> Large:
        return self.inner(self.denoiser(x))

    def surrogate(self) -> Denoised:
        return Denoised(surrogate(self.inner), surrogate(self.denoiser))


@final
class OutputBlur(Defended):
    """A Gaussian blur of the output.

    Args:
        inner: the model before it.
        sigma: standard deviation of the kernel in high-resolution pixels; 0 does nothing.

    Raises:
        ConfigError: no such kernel.
    """

    def __init__(self, inner: Restorer, sigma: float) -> None:
        super().__init__(inner, f"blur={checked_sigma('blur', sigma):g}", {"sigma": sigma})
        self.sigma = sigma

    def features(self, x: Images) -> Features:
        return self.inner.features(x)

    def forward(self, x: Images) -> Large:
        return gaussian(self.inner(x), self.sigma)

    def surrogate(self) -> OutputBlur:
        return OutputBlur(surrogate(self.inner), self.sigma)


@final
class Confined(Defended):
    """The model kept near bicubic interpolation: where it differs by more than ``spread``, the difference is shortened.

    So no output is ever far from a linear one, and what rare noisy copies could be is bounded: certificates of the mean
    output under noise (``certify_restoration``) become tighter for it. Ordinary photographs stay as they are where
    ``spread`` is larger than the detail that the model adds.

    Args:
        inner: the model.
        spread: root mean square of the difference that is let through, on the scale of [0, 1], above 0.

    Raises:
        ConfigError: no such spread.

    Example:
        >>> from resolute.models import EDSR
        >>> model, x = EDSR(2, 1, 4), torch.rand(1, 3, 6, 6)
        >>> difference = (Confined(model, 0.001)(x) - upscale_tensor(x, 2)).detach()
        >>> round(float(difference.square().mean().sqrt()), 6)
        0.001
    """

    def __init__(self, inner: Restorer, spread: float) -> None:
        if not 0 < spread <= 1:
            raise ConfigError(f"confine takes a root mean square in (0, 1], such as confine=0.05, not {spread:g}")
        super().__init__(inner, f"confine={spread:g}", {"spread": spread})
        self.spread = spread

    def features(self, x: Images) -> Features:
        return self.inner.features(x)

    def forward(self, x: Images) -> Large:
        plain = upscale_tensor(x, self.scale)
        difference = self.inner(x) - plain
        length = difference.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return plain + difference * (self.spread / length.clamp_min(1e-12)).clamp_max(1)

    def surrogate(self) -> Confined:
        return Confined(surrogate(self.inner), self.spread)


@final
class EightBit(Defended):
    """Rounding of the input to 8 bits inside the model: a defence that is broken on purpose.

    Its gradient is zero almost everywhere, so plain gradient attacks find nothing, though an image that is on the 8-bit
    grid goes through unchanged and the model is as fragile as before. Every check of a defence must see through it.
    """

    def __init__(self, inner: Restorer) -> None:
        super().__init__(inner, "round8", {})

    def features(self, x: Images) -> Features:
        return self.inner.features(torch.round(x * 255.0) / 255.0)

    def forward(self, x: Images) -> Large:
        return self.inner(torch.round(x * 255.0) / 255.0)

    def surrogate(self) -> Restorer:
        # Rounding forwards and the identity backwards would not do: eq. 14 is flat within half a level of the clean
        # image, and attacks that start beside it would stay there. Files lie on the grid, where both are the same.
        return surrogate(self.inner)


@final
class SelfEnsemble(Defended):
    """The mean over the four rotations of the input and their mirror images, each turned back (Choi et al., ICCV 2019).

    Example:
        >>> from resolute.models import EDSR
        >>> model, x = SelfEnsemble(EDSR(2, 1, 4)), torch.rand(1, 3, 6, 5)
        >>> bool(torch.allclose(model(x.flip(-1)), model(x).flip(-1), atol=1e-5))
        True
    """

    def __init__(self, inner: Restorer) -> None:
        super().__init__(inner, "ensemble", {})

    def features(self, x: Images) -> Features:
        return self.inner.features(x)

    def forward(self, x: Images) -> Large:
        views: list[Tensor] = []
        for turns in range(4):
            views.append(torch.rot90(self.inner(torch.rot90(x, turns, (-2, -1))), -turns, (-2, -1)))
            mirrored = self.inner(torch.rot90(x.flip(-1), turns, (-2, -1)))
            views.append(torch.rot90(mirrored, -turns, (-2, -1)).flip(-1))
        return torch.stack(views).mean(dim=0)

    def surrogate(self) -> SelfEnsemble:
        return SelfEnsemble(surrogate(self.inner))


def gaussian(x: Images, sigma: float) -> Images:
    """Blur images with a Gaussian of standard deviation ``sigma`` pixels, mirrored at the border, cut at 3 sigma.

    Example:
        >>> point = torch.zeros(1, 3, 21, 21)
        >>> point[..., 10, 10] = 1
        >>> round(float(gaussian(point, 1.5).sum()), 4), round(float(gaussian(point, 1.5).max()), 3)
        (3.0, 0.071)
    """
    if sigma == 0:
        return x
    half = math.ceil(3 * sigma)
    line = torch.exp(-torch.arange(-half, half + 1, dtype=torch.float64).square() / (2 * sigma**2))
    return smoothed(x, (line / line.sum()).to(x))


def smoothed(x: Images, line: Float[Tensor, " k"]) -> Images:
    """Convolve images with an odd line of weights along both sides, mirrored at the border.

    Example:
        >>> smoothed(torch.ones(1, 3, 4, 4), torch.tensor([0.25, 0.5, 0.25])).mean()
        tensor(1.)
    """
    half = len(line) // 2
    kernel = line.repeat(3, 1)
    padded = F.pad(x, (half, half, half, half), mode="reflect" if half < min(x.shape[-2:]) else "replicate")
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=3)
    return F.conv2d(rows, kernel[:, None, :, None], groups=3)


def checked_sigma(name: str, sigma: float) -> float:
    """Return a standard deviation in pixels.

    Raises:
        ConfigError: it is not a number, or too large for any image.
    """
    if not 0 <= sigma <= 20:
        raise ConfigError(f"{name} takes a standard deviation of 0 to 20 pixels, such as {name}=0.7, not {sigma:g}")
    return sigma
