"""Reading the outputs of named layers, without editing the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from resolute.models.base import Restorer


def layer_outputs(
    model: nn.Module, x: Float[Tensor, "b c h w"], layers: Sequence[str]
) -> list[Float[Tensor, "b d h1 w1"]]:
    """Run the model on ``x`` and return the outputs of ``layers``, in that order; a layer that runs again, again.

    Raises:
        RuntimeError: a layer did not run in this pass.
    """
    if isinstance(model, Restorer) and tuple(layers) == (model.feature_layer,):
        return [model.features(x)]
    found: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            # What comes next may work in place.
            found[name].append(output.clone())

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in found]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name, outputs in found.items() if not outputs]
    if missing:
        raise RuntimeError(f"layer {missing[0]!r} did not run in this pass")
    return [output for outputs in found.values() for output in outputs]
