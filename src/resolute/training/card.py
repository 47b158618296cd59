"""The model card: the facts of a card as a page that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from resolute.models.base import Card, ScorerCard
from resolute.table import Column, Table, row


def model_card(
    card: Card | ScorerCard, facts: Mapping[str, object], steps: str, results: Mapping[str, tuple[str, str]]
) -> str:
    """Return the card of a trained model as Markdown.

    Args:
        card: with the record of the training.
        facts: what only this kind of model has, by title.
        steps: what a step consists of, such as ``16 patches of 48 x 48``.
        results: the key of a validation figure, by title, with the format of its value.
    """
    training = cast("dict[str, Any]", card.training)
    recipe, validation = training["recipe"], training["validation"]
    optimizer = recipe["optimizer"]
    start = f"{recipe['start']}, sha256 `{training['started_from']}`" if recipe["start"] else "random weights"
    rows = {
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        **facts,
        "starts from": start,
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
    return f"# {card.name}\n\n{table.markdown()}"
