"""A static site of entries: a leaderboard for every suite and set of images, and a page for every entry."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from resolute.chart import BICUBIC
from resolute.errors import ConfigError
from resolute.figures import DASH, Interval
from resolute.files import write_text
from resolute.leaderboard.building import entries_of
from resolute.leaderboard.certified import certified_boards, kind_in
from resolute.leaderboard.certified_scores import score_boards
from resolute.leaderboard.empirical import Empirical, Figure
from resolute.leaderboard.entry import Entry, read_entry, schema
from resolute.report.assets import render
from resolute.studies.certified_iqa import CertifiedIqa
from resolute.studies.grid import Grid
from resolute.studies.grid_tables import (
    ATTACKED,
    BUDGET,
    CLEAN,
    SR_PSNR,
    attack_words,
    budget,
    clean_cell,
    standing_cell,
)
from resolute.studies.restoration import Restoration
from resolute.studies.summary import WORST, headline_level
from resolute.table import Column, Table, TableCell, row

SCHEMA = "leaderboard.schema.json"


@dataclasses.dataclass(frozen=True)
class Listed:
    """An entry, the name of its files without their endings, and whether it was made here from a run."""

    entry: Entry
    stem: str
    made_here: bool = False


@dataclasses.dataclass(frozen=True)
class Board:
    """Entries that can be ranked together: of one suite of attacks and one set of images.

    Attributes:
        id: of its table.
        listed: its entries.
        attack: the one to show first, the worst case where there are several.
        level: the budget to show first.
    """

    id: str
    listed: list[Listed]
    attack: str
    level: float

    @property
    def first(self) -> Entry:
        """Any entry: all have the same suite and images."""
        return self.listed[0].entry


def build_site(folder: Path, out: Path) -> tuple[Path, list[str]]:
    """Build the site from the entries and studies in a folder; return its first page and what was left out.

    Args:
        folder: entries (``*.json``), and folders of studies, of which every finished model becomes an entry. Studies
            of certified restoration and of certified scores have boards of their own.
        out: folder of the site: ``index.html``, ``entries/`` with a page and a JSON file each, and the schema.

    Raises:
        ConfigError: no valid entry in the folder.
        OutputError: a file cannot be written.
    """
    entries, own, notes = _collect(folder, out)
    kinds = {run: kind_in(run) for run in _runs(folder, out)}
    proven, unproven = certified_boards([run for run, kind in kinds.items() if kind == Restoration.kind])
    metrics, unsure = score_boards([run for run, kind in kinds.items() if kind == CertifiedIqa.kind])
    notes += unproven + unsure
    if not (entries or proven or metrics):
        why = "; ".join(notes[:3]) if notes else "put entries or folders of finished studies there"
        raise ConfigError(f"nothing for a leaderboard in {folder}: {why}")
    listed = [Listed(entry, stem, entry.identity in own) for entry, stem in zip(entries, _stems(entries), strict=True)]
    for item in listed:
        write_text(out / "entries" / f"{item.stem}.json", item.entry.to_json())
        page = render("entry.html.j2", {"item": item, "entry": item.entry, "table": _entry_table(item)})
        write_text(out / "entries" / f"{item.stem}.html", page)
    write_text(out / SCHEMA, schema_text())
    boards = [(board, board_table(board)) for board in _boards(listed)]
    shown = {"boards": boards, "certified": proven, "metrics": metrics, "notes": notes, "schema": SCHEMA}
    write_text(out / "index.html", render("leaderboard.html.j2", shown))
    return out / "index.html", notes


def bad_entries(folder: Path) -> list[str]:
    """Return why entries in a folder cannot be read, one line for each that cannot."""
    found: list[str] = []
    for path in _entry_files(folder):
        try:
            read_entry(path)
        except ConfigError as error:
            found.append(str(error))
    return found


def schema_text() -> str:
    """Return the schema of entries as its file holds it."""
    return json.dumps(schema(), indent=1) + "\n"


def stem_of(entry: Entry) -> str:
    """Return a file name for an entry that no two different ones share.

    Names come from files that anyone may have written, so only plain letters stay.
    """
    plain = re.sub(r"[^A-Za-z0-9.+=-]+", "-", entry.model.name).strip(".-")[:60] or "model"
    return f"{plain}-{entry.model.sha256[:8] or 'none'}-{entry.data.sha256[:6]}-{entry.suite.version[:6]}"


def board_table(board: Board) -> Table:
    """Return how the entries of a board stand; those that upscale worse than bicubic interpolation are marked."""
    truth = any(figures.clean_psnr for item in board.listed for figures in item.entry.empirical)
    columns = [
        Column("model"), SR_PSNR, *((ATTACKED, CLEAN) if truth else ()), Column("flags"), Column("knowledge"),
        Column("weights", code=True), Column("submitted by"), Column("attack"), BUDGET,
    ]  # fmt: skip
    worse = _worse_than_bicubic(board)
    rows = [
        row(
            TableCell(item.entry.model.name, link=f"entries/{quote(item.stem)}.html"),
            *_figures(figures, truth, item.entry.model.name in worse),
            TableCell(len(item.entry.flags), note="" if item.entry.checked else "not checked"),
            ", ".join(item.entry.threat.knowledge),
            item.entry.model.sha256[:8] or "none",
            item.entry.submitter or DASH,
            attack_words(figures.attack),
            budget(figures.level),
        )
        for item in board.listed
        for figures in item.entry.empirical
    ]
    return Table(
        f"Leaderboard, {board.first.data.name}", columns, rows, sort="attacked PSNR" if truth else "SR-PSNR",
        choices={"attack": attack_words(board.attack), "budget": budget(board.level)},
    )  # fmt: skip


def _entry_table(item: Listed) -> Table:
    rows = [
        row(attack_words(figures.attack), budget(figures.level), *_figures(figures, True, False), figures.images)
        for figures in item.entry.empirical
    ]
    return Table("Figures", [Column("attack"), BUDGET, SR_PSNR, ATTACKED, CLEAN, Column("images")], rows)


def _figures(figures: Empirical, truth: bool, worse: bool) -> list[TableCell]:
    found = [standing_cell(_interval(figures.sr_psnr), figures.unmoved, figures.images)]
    if truth:
        clean = _interval(figures.clean_psnr)
        found += [TableCell(_interval(figures.attacked_psnr)), clean_cell(clean, worse)]
    return found


def _worse_than_bicubic(board: Board) -> list[str]:
    clean = [
        (item, round(figures.clean_psnr.mean, 2))
        for item in board.listed
        for figures in item.entry.empirical
        if figures.clean_psnr is not None
    ]
    # Anyone may submit an entry of that name, so one that was made here counts first, and then the most modest.
    base = min(((not item.made_here, value) for item, value in clean if item.entry.model.name == BICUBIC), default=None)
    return [] if base is None else [item.entry.model.name for item, value in clean if value < base[1]]


def _interval(figure: Figure | None) -> Interval | None:
    return None if figure is None else Interval(figure.mean, figure.low, figure.high, figure.n)


def _collect(folder: Path, out: Path) -> tuple[list[Entry], set[str], list[str]]:
    """Return all entries, the identities of those that were made here, and what was left out."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name one that holds entries or studies")
    found: dict[str, Entry] = {}
    notes: list[str] = []
    for path in _entry_files(folder):
        try:
            entry = read_entry(path)
        except ConfigError as error:
            notes.append(str(error))
            continue
        if found.setdefault(entry.identity, entry) is not entry:
            notes.append(f"{path.name} repeats an entry of {entry.model.name}")
    # Of a run that was submitted too, the entry that names a submitter is shown.
    told = {_unsigned(entry): identity for identity, entry in found.items()}
    own: set[str] = set()
    others: list[str] = []
    for run in _runs(folder, out):
        if (kind := kind_in(run)) not in ("", Grid.kind):
            others += [run.name] if kind not in (Restoration.kind, CertifiedIqa.kind) else []
            continue
        try:
            entries, why = entries_of(run)
        except ConfigError as error:
            notes.append(str(error))
            continue
        notes += why
        for entry in entries:
            identity = told.setdefault(_unsigned(entry), entry.identity)
            found.setdefault(identity, entry)
            own.add(identity)
    if others:
        notes.append(
            f"{', '.join(others)}: boards are of attacks, of certified restoration and, by `resolute study "
            "certified-iqa`, of certified scores with opinions, not of other studies"
        )
    return list(found.values()), own, notes


