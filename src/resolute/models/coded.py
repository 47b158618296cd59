"""``FILE.py:NAME#x4,weights=FILE.pth``: a network by its code, and its weights."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from resolute.errors import CheckpointError
from resolute.models.address import Address
from resolute.models.base import Restorer, ScorerCard
from resolute.models.origin import origin_of
from resolute.models.parts import require_sha256
from resolute.models.python_file import PythonFile
from resolute.models.readings import Reading, State, WeightSet, readings, tell_choice
from resolute.models.weights import (
    misfit_line,
    read_sets,
    require_types,
    require_values,
    sha256_of,
    weights_sha256,
)
from resolute.models.wrapped import Wrapped

_HINT = "; give the arguments that it was trained with behind #, as #nf=48"


def load_code(address: Address) -> Restorer:
    """Run the code that an address names, load the weights, and wrap the network.

    Raises:
        CheckpointError: the code fails, the weights do not fit, or the network cannot be attacked.
    """
    source = PythonFile(Path(address.target), address.name, address.arguments)
    network, code = source.build_with_sources(warn=True)
    weights, taken, origin = "", "", None
    if address.sha256 and not address.weights:
        raise CheckpointError(f"sha256= is that of the weights of {address.name}, and it has none: add weights=FILE")
    if address.weights:
        path = Path(address.weights)
        sets, card = read_sets(path)
        if isinstance(card, ScorerCard):
            raise CheckpointError(f"{path.name} holds a quality metric, for --metric or load_scorer")
        require_sha256(path, address.sha256)
        reading = _fitting(sets, network, address)
        fitting = reading.state
        require_values(fitting, path.name)
        require_types(fitting, network.state_dict(), path.name)
        try:
            network.load_state_dict(fitting, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{path.name} does not fit {address.name}: {misfit_line(error)}{_HINT}") from None
        weights = weights_sha256(fitting)
        prefix = "" if isinstance(network, Restorer) else "network."
        origin = origin_of(path, reading, fitting, functools.partial(_rebuilt, source, prefix))
        taken = tell_choice(reading, sets, path.name)
    range = address.range or (1.0, 1.0)
    if isinstance(network, Restorer):
        model: Restorer = network.eval()
        if address.scale not in (None, model.scale):
            raise CheckpointError(f"{address.name} upscales by {model.scale}, not by {address.scale}")
    else:
        model = Wrapped(
            network.float(), address.name, address.scale,
            range=range, bgr=address.bgr, layer=address.layer, source=source,
        )  # fmt: skip
    facts = (weights, code, address.name, repr(address.arguments), range, address.bgr, model.scale)
    name = Path(address.weights).stem if address.weights else address.name
    training = {"weights": taken} if taken else None
    model.card = model.describe(name, sha256=sha256_of(*facts), training=training)
    model.origin = origin or model.origin
    return model


def _fitting(sets: Sequence[WeightSet], network: nn.Module, address: Address) -> Reading:
    wanted = network.state_dict().keys()
    all_readings = list(readings(sets))
    for reading in all_readings:
        if reading.state.keys() == wanted:
            return reading
    nearest = max(all_readings, key=lambda reading: len(reading.state.keys() & wanted)).state
    parts: list[str] = []
    for words, names in (("has no", wanted - nearest.keys()), ("has besides", nearest.keys() - wanted)):
        if names:
            shown = sorted(names, key=lambda name: [*wanted, *nearest].index(name))[:3]
            parts.append(f"{words} {', '.join(shown)}{' ...' if len(names) > 3 else ''}")
    raise CheckpointError(f"{Path(address.weights).name} does not fit {address.name}: it {' and '.join(parts)}{_HINT}")


def _rebuilt(source: PythonFile, prefix: str, state: State) -> State:
    network = source.build()
    network.load_state_dict(dict(state), strict=True)
    return {f"{prefix}{name}": tensor for name, tensor in network.float().state_dict().items()}
