"""A trained model on disk: its weights with their card, and beside them the card as a page that people read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resolute.files import write_text
from resolute.models.base import Restorer, Scorer
from resolute.models.weights import save_model
from resolute.table import Column, Table, row


def save_with_card(
    model: Restorer | Scorer,
    weights: Path,
    training: dict[str, Any],
    facts: Mapping[str, object],
    steps: str,
    results: Mapping[str, tuple[str, str]],
) -> None:
    """Write the weights and the card of a trained model, and the card as Markdown.

    Args:
        model: what was trained.
        weights: the file for its weights.
        training: the record of the training.
        facts: what only this kind of model has, by title.
        steps: what a step consists of, such as ``16 patches of 48 x 48``.
        results: the key of a validation figure, by title, with the format of its value.
    """
    recipe, validation = training["recipe"], training["validation"]
    licence = f"weights: MIT; trained on images under: {recipe['data']['licence']}"
    card = save_model(model, weights, model.describe(recipe["name"], licence=licence, training=training))
    optimizer = recipe["optimizer"]
    start = f"{recipe['start']}, sha256 `{training['started_from']}`" if recipe["start"] else "random weights"
    rows = {
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        **facts,
        "starts from": facts.get("starts from", start),
        "data": f"{training['images']} images; {recipe['data']['licence']}",
        "steps": f"{training['steps']} of {steps}",
        "optimiser": f"Adam, {optimizer['rate']:g}, {optimizer['schedule']}",
        "seed": recipe["seed"],
        **{
            title: form.format(validation[key]) if key in validation else "not measured"
            for title, (key, form) in results.items()
        },
        "code": f"resolute {training['resolute']}, torch {training['torch']}, {recipe['precision']}",
        "licence": card.licence,
        "sha256 of the weights": f"`{card.sha256}`",
    }
    table = Table("", [Column("fact"), Column("value")], [row(key, str(value)) for key, value in rows.items()])
    write_text(weights.with_suffix(".md"), f"# {card.name}\n\n{table.markdown()}")
