"""From a name or a file to a model: the built-in models, and the architectures that a checkpoint can turn out to be."""

from __future__ import annotations

import dataclasses
import difflib
import json
import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError, ConfigError, ModelWarning
from resolute.importing import defined
from resolute.models import edsr
from resolute.models.address import CODE, Address, complete, parse_address
from resolute.models.base import Card, Restorer, ScorerCard, SplitRestorer
from resolute.models.coded import load_code
from resolute.models.foreign import Foreign
from resolute.models.hub import HUBS, fetch
from resolute.models.layers import named_layer
from resolute.models.ncnn_network import load_ncnn
from resolute.models.onnx_models import OnnxRestorer, load_onnx_restorer
from resolute.models.origin import origin_of
from resolute.models.parts import require_sha256
from resolute.models.plugged import build
from resolute.models.ranged import Ranged
from resolute.models.readings import tell_choice
from resolute.models.recognised import Recognised, recognise
from resolute.models.restorer_probe import Alternative, doubt
from resolute.models.weights import (
    FILES,
    built_in_weights,
    read_metadata,
    read_sets,
    sha256_of,
    weights_sha256,
)
from resolute.plugins import Plugin, find_plugin, plugins
from resolute.resize import upscale_tensor

# What the probe said of the models that this process has loaded.
_doubts: dict[tuple[str, str], str] = {}


class Bicubic(SplitRestorer):
    """Bicubic interpolation as a model: linear, without weights, the reference line of every robustness plot.

    Example:
        >>> Bicubic(scale=4)(torch.rand(1, 3, 5, 6)).shape
        torch.Size([1, 3, 20, 24])
    """

    feature_layer = "image"

    def __init__(self, scale: int = 4) -> None:
        super().__init__(scale)
        self.image = torch.nn.Identity()

    def arguments(self) -> dict[str, object]:
        return {"class": "Bicubic", "scale": self.scale}

    def features(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.image(x)

    def reconstruct(self, phi: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 sh sw"]:
        return upscale_tensor(phi, self.scale)


def built_in_models() -> dict[str, Path]:
    """Return the names and files of the super-resolution models trained by this project."""
    return built_in_weights(Card)


def load(model: str | Path, scale: int | None = None) -> Restorer:
    """Load a model by built-in name (``edsr-s``, ``edsr-s-entropy``), from a file, or from a plug-in.

    The architecture of a file is recognised from its layout: one of Resolute's own, or, with the extra ``[zoo]``, one
    of spandrel's (see ``models.zoo``). A network of any other architecture is built by its code. The model comes in
    evaluation mode, with its card. One from a file upscales a sample first, and a ``ModelWarning`` says so if that is
    far worse than bicubic.

    Args:
        model: name; path of a ``.safetensors``, ``.pt``, ``.pth`` or ``.onnx`` file, or of ncnn's ``.param`` with
            its ``.bin`` beside it; ``FILE.py:NAME``, a class or
            function that returns a module; or ``hf-hub:OWNER/REPOSITORY/FILE`` or ``openmodeldb:NAME`` (see
            ``models.hub``). Behind ``#`` goes what a file does not tell, as in ``FILE#x4,range=255`` (see
            ``models.address``).
        scale: the scale you expect; an error if the model has another. A file of CARN that holds several scales needs
            it, and one of them is loaded.

    Raises:
        CheckpointError: no such model; a damaged, hostile or non-finite file; an unknown layout; another scale; code
            that fails, or a network that cannot be attacked.
        ConfigError: a plug-in is broken, or an address is.

    Example:
        >>> load("edsr-s").card.scale
        4
    """
    return load_address(complete(parse_address(str(model)), scale=scale))


def load_address(address: Address) -> Restorer:
    """Load the model at an address that is read already, whatever characters its file has in its name; see ``load``."""
    # A network draws its first weights, also where others replace them at once: not from a seeded training's stream.
    with torch.random.fork_rng(devices=[]):
        return _at_address(address)


def _at_address(address: Address) -> Restorer:
    if address.code:
        return _probed(load_code(address), address, f"{Path(address.target).name}:{address.name}")
    if address.target == "bicubic":
        restorer: Restorer = Bicubic(address.scale or 4)
        restorer.card = restorer.describe("bicubic", licence="MIT")
        return restorer.eval()
    if address.target.startswith(HUBS):
        path = fetch(f"{address.target}#sha256={address.sha256}" if address.sha256 else address.target)
        return _probed(_from_file(path, address), address, path.name)
    built_in = {**built_in_models(), **built_in_weights(ScorerCard)}.get(address.target)
    if built_in is not None:
        require_sha256(built_in, address.sha256)
        return _from_file(built_in, address)
    path = Path(address.target)
    plugin = None if path.is_file() else find_plugin("models", address.target)
    if isinstance(plugin, Plugin):
        return _as_said(_of_scale(build(plugin, Restorer), address.scale, plugin.name), address)
    if path.suffix == ".py":
        names = ", ".join(defined(path)[:12])
        says = f"it defines {names}" if names else "give its path" if not path.is_file() else "it defines nothing"
        raise CheckpointError(f"{path.name} is code: say what to build, as in {CODE}; {says}")
    if not path.is_file() and path.suffix not in FILES:
        raise _unknown(address.target)
    if path.is_file():
        require_sha256(path, address.sha256)
    restorer = _from_file(path, address)
    if path.suffix == ".safetensors" and "card" in read_metadata(path):
        # Written by this program, so that its layout, range and scale are not guessed.
        return restorer
    return _probed(restorer, address, path.name)


def _unknown(name: str) -> CheckpointError:
    known = [*built_in_models(), "bicubic", *(plugin.name for plugin in plugins("models"))]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5) or ["edsr-s", "bicubic"]
    return CheckpointError(
        f"no model named {name!r}; give a weights file or a name such as {' or '.join(near)} "
        f"(`resolute models` lists all {len(known)})"
    )


def _from_file(path: Path, address: Address) -> Restorer:
    if path.suffix == ".onnx" and path.is_file():
        restorer: Restorer = _of_scale(load_onnx_restorer(path), address.scale, path.name)
    elif path.suffix == ".param" and path.is_file():
        restorer = _of_scale(load_ncnn(path), address.scale, path.name)
    else:
        sets, card = read_sets(path)
        if isinstance(card, ScorerCard):
            raise CheckpointError(f"{path.name} holds a quality metric, for --metric or load_scorer")
        found = recognise(sets, path.name, address.scale, address.res_scale)
        restorer = _described(found, card, path, address)
        restorer.origin = origin_of(path, found.reading, found.state, found.rebuild, found.note)
        taken = tell_choice(found.reading, sets, path.name)
        if taken:
            card = restorer.card or restorer.describe(path.stem)
            restorer.card = dataclasses.replace(card, training={**card.training, "weights": taken})
        restorer.eval()
        if not isinstance(restorer, Foreign):
            # Many of those reshape with view(), which fails in another layout.
            restorer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue], a gap in torch's stubs
    if address.layer:
        layer = named_layer(restorer, address.layer, "the network")
        if not isinstance(restorer, Foreign) and layer != restorer.feature_layer:
            raise ConfigError(f"Φ of {type(restorer).__name__} is {restorer.feature_layer}; leave layer= out")
        restorer.feature_layer = layer
    return _as_said(restorer, address)