def _runs(folder: Path, out: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/study.json") if path.parent.resolve() != out.resolve())


def _unsigned(entry: Entry) -> str:
    return entry.model_copy(update={"submitter": "", "link": ""}).identity


def _entry_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if path.name != SCHEMA]


def _stems(entries: Sequence[Entry]) -> list[str]:
    known, stems = Counter[str](), list[str]()
    for stem in map(stem_of, entries):
        known[stem] += 1
        stems.append(stem if known[stem] == 1 else f"{stem}-{known[stem]}")
    return stems


def _boards(listed: Sequence[Listed]) -> list[Board]:
    groups: dict[tuple[str, str], list[Listed]] = {}
    for item in listed:
        groups.setdefault(item.entry.group, []).append(item)
    boards: list[Board] = []
    for number, group in enumerate(sorted(groups.values(), key=len, reverse=True)):
        rows = [row for item in group for row in item.entry.empirical]
        attack = min(rows, key=lambda row: row.attack != WORST).attack
        # Of the budgets that most entries have: a single entry decides nothing.
        levels = Counter(level for item in group for level in item.entry.threat.budgets)
        most = [level for level, times in levels.items() if times == max(levels.values())]
        boards.append(Board(f"board-{number}", group, attack, headline_level(most)))
    return boards
