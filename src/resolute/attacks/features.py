"""Reading the outputs of named layers, without editing the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import ConfigError
from resolute.models.base import Restorer


def resolve_layers(model: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """Return ``layers``, or the model's own feature layer where none is named.

    Raises:
        ConfigError: a name is no submodule of the model, or none is given and the model declares no feature layer.
    """
    known = dict(model.named_modules())
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ConfigError(f"no layer named {unknown[0]!r}; this model has {', '.join(name for name in known if name)}")
    if layers:
        return tuple(layers)
    if isinstance(model, Restorer):
        return (model.feature_layer,)
    raise ConfigError("this model declares no feature layer: name one or more with layers=(...)")


def layer_outputs(
    model: nn.Module, x: Float[Tensor, "b c h w"], layers: Sequence[str]
) -> list[Float[Tensor, "b d h1 w1"]]:
    """Run the model on ``x`` and return the outputs of ``layers``, in that order.

    Raises:
        RuntimeError: a layer did not run in this pass.
    """
    if isinstance(model, Restorer) and tuple(layers) == (model.feature_layer,):
        return [model.features(x)]
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if name not in found]
    if missing:
        raise RuntimeError(f"layer {missing[0]!r} did not run in this pass")
    return [found[name] for name in layers]
