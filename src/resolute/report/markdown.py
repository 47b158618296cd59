"""The tables of a report as Markdown, for documentation and papers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from resolute.files import write_text
from resolute.report import text
from resolute.report.families import Place
from resolute.report.parts import Part, parts_of
from resolute.report.source import Evidence, read_folders, without_budget
from resolute.studies import published
from resolute.studies.claims import summary_of
from resolute.studies.summary import Row


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
    records, parts = evidence.records, parts_of(evidence)
    for question in dict.fromkeys(s.study.question for s in evidence.sources if s.study and s.study.question):
        yield f"{question}\n"
    for part in parts:
        if part.title:
            yield f"\n## {part.title}\n"
        if part.findings:
            yield f"{summary_of(part.findings)}\n"
        for sentence in part.sentences:
            yield f"{sentence}\n"
        yield from _part(part)
    yield "\nHow it was made:\n"
    for source in evidence.sources:
        if source.provenance is not None:
            made = source.provenance
            versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
            yield f"- `{made.command}`, {made.date[:10]}, {made.hardware}, {versions}"
    for name, configuration in {r.attack: without_budget(r.configuration) for r in records}.items():
        yield f"- {_cell(text.title(name))}: `{configuration}`, seed {records[0].seed}"
    for question, answer in {key: said for s in evidence.sources for key, said in s.conventions.items()}.items():
        yield f"- {question}: {answer}"
    for name, weights in {record.model: record.weights for record in records}.items():
        yield f"- {_cell(name)}: weights sha256 `{weights[:16]}`"


def _part(part: Part) -> Iterable[str]:
    if part.findings:
        yield "What was published beside what is here; settings are attacks and budgets:\n"
        yield "| published | here | verdict |"
        yield "|---|---|---|"
        for found in part.findings:
            claim = found.claim
            cells = [f"{claim.says} ({published.claimed(claim)}; {claim.where})", published.found(found), found.verdict]
            yield f"| {' | '.join(map(_cell, cells))} |"
        yield ""
    for grid in part.grids:
        yield f"{grid.caption}; in brackets the difference from the plain model [95 % bootstrap]:\n"
        yield f"| model | clean PSNR (Y) | {' | '.join(f'{level:g}/255' for level in grid.levels)} |"
        yield f"|---|{'--:|' * (1 + len(grid.levels))}"
        for line in grid.lines:
            yield f"| {' | '.join([_cell(line.model), *map(_place, [line.clean, *line.places])])} |"
        yield ""
    if part.indices:
        yield "CLEVER (eq. 15), means over images; larger is more vulnerable, and no bound:\n"
        yield "| model | images | draws | index | median draw | climbed by sign steps |"
        yield "|---|--:|--:|--:|--:|--:|"
        for row in part.indices:
            cells = [
                row.model,
                str(row.images),
                str(row.samples),
                text.figure(row.index, 0),
                text.figure(row.typical, 0),
                text.figure(row.climbed, 0),
            ]
            yield f"| {' | '.join(map(_cell, cells))} |"
        yield ""
    yield "Means over images, PSNR in dB; SR-PSNR is against the model's own clean output.\n"
    yield from _rows(part.rows)
    for pairing in part.pairings:
        yield f"\n{pairing.defended} against {pairing.plain}, means of paired differences in dB [95 % bootstrap]:\n"
        yield "| attack | budget | images | SR-PSNR | distance to bicubic closed | attacked PSNR | clean PSNR |"
        yield "|---|--:|--:|--:|--:|--:|--:|"
        for c in pairing.comparisons:
            cells = [text.title(c.attack), f"{c.level:g}/255", str(c.sr.n if c.sr else 0), text.interval(c.sr)]
            cells += [text.share(c.closed), text.interval(c.truth), text.interval(c.clean)]
            yield f"| {' | '.join(map(_cell, cells))} |"
    if part.worst:
        yield "\nThe worst attack of each image:\n"
        yield from _rows([row for block in part.worst for row in block.rows])


def _place(place: Place | None) -> str:
    if place is None:
        return text.DASH
    return text.figure(place.mean) + (f" ({text.interval(place.gain)})" if place.gain else "")


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
