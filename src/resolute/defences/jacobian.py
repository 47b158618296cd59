"""A penalty on the Jacobian of a model: the plainest way to ask of a network that small changes stay small.

Not of the papers; a baseline that a defence of feature layers has to beat at equal clean PSNR.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]


def probe_shift(low: Images, epsilon: float, generator: torch.Generator | None = None) -> Images:
    """Return Gaussian shifts of standard deviation ``epsilon``, one an image."""
    return epsilon * torch.randn(low.shape, generator=generator, device=low.device)


def jacobian_penalty(
    clean: Float[Tensor, "b 3 sh sw"], shifted: Float[Tensor, "b 3 sh sw"], shift: Images
) -> Float[Tensor, ""]:
    """Estimate the mean square gain of a model from one random shift an image.

    ``E ||J v||^2`` over Gaussian ``v`` of unit variance is the squared Frobenius norm of the Jacobian ``J``, as in
    Hutchinson's estimator; ``J v`` is taken as a difference of two outputs, which needs no second derivative. Divided
    by the number of output values it is the mean square of what one unit of input noise becomes, at any image size.

    Args:
        clean: outputs for the clean images.
        shifted: outputs for the shifted images.
        shift: the shift, from ``probe_shift``.

    Example:
        >>> shift = probe_shift(torch.zeros(4, 3, 50, 50), 1 / 255, torch.Generator().manual_seed(0))
        >>> round(float(jacobian_penalty(torch.zeros_like(shift), 3 * shift, shift)), 3)
        9.0
    """
    return (shifted - clean).square().mean() / shift.square().mean()
