"""Any network as a restorer, in one line: ``as_restorer(module, scale=4)``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError, class_and_line
from resolute.models.foreign import Foreign
from resolute.models.in_place import nothing_in_place
from resolute.models.python_file import PythonFile
from resolute.models.sizes import Sizes, find_sizes, upscaled_by
from resolute.models.weights import sha256_of, weights_sha256


@final
class Wrapped(Foreign):
    """A module that maps images to larger ones, as a restorer; see ``as_restorer``.

    Args:
        network, name, layer: as there.
        scale: upscaling factor; None to let it be found.
        range: what white is to the network, on its way in and on its way out.
        bgr: whether it takes and returns blue, green, red.
        source: the code that builds the module, where other processes cannot import its class.

    Raises:
        CheckpointError: it cannot be attacked; see ``Foreign.adapt``.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        scale: int | None = None,
        *,
        range: tuple[float, float] = (1.0, 1.0),
        bgr: bool = False,
        layer: str = "",
        source: PythonFile | None = None,
    ) -> None:
        super().__init__(network, name, scale or 0)
        self.name, self.range, self.bgr = name, range, bgr
        self._sizes = Sizes()
        self._source = source
        other = {str(p.dtype)[6:] for p in network.parameters() if p.is_floating_point() and p.dtype != torch.float32}
        if other:
            raise self.refused(f"its weights are {' and '.join(sorted(other))}; call .float() on it")
        self.adapt(layer)

    def arguments(self) -> dict[str, object]:
        facts: dict[str, object] = {"class": "Wrapped", "network": self.name, "scale": self.scale}
        if self.range != (1.0, 1.0):
            facts["range"] = list(self.range)
        return facts | ({"bgr": True} if self.bgr else {})

    def lacks(self, width: int, height: int) -> tuple[int, int]:
        return self._sizes.lacks(width, height)

    def call(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        x = images.flip(1) if self.bgr else images
        found = [
            tensor for tensor in _tensors(self.network(x * self.range[0])) if upscaled_by(tensor, images) == self.scale
        ]
        if len(found) != 1:
            size = f"{images.shape[-1]} x {images.shape[-2]}"
            raise _MisfitError(f"{len(found)} images of x{self.scale} in its output for one of {size} pixels")
        y = found[0] / self.range[1]
        return y.flip(1) if self.bgr else y

    def find_sizes(self, image: Float[Tensor, "1 3 h w"]) -> None:
        self._sizes, why = find_sizes(image, self._misfit)
        if why:
            raise self.refused(why)

    def _misfit(self, images: Tensor) -> str:
        """Return what is wrong with the network's output for images of this size; empty if nothing is."""
        try:
            # In as many copies as it may be run in, for code that writes into its input.
            tensors = list(_tensors(self.network(images.clone() * self.range[0])))
        except (Exception, SystemExit) as error:  # A network of somebody else can raise anything.
            return f"it fails on a sample image: {class_and_line(error)}"
        scales = [scale for tensor in tensors if (scale := upscaled_by(tensor, images))]
        if not self.scale and len(set(scales)) == 1:
            self.scale = scales[0]
        fitting = scales.count(self.scale)
        if fitting == 1:
            return ""
        if fitting > 1:
            return (
                f"it returns {fitting} images of the same size: wrap it in a module whose forward returns the one that "
                "counts"
            )
        if scales and self.scale:
            # Which no other size mends.
            raise self.refused(f"it upscales by {scales[-1]}, not by {self.scale}: give the scale {scales[-1]}")
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors[:3]) or "no tensor"
        return f"it turns {tuple(images.shape)} into {shapes}, and not into an image of 3 channels times the scale"

    # The class of code in a file cannot be imported by its name: other processes build it again.

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._source is not None:
            modules = dict(state["_modules"])
            network = modules["network"]
            modules["network"] = None
            frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
            state |= {"_modules": modules, "_kept": (network.state_dict(), network.training, frozen)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("_kept", None)
        super().__setstate__(state)
        if kept is not None:
            weights, training, frozen = kept
            assert self._source is not None
            network = self._source.build().float()
            nothing_in_place(network, self.in_place)
            # A copy is where the model is, and so may be on a GPU.
            network.to(next((tensor.device for tensor in weights.values()), torch.device("cpu")))
            network.load_state_dict(weights)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name not in frozen)
            self.network = network.train(training)

    def __deepcopy__(self, memo: dict[int, Any]) -> Wrapped:
        again = Wrapped.__new__(Wrapped)
        memo[id(self)] = again
        # Not the network itself where its code is at hand: torch copies none that computes weights, as by weight norms.
        state = copy.deepcopy(self.__getstate__(), memo)
        again.__setstate__(state)
        return again


def as_restorer(
    module: nn.Module,
    scale: int,
    *,
    range: float | tuple[float, float] = 1.0,
    layer: str | None = None,
    name: str | None = None,
) -> Wrapped:
    """Wrap a module as a super-resolution model, try it out, and give it a card.

    The module gets RGB float images, ``(b, 3, h, w)``, and returns images ``scale`` times as large, by themselves or
    among other things in a tuple. What it needs is found by trying: sizes that are a multiple of something, one image
    a call, copies where its code works in place. The module is put in evaluation mode; its parameters stay its own,
    and take gradients.

    Args:
        module: the network.
        scale: upscaling factor.
        range: what white is to the network: 1, 255, or a pair of them for its input and its output.
        layer: name of the layer whose output is Φ, for attacks and defences on features; found if not given.
        name: what the model is called in tables and records; the name of its class if not given.

    Raises:
        CheckpointError: it cannot be attacked: it fails on sample images, upscales by another factor, draws random
            numbers, or no gradient reaches the image.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
        >>> model = as_restorer(network, scale=2, range=255.0, name="mine")
        >>> model(torch.rand(1, 3, 8, 6)).shape, model.card.name
        (torch.Size([1, 3, 16, 12]), 'mine')
    """
    ends = range if isinstance(range, tuple) else (range, range)
    if not all(0 < end < float("inf") for end in ends):
        raise ValueError(f"a range is a positive number, or a pair of them, not {range}")
    model = Wrapped(
        module, name or type(module).__name__, scale, range=(float(ends[0]), float(ends[1])), layer=layer or ""
    )
    sha256 = sha256_of(weights_sha256(module.state_dict()), model.arguments())
    model.card = model.describe(model.name, sha256=sha256)
    return model


class _MisfitError(CheckpointError):
    """The network's output holds no one image of the right size."""


def _tensors(output: object) -> Sequence[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(cast("Mapping[object, object]", output).values())
    if isinstance(output, list | tuple):
        return [tensor for one in cast("Sequence[object]", output) for tensor in _tensors(one)]
    return []
