"""Quality metrics of one's own by their file, ``mine.py:score``."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from resolute.errors import CheckpointError, ConfigError, ResoluteError
from resolute.models.base import Restorer, Scorer
from resolute.models.function import as_scorer
from resolute.models.probe import probe
from resolute.models.weights import sha256_of, weights_sha256
from resolute.of_file import OwnCode

# What says about a function or module what an argument of ``as_scorer`` would.
_FACTS = ("low", "high", "lower_better", "single", "size_rule", "smallest")


def scorer_of_file(code: OwnCode) -> Scorer:
    """Return the metric that a name in a file stands for, probed and with a card; its sha256 is also that of the code.

    It is a function from images ``(b, 3, h, w)`` to scores ``(b,)``, a module that does this, a ``Scorer``, or a class
    or function that returns one of them when it is called without arguments. Attributes ``low``, ``high``,
    ``lower_better``, ``single``, ``size_rule`` and ``smallest`` of a function or module say what arguments of the same
    name say to ``as_scorer``.

    Raises:
        ConfigError: the file fails, or what the name stands for is no metric.
        CheckpointError: it is a super-resolution model.
    """
    made = code.load()
    try:
        if isinstance(made, type) or (callable(made) and not isinstance(made, nn.Module) and _takes_nothing(made)):
            made = cast("Callable[[], object]", made)()
    except ResoluteError:
        raise
    except Exception as error:  # Code of somebody else can raise anything.
        raise code.failed("cannot be built", error) from error
    if isinstance(made, Restorer):
        raise CheckpointError(f"{code.title} is a super-resolution model; load it with load")
    if isinstance(made, Scorer):
        scorer = made.eval()
        card = scorer.card or scorer.describe(code.name, sha256=weights_sha256(scorer.state_dict()))
        scorer.card = probe(scorer, card)
    elif callable(made):
        scorer = _wrapped(cast("Callable[[Tensor], Tensor]", made), code)
    else:
        raise code.error(f"is no function from images to scores and no metric, but of type {type(made).__name__}")
    assert scorer.card is not None
    scorer.card = dataclasses.replace(scorer.card, sha256=sha256_of(scorer.card.sha256, code.sha256))
    return scorer


def _wrapped(function: Callable[[Tensor], Tensor], code: OwnCode) -> Scorer:
    facts: dict[str, Any] = {
        name: getattr(function, name) for name in _FACTS if getattr(function, name, None) is not None
    }
    try:
        return as_scorer(function, code.name, **facts)
    except ConfigError as error:
        raise ConfigError(f"{code.title}: {error.message}") from error
    except ValueError as error:
        raise code.failed("is no metric", error) from error


def _takes_nothing(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return all(one.default is not one.empty or one.kind is one.VAR_KEYWORD for one in parameters)
