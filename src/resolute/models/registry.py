"""From a name or a file to a model: the built-in models, and the architectures that a checkpoint can turn out to be."""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from resolute.errors import CheckpointError
from resolute.models.base import Card, Restorer, Scorer, ScorerCard
from resolute.models.carn import CARN, select_scale
from resolute.models.denoisers import DnCNN, UNet
from resolute.models.edsr import EDSR
from resolute.models.hub import HUBS, fetch
from resolute.models.msrn import MSRN
from resolute.models.onnx_session import load_onnx_restorer
from resolute.models.plugged import build
from resolute.models.rcan import RCAN
from resolute.models.srresnet import SRResNet
from resolute.models.weights import FILES, built_in_weights, misfit, read_weights, weights_sha256
from resolute.models.zoo import HINT, ZooModel, load_zoo
from resolute.plugins import Plugin, find_plugin, plugins
from resolute.resize import upscale_tensor

Architecture = type[EDSR] | type[RCAN] | type[MSRN] | type[CARN] | type[SRResNet] | type[UNet] | type[DnCNN]

# A checkpoint is detected by one of them at most.
ARCHITECTURES: tuple[Architecture, ...] = (EDSR, RCAN, MSRN, CARN, SRResNet, UNet, DnCNN)


class Bicubic(Restorer):
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
    """Load a model by built-in name (``edsr-s``, ``edsr-s-entropy``), from a weights file, or from a plug-in.

    The architecture of a file is recognised from its layout: one of Resolute's own, or, with the extra ``[zoo]``, one
    of spandrel's (see ``models.zoo``). The model comes in evaluation mode, with its card.

    Args:
        model: name; path of a ``.safetensors``, ``.pt``, ``.pth`` or ``.onnx`` file; or
            ``hf-hub:OWNER/REPOSITORY/FILE`` or ``openmodeldb:NAME`` (see ``models.hub``).
        scale: the scale you expect; an error if the model has another. A file of CARN that holds several scales needs
            it, and one of them is loaded.

    Raises:
        CheckpointError: no such model; a damaged, hostile or non-finite file; an unknown layout; another scale.
        ConfigError: a plug-in is broken, or a hub's address is.

    Example:
        >>> load("edsr-s").card.scale
        4
    """
    if model == "bicubic":
        restorer: Restorer = Bicubic(scale or 4)
        restorer.card = Card(name="bicubic", architecture=restorer.arguments(), scale=restorer.scale, licence="MIT")
        return restorer.eval()
    if str(model).startswith(HUBS):
        return load(fetch(str(model)), scale)
    path = {**built_in_models(), **built_in_weights(ScorerCard)}.get(str(model), Path(model))
    plugin = None if path.is_file() else find_plugin("models", str(model))
    if plugin is not None:
        return _of_scale(_restorer(build(plugin), plugin), scale, plugin.name)
    if not path.is_file() and path.suffix not in FILES:
        known = [*built_in_models(), "bicubic", *(plugin.name for plugin in plugins("models"))]
        near = difflib.get_close_matches(str(model), known, n=4, cutoff=0.5) or ["edsr-s", "bicubic"]
        raise CheckpointError(
            f"no model named {str(model)!r}; give a weights file or a name such as {' or '.join(near)} "
            f"(`resolute models` lists all {len(known)})"
        )
    if path.suffix == ".onnx" and path.is_file():
        return _of_scale(load_onnx_restorer(path), scale, path.name)
    state, card = read_weights(path)
    if isinstance(card, ScorerCard):
        raise CheckpointError(f"{path.name} holds a quality metric; load it with load_scorer")
    try:
        state = select_scale(state, scale)
    except ValueError as error:
        raise CheckpointError(f"{path.name} {error}") from None
    restorer = _of_scale(_build(state, path.name), scale, path.name)
    sha256 = weights_sha256(state)
    if card is None:
        card = Card(name=path.stem, architecture=restorer.arguments(), scale=restorer.scale)
    elif card.sha256 != sha256:
        raise CheckpointError(f"{path.name} does not match the sha256 on its card; copy the file again")
    elif card.scale != restorer.scale:
        raise CheckpointError(f"{path.name} does not match its card, which says x{card.scale}; copy the file again")
    else:
        restorer = _as_on_card(restorer, card, path.name)
    restorer.card = dataclasses.replace(card, sha256=sha256)
    if isinstance(restorer, ZooModel):
        # Many of these reshape with view(), which fails in another layout.
        return restorer.eval()
    return restorer.to(memory_format=torch.channels_last).eval()  # pyright: ignore[reportCallIssue], a gap in torch's stubs


def _of_scale(restorer: Restorer, scale: int | None, name: str) -> Restorer:
    if scale is not None and restorer.scale != scale:
        raise CheckpointError(f"{name} upscales by {restorer.scale}, not by {scale}; give the matching checkpoint")
    return restorer


def _restorer(model: Restorer | Scorer, plugin: Plugin) -> Restorer:
    if isinstance(model, Scorer):
        raise CheckpointError(
            f"{plugin.name!r} of the package {plugin.package} is a quality metric; load it with load_scorer"
        )
    return model


def _as_on_card(model: Restorer, card: Card, file: str) -> Restorer:
    """Build the model again where its card names an option that no shape tells, as the activation at the end.

    Raises:
        CheckpointError: the card is of another model.
    """
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


def _build(state: dict[str, Tensor], name: str) -> Restorer:
    for architecture in ARCHITECTURES:
        if architecture.detects(state):
            try:
                return architecture.from_state_dict(state)
            except (RuntimeError, ValueError, LookupError, ArithmeticError) as error:
                raise misfit(name, architecture.__name__, error) from None
    other = load_zoo(state, name)
    if other is not None:
        return other
    known = ", ".join(architecture.__name__ for architecture in ARCHITECTURES)
    raise CheckpointError(
        f"{name}: no known architecture has its {len(state)} keys; known are {known} and, with {HINT}, spandrel's"
    )
