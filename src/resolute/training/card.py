"""The model card: the facts of a card as a page that people read."""

from __future__ import annotations

from typing import Any, cast

from resolute.models.base import Card


def model_card(card: Card) -> str:
    """Return the card of a trained model as Markdown."""
    training = cast("dict[str, Any]", card.training)
    recipe = cast("dict[str, Any]", training["recipe"])
    optimizer, data, defence = recipe["optimizer"], recipe["data"], recipe["defence"]
    validation = training["validation"].get("psnr_y")
    rows = {
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        "scale": f"x{card.scale}",
        "input, output": "RGB float in [0, 1]",
        "loss": "L1 on [0, 255]" + (f" + {defence['weight']:g} x bits of the feature layer" if defence else ""),
        "defence": ", ".join(f"{key} {value}" for key, value in defence.items()) if defence else "none",
        "starts from": f"{recipe['start']}, sha256 `{training['started_from']}`" if recipe["start"] else "random weights",
        "data": f"{training['images']} images; {data['licence']}",
        "steps": f"{training['steps']} of {data['batch']} patches of {data['patch']} x {data['patch']}",
        "optimiser": f"Adam, {optimizer['rate']:g}, {optimizer['schedule']}",
        "seed": recipe["seed"],
        "validation PSNR (Y, border shaved)": f"{validation:.2f} dB" if validation is not None else "not measured",
        "code": f"resolute {training['resolute']}, torch {training['torch']}, {recipe['precision']}",
        "licence": card.licence,
        "sha256 of the weights": f"`{card.sha256}`",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"# {card.name}\n\n| | |\n|---|---|\n{table}\n"
