"""A model whose range or order of channels is another than its file tells."""

from __future__ import annotations

from typing import final

from jaxtyping import Float
from torch import Tensor

from resolute.models.base import Restorer


@final
class Ranged(Restorer):
    """A model as a function on [0, 1], RGB, whose network works in another range, or on blue, green, red.

    Args:
        inner: the model.
        range: what white is to the network, on its way in and on its way out.
        bgr: whether the network takes and returns blue, green, red.

    Example:
        >>> from resolute.models import EDSR
        >>> import torch
        >>> model, x = EDSR(scale=2, blocks=1, channels=4), torch.rand(1, 3, 8, 6)
        >>> bool(torch.allclose(Ranged(model, (255.0, 255.0))(x), model(x)))
        True
    """

    def __init__(self, inner: Restorer, range: tuple[float, float], bgr: bool = False) -> None:
        super().__init__(inner.scale)
        self.inner = inner
        self.range, self.bgr = range, bgr
        self.feature_layer = f"inner.{inner.feature_layer}"
        # The model inside brings images in [0, 1] to the range that it takes for its network's.
        self._before, self._after = range[0] / inner.peak, inner.peak / range[1]

    def arguments(self) -> dict[str, object]:
        return {"class": "Ranged", "range": list(self.range), "bgr": self.bgr, "inner": self.inner.arguments()}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h1 w1"]:
        return self.inner.features(self._into(x))

    def reconstruct(self, phi: Float[Tensor, "b c h1 w1"]) -> Float[Tensor, "b 3 sh sw"]:
        return self._out_of(self.inner.reconstruct(phi))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self._out_of(self.inner(self._into(x)))

    def _into(self, x: Tensor) -> Tensor:
        return (x.flip(1) if self.bgr else x) * self._before

    def _out_of(self, y: Tensor) -> Tensor:
        return (y.flip(1) if self.bgr else y) * self._after