def _described(found: Recognised, card: Card | None, path: Path, address: Address) -> Restorer:
    restorer = _of_scale(found.model, address.scale, path.name)
    sha256 = weights_sha256(found.state)
    if card is None:
        card = restorer.describe(path.stem)
    elif card.sha256 != sha256:
        raise CheckpointError(f"{path.name} does not match the sha256 on its card; copy the file again")
    elif card.scale != restorer.scale:
        raise CheckpointError(f"{path.name} does not match its card, which says x{card.scale}; copy the file again")
    elif address.res_scale is None:
        restorer = _as_on_card(restorer, card, path.name)
    restorer.card = dataclasses.replace(card, sha256=sha256)
    return restorer


def _as_said(restorer: Restorer, address: Address) -> Restorer:
    """Return the model in the range and order of channels that the address says, with that on its card."""
    card = restorer.card
    assert card is not None
    if address.range is not None or address.bgr:
        origin, inner = restorer.origin, restorer
        restorer = Ranged(inner, address.range or (inner.peak, inner.peak), address.bgr).eval()
        restorer.origin = origin
    said = [*(address.range or ()), address.bgr, address.res_scale]
    if any(said):
        card = dataclasses.replace(card, architecture=restorer.arguments(), sha256=sha256_of(card.sha256, said))
    restorer.card = card
    return restorer


def _probed(restorer: Restorer, address: Address, name: str) -> Restorer:
    """Warn of a model that does not upscale."""
    assert restorer.card is not None
    key = (name, restorer.card.sha256)
    if key not in _doubts:
        inner = restorer.inner if isinstance(restorer, Ranged) else restorer
        _doubts[key] = doubt(
            restorer,
            name,
            range=address.range or (inner.peak, inner.peak),
            size=inner.size if isinstance(inner, OnnxRestorer) else None,
            others=_others(inner, address),
        )
    restorer.doubt = _doubts[key]
    if restorer.doubt:
        warnings.warn(restorer.doubt, ModelWarning, stacklevel=4)
    return restorer


def _others(model: Restorer, address: Address) -> list[Alternative]:
    """Return what else a network may be that does not upscale: an EDSR of another residual scale."""
    if not isinstance(model, edsr.EDSR) or address.res_scale is not None:
        return []
    again = edsr.ARCHITECTURE.load(model.state_dict(), {"res_scale": 0.1}).eval()
    return [("residual scale 0.1", "#res_scale=0.1 behind its name", again)]


def _of_scale(restorer: Restorer, scale: int | None, name: str) -> Restorer:
    if scale is not None and restorer.scale != scale:
        raise CheckpointError(f"{name} upscales by {restorer.scale}, not by {scale}; give the matching checkpoint")
    return restorer


def _as_on_card(model: Restorer, card: Card, file: str) -> Restorer:
    """Build the model again where its card names an option that no shape tells, as the activation at the end."""
    told, wanted = (json.loads(json.dumps(arguments)) for arguments in (model.arguments(), card.architecture))
    if not isinstance(wanted, dict):
        raise CheckpointError(f"{file} carries a damaged model card; copy the file again")
    options = {name: wanted[name] for name in wanted if told.get(name) != wanted[name]}
    if not options:
        return model
    other = CheckpointError(
        f"{file} does not match its card on {', '.join(map(repr, options))[:100]}; copy the file again"
    )
    # Sizes are seen in the weights. A card that disagrees on one is damaged, and could ask for any amount of memory.
    if not all(type(value) in (str, float) for value in options.values()) or "class" in options:
        raise other
    try:
        again = type(model)(**{name: value for name, value in {**told, **options}.items() if name != "class"})
        again.load_state_dict(model.state_dict())
    except (TypeError, ValueError, RuntimeError):
        raise other from None
    return again
