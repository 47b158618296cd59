"""Tables of what there is: built-in models, quality metrics, what packages add, and the facts of one model."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.figures import figure
from resolute.models.base import Restorer, Scorer
from resolute.plugins import Plugin
from resolute.table import Column, Row, Table, row

_PARAMETERS = Column("weights")


def models_table(models: Sequence[Restorer]) -> Table:
    """Return the built-in models, one a row; a denoiser does not scale."""
    columns = [
        Column("name", whole=True), Column("architecture"), Column("scale"), _PARAMETERS,
        Column("validation PSNR", "dB", better="higher"), Column("licence"),
    ]  # fmt: skip
    rows: list[Row] = []
    for model in models:
        card = model.card
        assert card is not None
        architecture = dict(card.architecture)
        kind = str(architecture.pop("class"))
        details = ", ".join(f"{key} {value}" for key, value in architecture.items() if key != "scale")
        validation = card.training.get("validation")
        psnr = validation.get("psnr_y", validation.get("psnr_rgb")) if isinstance(validation, dict) else None
        rows.append(
            row(
                card.name,
                f"{kind} ({details})" if details else kind,
                f"x{card.scale}" if card.scale > 1 else "denoiser",
                _parameters(model),
                psnr if isinstance(psnr, float) else None,
                card.licence,
            )
        )
    return Table("", columns, rows)


def scorers_table(scorers: Sequence[Scorer]) -> Table:
    """Return the built-in quality metrics, one a row."""
    columns = [
        Column("quality metric", whole=True), Column("architecture"), Column("range"), Column("better"), _PARAMETERS,
        Column("validation SROCC", digits=3, better="higher"), Column("licence"),
    ]  # fmt: skip
    rows: list[Row] = []
    for scorer in scorers:
        card = scorer.card
        assert card is not None
        validation = card.training.get("validation")
        srocc = validation.get("srocc") if isinstance(validation, dict) else None
        rows.append(
            row(
                card.name,
                str(card.architecture["class"]),
                f"{figure(card.low, 0)} to {figure(card.high, 0)}",
                "lower" if card.lower_better else "higher",
                _parameters(scorer),
                srocc if isinstance(srocc, float) else None,
                card.licence,
            )
        )
    return Table("", columns, rows)


def plugins_table(added: Sequence[Plugin]) -> Table:
    """Return what other packages add, one name a row."""
    columns = [Column("added by packages"), Column("what"), Column("package")]
    return Table("", columns, [row(one.name, one.group[:-1], f"{one.package} {one.version}") for one in added])


def model_details(model: Restorer) -> Table:
    """Return the facts of one model, and the layers that an attack or a defence can name."""
    card = model.card
    assert card is not None
    facts = {
        "name": card.name,
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        "parameters": _parameters(model),
        "licence": card.licence,
        "sha256": card.sha256,
        "feature layer": model.feature_layer,
        "layers": " ".join(name for name, _ in model.named_modules() if name),
        "training": ", ".join(f"{key} {value}" for key, value in card.training.items() if key != "recipe"),
    }
    return Table("", [Column("fact", whole=True), Column("value")], [row(key, value) for key, value in facts.items()])


def _parameters(model: Restorer | Scorer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
