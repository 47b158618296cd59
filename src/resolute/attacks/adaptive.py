"""The adaptive attack on entropy regularisation: make the features improbable to the very density that trained them."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Annotated, final

import pydantic
from jaxtyping import Float
from torch import Tensor, nn

from resolute.attacks.features import layer_outputs
from resolute.attacks.objective import Bound, Images
from resolute.attacks.options import EqualByRepr, check_fields
from resolute.defences.entropy import ChannelDensity
from resolute.errors import CheckpointError
from resolute.models.archive import load_archive
from resolute.models.layers import find_layer
from resolute.models.weights import built_in_file, weights_sha256


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Bits(EqualByRepr):
    """Bits of the features under a trained density (eqs 1 and 11), a mean over elements: what training held down.

    Args:
        density: of the layer, as trained; ``read_density`` reads it.
        layer: name or pattern of the one submodule that the density is of; empty for the model's own ``feature_layer``.
        delta: δ of eq. 11.

    Example:
        >>> from resolute.models import EDSR
        >>> import torch
        >>> model, x = EDSR(scale=2, blocks=1, channels=4), torch.rand(2, 3, 6, 6)
        >>> Bits(ChannelDensity(channels=4)).bind(model, x)(x).shape
        torch.Size([2])
    """

    density: ChannelDensity
    layer: str = ""
    delta: Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def bind(self, model: nn.Module, clean: Images) -> Bound:
        layers = (find_layer(model, self.layer),)
        # A frozen copy: gradients are for the image alone.
        density = copy.deepcopy(self.density).requires_grad_(False).to(clean.device)

        def bits(x: Images) -> Float[Tensor, " b"]:
            phi = layer_outputs(model, x, layers)[-1]
            return density.bits(phi, self.delta).flatten(1).mean(dim=1)

        return bits

    def __repr__(self) -> str:
        sha256 = weights_sha256(self.density.state_dict())[:16]
        return f"Bits(sha256={sha256}, layer={self.layer!r}, delta={self.delta})"


def read_density(path: Path | str) -> ChannelDensity:
    """Read a density that training wrote beside its weights as ``NAME.density.pt``, or a built-in model's by its name.

    Raises:
        CheckpointError: no such file, or none of a density.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.density.pt"
        >>> import torch
        >>> torch.save(ChannelDensity(channels=8).state_dict(), path)
        >>> read_density(path).channels
        8
        >>> read_density("edsr-xs-entropy").channels
        32
    """
    built_in = built_in_file(f"{path}.density.pt")
    path = built_in if built_in.is_file() else Path(path)
    hint = "give the NAME.density.pt that `resolute train` writes beside the weights of a regularised run"
    try:
        state: dict[str, Tensor] = load_archive(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; {hint}") from None
    except Exception:  # A damaged or hostile file can raise anything in the reader of archives.
        raise CheckpointError(f"{path} is damaged or no archive of tensors; {hint}") from None
    try:
        count = sum(name.startswith("matrices.") for name in state)
        sizes = [state[f"matrices.{i}"].shape for i in range(count)]
        density = ChannelDensity(sizes[0][0], tuple(size[1] for size in sizes[:-1]))
        density.load_state_dict(state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        raise CheckpointError(f"{path} holds no density; {hint}") from None
    return density.eval().requires_grad_(False)
