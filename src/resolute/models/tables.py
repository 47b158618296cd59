"""The facts of one model as a table."""

from __future__ import annotations

from resolute.models.base import Restorer
from resolute.table import Column, Table, row


def model_details(model: Restorer) -> Table:
    """Return the facts of one model, and the layers that an attack or a defence can name."""
    card = model.card
    assert card is not None
    facts = {
        "name": card.name,
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "licence": card.licence,
        "sha256": card.sha256,
        "feature layer": model.feature_layer,
        "layers": " ".join(name for name, _ in model.named_modules() if name),
        "training": ", ".join(
            f"{key} {value}" for key, value in card.training.items() if key != "recipe" and value != ""
        ),
    }
    known = [row(key, value) for key, value in facts.items() if value != ""]
    return Table("", [Column("fact", whole=True), Column("value")], known)
