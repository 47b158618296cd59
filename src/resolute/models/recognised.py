"""From the weights in a file to the network that they belong to: Resolute's own architectures, or spandrel's."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

from resolute.errors import CheckpointError
from resolute.models.architecture import Architecture, Weights
from resolute.models.architectures import RESTORERS, SCORERS
from resolute.models.base import Restorer, Scorer
from resolute.models.readings import Reading, State, WeightSet, first_keys, readings
from resolute.models.weights import MisfitError, misfit, require_values
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
        reading: the weights by the names that decided, and where they lie in the file.
        state: those of them that are in the network.
        rebuild: from such weights to all tensors of such a network, by their names in it.
        note: what is to be known before the weights are written back; empty if there is nothing.
    """

    model: Restorer
    reading: Reading
    state: State
    rebuild: Callable[[State], State]
    note: str = ""


def recognise(sets: Sequence[WeightSet], file: str, scale: int | None, res_scale: float | None) -> Recognised:
    """Build the network that weights belong to.

    Args:
        sets: all sets of weights in the file; the first that is recognised is taken.
        file: what errors call it.
        scale: which is to be kept of several in the file.
        res_scale: residual scale of EDSR; None for the published one.

    Raises:
        CheckpointError: no architecture has such weights; they do not fit it; ``res_scale`` is given for another than
            EDSR; the file holds several scales, and none is chosen.
    """
    options: dict[str, object] = {} if res_scale is None else {"res_scale": res_scale}
    refused: list[MisfitError] = []
    # Parts of a network can have the layout of another: those of unknown names come last.
    for sure in (True, False):
        some = [reading for reading in readings(sets) if reading.sure == sure]
        for build in (functools.partial(_own, file, scale, options), functools.partial(_of_zoo, file, options)):
            for reading in some:
                try:
                    found = build(reading)
                except MisfitError as error:
                    refused += [error] if sure else []
                    continue
                if found is not None:
                    return found
    if refused:
        raise refused[0]
    if options:
        raise CheckpointError(f"{file} is no EDSR, and has no residual scale to set; leave res_scale out")
    # Where spandrel is there it was asked, and installing it again helps nobody.
    more = " and spandrel's" if importlib.util.find_spec("spandrel") else f" and, with {HINT}, spandrel's"
    remedy = f"loads by its code: FILE.py:NAME#x4,weights={file}"
    raise _unknown(sets, file, "architecture", RESTORERS, more, remedy)


def recognise_scorer(sets: Sequence[WeightSet], file: str) -> tuple[Scorer, Reading]:
    """Build the quality metric that weights belong to, and return it with the weights by the names that decided.

    Raises:
        CheckpointError: no metric has such weights, or they do not fit it.
    """
    refused: list[MisfitError] = []
    for reading in readings(sets):
        for architecture in SCORERS:
            if architecture.detects(reading.state):
                try:
                    return _loaded(architecture, reading.state, {}, file), reading
                except MisfitError as error:
                    refused.append(error)
    if refused:
        raise refused[0]
    raise _unknown(sets, file, "quality metric", SCORERS, "", "is wrapped with as_scorer")


def _unknown(
    sets: Sequence[WeightSet], file: str, kind: str, known: Sequence[Architecture[Any]], more: str, remedy: str
) -> CheckpointError:
    shown = max(sets, key=lambda one: len(one.state))
    inside = f" in {shown.label}" if shown.route else ""
    names = ", ".join(architecture.title for architecture in known)
    return CheckpointError(
        f"{file}: no known {kind} has its {len(shown.state)} keys{inside}; known are {names}{more}; its first are "
        f"{first_keys(shown.state)}. Any other {remedy}"
    )


def _own(file: str, scale: int | None, options: dict[str, object], reading: Reading) -> Recognised | None:
    architecture = next((one for one in RESTORERS if one.detects(reading.state)), None)
    if architecture is None:
        return None
    if not all(architecture.takes(option) for option in options):
        raise CheckpointError(f"{file} is {architecture.title}, and has no residual scale to set; leave it out")
    try:
        chosen, besides = architecture.select(reading.state, scale)
    except ValueError as error:
        raise CheckpointError(f"{file} {error}") from None
    model = _loaded(architecture, chosen, options, file)
    others = " and ".join(f"x{other}" for other in besides)
    note = f"{file} also holds {others}, which share the trunk with x{model.scale} and are not trained with it"
    again = functools.partial(_own_again, architecture, options)
    return Recognised(model, reading, dict(chosen), again, note if others else "")


def _of_zoo(file: str, options: dict[str, object], reading: Reading) -> Recognised | None:
    zoo = None if options else describe_zoo(reading.state, file)
    if zoo is None:
        return None
    return Recognised(wrap_zoo(zoo), reading, reading.state, functools.partial(_zoo_again, file))


def _loaded(architecture: Architecture[Model], state: Weights, options: Mapping[str, object], file: str) -> Model:
    require_values(dict(state), file)
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
