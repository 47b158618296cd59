"""The page and the Markdown of a study of any kind: verdict, pictures, tables, curves, and how it was made."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from resolute.chart import BICUBIC, Chart
from resolute.defences.loading import undefended
from resolute.errors import ConfigError
from resolute.files import write_text
from resolute.images import to_uint8
from resolute.models.address import complete, parse_address
from resolute.report.assets import MEGABYTES, embed, plotting_library, render
from resolute.report.encode import Album
from resolute.report.reading import MergedRecords, read_kinds, read_source
from resolute.resize import middle
from resolute.studies.check import Check
from resolute.studies.grid import Grid
from resolute.studies.results import Case, Missing, Results
from resolute.studies.study import Pictured, Study, count

# Folder of checks below that of a study, and their kind.
CHECK = Check.kind
# Longest side of a picture, in pixels of the largest one of a case.
MAX_SIDE = 384
# More than this nobody looks through.
MAX_CASES = 60
# Models in a title.
_NAMED = 3
# What JSON adds around the pictures, and words about those that are left out.
_SPARE = 20_000


@dataclasses.dataclass(frozen=True, eq=False)
class _Shown:
    cases: list[dict[str, Any]]
    album: Album
    cropped: bool
    left_out: str
    missing: list[str]


def write_page(folders: Sequence[Path], out: Path, *, megabytes: float = MEGABYTES) -> Path:
    """Write the page of ``write_report``, no larger than ``megabytes`` as far as leaving out pictures allows."""
    kinds = read_kinds(folders)
    results = [_results_of(evidence) for evidence in kinds]
    bare = len(_render(kinds, results, _Shown([], Album(), False, "", [])).encode())
    # The worst of each kind before the next of any.
    ranks = itertools.zip_longest(*map(_cases, kinds))
    shown = _gallery(
        (case for rank in ranks for case in rank if case is not None), int(megabytes * 1_000_000) - bare - _SPARE
    )
    write_text(out, _render(kinds, results, shown))
    return out


def _cases(evidence: MergedRecords) -> Iterator[Case | Missing]:
    for source in evidence.sources:
        if isinstance(source.study, Pictured):
            yield from source.study.cases(source.records, source.store.folder)


def write_markdown(folders: Sequence[Path], out: Path) -> Path:
    """Write the Markdown of ``write_report``: verdict, tables and provenance."""
    kinds = read_kinds(folders)
    results = [_results_of(evidence) for evidence in kinds]
    lines = [line for one in results for line in (*filter(None, [one.alarm]), *one.sentences)] + _notes(kinds)
    text = "".join(f"{line}\n\n" for line in lines)
    text += "\n".join(table.markdown() for one in results for table in one.tables)
    checks = [check for evidence in kinds for check in checks_of(evidence)]
    if checks:
        commands = "\n".join(checks)
        text += f"\nTo look for masked gradients and attacks that were too weak:\n\n```\n{commands}\n```\n"
    making = [line for evidence in kinds for line in _making(evidence)]
    text += "\nHow it was made:\n\n" + "".join(f"- {line}\n" for line in making)
    write_text(out, text.encode(errors="replace").decode())
    return out


def _results_of(evidence: MergedRecords) -> Results:
    return with_checks(evidence, study_of(evidence).results(evidence.records))


def _title(kinds: Sequence[MergedRecords]) -> str:
    """Return the headings of the studies, as one."""
    first, *others = map(_heading, kinds)
    return "; ".join([first, *(other[:1].lower() + other[1:] for other in others)])


def _heading(evidence: MergedRecords) -> str:
    """Return the heading of the study with the names of what it is about."""
    models = [name for name in dict.fromkeys(record.model for record in evidence.records) if name != BICUBIC]
    images = list(dict.fromkeys((record.dataset, record.image) for record in evidence.records))
    more = f" and {len(models) - _NAMED} more" if len(models) > _NAMED else ""
    return study_of(evidence).heading.format(
        name=evidence.sources[0].name,
        models=", ".join(models[:_NAMED]) + more if models else BICUBIC,
        images=Path(images[0][1]).name if len(images) == 1 else count(len(images), "image"),
    )


def _notes(kinds: Sequence[MergedRecords]) -> list[str]:
    return [note for evidence in kinds for note in evidence.notes]


def with_checks(evidence: MergedRecords, results: Results) -> Results:
    """Return the results with the flags of the checks that lie below the folders, see ``resolute check``."""
    tables = list(results.tables)
    for source in evidence.sources:
        folder = source.store.folder / CHECK
        if source.kind == CHECK or not folder.is_dir():
            continue
        with contextlib.suppress(ConfigError):
            check = read_source(folder)
            if check.study is not None:
                tables += check.study.results(check.records).tables
    return dataclasses.replace(results, tables=tables)


def checks_of(evidence: MergedRecords) -> list[str]:
    """Return the commands that check the attacked models, for studies without a check below them."""
    commands: list[str] = []
    for source in evidence.sources:
        folder = source.store.folder.resolve() / CHECK
        if isinstance(source.study, Grid) and not folder.is_dir():
            models = [_address(model, source.study.scale) for model in source.study.models if model != BICUBIC]
            commands += [shlex.join(["resolute", "check", model, "--out", str(folder)]) for model in models]
    return commands


def _address(model: str, scale: int) -> str:
    """Return a model's address as a command takes it from anywhere: a file with its whole path and its scale."""
    text, defences = undefended(model)
    address = parse_address(text)
    if Path(address.target).is_file():
        path = str(Path(address.target).resolve())
        address = dataclasses.replace(complete(address, scale=scale), target=path)
    return "+".join([str(address), *defences])


