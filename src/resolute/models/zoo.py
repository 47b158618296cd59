"""Networks of spandrel (github.com/chaiNNer-org/spandrel), an optional extra: some forty architectures of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resolute.errors import CheckpointError, first_line
from resolute.models.foreign import Foreign
from resolute.models.vision import import_library
from resolute.models.weights import MisfitError, require_types, require_values

HINT = "pip install 'resolute[zoo]'"

Lacks = Callable[[int, int], tuple[int, int]]


@final
class ZooModel(Foreign):
    """A network of spandrel: its inner module.

    spandrel's descriptor runs in inference mode and clamps, so neither is used.

    Args:
        network: the inner module.
        call: runs it on images in [0, 1], and returns images in [0, 1].
        name: of the architecture.
        scale: upscaling factor.
        lacks: how much a width and a height lack of a size that it takes.
        gray: whether it takes one channel.

    Raises:
        CheckpointError: it cannot be attacked; see ``Foreign.adapt``.
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
        super().__init__(network, f"{name} of spandrel", scale, gray)
        self.name = name
        self._call, self._lacks = call, lacks
        self.adapt()

    def arguments(self) -> dict[str, object]:
        return {"class": "ZooModel", "name": self.name, "scale": self.scale}

    def call(self, images: Float[Tensor, "b c h w"]) -> Tensor:
        return self._call(self.network, images)

    def lacks(self, width: int, height: int) -> tuple[int, int]:
        return self._lacks(width, height)

    def find_sizes(self, image: Float[Tensor, "1 3 h w"]) -> None:
        """Nothing is to be found out: the descriptor says it."""


def wrap_zoo(found: Any) -> ZooModel:
    """Return the network of a descriptor as a restorer.

    Raises:
        CheckpointError: it cannot be attacked.
    """
    name, lacks, gray = str(found.architecture.id), found.size_requirements.get_padding, found.input_channels == 1
    with warnings.catch_warnings():
        # What code written for an earlier torch is warned of is no news to someone who only has its weights.
        warnings.simplefilter("ignore")
        # What comes before and after the module, as its range, is nowhere else than in _call_fn.
        return ZooModel(found.model.float(), found._call_fn, name, found.scale, lacks, gray)


def describe_zoo(state: Mapping[str, Tensor], file: str) -> Any:
    """Return spandrel's descriptor of the network that weights belong to, untried.

    Returns None where spandrel is missing or does not know them.

    Raises:
        CheckpointError: spandrel is installed and cannot be imported; the network cannot be built, or does not take
            images of three channels or one; weights have no values (see ``require_values``).
    """
    spandrel = _spandrel(file)
    if spandrel is None:
        return None
    if not any(_detects(support, state) for support in spandrel.MAIN_REGISTRY):
        return None
    require_values(dict(state), file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _require_sizes(spandrel, state)
            found = spandrel.MAIN_REGISTRY.load(dict(state))
    except Exception as error:  # What does not fit a network that was recognised raises anything.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise MisfitError(f"{file} looks like a network of spandrel but does not fit: {lines[-1][:200]}") from None
    require_types(state, found.model.state_dict(), file)
    name = str(found.architecture.id)
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise CheckpointError(f"{file} holds {name}, which needs a mask besides the image; no attack has one")
    if (found.input_channels, found.output_channels) not in ((3, 3), (1, 1)):
        raise CheckpointError(
            f"{file} holds {name} from {found.input_channels} channels to {found.output_channels}; Resolute attacks "
            "models from RGB to RGB, or from gray to gray"
        )
    return found


def _require_sizes(spandrel: ModuleType, state: Mapping[str, Tensor]) -> None:
    """Build a network without memory first: sizes that a few names and shapes tell can be any, also of a small file.

    Raises:
        RuntimeError: the weights have other sizes, or are others.
    """
    try:
        with torch.device("meta"):
            spandrel.MAIN_REGISTRY.load(dict(state))
    except Exception as error:  # Networks that look at values while they are built cannot be asked.
        if "in loading state_dict" in str(error):
            raise


def _detects(support: Any, state: Mapping[str, Tensor]) -> bool:
    try:
        return bool(support.detect(dict(state)))
    except Exception:  # Of shapes that no network has, it expects some.
        return False


def _spandrel(file: str) -> ModuleType | None:
    try:
        return import_library("spandrel")
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            return None
        raise CheckpointError(f"{file} is no layout of Resolute, and spandrel needs {error.name}: {HINT}") from None
    except Exception as error:  # Built for another torch, its libraries raise a RuntimeError.
        what = first_line(error)
        raise CheckpointError(
            f"{file} is no layout of Resolute, and spandrel, which may know it, cannot be imported ({what}): what it "
            "needs was built for another torch; install both from one index, as in "
            f"{HINT} --force-reinstall --index-url https://download.pytorch.org/whl/cpu --extra-index-url "
            "https://pypi.org/simple"
        ) from error
