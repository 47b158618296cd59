"""From the weights in a file to the network that they belong to: Resolute's own architectures, or spandrel's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, final

from resolute.errors import CheckpointError
from resolute.models.architecture import Architecture, Weights
from resolute.models.architectures import RESTORERS, SCORERS
from resolute.models.base import Restorer, Scorer
from resolute.models.weights import State, first_keys, misfit, readings
from resolute.models.zoo import HINT, describe_zoo, wrap_zoo

Model = TypeVar("Model", bound=Restorer | Scorer)

# What weights raise that belong to no network of the architecture that they look like.
_MISFITS = (RuntimeError, ValueError, LookupError, ArithmeticError, TypeError)


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


def recognise(state: Weights, file: str, scale: int | None, res_scale: float | None) -> Recognised:
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
    found = _detected(state, RESTORERS)
    if found is not None:
        return _own(*found, file, scale, {} if res_scale is None else {"res_scale": res_scale})
    if res_scale is not None:
        raise CheckpointError(f"{file} is no EDSR, and has no residual scale to set; leave res_scale out")
    for reading in readings(state):
        zoo = describe_zoo(reading, file)
        if zoo is not None:
            return Recognised(wrap_zoo(zoo), reading, functools.partial(_zoo_again, file))
    known = ", ".join(architecture.title for architecture in RESTORERS)
    raise CheckpointError(
        f"{file}: no known architecture has its {len(state)} keys; known are {known} and, with {HINT}, spandrel's; its "
        f"first are {first_keys(state)}. Any other loads by its code: FILE.py:NAME#x4,weights={file}"
    )


def recognise_scorer(state: Weights, file: str) -> tuple[Scorer, Weights]:
    """Build the quality metric that weights belong to, and return it with the weights by the names that decided.

    Raises:
        CheckpointError: no metric has such weights, or they do not fit it.
    """
    found = _detected(state, SCORERS)
    if found is None:
        known = ", ".join(architecture.title for architecture in SCORERS)
        raise CheckpointError(
            f"{file}: no known quality metric has its {len(state)} keys; known are {known}; its first are "
            f"{first_keys(state)}. Any other is wrapped with as_scorer"
        )
    architecture, reading = found
    return _loaded(architecture, reading, {}, file), reading


def _detected(
    state: Weights, architectures: Sequence[Architecture[Model]]
) -> tuple[Architecture[Model], Weights] | None:
    for reading in readings(state):
        for architecture in architectures:
            if architecture.detects(reading):
                return architecture, reading
    return None


def _own(
    architecture: Architecture[Restorer], state: Weights, file: str, scale: int | None, options: dict[str, object]
) -> Recognised:
    if not all(architecture.takes(option) for option in options):
        raise CheckpointError(f"{file} is {architecture.title}, and has no residual scale to set; leave it out")
    try:
        chosen, besides = architecture.select(state, scale)
    except ValueError as error:
        raise CheckpointError(f"{file} {error}") from None
    model = _loaded(architecture, chosen, options, file)
    others = " and ".join(f"x{other}" for other in besides)
    note = f"{file} also holds {others}, which share the trunk with x{model.scale} and are not trained with it"
    again = functools.partial(_own_again, architecture, options)
    return Recognised(model, dict(chosen), again, note if others else "")


def _loaded(architecture: Architecture[Model], state: Weights, options: Mapping[str, object], file: str) -> Model:
    try:
        return architecture.load(state, options)
    except _MISFITS as error:
        raise misfit(file, architecture.title, error) from None


def _own_again(architecture: Architecture[Restorer], options: Mapping[str, object], state: State) -> State:
    return dict(architecture.load(state, options).state_dict())


def _zoo_again(file: str, state: State) -> State:
    found = describe_zoo(state, file)
    if found is None:
        raise ValueError("another layout")
    return {f"network.{name}": tensor for name, tensor in found.model.float().state_dict().items()}
