"""Any study as cells of the same form, so that two studies of one kind can be held against each other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from resolute.models.weights import FILES
from resolute.report.metric_as_loss import Finding
from resolute.report.source import read_folders, without_budget
from resolute.report.text import title
from resolute.studies.certified_iqa_summary import Results
from resolute.studies.datasets import dataset_title
from resolute.studies.kinds import DEFAULT, kind_of
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
    kind = kind_of(folder)
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
        DEFAULT,
        ("model", "attack", "budget", "data"),
        [Quantity(name, "dB") for name in ("SR-PSNR", "attacked PSNR", "clean PSNR")],
        cells,
        {r.model: r.weights for r in records},
        {title(r.attack): f"{without_budget(r.configuration)}, seed {r.seed}" for r in records},
        _facts(folder),
    )


def _certified_iqa(folder: Path) -> Side:
    results = Results.read(folder, resamples=1)
    cells = [
        Cell((row["contender"], _metric(row["metric"])), row["image"], row.get("image_sha256", ""), _certificate(row))
        for row in results.scores
    ]
    quantities = [
        Quantity("certified width", "% of range", lower_better=True), Quantity("score", "", digits=3)
    ]  # fmt: skip
    weights = {
        row["contender"]: str(cast("dict[str, Any]", row.get("scorer") or {}).get("sha256", ""))
        for row in results.scores
    }
    return Side(
        folder.resolve().name, "certified-iqa", ("defence", "metric"), quantities, cells,
        {name: sha256 for name, sha256 in weights.items() if sha256}, {}, _facts(folder),
    )  # fmt: skip


def _metric(name: str) -> str:
    """Return what a metric is called: of a file its name alone, wherever it lay."""
    path = Path(name)
    return path.stem if path.suffix in FILES else name


def _certificate(row: Mapping[str, Any]) -> dict[str, float | None]:
    lower, upper, span = row.get("lower"), row.get("upper"), row.get("span")
    width = None if lower is None or upper is None or not span else 100 * (upper - lower) / span
    return {"certified width": width, "score": row["score"]}


def _metric_as_loss(folder: Path) -> Side:
    finding = Finding.read(folder)
    quantities = [Quantity(m.name, m.unit, m.lower_better, m.digits) for m in finding.measures]
    cells = [Cell((row["restorer"],), row["image"], "", row["values"]) for row in finding.rows]
    weights = {row["restorer"]: str(row["weights"] or "") for row in finding.rows}
    return Side(
        folder.resolve().name, "metric-as-loss", ("restorer",), quantities, cells, weights, {}, _facts(folder)
    )  # fmt: skip


READERS: dict[str, Callable[[Path], Side]] = {
    DEFAULT: _super_resolution,
    "certified-iqa": _certified_iqa,
    "metric-as-loss": _metric_as_loss,
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
