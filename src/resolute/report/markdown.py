"""The tables of a report as Markdown, for documentation and papers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from resolute.files import write_text
from resolute.report import tables, text
from resolute.report.source import Evidence, read_folders, without_budget
from resolute.studies.summary import Row, summarize, worst_case


def write_markdown(folders: Sequence[Path], out: Path) -> Path:
    """Write verdict, tables, comparisons and provenance of the studies in ``folders`` as Markdown; return the path.

    Raises:
        ConfigError: no folder, or one without records.
        OutputError: the file cannot be written.
    """
    evidence = read_folders(folders)
    write_text(out, "\n".join(_lines(evidence)) + "\n")
    return out


def _lines(evidence: Evidence) -> Iterable[str]:
    records = evidence.records
    pairings = tables.pairings(records)
    for pairing in pairings:
        yield f"{pairing.verdict}\n"
    if not pairings:
        yield f"{tables.most_fragile(records)}\n"
    yield "Means over images, PSNR in dB; SR-PSNR is against the model's own clean output.\n"
    yield from _rows(summarize(records))
    for pairing in pairings:
        yield f"\n{pairing.defended} against {pairing.plain}, means of paired differences in dB [95 % bootstrap]:\n"
        yield "| attack | budget | images | SR-PSNR | distance to bicubic closed | attacked PSNR | clean PSNR |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for c in pairing.comparisons:
            cells = [text.title(c.attack), f"{c.level:g}/255", str(c.sr.n if c.sr else 0), text.interval(c.sr)]
            cells += [text.share(c.closed), text.interval(c.truth), text.interval(c.clean)]
            yield f"| {' | '.join(map(_cell, cells))} |"
    if len({record.attack for record in records}) > 1:
        yield "\nThe worst attack of each image:\n"
        yield from _rows(summarize(worst_case(records)))
    yield "\nHow it was made:\n"
    for source in evidence.sources:
        if source.provenance is not None:
            made = source.provenance
            versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
            yield f"- `{made.command}`, {made.date[:10]}, {made.hardware}, {versions}"
    for name, configuration in {r.attack: without_budget(r.configuration) for r in records}.items():
        yield f"- {_cell(text.title(name))}: `{configuration}`, seed {records[0].seed}"
    for name, weights in {record.model: record.weights for record in records}.items():
        yield f"- {_cell(name)}: weights sha256 `{weights[:16]}`"


def _rows(rows: Sequence[Row]) -> Iterable[str]:
    yield "| model | attack | budget | images | clean PSNR (Y) | LR-PSNR | SR-PSNR | SR-SSIM | attacked PSNR (Y) |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        figures = [row.clean_psnr_y, row.lr_psnr, row.sr_psnr, row.sr_ssim, row.attacked_psnr_y]
        digits = [2, 2, 2, 3, 2]
        cells = [row.model, text.title(row.attack), f"{row.level:g}/255", str(row.images)]
        cells += [text.figure(value, places) for value, places in zip(figures, digits, strict=True)]
        yield f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
