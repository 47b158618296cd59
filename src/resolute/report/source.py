"""What a report is made from: the records of one or more study folders, merged, and how each came about."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pydantic

from resolute.engine.store import Store
from resolute.errors import ConfigError
from resolute.provenance import Provenance
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid
from resolute.studies.steepness import CleverRecord


@dataclasses.dataclass(frozen=True)
class Source:
    """One study folder.

    Attributes:
        store: its records and attacked images.
        records: as stored.
        study: what was asked for; None where ``study.json`` is missing or of another version.
        table: the same as written, for display.
        provenance: None where ``study.json`` does not say.
        conventions: what the papers leave open, as it was in this run; empty where ``study.json`` does not say.
        indices: CLEVER, where it was taken.
    """

    store: Store
    records: list[AttackRecord]
    study: Grid | None
    table: dict[str, object]
    provenance: Provenance | None
    conventions: dict[str, str]
    indices: list[CleverRecord]

    @property
    def name(self) -> str:
        """The study's name, or its folder's where there is none."""
        return self.study.name if self.study is not None else self.store.folder.resolve().name


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The records of all folders, in which a name stands for one thing only.

    Attributes:
        sources: one a folder.
        records: merged.
        origins: for the key of each record its folder, and the record as stored there.
        notes: what a reader of the page must know about the merger.
        indices: CLEVER, merged.
    """

    sources: list[Source]
    records: list[AttackRecord]
    origins: dict[str, tuple[Source, AttackRecord]]
    notes: list[str]
    indices: list[CleverRecord]


def read_folders(folders: Sequence[Path]) -> Evidence:
    """Read and merge study folders.

    Raises:
        ConfigError: no folder, or a folder without records.
    """
    if not folders:
        raise ConfigError("a report needs the folder of at least one study; name one")
    sources = [_read_folder(folder) for folder in folders]
    models, attacks, images = _Names(), _Names(), _Names()
    origins: dict[str, tuple[Source, AttackRecord]] = {}
    merged: dict[str, AttackRecord] = {}
    indices: dict[str, CleverRecord] = {}
    for source in sources:
        for record in source.records:
            origins.setdefault(record.key, (source, record))
            merged[record.key] = dataclasses.replace(
                record,
                model=models.name(record.model, record.weights),
                attack=attacks.name(record.attack, (without_budget(record.configuration), record.seed)),
                image=images.name(record.image, record.pixels),
            )
        for index in source.indices:
            indices[index.key] = dataclasses.replace(
                index, model=models.name(index.model, index.weights), image=images.name(index.image, index.pixels)
            )
    notes = [
        *models.notes("model", "weights"),
        *attacks.notes("attack", "configurations"),
        *images.notes("image", "images"),
        *(
            f"{source.store.folder.name}/study.json is missing or of another version: what was asked for is not known."
            for source in sources
            if source.study is None
        ),
    ]
    return Evidence(sources, list(merged.values()), origins, notes, list(indices.values()))


def without_budget(configuration: str) -> str:
    """Return the ``repr`` of an attack with its budget left open.

    Example:
        >>> without_budget("FDA(epsilon=0.0156, steps=50)")
        'FDA(epsilon=…, steps=50)'
    """
    return re.sub(r"\bepsilon=[^,)]*", "epsilon=…", configuration)


def _read_folder(folder: Path) -> Source:
    store = Store(folder)
    records = store.of(AttackRecord)
    if not records:
        raise ConfigError(f"no records in {folder}; run a study into that folder first, or name another one")
    facts = store.facts()
    table = facts.get("study")
    try:
        study = pydantic.TypeAdapter(Grid).validate_python(table)
    except pydantic.ValidationError:
        study = None
    try:
        provenance = pydantic.TypeAdapter(Provenance).validate_python(facts.get("provenance"))
    except pydantic.ValidationError:
        provenance = None
    said: object = facts.get("facts")
    conventions = cast("dict[str, object]", said) if isinstance(said, dict) else {}
    return Source(
        store,
        records,
        study,
        cast("dict[str, object]", table) if isinstance(table, dict) else {},
        provenance,
        {str(key): str(value) for key, value in conventions.items()},
        store.of(CleverRecord),
    )


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
