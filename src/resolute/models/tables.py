"""Tables of what there is: built-in models, quality metrics, what packages add, and the facts of one model."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.figures import figure
from resolute.models.base import Card, Restorer, Scorer, ScorerCard
from resolute.plugins import Group, Plugin
from resolute.table import Column, Row, Table, row

_PARAMETERS = Column("weights")


def models_table(models: Sequence[Restorer]) -> Table:
    """Return models, one a row; a denoiser does not scale."""
    columns = [
        Column("name", whole=True), Column("network"), Column("scale"), _PARAMETERS,
        Column("validation PSNR", "dB", better="higher"),
    ]  # fmt: skip
    rows: list[Row] = []
    for model in models:
        card = model.card
        assert card is not None
        scale = f"x{card.scale}" if card.scale > 1 else "denoiser"
        psnr = _validated(card, "psnr_y", "psnr_rgb")
        network = str(card.architecture["class"])
        rows.append(row(card.name, network, scale, _parameters(model), psnr))
    return Table("", columns, rows, ["resolute models NAME says more: sizes, layers, training, licence, hash."])


def scorers_table(scorers: Sequence[Scorer]) -> Table:
    """Return the built-in quality metrics, one a row."""
    columns = [
        Column("name", whole=True), Column("network"), Column("range"), Column("better"), _PARAMETERS,
        Column("validation SROCC", meaning="rank correlation with people", digits=3, better="higher"),
    ]  # fmt: skip
    rows: list[Row] = []
    for scorer in scorers:
        card = scorer.card
        assert card is not None
        span, better = f"{figure(card.low, 0)} to {figure(card.high, 0)}", "lower" if card.lower_better else "higher"
        facts = (span, better, _parameters(scorer), _validated(card, "srocc"))
        rows.append(row(card.name, str(card.architecture["class"]), *facts))
    return Table("", columns, rows, ["Also niqe, brisque, pyiqa:NAME, piq:NAME, torchmetrics:NAME and FILE.py:NAME."])


_ONE: dict[Group, str] = {
    "models": "model", "attacks": "attack", "objectives": "objective", "datasets": "data set",
    "studies": "kind of study",
}  # fmt: skip


def plugins_table(added: Sequence[Plugin]) -> Table:
    """Return what other packages add, one name a row."""
    columns = [Column("added by packages"), Column("what"), Column("package")]
    return Table("", columns, [row(one.name, _ONE[one.group], f"{one.package} {one.version}") for one in added])


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
        "training": ", ".join(
            f"{key} {value}" for key, value in card.training.items() if key != "recipe" and value != ""
        ),
    }
    known = [row(key, value) for key, value in facts.items() if value != ""]
    return Table("", [Column("fact", whole=True), Column("value")], known)


def _validated(card: Card | ScorerCard, *keys: str) -> float | None:
    figures = card.training.get("validation")
    found = [figures[key] for key in keys if key in figures] if isinstance(figures, dict) else []
    return found[0] if found and isinstance(found[0], float) else None


def _parameters(model: Restorer | Scorer) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
