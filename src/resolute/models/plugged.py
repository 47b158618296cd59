"""Models of other packages, by the name that their entry point gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from resolute.errors import CheckpointError, ResoluteError, class_and_line
from resolute.models.base import Restorer, Scorer
from resolute.models.weights import weights_sha256
from resolute.plugins import Plugin

Model = TypeVar("Model", Restorer, Scorer)


def build(plugin: Plugin, kind: type[Model]) -> Model:
    """Call what the entry point names, without arguments, and return the model in evaluation mode, with a card.

    Raises:
        CheckpointError: the model is of the other kind.
        ConfigError: it cannot be imported or called, or returns something else.
    """
    factory = plugin.load()
    if not callable(factory):
        raise plugin.error(f"is no callable that returns a model, but of type {type(factory).__name__}")
    try:
        model = cast("Callable[[], object]", factory)()
    except ResoluteError:
        raise
    except Exception as error:  # Code of somebody else can raise anything.
        raise plugin.error(f"cannot be built: {class_and_line(error)}") from error
    if not isinstance(model, Restorer | Scorer):
        raise plugin.error(f"returns an object of type {type(model).__name__}, not a Restorer or a Scorer")
    if not isinstance(model, kind):
        what, verb = ("quality metric", "load_scorer") if kind is Restorer else ("super-resolution model", "load")
        raise CheckpointError(f"{plugin.name!r} of the package {plugin.package} is a {what}; load it with {verb}")
    if model.card is None:
        sha256, licence = weights_sha256(model.state_dict()), f"see the package {plugin.package}"
        model.card = model.describe(plugin.name, licence=licence, sha256=sha256)  # pyright: ignore[reportAttributeAccessIssue]
    return model.eval()
