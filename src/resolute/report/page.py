"""Write the report: one HTML file that opens from disk, without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from markupsafe import Markup

from resolute.files import write_text
from resolute.report import tables
from resolute.report.assets import MEGABYTES, asset, embed, environment, plotting_library, size_of
from resolute.report.doubts import doubts_of
from resolute.report.encode import COLOUR_BAR, Album
from resolute.report.material import Material
from resolute.report.parts import Part, parts_of
from resolute.report.pictures import Gallery, gallery
from resolute.report.source import Evidence, read_folders, without_budget
from resolute.studies import published
from resolute.studies.claims import summary_of
from resolute.studies.datasets import dataset_title
from resolute.studies.summary import WORST, level_of

# Words that stand for the pictures in a page without any, and what JSON adds around them.
_SPARE = 20_000


def write_report(
    folders: Sequence[Path], out: Path, *, models: Sequence[str | Path] = (), megabytes: float = MEGABYTES
) -> Path:
    """Write one HTML page about the studies in ``folders`` and return its path.

    The verdict comes first, in words; then the leaderboard, the curves, pictures, features, and how all this was made.
    The pictures are computed again from the saved attacked images; where a model or an image is not to be had any
    more, the page says so and has the figures only.

    Args:
        folders: of one or more studies; their records are merged.
        out: the file to write.
        models: names or files to look for models in, besides those that the studies name.
        megabytes: the page is no larger than so many millions of bytes, as far as leaving out pictures can make it so.

    Raises:
        ConfigError: no folder, or one without records.
        OutputError: the file cannot be written.
    """
    evidence = read_folders(folders)
    material, parts = Material(evidence, models), parts_of(evidence)
    bare = size_of(_render(evidence, material, parts, Gallery([], Album(), [], cropped=False)))
    shown = gallery(evidence, material, max_bytes=int(megabytes * 1_000_000) - bare - _SPARE)
    # A file name that is no valid text arrives here as lone surrogates, which a file cannot hold.
    write_text(out, _render(evidence, material, parts, shown).encode(errors="replace").decode())
    return out


def _render(evidence: Evidence, material: Material, parts: list[Part], shown: Gallery) -> str:
    records = evidence.records
    found = environment()
    found.filters |= {"claimed": published.claimed, "found": published.found, "tally": summary_of, "set": dataset_title}
    data = {
        "charts": {chart.id: chart.figure for part in parts for chart in part.charts},
        "overview": {
            part.prefix: [[chart.figure for chart in charts] for charts in part.overview.values()] for part in parts
        },
        "cases": [dataclasses.asdict(case) for case in shown.cases],
        "pictures": shown.album.uris,
    }
    return found.get_template("template.html.j2").render(
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
        doubts=doubts_of(records, [source.store.folder for source in evidence.sources]),
        board=[standing for part in parts for standing in part.board],
        worst=WORST,
        pixels={record.image: record.pixels for record in records},
        style=Markup(asset("page.css")),
        script=Markup(asset("sorting.js") + asset("page.js")),
        plotly=plotting_library(),
        data=embed(data),
    )
