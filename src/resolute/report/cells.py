"""Any study as cells of the same form, so that two studies of one kind can be held against each other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from resolute.engine.store import Store
from resolute.report.source import read_folders, without_budget
from resolute.report.text import title
from resolute.studies.datasets import dataset_title
from resolute.studies.grid import Grid
from resolute.studies.summary import level_of


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is measured in every cell; the first one of a study decides what counts as worse."""

    name: str
    unit: str
    lower_better: bool = False
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class Cell:
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
    cells: list[Cell]
    weights: dict[str, str]
    attacks: dict[str, str]
    facts: dict[str, str]


def read_side(folder: Path) -> Side:
    """Read the study in a folder, of any kind.

    Raises:
        ConfigError: it holds no results.
    """
    kind = str(Store(folder).facts().get("kind", Grid.kind))
    return READERS.get(kind, _super_resolution)(folder)


def _super_resolution(folder: Path) -> Side:
    evidence = read_folders([folder])
    records = evidence.records
    cells = [
        Cell(
            (r.model, title(r.attack), f"{level_of(r):g}/255", dataset_title(r.dataset) if r.dataset else ""),
            r.image,
            r.pixels,
            {"SR-PSNR": r.sr_psnr, "attacked PSNR": r.attacked_psnr_y, "clean PSNR": r.clean_psnr_y},
        )
        for r in records
    ]
    return Side(
        folder.resolve().name,
        Grid.kind,
        ("model", "attack", "budget", "data"),
        [Quantity(name, "dB") for name in ("SR-PSNR", "attacked PSNR", "clean PSNR")],
        cells,
        {r.model: r.weights for r in records},
        {title(r.attack): f"{without_budget(r.configuration)}, seed {r.seed}" for r in records},
        _facts(folder),
    )


READERS: dict[str, Callable[[Path], Side]] = {
    Grid.kind: _super_resolution,
}


def _facts(folder: Path) -> dict[str, str]:
    """Return what the folder says about the study, one line a setting."""
    try:
        content: object = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    facts = cast("dict[str, object]", content)
    found: dict[str, str] = {}
    for part in ("provenance", "study", "conventions"):
        table = facts.get(part)
        for key, value in cast("dict[str, object]", table).items() if isinstance(table, dict) else ():
            if part == "provenance" and key == "versions" and isinstance(value, dict):
                found |= {
                    f"version of {name}": str(number) for name, number in cast("dict[str, object]", value).items()
                }
            elif key not in ("expected", "question", "quick"):
                found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
