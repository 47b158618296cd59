"""Networks of ncnn as restorers with gradients: their layers as modules, run in the order of their file."""

from __future__ import annotations

from pathlib import Path
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError, first_line
from resolute.models.ncnn_file import NcnnFile, Options, Weights, read_ncnn, require_param
from resolute.models.ncnn_layers import LAYERS
from resolute.models.parts import file_sha256
from resolute.models.wrapped import Wrapped

# What nothing is computed by.
_ROUTES = ("Input", "Split")

# What converters call the blob that counts.
_NAMED = {"output", "out0"}


@final
class NcnnNetwork(nn.Module):
    """The layers of a ``.param`` file, as submodules of their names.

    Args:
        file: what the two files hold.

    Raises:
        CheckpointError: a layer's type or option is not known here, or the files do not fit each other.
    """

    def __init__(self, file: NcnnFile) -> None:
        super().__init__()
        weights = Weights(file)
        there: set[str] = set()
        for layer in file.layers:
            missing = [name for name in layer.inputs if name not in there]
            if missing:
                raise CheckpointError(f"{file.name}: {layer.kind} {layer.name} takes {missing[0]}, which nothing gives")
            # What several layers take is split before.
            there = there - set(layer.inputs) | set(layer.outputs)
            if layer.kind in _ROUTES:
                continue
            if layer.kind not in LAYERS:
                raise CheckpointError(
                    f"{file.name}: {layer.name} is a layer of the type {layer.kind}, and of ncnn's types "
                    f"{', '.join(sorted({*LAYERS, *_ROUTES}))} are known here; give it as PyTorch weights or ONNX"
                )
            options = Options(layer, file.name)
            try:
                self.add_module(_key(layer.name), LAYERS[layer.kind](options, weights))
            except (KeyError, ValueError, RuntimeError) as error:
                raise options.refused(f"cannot be built: {first_line(error)}") from None
            options.refuse_others()
        weights.refuse_others()
        self.input = _only(
            [name for layer in file.layers if layer.kind == "Input" for name in layer.outputs], file, "in"
        )
        self.result = _only(sorted(there & _NAMED or there), file, "out")
        self._steps = [(layer.kind, _key(layer.name), layer.inputs, layer.outputs) for layer in file.layers]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c1 h1 w1"]:
        found = {self.input: x}
        for kind, name, inputs, outputs in self._steps:
            if kind == "Input":
                continue
            # Taken out, so that without gradients no more is kept than is needed.
            taken = [found.pop(one) for one in inputs]
            made = taken[0] if kind == "Split" else self.get_submodule(name)(*taken)
            found |= dict.fromkeys(outputs, made)
        return found[self.result]


def load_ncnn(path: Path) -> Wrapped:
    """Load a super-resolution network of ncnn from its ``.param`` file and the ``.bin`` beside it.

    Raises:
        CheckpointError: they cannot be read; a layer is not known here; the network cannot be attacked.
    """
    require_param(path)
    # First, since it says which weights are missing.
    sha256 = file_sha256(path)
    model = Wrapped(NcnnNetwork(read_ncnn(path)), path.name)
    model.card = model.describe(path.stem, sha256=sha256)
    return model.eval()


def _key(name: str) -> str:
    return name.replace(".", "_")


def _only(names: list[str], file: NcnnFile, where: str) -> str:
    if len(names) != 1:
        what = ", ".join(names)[:100] or "nothing"
        raise CheckpointError(f"{file.name} takes one image and gives one; what goes {where} is {what}")
    return names[0]
