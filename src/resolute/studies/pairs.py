"""Which models of a study are defended versions of which others: a matter of facts, and never of names."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import cast

from resolute.defences.wrappers import Defended
from resolute.models.base import Restorer
from resolute.models.registry import Bicubic

# By the name of a defended model, that of the model which it defends.
Defends = Mapping[str, str]

# What a recipe adds to defend a model, and the names in it, which say nothing.
_DEFENCES = ("defence", "adversarial")
_NAMES = ("name", "start")


@dataclasses.dataclass(frozen=True)
class Family:
    """A plain model and all that defends it, in order of appearance."""

    plain: str
    variants: list[str]


def defends_of(models: Sequence[Restorer], baseline: Restorer | None = None) -> dict[str, str]:
    """Return which model each of them defends, by name.

    A defence around a model defends the model inside. A model that was trained with a defence defends the one that was
    trained by the same recipe without it, and a hardened one that from whose weights it started: both are on its card.
    All others but bicubic interpolation defend the ``baseline`` where a study names one.
    """
    known = {model.card.sha256: model.card.name for model in models if model.card is not None}
    found: dict[str, str] = {}
    for model in models:
        if model is baseline or isinstance(model, Bicubic) or model.card is None:
            continue
        plain = _inside(model, known) or (baseline.card.name if baseline is not None and baseline.card else "")
        plain = plain or _trained(model, models, known)
        if plain and plain != model.card.name:
            found[model.card.name] = plain
    return found


def pairs_of(models: Sequence[str], defends: Defends) -> list[tuple[str, str]]:
    """Return all (plain, defended) pairs of which both are among the models.

    Example:
        >>> pairs_of(["mine", "mine-v2", "mine+mix=0.75"], {"mine+mix=0.75": "mine"})
        [('mine', 'mine+mix=0.75')]
    """
    return [(defends[name], name) for name in models if defends.get(name) in models]


def families(models: Sequence[str], defends: Defends) -> list[Family]:
    """Return the plain models with all that defends them; a defended version of a defended model is among them.

    Example:
        >>> families(["a", "a-er", "a-er+blur=1", "b"], {"a-er": "a", "a-er+blur=1": "a-er"})
        [Family(plain='a', variants=['a-er', 'a-er+blur=1'])]
    """
    found: dict[str, list[str]] = defaultdict(list)
    for model in models:
        root, seen = model, {model}
        while (plain := defends.get(root, "")) in models and plain not in seen:
            root = plain
            seen.add(root)
        if root != model:
            found[root].append(model)
    return [Family(root, found[root]) for root in models if root in found]


def _inside(model: Restorer, known: Mapping[str, str]) -> str:
    """Return the name of the model nearest inside the defences around this one that is known, or nothing."""
    while isinstance(model, Defended):
        model = model.inner
        if model.card is not None and model.card.sha256 in known:
            return known[model.card.sha256]
    return ""


def _trained(model: Restorer, models: Sequence[Restorer], known: Mapping[str, str]) -> str:
    ours = _recipe(model)
    if ours is None or isinstance(model, Defended):
        return ""
    if ours.get("task") == "harden":
        return known.get(str(ours.get("weights")), "")
    if not any(ours.get(key) for key in _DEFENCES):
        return ""
    for other in models:
        theirs = None if isinstance(other, Defended) else _recipe(other)
        if theirs and not any(theirs.get(key) for key in _DEFENCES) and _rest(theirs) == _rest(ours):
            assert other.card is not None
            return other.card.name
    return ""


def _recipe(model: Restorer) -> dict[str, object] | None:
    recipe = model.card.training.get("recipe") if model.card is not None else None
    return cast("dict[str, object]", recipe) if isinstance(recipe, dict) else None


def _rest(recipe: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in recipe.items() if key not in (*_DEFENCES, *_NAMES)}
