"""Networks that were written for other programs: made to work under attack, or refused in a line that says why."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resolute.errors import CheckpointError, ConfigError, class_and_line
from resolute.images import sample_image
from resolute.models.base import Restorer, device_of
from resolute.models.in_place import free_activations
from resolute.models.layers import named_layer
from resolute.models.sizes import pad

# Height and width of the samples: one of them smaller than some networks take, the other such that its next multiple
# of a power of two is none of the next power.
_SIDES = (13, 65)

# Share of an output at its two ends from which it counts as saturated.
_CLIPPED = 0.98

IN_PLACE = (
    "it writes into tensors that its gradient needs, as `x += y` does: write `x = x + y` in its code, and `out = "
    "torch.cat(...)` for `out[...] = `"
)


# Functions by name, those that work in place with an underscore behind it.
_ACTIVATIONS = {"relu", "leaky_relu", "prelu", "elu", "gelu", "silu", "mish", "hardswish"}


class _Reached(Exception):  # noqa: N818, no error
    """Thrown out of a network as soon as the layer asked for has run."""


class Foreign(Restorer, ABC):
    """A network of somebody else as a restorer: its module, with gradients, padded to the sizes that it takes.

    Input is mirrored beyond its right and bottom edge where the network asks for it, and the output cropped. It gets
    one image a call where it takes no batches. It gets a copy of the input, and its activations do not work in place
    unless that changes its output. If its code does, what autograd keeps is copied, and so are the parts of what it
    splits.

    Φ is the output of the last convolution before the maps grow larger than those of the first, those not counted that
    make the sub-pixels of a pixel shuffle, with an activation between them or from the image itself too; in models that
    do not upscale, of the last with more than three channels.
    Where there is none, Φ is the output. What comes after may take shortcuts around it, so there is no
    ``reconstruct``.

    A subclass calls ``adapt`` at the end of its constructor.

    Args:
        network: the module.
        called: what errors call it.
        scale: upscaling factor.
        gray: whether the network takes one channel, and gets the three one by one.
    """

    def __init__(self, network: nn.Module, called: str, scale: int, gray: bool = False) -> None:
        super().__init__(scale)
        self.network = network.eval()
        self.output = nn.Identity()
        self.called = called
        self.feature_layer = "output"
        self.gray = gray
        self._alone = False
        # What is done about code that works in place: nothing, copies of what autograd keeps, copies of parts as well.
        self._copies = 0
        # Activations whose input is used again, as they have left it.
        self.in_place: frozenset[str] = frozenset()
        self._laid_out = False

    @abstractmethod
    def call(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        """Run the network on images in [0, 1], of a size that it takes; return images in [0, 1]."""

    @abstractmethod
    def lacks(self, width: int, height: int) -> tuple[int, int]:
        """Return how much a width and a height lack of a size that the network takes."""

    @abstractmethod
    def find_sizes(self, image: Float[Tensor, "1 3 h w"]) -> None:
        """Find out which sizes the network takes and by how much it upscales, as far as that is not known."""

    @final
    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        height, width = x.shape[-2:]
        found = self._run(x, self.call)
        return self.output(found[..., : height * self.scale, : width * self.scale])

    @final
    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h1 w1"]:
        return self(x) if self.feature_layer == "output" else self._run(x, self._call_up_to_phi)

    @final
    def reconstruct(self, phi: Float[Tensor, "b c h1 w1"]) -> Float[Tensor, "b 3 sh sw"]:
        raise ConfigError(
            f"{self.called} runs from image to image only and cannot be taken apart at its feature layer, as tiles and "
            "some defences need it"
        )

    def _run(self, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        images = x.contiguous()
        images = pad(images, *self.lacks(images.shape[-1], images.shape[-2]))
        if self.gray:
            images = images.flatten(0, 1).unsqueeze(1)
        with self._copying():
            # A copy, for networks that write into their input.
            found = torch.cat([call(one.clone()) for one in images.split(1)]) if self._alone else call(images.clone())
        return found.reshape(x.shape[0], -1, *found.shape[-2:])

    @contextmanager
    def _copying(self) -> Generator[None]:
        """Copy what the network's code would write over."""
        if not self._copies or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            yield
            return
        kept = {parameter.data_ptr() for parameter in self.network.parameters()}
        with contextlib.ExitStack() as stack:
            stack.enter_context(
                torch.autograd.graph.saved_tensors_hooks(
                    lambda tensor: tensor if tensor.data_ptr() in kept else tensor.clone(), lambda tensor: tensor
                )
            )
            if self._copies > 1:
                stack.enter_context(_PartsApart())
            yield

    def _call_up_to_phi(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found.append(output)
            raise _Reached

        layer = self.get_submodule(self.feature_layer)
        handle = layer.register_forward_hook(keep)
        try:
            self.call(images)
        except _Reached:
            pass
        finally:
            handle.remove()
        if not found:
            raise ConfigError(f"{self.called} does not run its layer {self.feature_layer}; name another one")
        return found[0]

    @final
    def adapt(self, layer: str = "") -> None:
        """Run the network as attacks will, find out what it needs for that, and where Φ lies.

        Args:
            layer: name of the layer whose output is Φ; empty to let it be found.

        Raises:
            CheckpointError: it cannot be attacked: no gradient reaches the image, it draws random numbers, it does not
                upscale by ``scale``, or it has no such layer.
        """
        device = device_of(self.network)
        with torch.random.fork_rng(devices=[]), _trained(self.network):
            self._try(_samples().to(device))
            self.feature_layer = named_layer(self, layer, self.called) if layer else self._find_feature_layer(device)

    @final
    def refused(self, why: str) -> CheckpointError:
        """Return the error that says why the network cannot be attacked."""
        return CheckpointError(f"{self.called} cannot be attacked: {why}")

    @final
    def lay_out(self) -> None:
        """Keep the weights in the order in which convolutions are fastest, if the network's code takes that."""
        if self._laid_out:
            return
        self._laid_out = True
        x = _samples().to(device_of(self.network))
        with torch.no_grad():
            before = self(x)
        _in_order(self.network, torch.channels_last)
        try:
            after = self(x)
            self._gradient(x, after)
            fits = torch.allclose(after, before, rtol=1e-3, atol=1e-3)
        except Exception:  # Code that asks for another order of the elements can raise anything.
            fits = False
        if not fits:
            _in_order(self.network, torch.contiguous_format)

    def _try(self, x: Tensor) -> None:
        try:
            with torch.no_grad():
                self.find_sizes(x[:1])
                self.in_place = free_activations(self.network, lambda: self(x[:1]))
                one = self(x[:1])
                again = self(x[:1])
                self._alone = not self._takes_batches(x, one)
                together = self(x)
            self._require_shape(x, together)
            gradient = self._gradient(x, together)
        except CheckpointError:
            raise
        except (Exception, SystemExit) as error:  # A network of somebody else can raise anything.
            raise self.refused(f"it fails on a sample image: {class_and_line(error)}") from error
        if not together.isfinite().all() or not gradient.isfinite().all():
            raise self.refused(
                "its output or gradient on a sample image is not finite; check its weights and its range"
            )
        if not torch.equal(one, again):
            raise self.refused(
                "it draws random numbers, and gives another output at every call; take them out of its forward"
            )
        if not (gradient.flatten(1).abs().amax(dim=1) > 0).all():
            clipped = (together == together.amin()) | (together == together.amax())
            if clipped.float().mean() > _CLIPPED:
                raise self.refused(
                    "its output is saturated: on a sample image nearly all values are the least or the largest, and no "
                    "gradient reaches the image; check its range, as --range 255 (or #range=255), and its weights"
                )
            raise self.refused(
                "no gradient reaches the image; take detach(), no_grad() and numpy out of its forward, or export it to "
                "ONNX for attacks without gradients"
            )

    def _require_shape(self, x: Tensor, y: Tensor) -> None:
        height, width = x.shape[-2:]
        shape = (len(x), 3, height * self.scale, width * self.scale)
        if y.shape != shape:
            raise self.refused(f"it turns {tuple(x.shape)} into {tuple(y.shape)}, and not into {shape}")

    def _takes_batches(self, x: Tensor, first: Tensor) -> bool:
        try:
            return torch.allclose(self(x)[:1], first, rtol=1e-3, atol=1e-3)
        except Exception:  # That of a network that takes one image a call has any class.
            return False

    def _gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return a gradient, with as many copies as it takes for one."""
        weights = torch.linspace(-1, 1, y.shape[-1], device=y.device)
        # Of the parameters too: what autograd keeps for them alone is written over as well.
        wanted = [x.clone().requires_grad_(), *(p for p in self.network.parameters() if p.requires_grad)]
        for self._copies in range(3):
            try:
                with torch.enable_grad():
                    found = self(wanted[0])
                    if not found.requires_grad:
                        break
                    gradients = torch.autograd.grad((found * weights).sum(), wanted, allow_unused=True)
                gradient = cast("Tensor | None", gradients[0])
            except RuntimeError as error:
                if "in-place" not in str(error) and "inplace" not in str(error):
                    raise
                continue
            if self._copies and not torch.allclose(found, y, rtol=1e-3, atol=1e-3):
                continue
            return torch.zeros_like(x) if gradient is None else gradient
        else:
            raise self.refused(IN_PLACE)
        return torch.zeros_like(x)

    def _find_feature_layer(self, device: torch.device) -> str:
        """Return the name of the layer whose output is Φ, by the rule that the class states."""
        outputs: list[tuple[str, Tensor]] = []
        shuffles = _Shuffles()

        def keep(name: str) -> Callable[[nn.Module, object, object], None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim == 4:
                    outputs.append((name, output))

            return hook

        handles = [
            module.register_forward_hook(keep(name))
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        side = 16 + max(self.lacks(16, 16))
        try:
            with torch.no_grad(), shuffles:
                self(torch.full((1, 3, side, side), 0.5, device=device))
        except (Exception, SystemExit) as error:  # Of a network that took the first sample, and not all sizes.
            raise self.refused(f"it fails on an image of {side} x {side}: {class_and_line(error)}") from error
        finally:
            for handle in handles:
                handle.remove()
        counts = Counter(name for name, _ in outputs)
        first = outputs[0][1].shape[-1] if outputs else side
        grown = next((i for i, (_, y) in enumerate(outputs) if y.shape[-1] >= 1.5 * first), len(outputs))
        for some in (outputs[:grown] if self.scale > 1 else outputs, outputs):
            wide = [
                name
                for name, y in some
                if y.shape[1] > 3
                and y.shape[-1] > 0.6 * first
                and counts[name] == 1
                and y.data_ptr() not in shuffles.inputs
            ]
            if wide:
                return self._within(wide)
        return "output"

    def _within(self, layers: list[str]) -> str:
        """Return the last layer, or the last before what makes sub-pixels together with a way around the network."""
        inner = [name for name in layers[1:] if _channels(self.get_submodule(name))[0] > 3]
        if not inner or len(inner) == len(layers) - 1:
            return layers[-1]
        made = _channels(self.get_submodule(inner[-1]))[1]
        return inner[-2] if made == 3 * self.scale**2 and len(inner) > 1 else inner[-1]


def _channels(convolution: nn.Module) -> tuple[int, int]:
    assert isinstance(convolution, nn.Conv2d)
    return convolution.in_channels, convolution.out_channels


def _in_order(network: nn.Module, order: torch.memory_format) -> None:
    """Lay the weights of convolutions out in an order; they stay the same objects."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=order)


def _samples() -> Float[Tensor, "2 3 h w"]:
    height, width = _SIDES
    return torch.stack([sample_image(name)[:, 100 : 100 + height, 100 : 100 + width] for name in ("coffee", "chelsea")])


@final
class _PartsApart(TorchFunctionMode):
    """The parts of a split tensor as copies: autograd lets nothing be written into them otherwise."""

    _SPLITS = frozenset(
        getattr(owner, name)
        for owner in (torch, Tensor)
        for name in ("split", "chunk", "unbind", "tensor_split", "split_with_sizes")
    )

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in self._SPLITS:
            return tuple(part.clone() for part in found)
        return found


@final
class _Shuffles(TorchFunctionMode):
    """Takes note of what is turned into sub-pixels, as it was before an activation in front of them."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: set[int] = set()
        # The tensors themselves, so that no other one gets their memory.
        self._activated: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.pixel_shuffle:
            _, made = self._activated.get(args[0].data_ptr(), (None, args[0]))
            self.inputs.add(made.data_ptr())
        elif getattr(func, "__name__", "").rstrip("_") in _ACTIVATIONS and isinstance(found, Tensor):
            self._activated[found.data_ptr()] = found, args[0]
        return found


@contextmanager
def _trained(network: nn.Module) -> Generator[None]:
    """Let all parameters take gradients, as in training."""
    frozen = [p for p in network.parameters() if p.is_floating_point() and not p.requires_grad and p.is_leaf]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
