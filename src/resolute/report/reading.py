"""What a report is made from: the records of one or more folders of one kind of study, and how each came about."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pydantic

from resolute.engine.store import BadLine, Store
from resolute.errors import ConfigError
from resolute.of_file import only_shown
from resolute.provenance import Provenance
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.kinds import KINDS
from resolute.studies.record import Record, grouped
from resolute.studies.study import Study


@dataclasses.dataclass(frozen=True, eq=False)
class StudyFolder:
    """One folder.

    Attributes:
        store: its records and files.
        kind: of the study.
        study: what was asked; None where ``study.json`` is missing or damaged.
        records: those that count, as stored.
        bad: lines that are no records.
        lacking: how many cells of the last plan have no record.
        settings: of the study, as written.
        facts: in words.
        doubts: why models seemed not to upscale when they were loaded.
        provenance: None where the folder does not say.
    """

    store: Store
    kind: str
    study: Study | None
    records: list[Record]
    bad: list[BadLine]
    lacking: int
    settings: dict[str, Any]
    facts: dict[str, str]
    doubts: list[str]
    provenance: Provenance | None

    @property
    def name(self) -> str:
        """The study's name, or its folder's where there is none."""
        return self.study.name if self.study is not None else self.store.folder.resolve().name

    @property
    def models(self) -> dict[str, str]:
        """The sha256 of the weights of every model that has such."""
        return {record.model: record.weights for record in self.records if record.weights}

    @property
    def written(self) -> str:
        """The settings as a reader can copy them."""
        return json.dumps(self.settings, indent=1, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, eq=False)
class MergedRecords:
    """The records of all folders, in which a name stands for one thing only.

    Attributes:
        sources: one a folder, all of one kind.
        records: merged, the names changed where two things had the same.
        notes: what a reader must know about the models and the merger.
    """

    sources: list[StudyFolder]
    records: list[Record]
    notes: list[str]


def read_source(folder: Path) -> StudyFolder:
    """Read one folder.

    Raises:
        ConfigError: it holds no records, or those of a kind that this version does not know.
    """
    store = Store(folder)
    records, bad = store.read_all()
    if not records:
        why = f"; {bad[0]}" if bad else ""
        raise ConfigError(f"no records in {folder}{why}; run a study into that folder first, or name another one")
    content = store.facts()
    kind = content.get("kind", Grid.kind)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{folder} holds a study of the kind {kind!r}; known are {', '.join(KINDS)}")
    settings = _texts(content.get("study"))
    study: Study | None
    try:
        with only_shown():
            study = pydantic.TypeAdapter(KINDS[kind]).validate_python(settings)
    except (pydantic.ValidationError, ConfigError):
        study = None
    order = set(store.order())
    if not KINDS[kind].cumulative and order:
        records = [record for record in records if record.key in order]
    records = [record for record in records if isinstance(record, KINDS[kind].records)]
    lacking = len(order.difference(record.key for record in records))
    try:
        provenance = pydantic.TypeAdapter(Provenance).validate_python(content.get("provenance"))
    except pydantic.ValidationError:
        provenance = None
    facts = {str(name): str(value) for name, value in _texts(content.get("facts")).items()}
    doubts = _doubts(content.get("doubts"))
    return StudyFolder(store, kind, study, records, bad, lacking, settings, facts, doubts, provenance)


def read_kinds(folders: Sequence[Path]) -> list[MergedRecords]:
    """Read folders, and merge those of one kind of study; the kinds are in the order of the folders.

    Raises:
        ConfigError: no folder, or a folder without records.
    """
    if not folders:
        raise ConfigError("a report needs the folder of at least one study; name one")
    sources = [read_source(folder) for folder in folders]
    return [merged(own) for own in grouped(sources, lambda source: source.kind).values()]


def read_folder(folder: Path) -> MergedRecords:
    """Read one folder.

    Raises:
        ConfigError: it holds no records, or those of a kind that this version does not know.
    """
    return merged([read_source(folder)])


def merged(sources: list[StudyFolder]) -> MergedRecords:
    """Merge folders of one kind of study."""
    models, attacks, images = _Names(), _Names(), _Names()
    records: dict[str, Record] = {}
    for source in sources:
        for record in source.records:
            names = {
                "model": models.name(record.model, record.weights),
                "image": images.name(record.image, record.pixels),
            }
            if isinstance(record, AttackRecord):
                names["attack"] = attacks.name(record.attack, (without_budget(record.configuration), record.seed))
            changed = {field: name for field, name in names.items() if name != getattr(record, field)}
            records[record.key] = dataclasses.replace(record, **changed) if changed else record
    notes = [
        *dict.fromkeys(doubt for source in sources for doubt in source.doubts),
        *models.notes("model", "weights"),
        *attacks.notes("attack", "configurations"),
        *images.notes("image", "images"),
        *(
            f"{source.store.folder.name}/study.json is missing or damaged: what was asked for is not known."
            for source in sources
            if source.study is None
        ),
    ]
    notes += [
        f"{source.lacking} of {source.lacking + len(source.records)} cells of {source.name} have no figures: they are "
        "not computed yet, or could not be, which failed.jsonl in the study's folder explains."
        for source in sources
        if source.lacking
    ]
    if bad := [line for source in sources for line in source.bad if not line.torn]:
        notes.append(f"{len(bad)} lines are no records and are left out; the first: {bad[0]}.")
    return MergedRecords(sources, list(records.values()), notes)


@functools.lru_cache
def without_budget(configuration: str) -> str:
    """Return the ``repr`` of an attack with its budget left open.

    Example:
        >>> without_budget("FDA(epsilon=0.0156, steps=50)")
        'FDA(epsilon=…, steps=50)'
    """
    return re.sub(r"\bepsilon=[^,)]*", "epsilon=…", configuration)


def _doubts(content: object) -> list[str]:
    return [f"{doubt}." for doubt in cast("list[object]", content)] if isinstance(content, list) else []


def _texts(content: object) -> dict[str, Any]:
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


class _Names:
    """Give every thing a name of its own: the second one that is called ``edsr`` becomes ``edsr (2)``."""

    def __init__(self) -> None:
        self._known: dict[str, list[object]] = {}

    def name(self, name: str, identity: object) -> str:
        known = self._known.setdefault(name, [])
        if identity not in known:
            known.append(identity)
        number = known.index(identity) + 1
        return name if number == 1 else f"{name} ({number})"

    def notes(self, kind: str, things: str) -> list[str]:
        return [
            f"The {kind} name “{name}” stands for {len(known)} different {things} in these records; they are told "
            f"apart as “{name}” to “{name} ({len(known)})”."
            for name, known in self._known.items()
            if len(known) > 1
        ]
