"""From the weights in a file to the network that they belong to: Resolute's own architectures, or spandrel's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import final

from torch import Tensor

from resolute.errors import CheckpointError
from resolute.models.base import Restorer
from resolute.models.carn import CARN, scales_held, select_scale
from resolute.models.denoisers import DnCNN, UNet
from resolute.models.edsr import EDSR
from resolute.models.msrn import MSRN
from resolute.models.rcan import RCAN
from resolute.models.srresnet import SRResNet
from resolute.models.weights import State, misfit, readings
from resolute.models.zoo import HINT, describe_zoo, wrap_zoo

Architecture = type[EDSR] | type[RCAN] | type[MSRN] | type[CARN] | type[SRResNet] | type[UNet] | type[DnCNN]

# A checkpoint is detected by one of them at most.
ARCHITECTURES: tuple[Architecture, ...] = (EDSR, RCAN, MSRN, CARN, SRResNet, UNet, DnCNN)


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Recognised:
    """A network, and the weights that it was built of.

    Attributes:
        model: with the weights in it.
        state: the weights by the names that decided.
        rebuild: from such weights to all tensors of such a network, by their names in it.
        note: what is to be known before the weights are written back; empty if there is nothing.
    """

    model: Restorer
    state: State
    rebuild: Callable[[State], State]
    note: str = ""


def recognise(state: Mapping[str, Tensor], file: str, scale: int | None, res_scale: float | None) -> Recognised:
    """Build the network that weights belong to.

    Args:
        state: the weights, by their names in the file.
        file: what errors call it.
        scale: which is to be kept of several in the file.
        res_scale: residual scale of EDSR; None for the published one.

    Raises:
        CheckpointError: no architecture has such weights; they do not fit it; ``res_scale`` is given for another than
            EDSR; the file holds several scales, and none is chosen.
    """
    for reading in readings(state):
        for architecture in ARCHITECTURES:
            if architecture.detects(reading):
                return _own(architecture, reading, file, scale, res_scale)
    if res_scale is not None:
        raise CheckpointError(f"{file} is no EDSR, and has no residual scale to set; leave res_scale out")
    for reading in readings(state):
        found = describe_zoo(reading, file)
        if found is not None:
            return Recognised(wrap_zoo(found), reading, functools.partial(_zoo_again, file))
    known = ", ".join(architecture.__name__ for architecture in ARCHITECTURES)
    shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:3])
    raise CheckpointError(
        f"{file}: no known architecture has its {len(state)} keys; known are {known} and, with {HINT}, spandrel's; its "
        f"first are {shown}. Any other loads by its code: FILE.py:NAME#x4,weights={file}"
    )


def _own(architecture: Architecture, state: State, file: str, scale: int | None, res_scale: float | None) -> Recognised:
    if res_scale is not None and architecture is not EDSR:
        raise CheckpointError(f"{file} is {architecture.__name__}, and has no residual scale to set; leave it out")
    held = scales_held(state) if architecture is CARN else []
    try:
        chosen = select_scale(state, scale)
    except ValueError as error:
        raise CheckpointError(f"{file} {error}") from None
    build = functools.partial(EDSR.from_state_dict, res_scale=res_scale) if architecture is EDSR else None
    make = build or architecture.from_state_dict
    try:
        model = make(chosen)
    except (RuntimeError, ValueError, LookupError, ArithmeticError) as error:
        raise misfit(file, architecture.__name__, error) from None
    others = " and ".join(f"x{other}" for other in held if other != model.scale)
    note = f"{file} also holds {others}, which share the trunk with x{model.scale} and are not trained with it"
    return Recognised(model, chosen, functools.partial(_own_again, make), note if others else "")


def _own_again(make: Callable[[State], Restorer], state: State) -> State:
    return dict(make(state).state_dict())


def _zoo_again(file: str, state: State) -> State:
    found = describe_zoo(state, file)
    if found is None:
        raise ValueError("another layout")
    return {f"network.{name}": tensor for name, tensor in found.model.float().state_dict().items()}
