"""Write the report: one HTML file that opens from disk, without a network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from resolute.files import write_text
from resolute.report import tables, text
from resolute.report.charts import budget_charts, distance_charts, trade_off_charts
from resolute.report.encode import COLOUR_BAR
from resolute.report.material import Material
from resolute.report.pictures import gallery
from resolute.report.source import Evidence, read_folders, without_budget
from resolute.studies.summary import summarize, worst_case


def write_report(folders: Sequence[Path], out: Path, *, models: Sequence[str | Path] = ()) -> Path:
    """Write one HTML page about the studies in ``folders`` and return its path.

    The verdict comes first, in words; then the table, the curves, pictures, features, and how all this was made. The
    pictures are computed again from the saved attacked images; where a model or an image is not to be had any more,
    the page says so and has the figures only.

    Args:
        folders: of one or more studies; their records are merged.
        out: the file to write.
        models: names or files to look for models in, besides those that the studies name.

    Raises:
        ConfigError: no folder, or one without records.
        OutputError: the file cannot be written.
    """
    evidence = read_folders(folders)
    material = Material(evidence, models)
    # A file name that is no valid text arrives here as lone surrogates, which a file cannot hold.
    write_text(out, _render(evidence, material).encode(errors="replace").decode())
    return out


def _render(evidence: Evidence, material: Material) -> str:
    records = evidence.records
    rows, pairings = summarize(records), tables.pairings(records)
    attacks = list(dict.fromkeys(record.attack for record in records))
    budgets, distances, trade_offs = budget_charts(rows), distance_charts(rows), trade_off_charts(rows)
    shown = gallery(evidence, material)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "figure": text.figure,
        "interval": text.interval,
        "doubt": text.doubt,
        "share": text.share,
        "attack": text.title,
    }
    data = {
        "charts": {chart.id: chart.figure for chart in [*budgets, *distances, *trade_offs]},
        "cases": [dataclasses.asdict(case) for case in shown.cases],
        "pictures": shown.album.uris,
    }
    return environment.from_string(asset("template.html.j2")).render(
        title=", ".join(dict.fromkeys(source.name for source in evidence.sources)),
        version=metadata.version("resolute"),
        sources=evidence.sources,
        notes=evidence.notes,
        images=list(dict.fromkeys(record.image for record in records)),
        levels=sorted({row.level for row in rows}),
        attacks=attacks,
        models={record.model: (record.weights, material.card(record.weights)) for record in records},
        configurations={record.attack: without_budget(record.configuration) for record in records},
        seeds=sorted({record.seed for record in records}),
        minutes=sum(record.seconds for record in records) / 60,
        gradients=sum(record.gradients for record in records),
        incomplete=len({row.images for row in rows}) > 1,
        unmoved=any(row.unmoved for row in rows),
        has_truth=any(record.clean_psnr_y is not None for record in records),
        pairings=pairings,
        fragile=None if pairings else tables.most_fragile(records),
        blocks=tables.blocks(rows),
        worst=tables.blocks(summarize(worst_case(records))) if len(attacks) > 1 else [],
        budget_charts=budgets,
        distance_charts=distances,
        trade_off_charts=trade_offs,
        gallery=shown,
        colour_bar=COLOUR_BAR,
        style=Markup(asset("page.css")),
        script=Markup(asset("page.js")),
        plotly=Markup(get_plotlyjs()),
        data=embed(data),
    )


def asset(name: str) -> str:
    """Return a template, style or script of the pages."""
    return (resources.files("resolute.report") / name).read_text(encoding="utf-8")


def embed(data: object) -> Markup:
    """Return JSON that cannot end the script element which holds it."""
    return Markup(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
