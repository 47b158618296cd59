"""``FILE.py:NAME#x4,weights=FILE.pth``: a network by its code, and its weights."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from resolute.errors import CheckpointError
from resolute.models.address import Address
from resolute.models.base import Restorer, ScorerCard
from resolute.models.origin import FileOrigin
from resolute.models.python_file import PythonFile
from resolute.models.weights import State, read_named, readings, weights_sha256
from resolute.models.wrapped import Wrapped

_HINT = "; give the arguments that it was trained with behind #, as #nf=48"


def load_code(address: Address) -> Restorer:
    """Run the code that an address names, load the weights, and wrap the network.

    Raises:
        CheckpointError: the code fails, the weights do not fit, or the network cannot be attacked.
    """
    source = PythonFile(Path(address.target), address.name, address.arguments)
    network, code = source.build_with_sources(warn=True)
    weights, names = "", None
    if address.sha256 and not address.weights:
        raise CheckpointError(f"sha256= is that of the weights of {address.name}, and it has none: add weights=FILE")
    if address.weights:
        path = Path(address.weights)
        state, card, _ = read_named(path)
        if isinstance(card, ScorerCard):
            raise CheckpointError(f"{path.name} holds a quality metric; load it with load_scorer")
        if address.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != address.sha256:
            raise CheckpointError(f"{path.name} has not the sha256 that is asked for; copy or download it again")
        fitting = _fitting(state, network, address)
        _load(network, fitting, address)
        weights = weights_sha256(fitting)
        keys = {id(tensor): name for name, tensor in state.items()}
        names = {name: keys[id(tensor)] for name, tensor in fitting.items()}
    range = address.range or (1.0, 1.0)
    if isinstance(network, Restorer):
        model: Restorer = network.eval()
        if address.scale not in (None, model.scale):
            raise CheckpointError(f"{address.name} upscales by {model.scale}, not by {address.scale}")
    else:
        model = Wrapped(
            network.float(),
            address.name,
            address.scale,
            range=range,
            bgr=address.bgr,
            layer=address.layer,
            source=source,
        )
    facts = json.dumps([weights, code, address.name, repr(address.arguments), range, address.bgr, model.scale])
    name = Path(address.weights).stem if address.weights else address.name
    model.card = model.describe(name, sha256=hashlib.sha256(facts.encode()).hexdigest())
    if names is not None:
        prefix = "network." if isinstance(model, Wrapped) else ""
        model.origin = FileOrigin(Path(address.weights), names, functools.partial(_rebuilt, source, prefix))
    return model


def _fitting(state: State, network: nn.Module, address: Address) -> State:
    """Return the weights under the names that the network has for them.

    Raises:
        CheckpointError: they are others.
    """
    wanted = network.state_dict()
    all_readings = list(readings(state))
    for reading in all_readings:
        if reading.keys() == wanted.keys():
            return reading
    nearest = max(all_readings, key=lambda reading: len(reading.keys() & wanted.keys()))
    parts: list[str] = []
    for words, names in (("has no", wanted.keys() - nearest.keys()), ("has besides", nearest.keys() - wanted.keys())):
        if names:
            shown = sorted(names, key=lambda name: [*wanted, *nearest].index(name))[:3]
            parts.append(f"{words} {', '.join(shown)}{' ...' if len(names) > 3 else ''}")
    raise CheckpointError(f"{Path(address.weights).name} does not fit {address.name}: it {' and '.join(parts)}{_HINT}")


def _load(network: nn.Module, state: Mapping[str, Tensor], address: Address) -> None:
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        what = lines[min(1, len(lines) - 1)][:300]
        raise CheckpointError(f"{Path(address.weights).name} does not fit {address.name}: {what}{_HINT}") from None


def _rebuilt(source: PythonFile, prefix: str, state: State) -> State:
    network = source.build()
    network.load_state_dict(dict(state), strict=True)
    return {f"{prefix}{name}": tensor for name, tensor in network.float().state_dict().items()}
