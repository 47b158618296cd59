"""Any study as cells of the same form, so that two studies of one kind can be held against each other."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resolute.errors import ConfigError
from resolute.report.page import study_of
from resolute.report.reading import read_folder, without_budget
from resolute.studies.attacked import AttackRecord
from resolute.studies.results import Quantity
from resolute.studies.study import Compared
from resolute.studies.summary import attack_title as title


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One measurement.

    Attributes:
        setting: what it is of, all but the image: model, attack, budget, data set.
        image: its name.
        identity: of the image's pixels; empty where the study does not record it.
        values: by the name of the quantity; None where there is nothing to measure.
    """

    setting: tuple[str, ...]
    image: str
    identity: str
    values: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two studies.

    Attributes:
        name: of its folder.
        kind: of the study.
        headings: of the settings.
        quantities: that it measures.
        cells: all of them.
        weights: sha256 by model.
        attacks: configurations by attack, the budget left open.
        facts: of the study and how it was made, as written.
    """

    name: str
    kind: str
    headings: tuple[str, ...]
    quantities: list[Quantity]
    cells: list[Measurement]
    weights: dict[str, str]
    attacks: dict[str, str]
    facts: dict[str, str]


def read_side(folder: Path) -> Side:
    """Read the study in a folder, of any kind.

    Raises:
        ConfigError: it holds no results, or does not say what was asked.
    """
    evidence = read_folder(folder)
    study = study_of(evidence)
    if not isinstance(study, Compared):
        raise ConfigError(f"studies of the kind {study.kind} cannot be compared")
    cells: list[Measurement] = []
    headings: dict[str, None] = {}
    for record in evidence.records:
        measured = study.measured(record)
        if measured is not None:
            headings |= dict.fromkeys(measured.setting)
            # Between infinities there is no difference to take.
            values = {name: None if v is None or math.isinf(v) else v for name, v in measured.values.items()}
            cells.append(Measurement(tuple(measured.setting.values()), record.image, record.pixels, values))
    attacks = [record for record in evidence.records if isinstance(record, AttackRecord)]
    return Side(
        folder.resolve().name, study.kind, tuple(headings), list(study.quantities(evidence.records)), cells,
        {record.model: record.weights for record in evidence.records},
        {title(r.attack): f"{without_budget(r.configuration)}, seed {r.seed}" for r in attacks},
        _facts(evidence.sources[0].store.facts()),
    )  # fmt: skip


def _facts(content: Mapping[str, Any]) -> dict[str, str]:
    """Return what ``study.json`` says about the study, one line a setting."""
    found: dict[str, str] = {}
    for part in ("provenance", "study", "conventions"):
        table = content.get(part)
        for key, value in table.items() if isinstance(table, dict) else ():
            if part == "provenance" and key == "versions" and isinstance(value, dict):
                found |= {f"version of {name}": str(number) for name, number in value.items()}
            elif key not in ("expected", "question", "quick"):
                found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
