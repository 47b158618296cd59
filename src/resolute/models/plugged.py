"""Models of other packages, by the name that their entry point gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from resolute.errors import ResoluteError, class_and_line
from resolute.models.base import Card, Restorer, Scorer
from resolute.models.weights import weights_sha256
from resolute.plugins import Plugin


def build(plugin: Plugin) -> Restorer | Scorer:
    """Call what the entry point names, without arguments, and return the model in evaluation mode, with a card.

    Raises:
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
    if model.card is None:
        sha256, licence = weights_sha256(model.state_dict()), f"see the package {plugin.package}"
        if isinstance(model, Restorer):
            facts = model.arguments()
            model.card = Card(name=plugin.name, architecture=facts, scale=model.scale, licence=licence, sha256=sha256)
        else:
            model.card = model.describe(plugin.name, licence=licence, sha256=sha256)
    return model.eval()