def study_of(evidence: MergedRecords) -> Study:
    """Return the study whose questions the merged records answer.

    Raises:
        ConfigError: no folder says what was asked.
    """
    study = next((source.study for source in evidence.sources if source.study is not None), None)
    if study is None:
        folder = evidence.sources[0].store.folder
        raise ConfigError(f"{folder / 'study.json'} is missing or damaged; run the study into that folder again")
    return study


def _making(evidence: MergedRecords) -> Iterable[str]:
    for source in evidence.sources:
        made = source.provenance
        if made is not None:
            versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
            yield f"`{made.command}`, {made.date[:10]}, {made.hardware}, {versions}"
        yield from (f"{name}: {value}" for name, value in source.facts.items())
        yield from (f"{name}: weights sha256 `{value[:16]}`" for name, value in source.models.items())


def _render(kinds: Sequence[MergedRecords], results: Sequence[Results], shown: _Shown) -> str:
    charts = [chart for one in results for chart in one.charts]
    sources = [source for evidence in kinds for source in evidence.sources]
    pairs = any(len(case["views"]) > 1 for case in shown.cases)
    needed = bool(charts) or any(case["charts"] for case in shown.cases)
    data = {
        "charts": {chart.id: chart.figure for chart in charts},
        "frames": {chart.id: chart.frames for chart in charts if chart.frames},
        "cases": shown.cases,
        "pictures": shown.album.uris,
    }
    values = {
        "title": _title(kinds),
        "kicker": ", ".join(dict.fromkeys(source.name for source in sources)),
        "questions": list(dict.fromkeys(str(q) for source in sources if (q := source.settings.get("question")))),
        "verdicts": results,
        "notes": _notes(kinds),
        "cases": shown.cases,
        "pairs": pairs,
        "gallery": pairs or any(case["charts"] for case in shown.cases),
        "cropped": shown.cropped,
        "left_out": shown.left_out,
        "missing": shown.missing,
        "tables": [table for one in results for table in one.tables],
        "checks": [check for evidence in kinds for check in checks_of(evidence)],
        "sections": chart_sections(charts),
        "sources": sources,
        "plotly": plotting_library() if needed else "",
        "data": embed(data),
    }
    return render("page.html.j2", values, ("sorting.js", *(("viewer.js",) if shown.cases or charts else ())))


@dataclasses.dataclass(frozen=True)
class Section:
    """Charts below one heading, with what a reader can choose for all of them."""

    title: str
    text: str
    choice: str
    frames: list[str]
    charts: list[Chart]


def chart_sections(charts: Sequence[Chart]) -> list[Section]:
    """Return the charts by the sections of a page that they stand in."""
    groups = itertools.groupby(charts, lambda chart: (chart.section, chart.text, chart.choice))
    return [
        Section(title, text, choice, list(own[0].frames), own)
        for (title, text, choice), own in ((key, list(group)) for key, group in groups)
    ]


def _gallery(cases: Iterable[Case | Missing], room: int) -> _Shown:
    """Return as many cases as there is room for, the worst first."""
    album, shown = Album(), list[dict[str, Any]]()
    cropped, spent, left = False, 0, 0
    reasons = Counter[str]()
    for case in cases:
        if isinstance(case, Missing):
            reasons[case.why] += 1
            continue
        if len(shown) < MAX_CASES and not left:
            known = len(album.uris)
            entry, cut = _entry(case, album)
            spent += len(embed(entry))
            if album.size + spent <= room:
                shown.append(entry)
                cropped |= cut
                continue
            album.forget(known)
        left += 1
    more = "; a larger --megabytes shows more" if len(shown) < MAX_CASES else ""
    words = (
        f"To keep this page small, the {left} mildest of {left + len(shown)} cases are left out{more}." if left else ""
    )
    missing = [f"{count(number, 'case')} cannot be shown: {why}." for why, number in reasons.most_common()]
    return _Shown(shown, album, cropped, words, missing)


def _entry(case: Case, album: Album) -> tuple[dict[str, Any], bool]:
    """Return a case as the page's script reads it, and whether its pictures were cut."""
    if not case.views:
        raise ConfigError(f"{case.title}: a case needs a picture")
    largest = max(case.views, key=lambda view: view.pixels.shape[-1] * view.pixels.shape[-2]).pixels.shape[-2:]
    smallest = min(view.pixels.shape[-1] for view in case.views)
    # Small pictures are the large ones in less detail; both keep the same part.
    unit = MAX_SIDE // max(1, largest[-1] // smallest)
    views: list[dict[str, Any]] = []
    for view in case.views:
        factor = max(1, view.pixels.shape[-1] // smallest)
        pixels = middle(to_uint8(view.pixels), unit, factor)
        picture = album.add(pixels, lossless=view.low)
        views.append({"group": view.group, "label": view.label, "picture": picture, "low": view.low, "note": view.note})
    factor = max(1, largest[-1] // smallest)
    height, width = (min(side // factor, unit) * factor for side in largest)
    entry = {
        "title": case.title,
        "facts": list(case.facts),
        "filters": dict(case.filters),
        "pair": list(case.pair),
        "views": views,
        "charts": [dataclasses.asdict(chart) for chart in case.charts],
        "width": width,
        "height": height,
    }
    return entry, max(largest) > unit * factor
