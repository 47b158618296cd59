"""A model in another arithmetic, as it would be deployed: half precision, or weights in eight bits."""

from __future__ import annotations

import copy
import dataclasses
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.models.onnx_models import OnnxRestorer
from resolute.models.weights import sha256_of

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.float32}
FORMS = tuple(_DTYPES)


@final
class InForm(Restorer):
    """A copy of a model whose weights and features are of another type; images go in and come out in float32.

    Args:
        inner: the model.
        form: ``float16``, ``bfloat16``, or ``int8``: weights of convolutions and linear layers rounded to 255 levels, a
            scale for each output channel, and features in float32.

    Raises:
        ConfigError: no such form, or a model that is an ONNX file, whose weights cannot be changed.

    Example:
        >>> from resolute.models import EDSR
        >>> model, x = EDSR(scale=2, blocks=1, channels=4).eval(), torch.rand(1, 3, 8, 8)
        >>> bool((InForm(model, "bfloat16")(x) - model(x)).abs().max() < 0.05)
        True
    """

    def __init__(self, inner: Restorer, form: str) -> None:
        if form not in _DTYPES:
            raise ConfigError(f"a form of a model is {', '.join(FORMS)}, not {form!r}")
        if any(isinstance(module, OnnxRestorer) for module in inner.modules()):
            raise ConfigError(f"{form} cannot be made of an ONNX file; make it of the network, or name a file in it")
        super().__init__(inner.scale)
        self.form = form
        self.inner = copy.deepcopy(inner).eval()
        self.feature_layer = f"inner.{inner.feature_layer}"
        if form == "int8":
            _round_weights(self.inner)
        else:
            self.inner.to(_DTYPES[form])
        if inner.card is not None:
            self.card = dataclasses.replace(
                inner.card, name=f"{inner.card.name}+as={form}", architecture=self.arguments(),
                sha256=sha256_of(inner.card.sha256, type(self).__name__, form),
            )  # fmt: skip

    def arguments(self) -> dict[str, object]:
        return {"class": type(self).__name__, "form": self.form, "inner": self.inner.arguments()}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h1 w1"]:
        return self.inner.features(x.to(_DTYPES[self.form])).float()

    def reconstruct(self, phi: Float[Tensor, "b c h1 w1"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.inner.reconstruct(phi.to(_DTYPES[self.form])).float()

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self.inner(x.to(_DTYPES[self.form])).float()

    def emulated(self) -> Restorer:
        """Return much the same in float32, with a gradient, where a processor is slow in this form.

        The weights are those of this form, and what every layer gives is rounded to it; sums inside a layer, and what
        happens between layers, are not. A gradient passes rounding as if there were none.
        """
        dtype = _DTYPES[self.form]
        if dtype == torch.float32:
            return self
        twin = copy.deepcopy(self.inner).float()
        for module in twin.modules():
            if not any(module.children()):
                module.register_forward_hook(lambda _module, _inputs, output: _rounded(output, dtype))
        return twin


def _rounded(value: object, dtype: torch.dtype) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value + (value.to(dtype).to(value.dtype) - value).detach()


def _round_weights(model: nn.Module) -> None:
    """Round the weights of convolutions and linear layers as symmetric eight-bit quantisation a channel does."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                flat = module.weight.flatten(1)
                step = flat.abs().amax(dim=1).clamp_min(1e-12) / 127
                shape = (-1, *[1] * (module.weight.ndim - 1))
                module.weight.copy_((module.weight / step.view(shape)).round() * step.view(shape))
