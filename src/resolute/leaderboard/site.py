"""A static site of entries: a leaderboard for every suite and set of images, and a page for every entry."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from markupsafe import Markup

from resolute.errors import ConfigError
from resolute.figures import Interval, spread
from resolute.files import write_text
from resolute.leaderboard.building import entries_of
from resolute.leaderboard.entry import Entry, Figure, read_entry, schema
from resolute.report.assets import asset, environment
from resolute.studies.summary import WORST, headline_level

SCHEMA = "leaderboard.schema.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """An entry and the name of its files, without their endings."""

    entry: Entry
    stem: str


@dataclasses.dataclass(frozen=True)
class Board:
    """Entries that can be ranked together: of one suite of attacks and one set of images.

    Attributes:
        id: of its table.
        listed: its entries.
        attacks: of the suite, the worst case first where there are several.
        levels: all budgets of all entries.
        headline: the budget to show first.
    """

    id: str
    listed: list[Listed]
    attacks: list[str]
    levels: list[float]
    headline: float

    @property
    def first(self) -> Entry:
        """Any entry: all have the same suite and images."""
        return self.listed[0].entry


def build_site(folder: Path, out: Path) -> tuple[Path, list[str]]:
    """Build the site from the entries and studies in a folder; return its first page and what was left out.

    Args:
        folder: entries (``*.json``), and folders of studies, of which every finished model becomes an entry.
        out: folder of the site: ``index.html``, ``entries/`` with a page and a JSON file each, and the schema.

    Raises:
        ConfigError: no valid entry in the folder.
        OutputError: a file cannot be written.
    """
    entries, notes = _collect(folder, out)
    if not entries:
        raise ConfigError(f"no entry in {folder}: {notes[0] if notes else 'put entries or folders of studies there'}")
    listed = [Listed(entry, stem) for entry, stem in zip(entries, _stems(entries), strict=True)]
    found = environment()
    found.filters["spread"] = _spread
    common = {
        "version": metadata.version("resolute"),
        "worst": WORST,
        "style": Markup(asset("page.css")),
        "script": Markup(asset("sorting.js")),
        "schema": SCHEMA,
    }
    boards = _boards(listed)
    for item in listed:
        write_text(out / "entries" / f"{item.stem}.json", item.entry.to_json())
        page = found.get_template("entry.html.j2").render(item=item, entry=item.entry, **common)
        write_text(out / "entries" / f"{item.stem}.html", page)
    write_text(out / SCHEMA, schema_text())
    write_text(
        out / "index.html", found.get_template("leaderboard.html.j2").render(boards=boards, notes=notes, **common)
    )
    return out / "index.html", notes


def schema_text() -> str:
    """Return the schema of entries as its file holds it."""
    return json.dumps(schema(), indent=1) + "\n"


def stem_of(entry: Entry) -> str:
    """Return a file name for an entry that no two different ones share.

    Names come from files that anyone may have written, so only plain letters stay.
    """
    plain = re.sub(r"[^A-Za-z0-9.+=-]+", "-", entry.model.name).strip(".-")[:60] or "model"
    return f"{plain}-{entry.model.sha256[:8] or 'none'}-{entry.data.sha256[:6]}-{entry.suite.version[:6]}"


def _spread(figure: Figure) -> str:
    return spread(Interval(figure.mean, figure.low, figure.high, figure.n))


def _collect(folder: Path, out: Path) -> tuple[list[Entry], list[str]]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name one that holds entries or studies")
    found: dict[str, Entry] = {}
    notes: list[str] = []
    # What others submitted comes first: a study beside it may be the one it was made from.
    for path in sorted(folder.glob("*.json")):
        if path.name == SCHEMA:
            continue
        try:
            entry = read_entry(path)
        except ConfigError as error:
            notes.append(str(error))
            continue
        if found.setdefault(entry.records, entry) is not entry:
            notes.append(f"{path.name} repeats an entry of {entry.model.name}")
    for run in sorted(path for path in folder.iterdir() if path.is_dir() and path.resolve() != out.resolve()):
        if not (run / "study.json").is_file():
            continue
        try:
            entries, why = entries_of(run)
        except ConfigError as error:
            notes.append(str(error))
            continue
        notes += why
        for entry in entries:
            found.setdefault(entry.records, entry)
    return list(found.values()), notes


def _stems(entries: Sequence[Entry]) -> list[str]:
    known: dict[str, int] = {}
    stems: list[str] = []
    for entry in entries:
        stem = stem_of(entry)
        known[stem] = known.get(stem, 0) + 1
        stems.append(stem if known[stem] == 1 else f"{stem}-{known[stem]}")
    return stems


def _boards(listed: Sequence[Listed]) -> list[Board]:
    groups: dict[tuple[str, str], list[Listed]] = {}
    for item in listed:
        groups.setdefault(item.entry.group, []).append(item)
    boards: list[Board] = []
    for number, group in enumerate(sorted(groups.values(), key=len, reverse=True)):
        rows = [row for item in group for row in item.entry.empirical]
        attacks = list(dict.fromkeys(row.attack for row in rows))
        levels = sorted({row.level for row in rows})
        attacks.sort(key=lambda name: name != WORST)
        boards.append(Board(f"board-{number}", group, attacks, levels, headline_level(levels)))
    return boards
