"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from resolute.models.base import Restorer, Scorer
from resolute.plugins import Plugin
from resolute.studies.attacked import AttackRecord
from resolute.studies.claims import Finding
from resolute.studies.published import claimed
from resolute.studies.published import found as here
from resolute.studies.summary import attack_title, summarize


def results_table(records: Sequence[AttackRecord], dataset: str = "") -> Table:
    """Return the means by model, attack and budget, over one data set."""
    images = len({record.image for record in records})
    table = Table(
        title=escape(dataset) or None,
        caption=f"Means over {images} image{'s' if images > 1 else ''}. LR-PSNR, SR-PSNR and SSIM compare attacked "
        "with clean, input and output, in RGB; clean and attacked PSNR compare the outputs with the ground truth, on Y "
        "with the border shaved. Attacked images count as saved in 8 bits. All conventions are in study.json.",
    )
    for name in ("model", "attack"):
        table.add_column(name, overflow="fold")
    for name in ("budget", "clean\nPSNR", "LR-\nPSNR", "SR-\nPSNR", "SSIM", "attacked\nPSNR"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for row in summarize(records):
        if row.model != previous and previous:
            table.add_section()
        previous = row.model
        table.add_row(
            escape(row.model),
            escape(attack_title(row.attack)),
            f"{row.level:g}/255",
            *(_figure(value) for value in (row.clean_psnr_y, row.lr_psnr, row.sr_psnr)),
            _figure(row.sr_ssim, 3),
            _figure(row.attacked_psnr_y),
        )
    return table


def claims_table(findings: Sequence[Finding]) -> Table:
    """Return published statements, one a row, and whether they hold here."""
    table = Table()
    for name in ("published", "here", "verdict"):
        table.add_column(name, overflow="fold")
    for found in findings:
        claim = found.claim
        table.add_row(escape(f"{claim.says} [{claimed(claim)}; {claim.where}]"), escape(here(found)), found.verdict)
    return table


def models_table(models: Sequence[Restorer]) -> Table:
    """Return the built-in models, one a row; a denoiser does not scale."""
    table = Table()
    table.add_column("name", min_width=max((len(model.card.name) for model in models if model.card), default=0))
    for name in ("architecture", "scale", "weights", "validation PSNR", "licence"):
        table.add_column(name)
    for model in models:
        card = model.card
        assert card is not None
        architecture = dict(card.architecture)
        kind = str(architecture.pop("class"))
        details = ", ".join(f"{key} {value}" for key, value in architecture.items() if key != "scale")
        validation = card.training.get("validation")
        psnr = validation.get("psnr_y", validation.get("psnr_rgb")) if isinstance(validation, dict) else None
        table.add_row(
            escape(card.name),
            f"{kind} ({details})" if details else kind,
            f"x{card.scale}" if card.scale > 1 else "denoiser",
            f"{sum(p.numel() for p in model.parameters()):,}",
            _figure(psnr if isinstance(psnr, float) else None),
            escape(card.licence),
        )
    return table


def plugins_table(added: Sequence[Plugin]) -> Table:
    """Return what other packages add, one name a row."""
    table = Table("added by packages", "what", "package")
    for plugin in added:
        table.add_row(escape(plugin.name), plugin.group[:-1], escape(f"{plugin.package} {plugin.version}"))
    return table


def scorers_table(scorers: Sequence[Scorer]) -> Table:
    """Return the built-in quality metrics, one a row."""
    table = Table()
    table.add_column("quality metric", min_width=max((len(s.card.name) for s in scorers if s.card), default=0))
    for name in ("architecture", "range", "better", "weights", "validation SROCC", "licence"):
        table.add_column(name)
    for scorer in scorers:
        card = scorer.card
        assert card is not None
        validation = card.training.get("validation")
        srocc = validation.get("srocc") if isinstance(validation, dict) else None
        table.add_row(
            escape(card.name),
            str(card.architecture["class"]),
            f"{_figure(card.low, 0)} to {_figure(card.high, 0)}",
            "lower" if card.lower_better else "higher",
            f"{sum(p.numel() for p in scorer.parameters()):,}",
            _figure(srocc if isinstance(srocc, float) else None, 3),
            escape(card.licence),
        )
    return table


def model_details(model: Restorer) -> Table:
    """Return the facts of one model, and the layers that an attack or a defence can name."""
    card = model.card
    assert card is not None
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in {
        "name": card.name,
        "architecture": ", ".join(f"{key} {value}" for key, value in card.architecture.items()),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "licence": card.licence,
        "sha256": card.sha256,
        "feature layer": model.feature_layer,
        "layers": " ".join(name for name, _ in model.named_modules() if name),
        "training": ", ".join(f"{key} {value}" for key, value in card.training.items() if key != "recipe"),
    }.items():
        table.add_row(key, escape(value))
    return table


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
