"""What a person wants to have of an attack on a few images: the pictures under their own names, and the figures."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from resolute.defences import load_defended
from resolute.engine.store import Store
from resolute.files import write_text
from resolute.images import read_image, write_png
from resolute.studies.attacked import AttackRecord
from resolute.studies.grid import Grid


def write_outputs(study: Grid, records: Sequence[AttackRecord], out: Path) -> list[Path]:
    """Write attacked images, clean and attacked outputs, and ``figures.json``; return the images written.

    Every figure in the JSON belongs to the attacked image as saved.
    """
    store = Store(out)
    models = {
        model.card.name: model for model in (load_defended(name, study.scale) for name in study.models) if model.card
    }
    lows = {subject.name: subject.low for subject in study.subjects()}
    repeated = Counter(record.image for record in records)
    written: list[Path] = []
    rows: list[dict[str, object]] = []
    for record in records:
        stem = record.image if repeated[record.image] == 1 else f"{record.image}.{record.key[:8]}"
        attacked = read_image(store.path_of(f"attacked/{record.key}.png"))
        model = models[record.model]
        with torch.no_grad():
            pictures = {
                "attacked": attacked,
                "sr-clean": model(lows[record.image])[0],
                "sr-attacked": model(attacked.unsqueeze(0))[0],
            }
        files = {name: out / f"{stem}.{name}.png" for name in pictures}
        for name, picture in pictures.items():
            write_png(files[name], picture)
        written += files.values()
        rows.append({**dataclasses.asdict(record), "files": {name: path.name for name, path in files.items()}})
    write_text(out / "figures.json", json.dumps(rows, indent=1) + "\n")
    return written
