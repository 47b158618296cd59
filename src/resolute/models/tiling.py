"""Large images in tiles: the same output and the same gradient in a fraction of the memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resolute.errors import ConfigError
from resolute.models.base import Restorer, SplitRestorer
from resolute.models.receptive import BLOCK, Part, receptive_radius

Maps = Float[Tensor, "b c h w"]


@final
class Tiled(SplitRestorer):
    """A restorer that works through an image in overlapping tiles, first to Φ and then from Φ to the output.

    Every tile is given as much of its surroundings, a halo, as the model was measured to look at, and only its inside
    is kept: the output is the untiled one but for rounding. So is the gradient, of any objective; each tile is computed
    a second time for it instead of being kept in memory, so that an attack step costs three forward passes and not two.

    Attack features at Φ; layers inside the model see tiles.

    Args:
        model: what to run in tiles; put in evaluation mode.
        tile: side of a tile in pixels of the low-resolution image, without its halo; a multiple of 16.
        halo: what to add on every side, instead of what is measured. Where the model looks further, or everywhere as
            with channel attention, the tiles then only approximate it.

    Raises:
        ConfigError: no such tile or halo, or the model depends on the whole image and no halo is given.

    Example:
        >>> from resolute.models import EDSR
        >>> model, x = EDSR(scale=2, blocks=1, channels=4).eval(), torch.rand(1, 3, 70, 40)
        >>> tiled = Tiled(model, tile=16)
        >>> tiled.halos, torch.allclose(tiled(x), model(x), atol=1e-6)
        ((4, 2), True)
    """

    feature_layer = "joint"

    def __init__(self, model: Restorer, tile: int = 128, halo: int | None = None) -> None:
        super().__init__(model.scale)
        if tile < BLOCK or tile % BLOCK:
            raise ConfigError(f"a tile is a multiple of {BLOCK} pixels a side, not {tile}")
        if halo is not None and halo < 0:
            raise ConfigError(f"a halo is a number of pixels, not {halo}")
        self.model = model.eval()
        self.tile = tile
        self.joint = nn.Identity()
        self.halos = _halos(model) if halo is None else (halo, halo)
        if model.card is not None:
            name = model.card.name if halo is None else f"{model.card.name} in tiles of {tile} with {halo} around"
            self.card = dataclasses.replace(model.card, name=name, architecture=self.arguments())

    def arguments(self) -> dict[str, object]:
        return {"class": "Tiled", "model": self.model.arguments(), "tile": self.tile, "halos": self.halos}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.joint(_in_tiles(self.model.features, x, self.tile, self.halos[0]))

    def reconstruct(self, phi: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return _in_tiles(self.model.reconstruct, phi, self.tile, self.halos[1])


def _halos(model: Restorer) -> tuple[int, int]:
    like = next(model.parameters(), torch.empty(0))
    with torch.no_grad():
        channels = model.features(torch.full((1, 3, BLOCK, BLOCK), 0.5).to(like)).shape[1]
    first = receptive_radius(model.features, like=like)
    second = receptive_radius(model.reconstruct, channels, like=like)
    if first is None or second is None:
        raise ConfigError(
            f"every output pixel of {type(model).__name__} depends on the whole image, as with global pooling or "
            "attention, so tiles cannot give what it gives; pass a halo, such as halo=32, to have them approximate it"
        )
    return first, second


def _in_tiles(part: Part, x: Maps, tile: int, halo: int) -> Tensor:
    height, width = x.shape[-2:]
    if max(height, width) <= tile:
        return part(x)
    rows: list[Tensor] = []
    for rows_in, rows_kept in spans(height, tile, halo):
        row: list[Tensor] = []
        for columns_in, columns_kept in spans(width, tile, halo):

            def inside(
                piece: Tensor, rows_in: slice = rows_in, rows_kept: slice = rows_kept, kept: slice = columns_kept
            ) -> Tensor:
                y = part(piece)
                ratio = y.shape[-2] // (rows_in.stop - rows_in.start)
                return y[..., scaled(rows_kept, ratio), scaled(kept, ratio)].clone()

            row.append(_recomputed(inside, x[..., rows_in, columns_in]))
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)


def _recomputed(part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Call ``part`` so that its inner results are computed again on the way back, not kept."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return part(x)
    return cast("Tensor", checkpoint(part, x, use_reentrant=False, preserve_rng_state=False))


def spans(length: int, tile: int, halo: int) -> Generator[tuple[slice, slice]]:
    """Yield for every tile along a side what goes in, and what part of that is kept.

    Example:
        >>> list(spans(40, 32, 3))
        [(slice(0, 40, None), slice(0, 32, None)), (slice(16, 40, None), slice(16, 24, None))]
    """
    # Whole blocks, so that a strided network sees every tile as it sees the image.
    around = -(-halo // BLOCK) * BLOCK
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        first, last = max(0, start - around), min(length, stop + around)
        yield slice(first, last), slice(start - first, stop - first)


def scaled(span: slice, ratio: int) -> slice:
    """Return the part of an output that comes of a part of an input."""
    return slice(span.start * ratio, span.stop * ratio)
