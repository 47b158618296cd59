"""Reading the outputs of named layers, without editing the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import ConfigError
from resolute.models.base import Restorer
from resolute.models.layers import find_layers


def in_precision_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return a tensor in the precision of a model's weights: the image that is attacked is of full precision, or finer.

    Example:
        >>> in_precision_of(nn.Conv2d(3, 3, 1).half(), torch.rand(1, 3, 4, 4)).dtype
        torch.float16
    """
    own = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), x.dtype)
    return x.to(own)


def layer_outputs(
    model: nn.Module, x: Float[Tensor, "b c h w"], layers: Sequence[str]
) -> list[Float[Tensor, "b d h1 w1"]]:
    """Run the model on ``x`` and return the outputs of ``layers``, in that order; a layer that runs again, again.

    Raises:
        ConfigError: a layer did not run in this pass, or makes no tensor of real numbers.
    """
    if isinstance(model, Restorer) and tuple(layers) == (model.feature_layer,):
        return [model.features(in_precision_of(model, x))]
    found = _outputs(model, x, layers)
    missing = [name for name, outputs in found.items() if not outputs]
    if missing:
        raise ConfigError(f"layer {missing[0]!r} did not run in this pass, or makes no tensor of real numbers")
    return [output for outputs in found.values() for output in outputs]


def live_layers(model: nn.Module, x: Float[Tensor, "b c h w"], layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that are meant, without those that a word or pattern found and that the image does not reach.

    Networks keep layers of their training, or that they share, without using them, and compute some from weights alone.

    Raises:
        ConfigError: as ``find_layers``, or none of them runs when the model does.
    """
    names = find_layers(model, layers)
    if not set(names) - set(layers) or not layers:
        return names
    with torch.enable_grad():
        found = _outputs(model, x[:1].detach().requires_grad_(), names)
    live = tuple(name for name in names if name in layers or any(output.requires_grad for output in found[name]))
    if not live:
        raise ConfigError(f"an image reaches no layer of {', '.join(layers)}; name others")
    return live


def _outputs(model: nn.Module, x: Tensor, layers: Sequence[str]) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            # Of several tensors, and of complex ones, no objective is known.
            if isinstance(output, Tensor) and output.is_floating_point():
                # What comes next may work in place.
                found[name].append(output.clone())

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
