"""The facts of one model as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from resolute.models.base import Restorer
from resolute.table import Column, Table, row


def model_details(model: Restorer) -> Table:
    """Return the facts of one model, and the layers that an attack or a defence can name."""
    card = model.card
    assert card is not None
    facts = {
        "name": card.name,
        "architecture": _words(card.architecture),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "licence": card.licence,
        "sha256": card.sha256,
        "feature layer": model.feature_layer,
        "layers": " ".join(name for name, _ in model.named_modules() if name),
        "training": _words({key: value for key, value in card.training.items() if key != "recipe" and value != ""}),
    }
    known = [row(key, value) for key, value in facts.items() if value != ""]
    return Table("", [Column("fact", whole=True), Column("value")], known)


def _words(facts: Mapping[str, object]) -> str:
    """Return facts in a line; those of a fact in brackets."""
    return ", ".join(f"{key} {_word(value)}" for key, value in facts.items())


def _word(value: object) -> str:
    if isinstance(value, dict):
        return f"({_words(cast('Mapping[str, object]', value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
