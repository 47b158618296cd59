"""What a notebook shows of a result: pictures inside the page, and plots where matplotlib is there."""

from __future__ import annotations

import base64
import html
import importlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from resolute.errors import ConfigError
from resolute.images import to_uint8

# Longest side of a picture, and images of a batch, that a page in a notebook takes without becoming slow.
LONGEST, MOST = 512, 4


def magnified(difference: Float[Tensor, "3 h w"]) -> tuple[Float[Tensor, "3 h w"], int]:
    """Return a difference around middle grey, and the whole factor that makes its largest value just fit.

    Example:
        >>> picture, factor = magnified(torch.full((3, 1, 1), 4 / 255))
        >>> factor, round(picture.max().item(), 3)
        (31, 0.986)
    """
    largest = float(difference.abs().max())
    factor = max(1, int(0.5 / largest)) if largest else 1
    return (0.5 + factor * difference).clamp(0, 1), factor


def picture(image: Float[Tensor, "3 h w"], caption: str) -> str:
    """Return an image and its caption as HTML, the image as a PNG inside it; large ones are shrunk."""
    found = Image.fromarray(to_uint8(image.detach().float().cpu()))
    # Else the pixels of a small one would be too small to see.
    width = found.width * max(1, LONGEST // 2 // max(found.size))
    found.thumbnail((LONGEST, LONGEST))
    data = io.BytesIO()
    found.save(data, format="PNG")
    uri = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    text = html.escape(caption)
    return (
        f'<figure style="display:inline-block;margin:4px"><img src="{uri}" alt="{text}" width="{min(width, LONGEST)}" '
        f'style="image-rendering:pixelated;max-width:100%"><figcaption>{text}</figcaption></figure>'
    )


def paragraph(text: str) -> str:
    """Return a text as HTML."""
    return f"<p>{html.escape(text)}</p>"


def attacked_images(
    title: str, clean: Float[Tensor, "b 3 h w"], attacked: Float[Tensor, "b 3 h w"], captions: Sequence[str]
) -> str:
    """Return the first images of a batch as HTML: clean, attacked, and the difference magnified.

    Args:
        title: above them.
        clean: in [0, 1].
        attacked: in [0, 1].
        captions: what each attacked image reached.
    """
    rows: list[str] = []
    for before, after, caption in zip(clean[:MOST], attacked[:MOST], captions, strict=False):
        shown = "".join(picture(image, text) for image, text in _beside(before, after, caption))
        rows.append(f"<div>{shown}</div>")
    rest = len(clean) - MOST
    return paragraph(title) + "".join(rows) + (paragraph(f"and {rest} more") if rest > 0 else "")


def _beside(
    clean: Float[Tensor, "3 h w"], attacked: Float[Tensor, "3 h w"], caption: str
) -> list[tuple[Float[Tensor, "3 h w"], str]]:
    difference, factor = magnified(attacked - clean)
    return [(clean, "clean"), (attacked, f"attacked, {caption}"), (difference, f"difference x {factor}, grey is none")]


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise ConfigError("plot() needs matplotlib, which Resolute does not: pip install matplotlib") from None


def plot_attacked(clean: Float[Tensor, "3 h w"], attacked: Float[Tensor, "3 h w"], caption: str) -> Any:
    """Draw an image, the attacked one and their difference beside each other; return the three axes."""
    _, axes = pyplot().subplots(1, 3, figsize=(12, 4), layout="constrained")
    for ax, (image, title) in zip(axes, _beside(clean, attacked, caption), strict=True):
        ax.imshow(to_uint8(image.detach().float().cpu()), interpolation="nearest")
        ax.set_title(title)
        ax.set_axis_off()
    return axes


def plot_bounds(
    epsilons: Sequence[float], lower: Sequence[float], upper: Sequence[float], score: float, label: str
) -> Any:
    """Draw an interval against the radius, and the score within it; return the axes. Infinite ends are left out."""
    _, ax = pyplot().subplots(layout="constrained")
    finite = [torch.tensor(ends, dtype=torch.float64) for ends in (lower, upper)]
    low, high = (torch.where(ends.isfinite(), ends, torch.nan).tolist() for ends in finite)
    ax.fill_between(epsilons, low, high, alpha=0.3, label="certified interval")
    ax.axhline(score, label="score")
    ax.set_xlabel("l2 radius over all pixels and channels in [0, 1]")
    ax.set_ylabel(label)
    ax.legend()
    return ax
