"""What a person wants to have of an attack on a few images: the pictures under their own names, and the figures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from resolute.engine.store import Store
from resolute.errors import OutputError
from resolute.files import write_atomically, write_text
from resolute.studies.attacked import AttackRecord


def write_outputs(records: Sequence[AttackRecord], out: Path) -> list[Path]:
    """Give the pictures of records the names of their images, and write ``figures.json``; return the pictures.

    Every figure in the JSON belongs to the attacked image as saved.

    Raises:
        OutputError: a picture is missing, or cannot be written.
    """
    store, taken = Store(out), set[str]()
    written: list[Path] = []
    rows: list[dict[str, object]] = []
    for record in records:
        stem, number = record.image, 1
        # Unlike all others, also unlike those that carry a number in their own name.
        while stem in taken:
            number += 1
            stem = f"{record.image}-{number}"
        taken.add(stem)
        files = {file.partition("/")[0]: f"{stem}.{file.partition('/')[0]}.png" for file in record.files}
        for file in record.files:
            source, target = store.path_of(file), out / files[file.partition("/")[0]]
            if not source.is_file():
                raise OutputError(f"{source} is missing; run the same command again")
            write_atomically(target, lambda path, source=source: shutil.copyfile(source, path))
            written.append(target)
        rows.append({**dataclasses.asdict(record), "files": files})
    write_text(out / "figures.json", json.dumps(rows, indent=1) + "\n")
    return written
