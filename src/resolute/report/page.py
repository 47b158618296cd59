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
from resolute.report import published, tables, text
from resolute.report.encode import COLOUR_BAR
from resolute.report.material import Material
from resolute.report.parts import parts_of
from resolute.report.pictures import gallery
from resolute.report.source import Evidence, read_folders, without_budget
from resolute.studies.claims import summary_of
from resolute.studies.summary import level_of


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
    records, parts = evidence.records, parts_of(evidence)
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
        "signed": text.signed,
        "claimed": published.claimed,
        "found": published.found,
        "tally": summary_of,
    }
    data = {
        "charts": {chart.id: chart.figure for part in parts for chart in part.charts},
        "overview": {
            part.prefix: [[chart.figure for chart in charts] for charts in part.overview.values()] for part in parts
        },
        "cases": [dataclasses.asdict(case) for case in shown.cases],
        "pictures": shown.album.uris,
    }
    return environment.from_string(asset("template.html.j2")).render(
        title=", ".join(dict.fromkeys(source.name for source in evidence.sources)),
        version=metadata.version("resolute"),
        sources=evidence.sources,
        notes=evidence.notes,
        images=list(dict.fromkeys(record.image for record in records)),
        levels=sorted({row.level for part in parts for row in part.rows}),
        attacks=list(dict.fromkeys(record.attack for record in records)),
        models={record.model: (record.weights, material.card(record)) for record in records},
        configurations={record.attack: without_budget(record.configuration) for record in records},
        conventions={key: value for source in evidence.sources for key, value in source.conventions.items()},
        seeds=sorted({record.seed for record in records}),
        minutes=sum(record.seconds for record in records) / 60,
        gradients=sum(record.gradients for record in records),
        incomplete=any(len({row.images for row in part.rows}) > 1 for part in parts),
        unmoved=any(row.unmoved for part in parts for row in part.rows),
        has_truth=any(record.clean_psnr_y is not None for record in records),
        parts=parts,
        main=max(parts, key=lambda part: part.images),
        headline=tables.headline_level(level_of(record) for record in records),
        questions=list(dict.fromkeys(s.study.question for s in evidence.sources if s.study and s.study.question)),
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
