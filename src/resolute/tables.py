"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from resolute.attacks.score import ScoreAttack
from resolute.models.base import Restorer, Scorer
from resolute.plugins import Plugin
from resolute.report.published import claimed
from resolute.report.published import found as here
from resolute.studies.attacked import certified_words, verdict
from resolute.studies.claims import Finding
from resolute.studies.store import Record
from resolute.studies.summary import attack_title, summarize


def results_table(records: Sequence[Record], dataset: str = "") -> Table:
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


def certificates_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return certificates, one image a row; the columns that are the same for all are in the caption."""
    made, metric = rows[0]["smoothing"], rows[0]["scorer"]
    better = "lower" if metric["lower_better"] else "higher"
    table = Table(
        caption=f"{escape(metric['name'])}, {better} is better. Score: sampled median under noise of sigma "
        f"{made['sigma']:g}. {certified_words(rows[0])} Safe: the radius up to which the true median moves by at most "
        "1 % and 5 % of the metric's range."
    )
    table.add_column("image", overflow="fold")
    for name in ("without\nnoise", "score", "from", "to", "safe\n1 %", "safe\n5 %", "samples"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            escape(row["image"]),
            *(_figure(row[name]) for name in ("undefended", "score", "lower", "upper")),
            *(_figure(row[name], 4) for name in ("safe_1", "safe_5")),
            "abstained" if row["non_finite"] else str(row["samples"]),
        )
    return table


def attacks_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return attacks on certified images, one a row: what the metric alone says, and what the smoothed one says."""
    radius = rows[0]["epsilon"]
    table = Table(
        caption="Attacked images, as saved in 8 bits; the defended score is a median under fresh noise. Adaptive: the "
        "worse of the attack on the metric alone and one through the noise, and the denoiser if there is one. The "
        f"interval is proven for the true median and changes of l2 norm up to {radius:g}; beyond, staying inside is an "
        "observation and no guarantee."
    )
    for name in ("image", "attack"):
        table.add_column(name, overflow="fold")
    for name in ("without noise", "defended", "interval", "l2 norm", "defended score is"):
        table.add_column(name, justify="right")
    for row in rows:
        for attack in row["attacks"]:
            table.add_row(
                escape(row["image"]),
                ScoreAttack(**attack["attack"]).title,
                f"{_figure(attack['clean'])} \u2192 {_figure(attack['attacked'])}",
                f"{_figure(row['score'])} \u2192 {_figure(attack['defended'])}",
                f"[{_figure(row['lower'])}, {_figure(row['upper'])}]",
                _figure(attack["l2"]),
                verdict(row, attack),
            )
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
