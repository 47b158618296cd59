"""Networks of spandrel (github.com/chaiNNer-org/spandrel), an optional extra: some forty architectures of others."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from resolute.errors import CheckpointError, ConfigError, class_and_line
from resolute.images import sample_image
from resolute.models.base import Restorer, frozen

HINT = "pip install 'resolute[zoo]'"

# Side of the samples that a network is tried on; padded where it asks for more.
_SIDE = 16

# Modules of PLKSR that write into what autograd needs, in evaluation mode only; they give the same in training mode.
_IN_PLACE = ("PLKConv2d", "SparsePLKConv2d", "RectSparsePLKConv2d")

Lacks = Callable[[int, int], tuple[int, int]]


class _Reached(Exception):  # noqa: N818, no error
    """Thrown out of a network as soon as the layer asked for has run."""


@final
class ZooModel(Restorer):
    """A network of spandrel: its inner module, with gradients, padded to the sizes that it takes.

    spandrel's descriptor runs in inference mode and clamps, so neither is used. Input is mirrored beyond its right and
    bottom edge where the network asks for it, and the output cropped. The network gets a copy of the input and none of
    its modules work in place, so that what an attack holds is not written over. One for gray images is given the three
    channels one by one.

    Φ is the output of the last convolution before the maps grow larger than those of the first, the one that makes the
    sub-pixels of a pixel shuffle not counted; in models that do not upscale, of the last with more than three channels.
    What comes after may take shortcuts around it, so there is no ``reconstruct``.

    Args:
        network: the inner module.
        call: runs it on images in [0, 1], and returns images in [0, 1].
        name: of the architecture.
        scale: upscaling factor.
        lacks: how much a width and a height lack of a size that it takes.
        gray: whether it takes one channel.

    Raises:
        CheckpointError: it cannot be attacked: no gradient reaches the image, it draws random numbers, or it does not
            upscale by ``scale``.
    """

    def __init__(
        self,
        network: nn.Module,
        call: Callable[[nn.Module, Tensor], Tensor],
        name: str,
        scale: int,
        lacks: Lacks,
        gray: bool = False,
    ) -> None:
        super().__init__(scale)
        self.network = network.eval()
        self.name = name
        self.gray = gray
        self._call, self._lacks = call, lacks
        self._alone = False
        for module in network.modules():
            if getattr(module, "inplace", False) is True:
                cast("Any", module).inplace = False
            if type(module).__name__ in _IN_PLACE:
                module.register_forward_pre_hook(_as_in_training)
                module.register_forward_hook(_as_in_evaluation, always_call=True)
        with torch.random.fork_rng(devices=[]), frozen(network):
            self._try()
            self.feature_layer = self._find_feature_layer()

    def arguments(self) -> dict[str, object]:
        return {"class": "ZooModel", "name": self.name, "scale": self.scale}

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return self._whole(x)

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h1 w1"]:
        return self._run(x, self._call_up_to_phi)

    def reconstruct(self, phi: Float[Tensor, "b c h1 w1"]) -> Float[Tensor, "b 3 sh sw"]:
        raise ConfigError(
            f"a network of spandrel ({self.name}) runs from image to image only and cannot be taken apart at its "
            "feature layer, as tiles and some defences need it"
        )

    def _whole(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        found = self._run(x, lambda images: self._call(self.network, images))
        return found[..., : height * self.scale, : width * self.scale]

    def _run(self, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        images = x.contiguous()
        width, height = images.shape[-1], images.shape[-2]
        images = pad(images, *self._lacks(width, height))
        if self.gray:
            images = images.flatten(0, 1).unsqueeze(1)
        # A copy, for networks that write into their input.
        found = torch.cat([call(one.clone()) for one in images.split(1 if self._alone else len(images))])
        return found.reshape(len(x), -1, *found.shape[-2:])

    def _call_up_to_phi(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            found.append(output)
            raise _Reached

        layer = self.get_submodule(self.feature_layer)
        handle = layer.register_forward_hook(keep)
        try:
            self._call(self.network, images)
        except _Reached:
            pass
        finally:
            handle.remove()
        return found[0]

    def _try(self) -> None:
        """Run the network as attacks will, and refuse it where they could not work.

        Raises:
            CheckpointError: see the class.
        """
        x = torch.stack([sample_image(name)[:, 100 : 100 + _SIDE, 100 : 100 + _SIDE] for name in ("coffee", "chelsea")])
        shape = (2, 3, _SIDE * self.scale, _SIDE * self.scale)
        try:
            with torch.no_grad():
                one = self._whole(x[:1])
                again = self._whole(x[:1])
                self._alone = not self._takes_batches(x, one)
                together = self._whole(x)
            x = x.requires_grad_()
            with torch.enable_grad():
                y = self._whole(x)
                (gradient,) = torch.autograd.grad((y * torch.linspace(-1, 1, y.shape[-1])).sum(), x)
        except Exception as error:  # A network of somebody else can raise anything.
            raise self._refused(f"it fails on a sample image: {class_and_line(error)}") from error
        if together.shape != shape:
            raise self._refused(f"it turns {tuple(x.shape)} into {tuple(together.shape)}, and not into {shape}")
        if not together.isfinite().all() or not gradient.isfinite().all():
            raise self._refused("its output or gradient on a sample image is not finite")
        if not torch.equal(one, again):
            raise self._refused("it draws random numbers, and gives another output at every call")
        if not (gradient.flatten(1).abs().amax(dim=1) > 0).all():
            raise self._refused("no gradient reaches the image")

    def _takes_batches(self, x: Tensor, first: Tensor) -> bool:
        try:
            return torch.allclose(self._whole(x)[:1], first, rtol=1e-3, atol=1e-3)
        except Exception:  # That of a network that takes one image a call has any class.
            return False

    def _refused(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.name} of spandrel cannot be attacked: {why}")

    def _find_feature_layer(self) -> str:
        """Return the name of the layer whose output is Φ, by the rule that the class states."""
        outputs: list[tuple[str, Tensor]] = []
        shuffled: set[int] = set()

        def keep(name: str) -> Callable[[nn.Module, object, object], None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim == 4:
                    outputs.append((name, output))

            return hook

        def into_shuffle(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            shuffled.add(inputs[0].data_ptr())

        handles = [
            module.register_forward_pre_hook(into_shuffle)
            if isinstance(module, nn.PixelShuffle)
            else module.register_forward_hook(keep(name))
            for name, module in self.named_modules()
            if isinstance(module, nn.PixelShuffle | nn.Conv2d)
        ]
        side = _SIDE + max(self._lacks(_SIDE, _SIDE))
        try:
            with torch.no_grad():
                self._whole(torch.full((1, 3, side, side), 0.5))
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
                if y.shape[1] > 3 and y.shape[-1] > 0.6 * first and counts[name] == 1 and y.data_ptr() not in shuffled
            ]
            if wide:
                return wide[-1]
        return "network"


def load_zoo(state: Mapping[str, Tensor], file: str) -> ZooModel | None:
    """Build the network of spandrel that weights belong to; None where spandrel is missing or does not know them.

    Raises:
        CheckpointError: spandrel is installed and cannot be imported, or the network cannot be built or attacked.
    """
    spandrel = _spandrel(file)
    if spandrel is None:
        return None
    try:
        found = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(dict(state)))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:  # What does not fit a network that was recognised raises anything.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise CheckpointError(f"{file} looks like a network of spandrel but does not fit: {lines[-1][:200]}") from None
    name = str(found.architecture.id)
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise CheckpointError(f"{file} holds {name}, which needs a mask besides the image; no attack has one")
    if (found.input_channels, found.output_channels) not in ((3, 3), (1, 1)):
        raise CheckpointError(
            f"{file} holds {name} from {found.input_channels} channels to {found.output_channels}; Resolute attacks "
            "models from RGB to RGB, or from gray to gray"
        )
    return ZooModel(
        found.model.float(),
        found._call_fn,  # what comes before and after the module, as its range, is nowhere else
        name,
        found.scale,
        found.size_requirements.get_padding,
        gray=found.input_channels == 1,
    )


def pad(x: Tensor, right: int, bottom: int) -> Tensor:
    """Mirror images beyond their right and bottom edge, again and again where they are small.

    Example:
        >>> pad(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 4, 0)
        tensor([[[[1., 2., 3., 2., 1., 2., 3.]]]])
    """
    while right > 0 or bottom > 0:
        height, width = x.shape[-2:]
        more = min(right, width - 1), min(bottom, height - 1)
        if more == (0, 0):
            return F.pad(x, (0, right, 0, bottom), mode="replicate")
        x = F.pad(x, (0, more[0], 0, more[1]), mode="reflect")
        right, bottom = right - more[0], bottom - more[1]
    return x


def _spandrel(file: str) -> ModuleType | None:
    try:
        return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            return None
        raise CheckpointError(f"{file} is no layout of Resolute, and spandrel needs {error.name}: {HINT}") from None
    except Exception as error:  # Built for another torch, its libraries raise a RuntimeError.
        what = (str(error).strip().splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{file} is no layout of Resolute, and spandrel, which may know it, cannot be imported ({what}): what it "
            "needs was built for another torch; install both from one index, as in "
            f"{HINT} --force-reinstall --index-url https://download.pytorch.org/whl/cpu --extra-index-url "
            "https://pypi.org/simple"
        ) from error


def _as_in_training(module: nn.Module, _inputs: object) -> None:
    module.training = True


def _as_in_evaluation(module: nn.Module, _inputs: object, _output: object) -> None:
    module.training = False
