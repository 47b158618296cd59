"""How near two images are: PSNR and SSIM, each named for the channel and border it is measured on.

Published super-resolution figures are on Y, the luma of BT.601, on 8-bit images, with ``scale`` pixels shaved off every
border. The robustness figures LR-PSNR and SR-PSNR of the paper (section 4.3) are on RGB here, unrounded and uncropped;
the paper does not say.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]
Inner = Float[Tensor, "b 3 h1 w1"]

# Side of the window of SSIM, in pixels.
SSIM_WINDOW = 11

# BT.601 luma of 8-bit RGB, as MATLAB's rgb2ycbcr computes it.
_LUMA = (65.481 / 255, 128.553 / 255, 24.966 / 255)
_LUMA_OFFSET = 16.0


def luma(x: Images) -> Float[Tensor, "b h w"]:
    """Return Y in [16, 235] of images in [0, 1], after rounding them to 8 bits as a file would.

    Example:
        >>> luma(torch.ones(1, 3, 1, 1)).item()
        235.0
    """
    levels = (x.double().clamp(0, 1) * 255).round()
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=x.device).view(1, 3, 1, 1)
    return (levels * weights).sum(dim=1) + _LUMA_OFFSET


def psnr_y(a: Images, b: Images, border: int) -> Float[Tensor, " b"]:
    """Return the PSNR on Y in dB, with ``border`` pixels shaved, the published measure of reconstruction.

    Equal images give infinity.

    Raises:
        ValueError: the images differ in size, or shaving leaves nothing.

    Example:
        >>> x = torch.full((1, 3, 16, 16), 100 / 255)
        >>> round(psnr_y(x, x + 10 / 255, border=4).item(), 2)
        29.45
    """
    a, b = _shaved(a, b, border)
    return _psnr(luma(a), luma(b), peak=255.0)


def psnr_rgb(a: Images, b: Images, border: int = 0) -> Float[Tensor, " b"]:
    """Return the PSNR over all channels in dB, of float images clamped to [0, 1], unrounded.

    LR-PSNR is ``psnr_rgb(clean, attacked)``, SR-PSNR ``psnr_rgb(model(clean), model(attacked))`` (section 4.3). Equal
    images give infinity.
    """
    a, b = _shaved(a, b, border)
    return _psnr(a.double().clamp(0, 1), b.double().clamp(0, 1), peak=1.0)


def ssim_y(a: Images, b: Images, border: int) -> Float[Tensor, " b"]:
    """Return the structural similarity on Y: Gaussian window 11 of width 1.5, valid region, 8-bit, border shaved.

    Raises:
        ValueError: the images differ in size, or are smaller than the window once shaved.
    """
    from skimage.metrics import structural_similarity  # slow to import

    a, b = _shaved(a, b, border)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels a side after shaving, not {a.shape[-1]}x{a.shape[-2]}")
    pairs = zip(luma(a).cpu().numpy(), luma(b).cpu().numpy(), strict=True)
    values = [
        structural_similarity(
            first, second, data_range=255.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for first, second in pairs
    ]
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _psnr(a: Tensor, b: Tensor, peak: float) -> Float[Tensor, " b"]:
    error = (a - b).square().flatten(1).mean(dim=1)
    return 10.0 * torch.log10(peak**2 / error)


def _shaved(a: Images, b: Images, border: int) -> tuple[Inner, Inner]:
    if a.shape != b.shape:
        raise ValueError(f"the images differ in size: {tuple(a.shape)} and {tuple(b.shape)}")
    if border < 0 or min(a.shape[-2:]) <= 2 * border:
        raise ValueError(f"shaving {border} pixels leaves nothing of an image of {a.shape[-1]}x{a.shape[-2]}")
    return tuple(x[..., border : x.shape[-2] - border, border : x.shape[-1] - border] for x in (a, b))  # pyright: ignore[reportReturnType]
